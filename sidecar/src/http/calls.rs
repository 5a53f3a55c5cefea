//! HTTP calls that filters make: to a pool, to one exact server of a pool (`<pool>.check`), to the host (`session-store`).
//!
//! A call names its server, in the header that steers requests. One that names none, or no member of the pool, is refused at once:
//! nobody else is chosen, as in the configuration that `evenkeel envoy` makes.
//!
//! Outcomes are Envoy's: no connection or closed without an answer is a `503` response, no head in time a `504`, an end in
//! the middle of the body a reset.
//!
//! Each call has a connection of its own, and its time is over when its timeout is, however much still comes. A body longer than
//! [`BODY_MAX`] is a reset, in Envoy too (`evenkeel envoy` sets its limit).

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use evenkeel_host::embedder::{CallRefused, HttpCall, HttpCallOutcome, Pairs};
use evenkeel_policy::config::ProxyVersion;
use evenkeel_policy::contract::{CHECK_CLUSTER_SUFFIX, SESSION_STORE_CLUSTER, STEERING_HEADER};
use http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Uri};
use http_body::Body;
use hyper::body::Incoming;

use crate::generation::Generation;
use crate::http::body::UpstreamBody;
use crate::http::bridge;
use crate::members::Server;
use crate::upstream::connect::connect;
use crate::upstream::connection::Connection;
use crate::upstream::proxy_header;
use crate::worker::{Active, Worker};

/// Calls in flight of one VM.
const CALLS_MAX: usize = 1024;
/// Largest response body.
const BODY_MAX: usize = 64 * 1024;

/// Starts a call; its outcome goes to the VM that is `vm` of this worker.
pub(crate) fn start(
    worker: &Rc<Worker>,
    active: &Rc<Active>,
    vm: u64,
    in_flight: &Cell<usize>,
    call: HttpCall,
) -> Result<(), CallRefused> {
    if in_flight.get() >= CALLS_MAX {
        return Err(CallRefused::NoEndpoints);
    }
    let route = if call.upstream == SESSION_STORE_CLUSTER.as_bytes() {
        Route::Bridge(Arc::clone(&active.generation))
    } else {
        let target = Target::find(active, &call)?;
        let request = request(&call).ok_or(CallRefused::UnknownUpstream)?;
        Route::Server(target, Box::new(request))
    };
    in_flight.set(in_flight.get() + 1);
    worker.counters.filter_calls.add(1);
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        let outcome = match route {
            Route::Server(target, request) => perform(&worker, &target, *request, &call).await,
            Route::Bridge(generation) => bridge::answer(&generation, &call).await,
        };
        if let Some(environment) = worker.environment(vm) {
            environment
                .calls_in_flight
                .set(environment.calls_in_flight.get().saturating_sub(1));
            if let Some(vm) = environment.vm() {
                vm.http_call_done(call.token, outcome);
            }
        }
    });
    Ok(())
}

/// Where a call goes.
enum Route {
    Server(Target, Box<Request<UpstreamBody>>),
    Bridge(Arc<Generation>),
}

struct Target {
    server: Arc<Server>,
    connect_timeout: Duration,
    proxy_protocol: Option<ProxyVersion>,
}

impl Target {
    fn find(active: &Rc<Active>, call: &HttpCall) -> Result<Self, CallRefused> {
        let generation = &active.generation;
        let steering = call
            .headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(STEERING_HEADER.as_bytes()));
        let name = call
            .upstream
            .strip_suffix(CHECK_CLUSTER_SUFFIX.as_bytes())
            .unwrap_or(&call.upstream);
        let number = generation
            .pool_named(name)
            .ok_or(CallRefused::UnknownUpstream)?;
        let pool = generation
            .pools
            .get(number)
            .ok_or(CallRefused::UnknownUpstream)?;
        let reach = active.reach(number).ok_or(CallRefused::UnknownUpstream)?;
        let named = steering.and_then(|(_, list)| {
            list.split(|&byte| byte == b',')
                .find_map(|entry| reach.roster.server_at(entry.trim_ascii()))
        });
        let server = named.and_then(|number| reach.server(number));
        Ok(Self {
            server: Arc::clone(server.ok_or(CallRefused::NoEndpoints)?),
            connect_timeout: pool.connect_timeout,
            proxy_protocol: pool.proxy_protocol,
        })
    }
}

/// `None`: without `:method`, `:path` or `:authority` (for which `host` stands too), or with what is no HTTP.
fn request(call: &HttpCall) -> Option<Request<UpstreamBody>> {
    let (mut method, mut path, mut authority) = (None, None, None);
    let mut headers = HeaderMap::new();
    for (name, value) in &call.headers {
        match name.as_slice() {
            b":method" => method = Some(Method::from_bytes(value).ok()?),
            b":path" => path = Some(PathAndQuery::try_from(value.as_slice()).ok()?),
            b":authority" => authority = Some(HeaderValue::from_bytes(value).ok()?),
            name if name.eq_ignore_ascii_case(HOST.as_str().as_bytes()) => {
                authority.get_or_insert(HeaderValue::from_bytes(value).ok()?);
            }
            b":scheme" => {}
            name if name == STEERING_HEADER.as_bytes() => {}
            name => {
                headers.append(
                    HeaderName::from_bytes(name).ok()?,
                    HeaderValue::from_bytes(value).ok()?,
                );
            }
        }
    }
    headers.insert(HOST, authority?);
    let method = method?;
    let body = if call.body.is_empty() {
        if has_meaning_for_content(&method) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        UpstreamBody::Empty
    } else {
        UpstreamBody::Whole(Bytes::copy_from_slice(&call.body))
    };
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from(path?);
    *request.headers_mut() = headers;
    Some(request)
}

/// Whether a request of this method says that it has no body (RFC 9110 section 8.6).
fn has_meaning_for_content(method: &Method) -> bool {
    !matches!(
        *method,
        Method::GET | Method::HEAD | Method::DELETE | Method::TRACE | Method::CONNECT
    )
}

async fn perform(
    worker: &Rc<Worker>,
    target: &Target,
    request: Request<UpstreamBody>,
    call: &HttpCall,
) -> HttpCallOutcome {
    let deadline = tokio::time::Instant::now() + call.timeout;
    let whose = target.proxy_protocol.map(proxy_header::of_nobody);
    let connecting = connect(
        target.server.address,
        target.connect_timeout.min(call.timeout),
        whose.as_deref(),
        &worker.clock,
    );
    let Ok(mut connection) = connecting.await else {
        return made(
            503,
            "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure",
        );
    };
    let mut head = Box::pin(connection.send(request));
    let response = std::future::poll_fn(|cx| connection.poll_response(head.as_mut(), cx));
    let response = match tokio::time::timeout_at(deadline, response).await {
        Err(_) => return made(504, "upstream request timeout"),
        Ok(Err(_)) => {
            return made(
                503,
                "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
            );
        }
        Ok(Ok(response)) => response,
    };
    let (parts, incoming) = response.into_parts();
    let mut headers: Pairs = vec![(
        b":status".to_vec(),
        parts.status.as_str().as_bytes().to_vec(),
    )];
    headers.extend(
        parts
            .headers
            .iter()
            .map(|(name, value)| (name.as_str().as_bytes().to_vec(), value.as_bytes().to_vec())),
    );
    let collecting = collect(&mut connection, incoming);
    match tokio::time::timeout_at(deadline, collecting).await {
        Ok(Some((body, trailers))) => HttpCallOutcome::Response {
            headers,
            body,
            trailers,
        },
        Ok(None) | Err(_) => HttpCallOutcome::Reset,
    }
}

/// The body and its trailers; `None`: it broke off, or is too long.
async fn collect(connection: &mut Connection, mut incoming: Incoming) -> Option<(Vec<u8>, Pairs)> {
    let (mut body, mut trailers) = (Vec::new(), Pairs::new());
    // Ends with the body, or with the room for it.
    loop {
        let frame = std::future::poll_fn(|cx| {
            connection.drive(cx);
            Pin::new(&mut incoming).poll_frame(cx)
        });
        let Some(frame) = frame.await else {
            return Some((body, trailers));
        };
        match frame.ok()?.into_data() {
            Ok(data) => {
                if data.len() > BODY_MAX - body.len() {
                    return None;
                }
                body.extend_from_slice(&data);
            }
            Err(frame) => trailers = frame.trailers_ref().map(pairs).unwrap_or_default(),
        }
    }
}

fn pairs(map: &HeaderMap) -> Pairs {
    map.iter()
        .map(|(name, value)| (name.as_str().as_bytes().to_vec(), value.as_bytes().to_vec()))
        .collect()
}

/// The response that Envoy makes when there is none.
fn made(status: u16, text: &str) -> HttpCallOutcome {
    let body = text.as_bytes().to_vec();
    let headers = vec![
        (b":status".to_vec(), status.to_string().into_bytes()),
        (
            b"content-length".to_vec(),
            body.len().to_string().into_bytes(),
        ),
        (b"content-type".to_vec(), b"text/plain".to_vec()),
    ];
    HttpCallOutcome::Response {
        headers,
        body,
        trailers: Vec::new(),
    }
}
