//! What the demo's page talks to: the page itself, the state of the nodes, and the switch that stops and starts one.
//!
//! It is a server behind the proxy like any other, in a pool of its own, so that the page is there when every node is stopped.

use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::node::Node;

const PAGE: &str = include_str!("page.html");
const CONNECTIONS_MAX: usize = 256;
/// A page of somebody else cannot send this header without asking first, and is refused then.
const SWITCH_HEADER: &str = "x-evenkeel-demo";

/// What the page shows beside the nodes.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub(super) methods: Vec<&'static str>,
    pub(super) configuration: String,
    pub(super) admin: String,
}

pub(super) struct Console {
    pub(super) nodes: Vec<Node>,
    pub(super) facts: Facts,
}

impl Console {
    /// Serves for the life of the thread.
    pub(super) async fn serve(self: Rc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                    Ok((stream, _)) => drop(connections.spawn_local(Rc::clone(&self).connection(stream))),
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn connection(self: Rc<Self>, stream: TcpStream) {
        let service = service_fn(move |request: Request<Incoming>| {
            let console = Rc::clone(&self);
            async move { Ok::<_, Infallible>(console.answer(&request).await) }
        });
        let _ = http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }

    async fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        match (request.method(), path) {
            (&Method::GET | &Method::HEAD, "/") => {
                respond(StatusCode::OK, "text/html; charset=utf-8", PAGE.to_owned())
            }
            (&Method::GET, "/demo/state") => {
                respond(StatusCode::OK, "application/json", self.state())
            }
            (&Method::POST, _) => match path
                .strip_prefix("/demo/nodes/")
                .and_then(|rest| rest.split_once('/'))
            {
                Some((name, verb)) if request.headers().contains_key(SWITCH_HEADER) => {
                    self.switch(name, verb).await
                }
                Some(_) => respond(
                    StatusCode::FORBIDDEN,
                    "text/plain",
                    format!("the header {SWITCH_HEADER} is missing\n"),
                ),
                None => not_found(),
            },
            _ => not_found(),
        }
    }

    async fn switch(&self, name: &str, verb: &str) -> Response<Full<Bytes>> {
        let Some(node) = self.nodes.iter().find(|node| node.name == name) else {
            return not_found();
        };
        let outcome = match verb {
            "stop" => {
                node.stop().await;
                Ok(())
            }
            "start" => node.start().await,
            _ => return not_found(),
        };
        match outcome {
            Ok(()) => respond(StatusCode::OK, "application/json", self.state()),
            Err(error) => respond(
                StatusCode::CONFLICT,
                "text/plain",
                format!("{name} does not start: {error}\n"),
            ),
        }
    }

    fn state(&self) -> String {
        let nodes: Vec<_> = self
            .nodes
            .iter()
            .map(|node| {
                serde_json::json!({
                    "name": node.name, "address": node.address.to_string(), "weight": node.weight,
                    "running": node.is_running(), "served": node.served(),
                })
            })
            .collect();
        let Facts {
            methods,
            configuration,
            admin,
        } = &self.facts;
        serde_json::json!({"nodes": nodes, "methods": methods, "configuration": configuration, "admin": admin}).to_string()
    }
}

fn not_found() -> Response<Full<Bytes>> {
    respond(
        StatusCode::NOT_FOUND,
        "text/plain",
        "there is nothing here\n".to_owned(),
    )
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
