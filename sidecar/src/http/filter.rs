//! An exchange's way through its filters: asking, waiting where one pauses, and what they decided.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use evenkeel_host::http_filters::{Event, HttpFilters, LocalReply, Verdict};
use evenkeel_policy::contract::TCP_PEER_PROPERTY;

use crate::http::exchange::{Exchange, Waiting};
use crate::http::filtered::Direction;

/// How long a request waits for a worker's filter to be replaced before it is answered 503.
const REPLACEMENT_WAIT_MAX: Duration = Duration::from_millis(500);

/// What filters said, once they all have.
pub(crate) enum Passed {
    Onward,
    Reply(LocalReply),
    Reset,
    /// A filter's VM is dead.
    Failed,
    /// A filter held the exchange too long.
    TimedOut,
}

/// Makes the exchange's filters, waiting a little while if the worker has none just now. `false`: there still are none.
pub(crate) async fn begin(exchange: &Rc<Exchange>) -> bool {
    let mut chain = exchange.active.chain(exchange.client.bind);
    if chain.as_ref().is_none_or(|chain| chain.is_failed()) {
        exchange.active.wait_for_filters(REPLACEMENT_WAIT_MAX).await;
        chain = exchange.active.chain(exchange.client.bind);
    }
    let Some(chain) = chain.filter(|chain| !chain.is_failed()) else {
        return false;
    };
    let stream: Rc<Exchange> = Rc::clone(exchange);
    exchange.filters_bodies.set(chain.wants_bodies());
    let filters = HttpFilters::new(&chain, stream);
    let socket_peer = exchange.client.socket_peer();
    if socket_peer != exchange.client.ends().peer {
        filters.publish(TCP_PEER_PROPERTY, socket_peer.to_string().as_bytes());
    }
    *exchange.filters.borrow_mut() = Some(filters);
    true
}

pub(crate) async fn request_headers(exchange: &Rc<Exchange>, is_end: bool) -> Passed {
    let verdict = call(exchange, |filters| filters.request_headers(is_end));
    settle(exchange, verdict, Direction::Request).await
}

pub(crate) async fn response_headers(exchange: &Rc<Exchange>, is_end: bool) -> Passed {
    let verdict = call(exchange, |filters| filters.response_headers(is_end));
    settle(exchange, verdict, Direction::Response).await
}

fn call(exchange: &Exchange, ask: impl FnOnce(&mut HttpFilters) -> Verdict) -> Verdict {
    exchange
        .filters
        .borrow_mut()
        .as_mut()
        .map_or(Verdict::Continue, ask)
}

async fn settle(exchange: &Rc<Exchange>, mut verdict: Verdict, direction: Direction) -> Passed {
    loop {
        match verdict {
            Verdict::Continue => return Passed::Onward,
            Verdict::LocalReply(reply) => return Passed::Reply(reply),
            Verdict::Reset => return Passed::Reset,
            Verdict::Failed => return Passed::Failed,
            Verdict::Pause => match resumed(exchange, direction).await {
                Ok(next) => verdict = next,
                Err(passed) => return passed,
            },
        }
    }
}

/// Waits until a paused direction goes on.
async fn resumed(exchange: &Rc<Exchange>, direction: Direction) -> Result<Verdict, Passed> {
    exchange
        .waiting
        .set(Waiting::Filter(exchange.worker().clock.now()));
    let outcome = poll_fn(|cx| {
        exchange.attend(cx);
        if exchange.take_overdue() {
            return Poll::Ready(Err(Passed::TimedOut));
        }
        match exchange.take_ending() {
            Some(Event::LocalReply(reply)) => return Poll::Ready(Err(Passed::Reply(reply))),
            Some(Event::Reset) => return Poll::Ready(Err(Passed::Reset)),
            Some(Event::Failed) => return Poll::Ready(Err(Passed::Failed)),
            Some(Event::RequestResumed(_) | Event::ResponseResumed(_)) | None => {}
        }
        match exchange.flow(direction).resumed.borrow_mut().take() {
            Some(verdict) => Poll::Ready(Ok(verdict)),
            None => Poll::Pending,
        }
    })
    .await;
    exchange.waiting.set(Waiting::Nothing);
    outcome
}

/// Shows the body of an answer that was made here.
pub(crate) async fn own_body(exchange: &Rc<Exchange>, mut body: Vec<u8>) -> Vec<u8> {
    if !exchange.filters_bodies.get() || body.is_empty() {
        return body;
    }
    let verdict = call(exchange, |filters| filters.response_body(&mut body, true));
    if matches!(verdict, Verdict::Pause)
        && matches!(
            settle(exchange, verdict, Direction::Response).await,
            Passed::Onward
        )
        && let Some(filters) = exchange.filters.borrow_mut().as_mut()
    {
        body.append(&mut filters.take_held_response_body());
    }
    body
}
