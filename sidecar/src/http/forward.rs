//! Sending a request to the servers of its plan, one after the other, until one answers.
//!
//! # When the next server is tried
//!
//! | what happened | then |
//! |---|---|
//! | no connection (refused, unreachable, timed out) | the next, whatever the request: nothing was sent |
//! | closed before the response head, nothing had been sent | the next |
//! | the same, something had been sent | the next if the request is idempotent and none of its body was sent |
//! | the same, on a connection from the pool | first once more to the same server, on a fresh connection, if safe as above: the server closed an idle connection just when it was used, which is no failure of its |
//! | an answer with a status that the filter named | the next, if the request is idempotent and none of its body was sent; the last server's answer goes to the client as it is |
//! | silent too long before the response head | the next, if the request is idempotent and none of its body was sent, as Envoy does after its `per_try_idle_timeout` |
//! | not HTTP, closed or silent in the middle of the response | no other |
//!
//! All but the fourth only as far as the filter's retry headers allow.
//!
//! # Why informational responses end here
//!
//! A server's `103 Early Hints` does not reach the client, nor its `100`: hyper 1.12 tells of them (`ext::on_informational`), but its server
//! refuses to send one, in HTTP/1 and HTTP/2 (`proto/h1/role.rs`: "response with 1xx status code not supported"). RFC 9110 section 15.2
//! asks a proxy to pass them on; stock Envoy drops them too. `Expect: 100-continue` is not affected: this proxy answers it
//! itself, when a server is there to take the body, and servers do not get it.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use evenkeel_host::http_filters::{Event, LocalReply};
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderValue, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{Request, Response, Uri};
use http_body::Body;
use hyper::body::Incoming;

use crate::clock::ticks;
use crate::generation::Pool;
use crate::http::body::UpstreamBody;
use crate::http::exchange::{BodyState, Exchange, Waiting, flags};
use crate::http::head::is_steering;
use crate::http::hop_by_hop::HopByHop;
use crate::http::local_reply::Why;
use crate::http::steering::{self, Conditions};
use crate::upstream::connect::{ConnectError, connect};
use crate::upstream::connection::Connection;
use crate::upstream::pool::Endpoint;
use crate::upstream::proxy_header;
use crate::worker::Reach;

/// What came of it.
pub(crate) enum Outcome {
    Answered(Response<Incoming>, Box<Connection>),
    Own(Why),
    Reply(LocalReply),
    Reset,
}

/// What came of one server.
enum Failure {
    /// It failed in this way.
    Server { why: Why, was_sent: bool },
    /// It is not the server: the exchange is over.
    Over(Outcome),
}

/// Sends the exchange's request.
pub(crate) async fn forward(exchange: &Rc<Exchange>, hop_by_hop: &HopByHop) -> Outcome {
    let active = Rc::clone(&exchange.active);
    let planned = steering::plan(&exchange.request.borrow(), &active);
    let (plan, reach) = match planned {
        Ok(planned) => planned,
        Err(why) => return Outcome::Own(why),
    };
    let Some(pool) = active.generation.pools.get(plan.pool) else {
        return Outcome::Own(Why::UnknownPool);
    };
    exchange.pool.set(Some(plan.pool));
    exchange.reach.replace(Some(Rc::clone(&reach)));
    exchange.silence_max.set(ticks(pool.response_timeout));
    let is_idempotent = exchange.request.borrow().is_idempotent();
    let mut last = Why::NoHealthyUpstream;
    for attempt in 0..=plan.retries_max as usize {
        let Some(number) = plan.server(attempt) else {
            break;
        };
        if attempt > 0 {
            exchange.worker().counters.retries.add(1);
        }
        match attempt_server(exchange, pool, &reach, number, is_idempotent, hop_by_hop).await {
            Ok((response, _connection))
                if plan.conditions.names_status(response.status())
                    && attempt < plan.retries_max as usize
                    && plan.server(attempt + 1).is_some()
                    && is_idempotent
                    && is_body_repeatable(exchange) =>
            {
                // Its connection goes with the answer that nobody reads, as in nginx.
                exchange.charge_failure();
            }
            Ok((response, connection)) => {
                exchange.facts.forget_failures();
                return Outcome::Answered(response, connection);
            }
            Err(Failure::Over(outcome)) => return outcome,
            Err(Failure::Server { why, was_sent }) => {
                exchange.charge_failure();
                exchange.facts.flag(why.flags());
                last = why;
                if !may_try_next(exchange, why, was_sent, is_idempotent, plan.conditions) {
                    return Outcome::Own(last);
                }
            }
        }
    }
    if exchange.facts.attempts.get() > 1 {
        exchange.facts.flag(flags::RETRIES_EXHAUSTED);
    }
    Outcome::Own(last)
}

fn may_try_next(
    exchange: &Exchange,
    why: Why,
    was_sent: bool,
    is_idempotent: bool,
    conditions: Conditions,
) -> bool {
    match why {
        Why::UpstreamConnectFailed | Why::UpstreamConnectTimeout => conditions.connect_failure,
        Why::UpstreamReset if !was_sent => conditions.reset || conditions.reset_before_request,
        Why::UpstreamReset | Why::ResponseTimeout => {
            conditions.reset && is_idempotent && is_body_repeatable(exchange)
        }
        _ => false,
    }
}

/// Nothing of a body that a filter could hold.
fn has_no_body(exchange: &Exchange) -> bool {
    exchange.body_state.get() == BodyState::Ended && exchange.facts.request_bytes.get() == 0
}

fn is_body_repeatable(exchange: &Exchange) -> bool {
    // `Ended` with a body left behind means that it was streamed.
    match exchange.body_state.get() {
        BodyState::Whole => true,
        BodyState::Ended => exchange.facts.request_bytes.get() == 0,
        BodyState::Streaming | BodyState::TooLong => false,
    }
}

async fn attempt_server(
    exchange: &Rc<Exchange>,
    pool: &Pool,
    reach: &Reach,
    number: usize,
    is_idempotent: bool,
    hop_by_hop: &HopByHop,
) -> Result<(Response<Incoming>, Box<Connection>), Failure> {
    let nobody = || Failure::Over(Outcome::Own(Why::NoHealthyUpstream));
    let server = reach.server(number).ok_or_else(nobody)?;
    let endpoint = reach.endpoint(number).ok_or_else(nobody)?;
    let facts = &exchange.facts;
    facts.attempts.set(facts.attempts.get() + 1);
    facts.upstream.set(Some(server.address));
    exchange.server.set(Some(number));
    exchange.count_in_flight(server.counters.get(exchange.worker().index));
    let_others_decide().await;
    // A connection from the pool may turn out stale once; then a fresh one.
    if pool.proxy_protocol.is_none()
        && let Some(connection) = take_idle(endpoint, is_idempotent).await
    {
        exchange.worker().counters.upstream_reuses.add(1);
        match send(exchange, connection, hop_by_hop).await {
            Err(Failure::Server {
                why: Why::UpstreamReset,
                was_sent,
            }) if !was_sent || (is_idempotent && is_body_repeatable(exchange)) => {}
            outcome => return outcome,
        }
    }
    let connection = open(exchange, endpoint, pool).await?;
    send(exchange, connection, hop_by_hop).await
}

/// An idle connection. For requests that cannot be repeated, the kernel is asked whether it is still open: that leaves a
/// smaller gap in which the server may close it.
async fn take_idle(endpoint: &Endpoint, is_idempotent: bool) -> Option<Box<Connection>> {
    poll_fn(|cx| {
        loop {
            match endpoint.take(cx) {
                Some(connection) if is_idempotent || connection.socket().is_quiet() => {
                    return Poll::Ready(Some(connection));
                }
                Some(_stale) => {}
                None => return Poll::Ready(None),
            }
        }
    })
    .await
}

/// Boxed: most requests have no need of it, and it is large.
async fn open(
    exchange: &Rc<Exchange>,
    endpoint: &Endpoint,
    pool: &Pool,
) -> Result<Box<Connection>, Failure> {
    let worker = exchange.worker();
    worker.counters.upstream_connects.add(1);
    let ends = exchange.client.ends();
    let whose = pool
        .proxy_protocol
        .map(|version| proxy_header::of_client(version, ends.peer, ends.local));
    let mut connecting = Box::pin(connect(
        endpoint.address(),
        pool.connect_timeout,
        whose.as_deref(),
        &worker.clock,
    ));
    let connected = poll_fn(|cx| {
        exchange.attend(cx);
        if let Some(outcome) = interruption(exchange) {
            return Poll::Ready(Err(Failure::Over(outcome)));
        }
        connecting.as_mut().poll(cx).map(Ok)
    })
    .await?;
    exchange
        .facts
        .ready_after
        .set(Some(exchange.started.elapsed()));
    connected.map_err(|error| {
        worker.counters.upstream_connect_failures.add(1);
        let (why, reason) = match error {
            ConnectError::TimedOut => (
                Why::UpstreamConnectTimeout,
                "connection timed out".to_owned(),
            ),
            ConnectError::Failed(code) => (
                Why::UpstreamConnectFailed,
                std::io::Error::from_raw_os_error(code).to_string(),
            ),
        };
        *exchange.facts.transport_failure.borrow_mut() = reason;
        Failure::Server {
            why,
            was_sent: false,
        }
    })
}

/// Lets the other requests that came in with this one get as far, once.
///
/// Sending wakes the server if it sleeps, which costs as much as everything else here. Decided one by one and then sent in a row,
/// the requests of a batch find it awake: measured with 64 connections on one core, a tenth less CPU per request.
async fn let_others_decide() {
    let mut has_waited = false;
    poll_fn(|cx| {
        if has_waited {
            return Poll::Ready(());
        }
        has_waited = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Sends the request on a connection and waits for the response's head.
async fn send(
    exchange: &Rc<Exchange>,
    mut connection: Box<Connection>,
    hop_by_hop: &HopByHop,
) -> Result<(Response<Incoming>, Box<Connection>), Failure> {
    let socket = Rc::clone(connection.socket());
    let (written, read) = (socket.bytes_written.get(), socket.bytes_read.get());
    socket.active.set(exchange.worker().clock.now());
    // A pooled connection is ready at once; how long a new one took is noted where it is opened.
    if exchange.facts.ready_after.get().is_none() {
        exchange.facts.ready_after.set(Some(Duration::ZERO));
    }
    exchange.facts.upstream_local.set(connection.local());
    exchange.socket.replace(Some(socket));
    exchange.waiting.set(Waiting::ResponseHead);
    exchange.note_sent();
    let mut response = pin!(connection.send(outgoing(exchange, &connection, hop_by_hop)));
    let result = poll_fn(|cx| {
        exchange.attend(cx);
        if exchange.take_overdue() {
            return Poll::Ready(Err(overdue(exchange)));
        }
        if let Some(outcome) = interruption(exchange) {
            return Poll::Ready(Err(Failure::Over(outcome)));
        }
        connection.poll_response(response.as_mut(), cx).map(Ok)
    })
    .await;
    exchange.waiting.set(Waiting::Nothing);
    match result? {
        Ok(response) => Ok((response, connection)),
        Err(error) => {
            let was_sent = connection.socket().bytes_written.get() > written;
            let was_answered = connection.socket().bytes_read.get() > read;
            Err(classify(
                exchange,
                &error.into_error(),
                was_sent,
                was_answered,
            ))
        }
    }
}

fn overdue(exchange: &Exchange) -> Failure {
    // A client that has not sent its body yet is to blame, not the server that waits for it; a server that does not take it is.
    if exchange.awaits_body() {
        return Failure::Over(Outcome::Own(Why::RequestTimeout));
    }
    Failure::Server {
        why: Why::ResponseTimeout,
        was_sent: true,
    }
}

fn classify(
    exchange: &Exchange,
    error: &hyper::Error,
    was_sent: bool,
    was_answered: bool,
) -> Failure {
    if exchange.body_state.get() == BodyState::TooLong {
        return Failure::Over(Outcome::Own(Why::BodyTooLong));
    }
    if let Some(outcome) = interruption(exchange) {
        return Failure::Over(outcome);
    }
    if error.is_user() {
        // The client's body failed under way: it has gone, or its framing is broken.
        return Failure::Over(Outcome::Own(Why::BadRequest));
    }
    let why = if error.is_parse() || was_answered {
        Why::UpstreamBadResponse
    } else {
        Why::UpstreamReset
    };
    *exchange.facts.transport_failure.borrow_mut() = error.to_string();
    Failure::Server { why, was_sent }
}

/// What a filter wants while the exchange waits for a server.
fn interruption(exchange: &Exchange) -> Option<Outcome> {
    match exchange.take_ending()? {
        Event::LocalReply(reply) => Some(Outcome::Reply(reply)),
        Event::Reset => Some(Outcome::Reset),
        Event::Failed if exchange.filters_bodies.get() && !has_no_body(exchange) => {
            Some(Outcome::Own(Why::FilterFailed))
        }
        Event::Failed => {
            // Another request killed the VM. This one has been steered, and nothing of it is left for the filter to do but
            // to see the answer: that one request fails is enough.
            exchange.filters.borrow_mut().take();
            None
        }
        Event::RequestResumed(_) | Event::ResponseResumed(_) => None,
    }
}

/// The request as the server gets it. The exchange keeps its own head: for the next attempt, for filters, for the log.
fn outgoing(
    exchange: &Rc<Exchange>,
    connection: &Connection,
    hop_by_hop: &HopByHop,
) -> Request<UpstreamBody> {
    let head = exchange.request.borrow();
    let mut headers = HeaderMap::with_capacity(head.headers.len() + 2);
    for (name, value) in &head.headers {
        let stays = name != EXPECT
            && name != CONNECTION
            && name != TRANSFER_ENCODING
            && name != UPGRADE
            && !is_steering(name);
        if stays {
            headers.append(name.clone(), value.clone());
        }
    }
    if !headers.contains_key(HOST)
        && let Ok(host) = HeaderValue::from_str(&connection.peer().to_string())
    {
        headers.insert(HOST, host);
    }
    let body = match exchange.body_state.get() {
        BodyState::Ended => UpstreamBody::Empty,
        _ => UpstreamBody::Of(Rc::clone(exchange)),
    };
    if !body.is_end_stream()
        && body.size_hint().exact().is_none()
        && !headers.contains_key(CONTENT_LENGTH)
    {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if let Some(protocol) = &hop_by_hop.upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol.clone());
    } else if hop_by_hop.trailers_welcome {
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = Uri::from(head.path.clone());
    *request.headers_mut() = headers;
    request
}
