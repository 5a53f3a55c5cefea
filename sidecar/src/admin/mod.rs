//! The admin interface: health, readiness, metrics and the state, for people and machines on a trusted network.

mod metrics;
mod state;

use std::convert::Infallible;
use std::net::TcpListener;
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
        let Ok((stream, _peer)) = listener.accept().await else {
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
                let response = answer(&shared, &request);
                async move { Ok::<_, Infallible>(response) }
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

fn answer(shared: &Shared, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET");
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok"),
        "/readyz" if shared.is_ready() => text(StatusCode::OK, "ready"),
        "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "not ready"),
        "/metrics" => content(
            StatusCode::OK,
            "text/plain; version=0.0.4",
            metrics::render(shared),
        ),
        "/api/state" => content(StatusCode::OK, "application/json", state::render(shared)),
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /healthz /readyz /metrics /api/state",
        ),
    }
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
