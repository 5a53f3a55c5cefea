//! One client connection, as its exchanges and the janitor see it.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Waker};

use crate::clock::{Ticks, is_over};
use crate::http::exchange::Guard;
use crate::upstream::connection::Tunnel;
use crate::worker::Worker;

/// What a connection is doing; each phase has its timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// TLS handshake, or a request head that has begun or is awaited on a new connection: `client_header`.
    Head,
    /// Requests run; their own timeouts count.
    Busy,
    /// Between requests: `idle`.
    Idle,
    /// Upgraded: `tunnel`.
    Tunnel,
}

/// What the connection's task is told from outside, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Order {
    None,
    /// No further request after the present ones.
    Drain,
    /// A head of HTTP/1 that began did not come in time: say so and close.
    Late,
    /// Close now.
    Close,
}

/// Facts of TLS.
pub(crate) struct Tls {
    /// As Envoy writes it: `TLSv1.3`.
    pub(crate) version: &'static str,
    pub(crate) server_name: String,
    pub(crate) is_mutual: bool,
}

/// Both ends of a connection, also as `ip:port`, made once.
pub(crate) struct Ends {
    pub(crate) peer: SocketAddr,
    pub(crate) peer_text: String,
    pub(crate) local: SocketAddr,
    pub(crate) local_text: String,
}

impl Ends {
    fn new(peer: SocketAddr, local: SocketAddr) -> Self {
        Self {
            peer,
            peer_text: peer.to_string(),
            local,
            local_text: local.to_string(),
        }
    }
}

/// Facts, phase and orders of one connection.
pub(crate) struct Client {
    pub(crate) worker: Rc<Worker>,
    pub(crate) id: u64,
    /// Of the socket.
    socket: Ends,
    /// What a balancer in front said of it, if it did.
    proxied: OnceCell<Box<Ends>>,
    /// The listener's configured address, by which a generation finds it.
    pub(crate) bind: SocketAddr,
    /// Set when the handshake is over.
    pub(crate) tls: OnceCell<Tls>,
    phase: Cell<Phase>,
    since: Cell<Ticks>,
    /// Bytes of a head came in that no request has begun with yet.
    awaits_head: Cell<bool>,
    is_http2: Cell<bool>,
    /// Requests that have begun and not ended (more than one with HTTP/2).
    running: Cell<usize>,
    order: Cell<Order>,
    waker: RefCell<Option<Waker>>,
    /// The last answer was given without reading all that the client sent.
    pub(crate) must_linger: Cell<bool>,
    /// An upgrade that the exchange agreed on, for the connection's task to carry out. (A circle of references until it does.)
    pub(crate) tunnel: RefCell<Option<(Tunnel, Guard)>>,
}

impl Client {
    pub(crate) fn new(
        worker: &Rc<Worker>,
        peer: SocketAddr,
        local: SocketAddr,
        bind: SocketAddr,
    ) -> Self {
        Self {
            worker: Rc::clone(worker),
            id: worker.next_connection_id(),
            socket: Ends::new(peer, local),
            proxied: OnceCell::new(),
            bind,
            tls: OnceCell::new(),
            phase: Cell::new(Phase::Head),
            since: Cell::new(worker.clock.now()),
            awaits_head: Cell::new(false),
            is_http2: Cell::new(false),
            running: Cell::new(0),
            order: Cell::new(Order::None),
            waker: RefCell::new(None),
            must_linger: Cell::new(false),
            tunnel: RefCell::new(None),
        }
    }

    /// Whose connection it is: what a balancer in front said, or else the socket's ends.
    pub(crate) fn ends(&self) -> &Ends {
        self.proxied.get().map_or(&self.socket, Box::as_ref)
    }

    /// Who opened the socket, whatever was said.
    pub(crate) fn socket_peer(&self) -> SocketAddr {
        self.socket.peer
    }

    /// A balancer in front said whose connection it is. Only the first time counts.
    pub(crate) fn set_proxied(&self, peer: SocketAddr, local: SocketAddr) {
        let _ = self.proxied.set(Box::new(Ends::new(peer, local)));
    }

    /// Bytes came in: an idle connection now has a head on its way; a tunnel is alive.
    pub(crate) fn saw_read(&self) {
        match self.phase.get() {
            // Which bytes begin a head, only h2 knows: a window update must not cut an idle client off.
            Phase::Idle | Phase::Head if self.is_http2.get() => {}
            Phase::Idle => {
                self.enter(Phase::Head);
                self.awaits_head.set(true);
            }
            Phase::Head => self.awaits_head.set(true),
            Phase::Tunnel => self.since.set(self.worker.clock.now()),
            Phase::Busy => {}
        }
    }

    /// From here on the client speaks HTTP/2.
    pub(crate) fn switch_to_http2(&self) {
        self.is_http2.set(true);
    }

    /// Whether a head has begun and is not whole yet (HTTP/1 only).
    pub(crate) fn awaits_head(&self) -> bool {
        self.awaits_head.get()
    }

    /// Bytes went out: whoever takes the last of a long answer is not idle yet.
    pub(crate) fn saw_write(&self) {
        self.since.set(self.worker.clock.now());
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(self.worker.clock.now());
    }

    pub(crate) fn request_begins(&self) {
        self.running.set(self.running.get() + 1);
        self.awaits_head.set(false);
        self.enter(Phase::Busy);
    }

    pub(crate) fn request_ends(&self) {
        self.running.set(self.running.get().saturating_sub(1));
        if self.running.get() == 0 && self.phase.get() == Phase::Busy {
            self.enter(Phase::Idle);
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Tick of the last change of phase or, in phases that count it, of traffic.
    pub(crate) fn since(&self) -> Ticks {
        self.since.get()
    }

    /// The janitor's look: whether the phase has lasted longer than it may.
    pub(crate) fn is_overdue(&self, now: Ticks, limits: &PhaseLimits) -> bool {
        let limit = match self.phase.get() {
            Phase::Busy => return false,
            Phase::Head => limits.head,
            Phase::Idle => limits.idle,
            Phase::Tunnel => limits.tunnel,
        };
        is_over(now, self.since.get(), limit)
    }

    /// Tells the connection's task; the stronger order stays.
    pub(crate) fn order(&self, order: Order) {
        self.order.set(self.order.get().max(order));
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    pub(crate) fn pending_order(&self) -> Order {
        self.order.get()
    }

    /// The task that [`Client::order`] wakes.
    pub(crate) fn attend(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
        }
    }
}

/// The timeouts of phases in ticks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PhaseLimits {
    pub(crate) head: Ticks,
    pub(crate) idle: Ticks,
    pub(crate) tunnel: Ticks,
}
