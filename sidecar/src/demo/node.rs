//! A web node of the demo: a small HTTP/1.1 server that says its name, and that can be stopped and started like a real one.
//!
//! Stopping closes its port and every connection at once, so the proxy meets what it would meet when a machine dies.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// The longest a node can be asked to take.
const DELAY_MAX: Duration = Duration::from_secs(5);
/// Open connections of one node.
const CONNECTIONS_MAX: usize = 1024;

/// One node, on the thread that made it.
pub(super) struct Node {
    pub(super) name: &'static str,
    pub(super) weight: u16,
    pub(super) address: SocketAddr,
    served: Rc<Cell<u64>>,
    running: RefCell<Option<JoinHandle<()>>>,
}

impl Node {
    /// Opens any free port and starts.
    pub(super) fn start_new(name: &'static str, weight: u16) -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let node = Self {
            name,
            weight,
            address: listener.local_addr()?,
            served: Rc::default(),
            running: RefCell::default(),
        };
        node.serve(TcpListener::from_std(listener)?);
        Ok(node)
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.borrow().is_some()
    }

    pub(super) fn served(&self) -> u64 {
        self.served.get()
    }

    /// Closes the port and every connection. Stopping a stopped node is nothing.
    pub(super) async fn stop(&self) {
        let running = self.running.borrow_mut().take();
        if let Some(task) = running {
            task.abort();
            // Until the task is gone its port is not closed.
            let _ = task.await;
        }
    }

    /// Opens the same port again. Starting a started node is nothing.
    pub(super) async fn start(&self) -> anyhow::Result<()> {
        if !self.is_running() {
            let listener = TcpListener::bind(self.address).await?;
            self.serve(listener);
        }
        Ok(())
    }

    fn serve(&self, listener: TcpListener) {
        let task = tokio::task::spawn_local(accept(listener, self.name, Rc::clone(&self.served)));
        *self.running.borrow_mut() = Some(task);
    }
}

/// Ends only by being aborted, and takes its connections along.
async fn accept(listener: TcpListener, name: &'static str, served: Rc<Cell<u64>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => drop(connections.spawn_local(connection(stream, name, Rc::clone(&served)))),
                // Out of descriptors, most likely: not a loop that eats a core.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, name: &'static str, served: Rc<Cell<u64>>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| answer(request, name, Rc::clone(&served)));
    // A client that goes away is not worth a word.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(
    request: Request<Incoming>,
    name: &'static str,
    served: Rc<Cell<u64>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    tokio::time::sleep(delay(request.uri().query().unwrap_or_default())).await;
    served.set(served.get().saturating_add(1));
    let header = |name: &str| {
        request
            .headers()
            .get(name)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let body = serde_json::json!({
        "node": name,
        "path": request.uri().path(),
        "client": header("x-real-ip"),
        "forwarded_for": header("x-forwarded-for"),
    });
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    Ok(response)
}

/// `ms=40` in a query, bounded.
fn delay(query: &str) -> Duration {
    let asked = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("ms="))
        .and_then(|ms| ms.parse().ok());
    asked
        .map_or(Duration::ZERO, Duration::from_millis)
        .min(DELAY_MAX)
}
