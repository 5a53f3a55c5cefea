//! The admin interface: health, readiness, metrics and the state, for people and machines on a trusted network, and what
//! operators change at run time, for this machine only (see [`changes`]).

mod changes;
mod metrics;
mod state;

use std::convert::Infallible;
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use crate::shared::Shared;

/// Connections at a time; more are closed at once.
const CONNECTIONS_MAX: usize = 64;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection lives no longer.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(300);
const BUFFER: usize = 16 * 1024;
/// Pause after an error of accepting.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Serves until it is aborted.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("cannot serve the admin interface: {error}"),
    };
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::time::sleep(ERROR_PAUSE).await;
            continue;
        };
        if open.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
            continue;
        }
        open.fetch_add(1, Ordering::Relaxed);
        let (shared, open) = (Arc::clone(&shared), Arc::clone(&open));
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let shared = Arc::clone(&shared);
                async move { Ok::<_, Infallible>(answer(&shared, peer.ip(), request).await) }
            });
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(BUFFER)
                .serve_connection(TokioIo::new(stream), service);
            // Whatever the client did wrong is its own affair.
            let _ = tokio::time::timeout(CONNECTION_TIME_MAX, serving).await;
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn answer(
    shared: &Shared,
    peer: IpAddr,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    if let &["api", "pools", pool, "servers", id] = parts.as_slice() {
        return match (request.method(), decoded(pool), decoded(id)) {
            (&Method::POST | &Method::PUT | &Method::DELETE, Some(pool), Some(id)) => {
                json(changes::answer(shared, peer, request, &pool, &id).await)
            }
            (&Method::GET | &Method::HEAD, Some(pool), Some(id)) => {
                json(state::one(shared, &pool, Some(&id)))
            }
            (_, None, _) | (_, _, None) => text(StatusCode::BAD_REQUEST, "the path is not UTF-8"),
            _ => not_allowed("GET, HEAD, POST, PUT, DELETE"),
        };
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return not_allowed("GET, HEAD");
    }
    match parts.as_slice() {
        ["healthz"] => text(StatusCode::OK, "ok"),
        ["readyz"] => match state::not_ready(shared) {
            None => text(StatusCode::OK, "ready"),
            Some(why) => text(
                StatusCode::SERVICE_UNAVAILABLE,
                &format!("not ready: {why}"),
            ),
        },
        ["metrics"] => content(
            StatusCode::OK,
            "text/plain; version=0.0.4",
            metrics::render(shared),
        ),
        ["api", "state"] => content(StatusCode::OK, "application/json", state::render(shared)),
        ["api", "pools"] => json(state::all(shared)),
        ["api", "pools", pool] => match decoded(pool) {
            Some(pool) => json(state::one(shared, &pool, None)),
            None => text(StatusCode::BAD_REQUEST, "the path is not UTF-8"),
        },
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /healthz /readyz /metrics /api/state /api/pools",
        ),
    }
}

/// A part of a path without its `%`s; `None`: it is not UTF-8, or a `%` stands for nothing.
fn decoded(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        let byte = match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        };
        bytes.push(byte);
    }
    String::from_utf8(bytes).ok()
}

fn json((status, value): changes::Answer) -> Response<Full<Bytes>> {
    content(status, "application/json", value.to_string())
}

fn not_allowed(methods: &'static str) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "not with this method");
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(methods));
    response
}

fn text(status: StatusCode, line: &str) -> Response<Full<Bytes>> {
    content(status, "text/plain", format!("{line}\n"))
}

fn content(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
