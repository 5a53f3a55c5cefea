//! One request and its answer: everything that is known about it, from its head to its log line.
//!
//! An [`Exchange`] is shared by the task that serves it, the bodies that stream, the filters that read and change it (see
//! [`crate::http::stream`]) and the janitor. All of them are on one thread; a field is borrowed only for as long as one call
//! lasts. It ends exactly once: when its [`Guard`] is dropped, wherever that happens.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use evenkeel_host::http_filters::{Event, HttpFilters};
use http::{HeaderMap, StatusCode};
use hyper::body::Incoming;

use crate::clock::{Ticks, is_over, ticks};
use crate::counters::ServerCounters;
use crate::http::client::Client;
use crate::http::filtered::{Direction, Flow};
use crate::http::head::RequestHead;
use crate::http::local_reply::Why;
use crate::upstream::socket::Socket;
use crate::worker::{Active, Reach, Worker};

/// Bits of `response.flags`, as Envoy's `stream_info.h` numbers them.
pub(crate) mod flags {
    pub(crate) const NO_HEALTHY_UPSTREAM: u64 = 0x2;
    pub(crate) const RESPONSE_TIMEOUT: u64 = 0x4;
    pub(crate) const UPSTREAM_RESET: u64 = 0x10;
    pub(crate) const CONNECT_FAILURE: u64 = 0x20;
    pub(crate) const CONNECTION_TERMINATION: u64 = 0x40;
    pub(crate) const NO_ROUTE: u64 = 0x100;
    pub(crate) const CLIENT_GONE: u64 = 0x4000;
    pub(crate) const RETRIES_EXHAUSTED: u64 = 0x8000;
    pub(crate) const IDLE_TIMEOUT: u64 = 0x10000;
    pub(crate) const BAD_REQUEST: u64 = 0x20000;
    pub(crate) const NO_POOL: u64 = 0x100_0000;
}

/// A response's head as filters see and change it.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
}

/// What the exchange waits for; the janitor looks at how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiting {
    Nothing,
    /// A filter paused it, at this tick.
    Filter(Ticks),
    /// The server's response head, or more of the request's body before it.
    ResponseHead,
    /// The rest of the response.
    ResponseBody,
}

/// How far the request's body has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyState {
    /// Nothing was read of it: it can still go to another server.
    Whole,
    Streaming,
    /// All was read (or there was none).
    Ended,
    /// Longer than `limits.body_bytes`.
    TooLong,
}

/// One exchange.
pub(crate) struct Exchange {
    pub(crate) client: Rc<Client>,
    /// The configuration it runs by, to its end.
    pub(crate) active: Rc<Active>,
    pub(crate) started: Instant,
    started_tick: Ticks,
    pub(crate) request: RefCell<RequestHead>,
    pub(crate) request_trailers: RefCell<Option<HeaderMap>>,
    pub(crate) response: RefCell<Option<ResponseHead>>,
    pub(crate) response_trailers: RefCell<Option<HeaderMap>>,
    pub(crate) filters: RefCell<Option<HttpFilters>>,
    /// Some filter wants bodies.
    pub(crate) filters_bodies: Cell<bool>,
    request_flow: Flow,
    response_flow: Flow,
    ending: RefCell<Option<Event>>,
    pub(crate) body: RefCell<Option<Incoming>>,
    pub(crate) body_state: Cell<BodyState>,
    /// Since when more of it is waited for; `None`: the server does not take it yet, or all has come.
    body_awaited: Cell<Option<Ticks>>,
    pub(crate) facts: Facts,
    /// The pool chosen, by its number in the generation.
    pub(crate) pool: Cell<Option<usize>>,
    /// Its servers, as they were when the request was sent.
    pub(crate) reach: RefCell<Option<Rc<Reach>>>,
    /// The server of these that answers, or was tried last.
    pub(crate) server: Cell<Option<usize>>,
    /// The server's socket, while its activity counts.
    pub(crate) socket: RefCell<Option<Rc<Socket>>>,
    in_flight: RefCell<Option<Arc<ServerCounters>>>,
    pub(crate) waiting: Cell<Waiting>,
    /// Longest silence of the server, in ticks.
    pub(crate) silence_max: Cell<Ticks>,
    is_overdue: Cell<bool>,
    is_woken: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    slot: Cell<usize>,
    is_finished: Cell<bool>,
}

/// Figures and words for filters and the log.
#[derive(Default)]
pub(crate) struct Facts {
    /// 0 until a response head is decided.
    pub(crate) status: Cell<u16>,
    pub(crate) attempts: Cell<u32>,
    pub(crate) flags: Cell<u64>,
    pub(crate) details: RefCell<Details>,
    pub(crate) why: Cell<Option<Why>>,
    pub(crate) is_closed_by_filter: Cell<bool>,
    pub(crate) transport_failure: RefCell<String>,
    pub(crate) request_bytes: Cell<u64>,
    pub(crate) response_bytes: Cell<u64>,
    pub(crate) upstream: Cell<Option<std::net::SocketAddr>>,
    pub(crate) upstream_local: Cell<Option<std::net::SocketAddr>>,
    pub(crate) ready_after: Cell<Option<Duration>>,
    /// When the request began to leave for the server that was tried last.
    sent: Cell<Option<Instant>>,
    /// When the last of the response had come from it.
    received: Cell<Option<Instant>>,
    pub(crate) ended: Cell<Option<Instant>>,
}

/// `response.code_details`.
#[derive(Debug, Default)]
pub(crate) enum Details {
    #[default]
    None,
    Fixed(&'static str),
    Told(String),
}

impl Details {
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::None => "",
            Self::Fixed(text) => text,
            Self::Told(text) => text,
        }
    }
}

impl Facts {
    pub(crate) fn flag(&self, bits: u64) {
        self.flags.set(self.flags.get() | bits);
    }

    /// A filter closed the stream without an answer.
    pub(crate) fn close_by_filter(&self) {
        self.is_closed_by_filter.set(true);
        if self.status.get() == 0 {
            self.detail("wasm_close_stream");
        }
    }

    /// An attempt succeeded: what the ones before it failed of is past.
    pub(crate) fn forget_failures(&self) {
        self.flags.set(0);
        self.transport_failure.borrow_mut().clear();
    }

    pub(crate) fn backend_latency(&self) -> Option<Duration> {
        Some(
            self.received
                .get()?
                .saturating_duration_since(self.sent.get()?),
        )
    }

    pub(crate) fn detail(&self, details: &'static str) {
        *self.details.borrow_mut() = Details::Fixed(details);
    }
}

/// Ends the exchange when it goes.
pub(crate) struct Guard(pub(crate) Rc<Exchange>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.finish();
    }
}

impl Exchange {
    /// Registers a new exchange with its worker and its connection.
    pub(crate) fn begin(client: &Rc<Client>, request: RequestHead, body: Incoming) -> Guard {
        let worker = &client.worker;
        let body_state = if hyper::body::Body::is_end_stream(&body) {
            BodyState::Ended
        } else {
            BodyState::Whole
        };
        let exchange = Rc::new(Self {
            client: Rc::clone(client),
            active: worker.active(),
            started: Instant::now(),
            started_tick: worker.clock.now(),
            request: RefCell::new(request),
            request_trailers: RefCell::new(None),
            response: RefCell::new(None),
            response_trailers: RefCell::new(None),
            filters: RefCell::new(None),
            filters_bodies: Cell::new(false),
            request_flow: Flow::default(),
            response_flow: Flow::default(),
            ending: RefCell::new(None),
            body: RefCell::new((body_state == BodyState::Whole).then_some(body)),
            body_state: Cell::new(body_state),
            body_awaited: Cell::new(None),
            facts: Facts::default(),
            pool: Cell::new(None),
            reach: RefCell::new(None),
            server: Cell::new(None),
            socket: RefCell::new(None),
            in_flight: RefCell::new(None),
            waiting: Cell::new(Waiting::Nothing),
            silence_max: Cell::new(Ticks::MAX),
            is_overdue: Cell::new(false),
            is_woken: Cell::new(false),
            waker: RefCell::new(None),
            slot: Cell::new(0),
            is_finished: Cell::new(false),
        });
        let slot = worker.exchanges.borrow_mut().insert(Rc::clone(&exchange));
        exchange.slot.set(slot);
        client.request_begins();
        worker.counters.requests.add(1);
        worker.counters.requests_in_flight.add(1);
        Guard(exchange)
    }

    pub(crate) fn worker(&self) -> &Rc<Worker> {
        &self.client.worker
    }

    /// Registers the task that [`Exchange::wake`] wakes.
    pub(crate) fn attend(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Something happened outside the task's own polls.
    pub(crate) fn wake(&self) {
        self.is_woken.set(true);
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Sorts what the filters did meanwhile, if anybody woke this exchange: a direction goes on, or the stream ends.
    pub(crate) fn take_events(&self) {
        if !self.is_woken.replace(false) {
            return;
        }
        // Ends: the host queues a bounded number of events.
        loop {
            let event = self
                .filters
                .borrow_mut()
                .as_mut()
                .and_then(HttpFilters::poll_event);
            match event {
                None => return,
                Some(Event::RequestResumed(verdict)) => {
                    self.request_flow.resumed.replace(Some(verdict));
                }
                Some(Event::ResponseResumed(verdict)) => {
                    self.response_flow.resumed.replace(Some(verdict));
                }
                Some(ending) => self.end_by(ending),
            }
        }
    }

    /// A filter (or its death) ends the stream; the first ending counts.
    pub(crate) fn end_by(&self, ending: Event) {
        self.ending.borrow_mut().get_or_insert(ending);
    }

    pub(crate) fn has_ending(&self) -> bool {
        self.ending.borrow().is_some()
    }

    /// How a filter ended the stream, once.
    pub(crate) fn take_ending(&self) -> Option<Event> {
        self.take_events();
        self.ending.borrow_mut().take()
    }

    /// A filter wants the stream closed, now that its response has begun.
    pub(crate) fn is_reset_by_filter(&self) -> bool {
        self.take_events();
        matches!(
            *self.ending.borrow(),
            Some(Event::Reset | Event::LocalReply(_))
        )
    }

    /// The filter died when the response had begun: it goes on without filters.
    pub(crate) fn is_filter_lost(&self, direction: Direction) -> bool {
        direction == Direction::Response && matches!(*self.ending.borrow(), Some(Event::Failed))
    }

    pub(crate) fn flow(&self, direction: Direction) -> &Flow {
        match direction {
            Direction::Request => &self.request_flow,
            Direction::Response => &self.response_flow,
        }
    }

    /// The server would take more of the request's body, and the client has not sent it.
    pub(crate) fn awaits_body(&self) -> bool {
        self.body_awaited.get().is_some()
    }

    /// What came of asking the client for more of its body.
    pub(crate) fn note_body<T>(&self, polled: &Poll<T>) {
        let since = match polled {
            Poll::Ready(_) => None,
            Poll::Pending => Some(
                self.body_awaited
                    .get()
                    .unwrap_or_else(|| self.worker().clock.now()),
            ),
        };
        self.body_awaited.set(since);
    }

    /// Whether the janitor found that a timeout is over; once.
    pub(crate) fn take_overdue(&self) -> bool {
        self.is_overdue.replace(false)
    }

    /// The janitor's look. `filter_pause_max` bounds how long a filter may hold an exchange.
    pub(crate) fn check_timeout(&self, now: Ticks, filter_pause_max: Ticks) {
        let (since, limit) = match self.waiting.get() {
            Waiting::Nothing => return,
            Waiting::Filter(since) => (since, filter_pause_max),
            Waiting::ResponseHead => match self.body_awaited.get() {
                Some(since) => {
                    let timeouts = self.active.generation.config.timeouts;
                    (since, ticks(timeouts.client_body))
                }
                None => (self.socket_active(), self.silence_max.get()),
            },
            Waiting::ResponseBody => (
                self.socket_active().max(self.client.since()),
                self.silence_max.get(),
            ),
        };
        if is_over(now, since, limit) {
            self.is_overdue.set(true);
            self.wake();
        }
    }

    fn socket_active(&self) -> Ticks {
        self.socket
            .borrow()
            .as_ref()
            .map_or(self.started_tick, |socket| socket.active.get())
    }

    /// The request begins to leave for a server.
    pub(crate) fn note_sent(&self) {
        if self.has_other_filters() {
            self.facts.sent.set(Some(Instant::now()));
        }
    }

    /// All of the response has come from the server.
    pub(crate) fn note_received(&self) {
        if self.has_other_filters() {
            self.facts.received.set(Some(Instant::now()));
        }
    }

    /// Filters of the operator's own may ask for what evenkeel's does not.
    pub(crate) fn has_other_filters(&self) -> bool {
        self.active.generation.filters.len() > 1
    }

    /// Moves the in-flight count to a server, or to none.
    pub(crate) fn count_in_flight(&self, counters: Option<&Arc<ServerCounters>>) {
        if let Some(counters) = counters {
            counters.requests.add(1);
            counters.in_flight.add(1);
        }
        let before = self.in_flight.replace(counters.cloned());
        if let Some(before) = before {
            before.in_flight.subtract(1);
        }
    }

    /// Charges a failure to the server it is counted on.
    pub(crate) fn charge_failure(&self) {
        if let Some(counters) = self.in_flight.borrow().as_ref() {
            counters.failures.add(1);
        }
    }

    fn finish(&self) {
        if self.is_finished.replace(true) {
            return;
        }
        let worker = self.worker();
        self.waiting.set(Waiting::Nothing);
        self.facts.ended.set(Some(Instant::now()));
        if self.facts.status.get() == 0
            && self.facts.why.get().is_none()
            && !self.facts.is_closed_by_filter.get()
        {
            self.facts.flag(flags::CLIENT_GONE);
            self.facts.detail("downstream_remote_disconnect");
        }
        self.count_in_flight(None);
        let filters = self.filters.borrow_mut().take();
        let mut client_ip = ClientIp::new();
        if let Some(mut filters) = filters {
            filters.published(
                evenkeel_policy::contract::CLIENT_IP_PROPERTY,
                &mut |value| client_ip.set(value),
            );
            filters.finish();
        }
        if let Some(log) = worker.log.borrow().as_ref() {
            log.exchange(self, client_ip.text());
        }
        let class = usize::from(self.facts.status.get() / 100);
        if let Some(counter) = worker.counters.responses.get(class) {
            counter.add(1);
        }
        worker.counters.requests_in_flight.subtract(1);
        worker.exchanges.borrow_mut().remove(self.slot.get());
        self.client.request_ends();
    }
}

/// The client's address as the filter found it: at most an IPv6 address with a zone.
struct ClientIp {
    bytes: [u8; ClientIp::LENGTH_MAX],
    length: usize,
}

impl ClientIp {
    const LENGTH_MAX: usize = 64;

    const fn new() -> Self {
        Self {
            bytes: [0; Self::LENGTH_MAX],
            length: 0,
        }
    }

    fn set(&mut self, value: &[u8]) {
        if let Some(room) = self.bytes.get_mut(..value.len()) {
            room.copy_from_slice(value);
            self.length = value.len();
        }
    }

    fn text(&self) -> Option<&str> {
        let text = std::str::from_utf8(self.bytes.get(..self.length)?).ok()?;
        (!text.is_empty()).then_some(text)
    }
}
