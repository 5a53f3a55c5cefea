//! Bodies on their way: the client's to the server, the server's to the client. Chunks are passed on as they come.

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::http::exchange::{BodyState, Exchange, Guard, Waiting, flags};
use crate::http::filtered::{self, Direction};
use crate::http::head::is_steering;
use crate::upstream::connection::Connection;

/// Why a body ended before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The client sent more than `limits.body_bytes`, or went away.
    Client,
    /// The server closed, was silent too long, or sent nonsense.
    Server,
    /// A filter ended the stream.
    Filter,
}

impl fmt::Display for Broken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Client => "the client's body ended early",
            Self::Server => "the server's body ended early",
            Self::Filter => "a filter ended the stream",
        })
    }
}

impl std::error::Error for Broken {}

/// The request's body for one attempt. The body itself stays with the exchange, so that an attempt that never read of it leaves
/// it whole for the next.
pub(crate) enum UpstreamBody {
    Empty,
    Of(Rc<Exchange>),
    Whole(Bytes),
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Of(exchange) if exchange.filters_bodies.get() => {
                let input = |cx: &mut Context<'_>| {
                    let polled = poll_request_body(exchange, cx);
                    (polled, exchange.body_state.get() == BodyState::Ended)
                };
                filtered::poll(exchange, Direction::Request, cx, input)
            }
            Self::Of(exchange) => poll_request_body(exchange, cx),
            Self::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then_some(Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Of(exchange) if exchange.filters_bodies.get() => false,
            Self::Of(exchange) => exchange.body_state.get() == BodyState::Ended,
            Self::Whole(bytes) => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            // A filter may make it longer or shorter.
            Self::Of(exchange) if exchange.filters_bodies.get() => SizeHint::default(),
            Self::Of(exchange) => exchange
                .body
                .borrow()
                .as_ref()
                .map_or_else(SizeHint::default, Body::size_hint),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}

fn poll_request_body(
    exchange: &Exchange,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
    let mut slot = exchange.body.borrow_mut();
    let Some(body) = slot.as_mut() else {
        return Poll::Ready(None);
    };
    let polled = Pin::new(&mut *body).poll_frame(cx);
    exchange.note_body(&polled);
    if matches!(polled, Poll::Ready(Some(_))) {
        exchange.body_state.set(BodyState::Streaming);
    }
    if body.is_end_stream() || matches!(polled, Poll::Ready(None)) {
        exchange.body_state.set(BodyState::Ended);
    }
    match polled {
        Poll::Ready(Some(Ok(frame))) => {
            if let Some(data) = frame.data_ref() {
                let total = exchange
                    .facts
                    .request_bytes
                    .get()
                    .saturating_add(data.len() as u64);
                exchange.facts.request_bytes.set(total);
                let max = exchange.active.generation.config.limits.body_bytes;
                if max != 0 && total > max {
                    exchange.body_state.set(BodyState::TooLong);
                    return Poll::Ready(Some(Err(Broken::Client)));
                }
            }
            Poll::Ready(Some(Ok(without_illegal_trailers(frame))))
        }
        Poll::Ready(Some(Err(_))) => Poll::Ready(Some(Err(Broken::Client))),
        Poll::Ready(None) => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    }
}

/// A response's body. The exchange ends when it goes, unless it goes on as a tunnel.
pub(crate) struct ResponseBody {
    // Before `guard`: the connection goes back to its pool before the exchange is logged.
    source: Source,
    exchange: Rc<Exchange>,
    _guard: Option<Guard>,
}

enum Source {
    Upstream(Upstream),
    Own(Bytes),
}

struct Upstream {
    connection: Option<Box<Connection>>,
    incoming: Incoming,
    /// The end was seen.
    is_complete: bool,
    /// Filters see it on its way.
    is_filtered: bool,
}

impl ResponseBody {
    pub(crate) fn upstream(guard: Guard, connection: Box<Connection>, incoming: Incoming) -> Self {
        guard.0.waiting.set(Waiting::ResponseBody);
        let is_complete = incoming.is_end_stream();
        let is_filtered = guard.0.filters_bodies.get() && !is_complete;
        Self {
            source: Source::Upstream(Upstream {
                connection: Some(connection),
                incoming,
                is_complete,
                is_filtered,
            }),
            exchange: Rc::clone(&guard.0),
            _guard: Some(guard),
        }
    }

    pub(crate) fn own(guard: Guard, body: Bytes) -> Self {
        Self {
            source: Source::Own(body),
            exchange: Rc::clone(&guard.0),
            _guard: Some(guard),
        }
    }

    /// Nothing; the exchange ends by another guard.
    pub(crate) fn switching(exchange: Rc<Exchange>) -> Self {
        Self {
            source: Source::Own(Bytes::new()),
            exchange,
            _guard: None,
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        match &mut this.source {
            Source::Own(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| {
                    count(&this.exchange, &bytes);
                    Ok(Frame::data(bytes))
                }))
            }
            Source::Upstream(upstream) if upstream.is_filtered => {
                let exchange = &this.exchange;
                let input = |cx: &mut Context<'_>| {
                    let polled = upstream.poll_frame(exchange, cx);
                    (polled, upstream.is_complete)
                };
                counted(
                    exchange,
                    filtered::poll(exchange, Direction::Response, cx, input),
                )
            }
            Source::Upstream(upstream) => {
                counted(&this.exchange, upstream.poll_frame(&this.exchange, cx))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(bytes) => bytes.is_empty(),
            Source::Upstream(upstream) if upstream.is_filtered => false,
            Source::Upstream(upstream) => upstream.is_complete || upstream.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(bytes) => SizeHint::with_exact(bytes.len() as u64),
            // A filter may make it longer or shorter.
            Source::Upstream(upstream) if upstream.is_filtered => SizeHint::default(),
            Source::Upstream(upstream) => upstream.incoming.size_hint(),
        }
    }
}

impl Upstream {
    fn poll_frame(
        &mut self,
        exchange: &Rc<Exchange>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.is_complete {
            return Poll::Ready(None);
        }
        exchange.attend(cx);
        if exchange.take_overdue() {
            exchange.facts.flag(flags::RESPONSE_TIMEOUT);
            exchange.facts.detail("upstream_per_try_idle_timeout");
            exchange.charge_failure();
            return self.fail();
        }
        if exchange.is_reset_by_filter() {
            exchange.facts.detail("filter_reset");
            return self.fail();
        }
        if let Some(connection) = self.connection.as_mut() {
            connection.drive(cx);
        }
        // All that can have arrived has: see `Connection`.
        match Pin::new(&mut self.incoming).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(frame))) => {
                // Nothing comes after trailers, and nobody asks for it.
                self.is_complete = frame.is_trailers() || self.incoming.is_end_stream();
                if self.is_complete {
                    exchange.note_received();
                }
                Poll::Ready(Some(Ok(without_illegal_trailers(frame))))
            }
            Poll::Ready(None) => {
                self.is_complete = true;
                exchange.note_received();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(_))) => {
                exchange.facts.flag(flags::CONNECTION_TERMINATION);
                exchange
                    .facts
                    .detail("upstream_reset_after_response_started{connection_termination}");
                exchange.charge_failure();
                self.fail()
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn fail(&mut self) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.connection = None;
        Poll::Ready(Some(Err(Broken::Server)))
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        let exchange = &self.exchange;
        exchange.waiting.set(Waiting::Nothing);
        let Source::Upstream(upstream) = &mut self.source else {
            return;
        };
        let Some(connection) = upstream.connection.take() else {
            return;
        };
        if upstream.is_complete || upstream.incoming.is_end_stream() {
            exchange.active.give_back(exchange, connection);
        } else if !exchange.has_ending() {
            // The client went away in the middle.
            exchange.facts.flag(flags::CLIENT_GONE);
            exchange.facts.detail("downstream_remote_disconnect");
        }
    }
}

type Polled = Poll<Option<Result<Frame<Bytes>, Broken>>>;

fn counted(exchange: &Exchange, polled: Polled) -> Polled {
    if let Poll::Ready(Some(Ok(frame))) = &polled
        && let Some(data) = frame.data_ref()
    {
        count(exchange, data);
    }
    polled
}

fn count(exchange: &Exchange, data: &Bytes) {
    exchange
        .facts
        .response_bytes
        .set(exchange.facts.response_bytes.get() + data.len() as u64);
}

/// What no trailer may say (RFC 9110 section 6.5.1): what frames or routes a message, who asks for it and what may be done with it. A
/// server that puts trailers among the headers would believe them.
pub(crate) const NO_TRAILERS: [&str; 17] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "proxy-authorization",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-real-ip",
];

fn without_illegal_trailers(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(trailers) => Frame::trailers(legal(trailers)),
        Err(frame) => frame,
    }
}

fn legal(trailers: HeaderMap) -> HeaderMap {
    if !trailers.keys().any(is_illegal) {
        return trailers;
    }
    let mut legal = HeaderMap::with_capacity(trailers.len());
    for (name, value) in &trailers {
        if !is_illegal(name) {
            legal.append(name.clone(), value.clone());
        }
    }
    legal
}

fn is_illegal(name: &HeaderName) -> bool {
    let plain = name.as_str().replace('_', "-");
    NO_TRAILERS.contains(&plain.as_str()) || plain.starts_with("x-forwarded-") || is_steering(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_say_nothing_that_a_head_must_say() {
        let names = [
            "x-sum",
            "server-timing",
            "content-length",
            "Transfer_Encoding",
            "host",
            "cookie",
            "authorization",
            "x-real-ip",
            "x_real_ip",
            "x-forwarded-for",
            "x-gateway-destination-endpoint",
        ];
        let trailers: HeaderMap = names
            .iter()
            .map(|name| (name.parse().unwrap(), "1".parse().unwrap()))
            .collect();
        let mut left: Vec<String> = legal(trailers).keys().map(ToString::to_string).collect();
        left.sort_unstable();
        assert_eq!(left, ["server-timing", "x-sum"]);
    }
}
