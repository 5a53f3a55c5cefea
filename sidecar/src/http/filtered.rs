//! A body on its way through filters that want bodies. Filters that do not want them cost nothing: see
//! [`evenkeel_host::http_filters::Chain::wants_bodies`].
//!
//! Every piece is shown to the filters, then an empty last one, as in Envoy; with the last piece, where its length tells that it is
//! the last, because nobody asks for more then. A filter that pauses holds what it has seen; it is
//! fed on (up to the host's bound) until it lets go.

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use evenkeel_host::http_filters::{Event, HttpFilters, Verdict};
use http::HeaderMap;
use http_body::Frame;

use crate::http::body::Broken;
use crate::http::exchange::Exchange;

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Request,
    Response,
}

/// How far one direction has come.
#[derive(Default)]
pub(crate) struct Flow {
    /// What a filter that had paused said when it let go.
    pub(crate) resumed: RefCell<Option<Verdict>>,
    stage: Cell<Stage>,
    /// A filter holds a part of it.
    is_held: Cell<bool>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Flowing,
    /// All has been shown; a filter holds the end.
    HeldAtEnd,
    Ended,
    /// The trailers have gone on too.
    Over,
}

type Polled = Poll<Option<Result<Frame<Bytes>, Broken>>>;

/// The next piece that filters let through, of what `input` yields: a frame, and whether nothing comes after it.
pub(crate) fn poll(
    exchange: &Exchange,
    direction: Direction,
    cx: &mut Context<'_>,
    mut input: impl FnMut(&mut Context<'_>) -> (Polled, bool),
) -> Polled {
    let flow = exchange.flow(direction);
    // Each turn takes something from the input, or ends.
    loop {
        exchange.take_events();
        if exchange.is_filter_lost(direction) || exchange.filters.borrow().is_none() {
            if flow.is_held.get() {
                // What the dead filter held is gone: the rest alone would look like the whole.
                return Poll::Ready(Some(Err(Broken::Filter)));
            }
            return input(cx).0;
        }
        if exchange.has_ending() {
            return Poll::Ready(Some(Err(Broken::Filter)));
        }
        if let Some(held) = take_held(exchange, direction) {
            // All that was held, as long as the filter has not paused again.
            flow.is_held.set(flow.stage.get() == Stage::HeldAtEnd);
            return Poll::Ready(Some(Ok(Frame::data(held))));
        }
        match flow.stage.get() {
            Stage::Flowing => {}
            Stage::Ended => {
                flow.stage.set(Stage::Over);
                return Poll::Ready(trailers(exchange, direction).map(Ok));
            }
            Stage::Over => return Poll::Ready(None),
            Stage::HeldAtEnd => match flow.resumed.borrow_mut().take() {
                Some(Verdict::Continue) => {
                    flow.stage.set(Stage::Ended);
                    flow.is_held.set(false);
                }
                _ => return Poll::Pending,
            },
        }
        if flow.stage.get() == Stage::Ended {
            continue;
        }
        let (polled, is_last) = input(cx);
        let piece = ready!(polled).transpose()?;
        let is_end_to_come = is_last && piece.as_ref().is_some_and(Frame::is_data);
        let (mut verdict, mut data) = show(exchange, direction, piece);
        if is_end_to_come && verdict.is_none() {
            let end = show(exchange, direction, None);
            verdict = end.0;
            data = joined(data, end.1);
        }
        if let Some(verdict) = verdict {
            settle(exchange, verdict);
        }
        if !data.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
    }
}

/// What a filter let through of the last piece, then what it made of the end.
fn joined(data: Bytes, more: Bytes) -> Bytes {
    match (data.is_empty(), more.is_empty()) {
        (true, _) => more,
        (_, true) => data,
        (false, false) => Bytes::from([data, more].concat()),
    }
}

/// Shows one piece, or the end; answers what is to go on, and a verdict that ends the stream.
fn show(
    exchange: &Exchange,
    direction: Direction,
    piece: Option<Frame<Bytes>>,
) -> (Option<Event>, Bytes) {
    let flow = exchange.flow(direction);
    let mut data = Vec::new();
    let mut is_end = true;
    let verdict = match piece.map(Frame::into_data) {
        Some(Ok(bytes)) => {
            is_end = false;
            data.extend_from_slice(&bytes);
            call(exchange, |filters| {
                body(filters, direction, &mut data, false)
            })
        }
        Some(Err(frame)) => {
            put_trailers(exchange, direction, frame.into_trailers().ok());
            call(exchange, |filters| match direction {
                Direction::Request => filters.request_trailers(),
                Direction::Response => filters.response_trailers(),
            })
        }
        None => call(exchange, |filters| {
            body(filters, direction, &mut data, true)
        }),
    };
    let ending = match verdict {
        Verdict::Continue => {
            flow.is_held.set(false);
            if is_end {
                flow.stage.set(Stage::Ended);
            }
            None
        }
        Verdict::Pause => {
            flow.is_held.set(true);
            if is_end {
                flow.stage.set(Stage::HeldAtEnd);
            }
            None
        }
        Verdict::LocalReply(reply) => Some(Event::LocalReply(reply)),
        Verdict::Reset => Some(Event::Reset),
        Verdict::Failed => Some(Event::Failed),
    };
    (ending, Bytes::from(data))
}

/// The stream ends by what a filter said in a body callback: whoever waits for it is told.
fn settle(exchange: &Exchange, ending: Event) {
    exchange.end_by(ending);
    exchange.wake();
}

fn body(
    filters: &mut HttpFilters,
    direction: Direction,
    data: &mut Vec<u8>,
    is_end: bool,
) -> Verdict {
    match direction {
        Direction::Request => filters.request_body(data, is_end),
        Direction::Response => filters.response_body(data, is_end),
    }
}

fn call(exchange: &Exchange, ask: impl FnOnce(&mut HttpFilters) -> Verdict) -> Verdict {
    exchange
        .filters
        .borrow_mut()
        .as_mut()
        .map_or(Verdict::Continue, ask)
}

fn take_held(exchange: &Exchange, direction: Direction) -> Option<Bytes> {
    let mut filters = exchange.filters.borrow_mut();
    let filters = filters.as_mut()?;
    let held = match direction {
        Direction::Request => filters.take_held_request_body(),
        Direction::Response => filters.take_held_response_body(),
    };
    (!held.is_empty()).then(|| Bytes::from(held))
}

fn put_trailers(exchange: &Exchange, direction: Direction, trailers: Option<HeaderMap>) {
    match direction {
        Direction::Request => exchange.request_trailers.replace(trailers),
        Direction::Response => exchange.response_trailers.replace(trailers),
    };
}

fn trailers(exchange: &Exchange, direction: Direction) -> Option<Frame<Bytes>> {
    let trailers = match direction {
        Direction::Request => exchange.request_trailers.take(),
        // The filters see them once more when all is over.
        Direction::Response => exchange.response_trailers.borrow().clone(),
    };
    trailers.map(Frame::trailers)
}
