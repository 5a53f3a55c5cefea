//! Serving a request: from the head that hyper read to the response that hyper writes.

use std::convert::Infallible;
use std::fmt;
use std::rc::Rc;

use bytes::Bytes;
use evenkeel_host::http_filters::LocalReply;
use evenkeel_policy::contract::{DECISION_PROPERTY, EXPLAIN_HEADER};
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, UPGRADE};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use crate::http::body::ResponseBody;
use crate::http::client::{Client, Order};
use crate::http::exchange::{BodyState, Details, Exchange, Guard, ResponseHead, Waiting};
use crate::http::filter::{self, Passed};
use crate::http::forward::{self, Outcome};
use crate::http::head::{Malformed, RequestHead};
use crate::http::hop_by_hop::{self, HopByHop};
use crate::http::local_reply::{self, Reply, Why};
use crate::upstream::connection::Connection;

/// Response header with the filter's decision, where the embedder asked for it.
const DECISION_HEADER: HeaderName = HeaderName::from_static("x-evenkeel-decision");

/// The stream is to be closed without an answer.
#[derive(Debug)]
pub(crate) struct Aborted;

impl fmt::Display for Aborted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a filter closed the stream")
    }
}

impl std::error::Error for Aborted {}

fn aborted(exchange: &Exchange) -> Aborted {
    exchange.facts.close_by_filter();
    Aborted
}

impl From<Infallible> for Aborted {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Serves one request of a connection.
pub(crate) async fn serve(
    client: Rc<Client>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Aborted> {
    let (parts, body) = request.into_parts();
    let (head, checked) = RequestHead::new(parts);
    let guard = Exchange::begin(&client, head, body);
    let limits = guard.0.active.generation.config.limits;
    if guard.0.request.borrow().is_too_large(&limits) {
        return Ok(refuse(
            guard,
            Malformed {
                status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                why: "the request head is too large",
            },
        ));
    }
    match checked {
        Ok(hop_by_hop) => run(guard, &hop_by_hop).await,
        Err(malformed) => Ok(refuse(guard, malformed)),
    }
}

/// Answers without asking anybody: filters see only what is a request.
fn refuse(guard: Guard, malformed: Malformed) -> Response<ResponseBody> {
    let why = match malformed.status {
        StatusCode::METHOD_NOT_ALLOWED => Why::MethodNotServed,
        StatusCode::EXPECTATION_FAILED => Why::ExpectationFailed,
        StatusCode::PAYLOAD_TOO_LARGE => Why::BodyTooLong,
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Why::HeadTooLarge,
        _ => Why::BadRequest,
    };
    note(&guard.0, why);
    guard.0.client.must_linger.set(true);
    let mut reply = local_reply::own(why);
    reply.body = format!("{}\n", malformed.why).into_bytes();
    let (head, body) = reply.into_parts();
    finish_head(guard, head, body)
}

async fn run(guard: Guard, hop_by_hop: &HopByHop) -> Result<Response<ResponseBody>, Aborted> {
    let exchange = &guard.0;
    if is_declared_too_long(exchange) {
        return Ok(refuse(
            guard,
            Malformed {
                status: StatusCode::PAYLOAD_TOO_LARGE,
                why: "the request body is too long",
            },
        ));
    }
    let explains = exchange.worker().shared.options.show_decision;
    if explains {
        exchange
            .request
            .borrow_mut()
            .headers
            .insert(EXPLAIN_HEADER, HeaderValue::from_static("1"));
    }
    if !filter::begin(exchange).await {
        return answer_own(guard, Why::FilterFailed).await;
    }
    let is_end = exchange.body_state.get() == BodyState::Ended;
    match filter::request_headers(exchange, is_end).await {
        Passed::Onward => {}
        Passed::Reply(reply) => return answer_filter(guard, reply).await,
        Passed::Reset => return Err(aborted(exchange)),
        Passed::Failed => return answer_own(guard, Why::FilterFailed).await,
        Passed::TimedOut => return answer_own(guard, Why::FilterTimeout).await,
    }
    match forward::forward(exchange, hop_by_hop).await {
        Outcome::Answered(response, connection) => {
            answer_upstream(guard, response, connection, hop_by_hop).await
        }
        Outcome::Own(why) => answer_own(guard, why).await,
        Outcome::Reply(reply) => answer_filter(guard, reply).await,
        Outcome::Reset => Err(aborted(exchange)),
    }
}

fn is_declared_too_long(exchange: &Exchange) -> bool {
    let max = exchange.active.generation.config.limits.body_bytes;
    if max == 0 {
        return false;
    }
    let head = exchange.request.borrow();
    let length = head
        .headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    length.is_some_and(|length| length > max)
}

/// Passes a server's response.
async fn answer_upstream(
    guard: Guard,
    response: Response<Incoming>,
    connection: Box<Connection>,
    hop_by_hop: &HopByHop,
) -> Result<Response<ResponseBody>, Aborted> {
    let exchange = &guard.0;
    let (mut parts, incoming) = response.into_parts();
    let agreed = hop_by_hop::remove(&mut parts.headers);
    exchange.facts.status.set(parts.status.as_u16());
    exchange.facts.detail("via_upstream");
    let is_upgrade = parts.status == StatusCode::SWITCHING_PROTOCOLS;
    if agreed.is_err() || (is_upgrade && hop_by_hop.upgrade.is_none()) {
        return answer_own(guard, Why::UpstreamBadResponse).await;
    }
    exchange.response.replace(Some(ResponseHead {
        status: parts.status,
        headers: parts.headers,
    }));
    let is_end = hyper::body::Body::is_end_stream(&incoming);
    if is_end {
        exchange.note_received();
    }
    match filter::response_headers(exchange, is_end).await {
        Passed::Onward => {}
        Passed::Reply(reply) => return Ok(replace_with(guard, reply)),
        Passed::Reset => return Err(aborted(exchange)),
        // What has begun goes on without filters.
        Passed::Failed => {}
        Passed::TimedOut => return Ok(refuse_late(guard)),
    }
    let Some(head) = exchange.response.borrow_mut().take() else {
        return Err(Aborted);
    };
    if is_upgrade {
        return Ok(switch(guard, head, connection, agreed.unwrap_or_default()));
    }
    let mut response = Response::new(());
    decorate(exchange, &mut response, head);
    let body = ResponseBody::upstream(guard, connection, incoming);
    Ok(response.map(|()| body))
}

/// `101`: the answer goes out, and the connection's task then takes the tunnel. The exchange ends with it: until then it is in flight.
fn switch(
    guard: Guard,
    head: ResponseHead,
    mut connection: Box<Connection>,
    agreed: HopByHop,
) -> Response<ResponseBody> {
    connection.drive(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    let exchange = &guard.0;
    let Some(tunnel) = connection.into_tunnel() else {
        return refuse(
            guard,
            Malformed {
                status: StatusCode::BAD_GATEWAY,
                why: "the server's upgrade failed",
            },
        );
    };
    exchange.waiting.set(Waiting::Nothing);
    let mut response = Response::new(());
    decorate(exchange, &mut response, head);
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(protocol) = agreed.upgrade {
        response.headers_mut().insert(UPGRADE, protocol);
    }
    let exchange = Rc::clone(exchange);
    exchange.client.tunnel.replace(Some((tunnel, guard)));
    response.map(|()| ResponseBody::switching(exchange))
}

/// Answers in the proxy's own words, which pass the response filters like any answer.
async fn answer_own(guard: Guard, why: Why) -> Result<Response<ResponseBody>, Aborted> {
    note(&guard.0, why);
    if why.closes() {
        guard.0.client.must_linger.set(true);
    }
    let reply = local_reply::own(why);
    if why == Why::FilterFailed {
        guard.0.filters.borrow_mut().take();
    }
    answer_local(guard, reply).await
}

async fn answer_filter(guard: Guard, reply: LocalReply) -> Result<Response<ResponseBody>, Aborted> {
    let exchange = &guard.0;
    exchange.facts.why.set(Some(Why::Filter));
    *exchange.facts.details.borrow_mut() = Details::Told(reply.details);
    let reply = local_reply::of_filter(reply.status, reply.headers, reply.body);
    answer_local(guard, reply).await
}

async fn answer_local(guard: Guard, reply: Reply) -> Result<Response<ResponseBody>, Aborted> {
    let exchange = &guard.0;
    exchange.facts.status.set(reply.status.as_u16());
    let (head, body) = reply.into_parts();
    exchange.response.replace(Some(head));
    let has_body = !body.is_empty() && exchange.request.borrow().method != Method::HEAD;
    match filter::response_headers(exchange, !has_body).await {
        Passed::Onward | Passed::Failed => {}
        Passed::Reply(reply) => return Ok(replace_with(guard, reply)),
        Passed::Reset => return Err(aborted(exchange)),
        Passed::TimedOut => return Ok(refuse_late(guard)),
    }
    let Some(head) = exchange.response.borrow_mut().take() else {
        return Err(Aborted);
    };
    let body = if has_body {
        filter::own_body(exchange, body).await
    } else {
        body
    };
    Ok(finish_head(guard, head, body))
}

/// A filter's answer in place of the response, given in the response phase: nobody is asked again.
fn replace_with(guard: Guard, reply: LocalReply) -> Response<ResponseBody> {
    guard.0.facts.why.set(Some(Why::Filter));
    *guard.0.facts.details.borrow_mut() = Details::Told(reply.details);
    let reply = local_reply::of_filter(reply.status, reply.headers, reply.body);
    let (head, body) = reply.into_parts();
    finish_head(guard, head, body)
}

/// A filter held the response too long.
fn refuse_late(guard: Guard) -> Response<ResponseBody> {
    note(&guard.0, Why::FilterTimeout);
    let reply = local_reply::own(Why::FilterTimeout);
    let (head, body) = reply.into_parts();
    finish_head(guard, head, body)
}

fn finish_head(guard: Guard, head: ResponseHead, body: Vec<u8>) -> Response<ResponseBody> {
    let mut response = Response::new(());
    let is_head_request = guard.0.request.borrow().method == Method::HEAD;
    decorate(&guard.0, &mut response, head);
    if is_head_request {
        response
            .headers_mut()
            .insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    } else {
        // The body decides.
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    let body = if is_head_request {
        Bytes::new()
    } else {
        Bytes::from(body)
    };
    response.map(|()| ResponseBody::own(guard, body))
}

/// Puts the head in place, with what this proxy adds to it.
fn decorate(exchange: &Exchange, response: &mut Response<()>, head: ResponseHead) {
    exchange.facts.status.set(head.status.as_u16());
    *response.status_mut() = head.status;
    if exchange.has_other_filters() {
        // They may read it when they log.
        let headers = head.headers.clone();
        exchange.response.replace(Some(ResponseHead {
            status: head.status,
            headers,
        }));
    }
    *response.headers_mut() = head.headers;
    if exchange.request.borrow().version == Version::HTTP_2 {
        // HTTP/2 has no such header (RFC 9113 section 8.2.2).
        response.headers_mut().remove(CONNECTION);
    } else if exchange.client.pending_order() == Order::Drain {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if exchange.worker().shared.options.show_decision
        && let Some(filters) = exchange.filters.borrow().as_ref()
    {
        filters.published(DECISION_PROPERTY, &mut |decision| {
            if let Ok(value) = HeaderValue::from_bytes(decision) {
                response.headers_mut().insert(DECISION_HEADER, value);
            }
        });
    }
}

/// Remembers why, for filters and the log.
fn note(exchange: &Exchange, why: Why) {
    exchange.facts.why.set(Some(why));
    exchange.facts.flag(why.flags());
    exchange.facts.detail(why.details());
}
