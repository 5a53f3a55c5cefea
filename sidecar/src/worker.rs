//! One worker: a thread with its own runtime, connections, filters and counters. Nothing here is shared on a request's path.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use evenkeel_host::http_filters::Chain;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::access_log::LogBuffer;
use crate::clock::{Clock, Ticks, ticks};
use crate::counters::WorkerCounters;
use crate::filter::FilterSet;
use crate::filter_environment::VmEnvironment;
use crate::generation::Generation;
use crate::http::client::{Client, Order, PhaseLimits};
use crate::http::exchange::Exchange;
use crate::listen::Handover;
use crate::shared::Shared;
use crate::slots::Slots;
use crate::upstream::connection::Connection;
use crate::upstream::pool::Endpoint;
use crate::worker_thread::LogTo;

/// New filter VMs that may be made at once after failures, before [`REPLACEMENT_EVERY`] counts.
const REPLACEMENT_BURST: u32 = 10;
/// After the burst, one in this time.
const REPLACEMENT_EVERY: Duration = Duration::from_secs(1);

/// What the main thread tells a worker.
pub(crate) enum Command {
    /// A connection accepted elsewhere.
    Serve(Handover),
    /// Start the filters of a new generation; answer how it went.
    Prepare(Arc<Generation>, oneshot::Sender<Result<(), String>>),
    /// Serve by the prepared generation from now on, and log there.
    Commit(Option<LogTo>),
    /// Drop what was prepared.
    Abandon,
    /// Accept on this socket too.
    Listen(TcpListener, SocketAddr),
    /// Serve what waits at this listener, and close it.
    Unlisten(SocketAddr),
    /// Serve what has come, then end.
    Drain,
    /// End now.
    Stop,
    QueueReady {
        vm: u64,
        root_context: u32,
        queue: u32,
    },
}

/// A worker's own things.
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) clock: Rc<Clock>,
    pub(crate) counters: Arc<WorkerCounters>,
    active: RefCell<Rc<Active>>,
    prepared: RefCell<Option<Rc<Active>>>,
    pub(crate) clients: RefCell<Slots<Rc<Client>>>,
    pub(crate) exchanges: RefCell<Slots<Rc<Exchange>>>,
    endpoints: RefCell<HashMap<SocketAddr, Rc<Endpoint>>>,
    pub(crate) log: RefCell<Option<LogBuffer>>,
    pub(crate) environments: RefCell<Vec<Weak<VmEnvironment>>>,
    /// Since this tick.
    pub(crate) draining: Cell<Option<Ticks>>,
    /// The last client connection has gone.
    pub(crate) emptied: Notify,
    next_number: Cell<u64>,
    replacement: RefCell<TokenBucket>,
}

/// A generation as one worker runs it.
pub(crate) struct Active {
    pub(crate) generation: Arc<Generation>,
    pub(crate) phase_limits: PhaseLimits,
    /// By pool and server.
    endpoints: Vec<Vec<Rc<Endpoint>>>,
    filters: RefCell<Option<Rc<FilterSet>>>,
    filters_changed: Notify,
    is_replacing: Cell<bool>,
}

impl Worker {
    /// Starts the filters too: a worker exists only when it can serve.
    pub(crate) fn start(
        index: usize,
        shared: &Arc<Shared>,
        generation: &Arc<Generation>,
    ) -> Result<Rc<Self>, String> {
        let mut endpoints = HashMap::new();
        let active = Active::new(generation, &mut endpoints);
        let counters = shared
            .workers
            .get(index)
            .map(|worker| Arc::clone(&worker.counters))
            .unwrap_or_default();
        let worker = Rc::new(Self {
            index,
            shared: Arc::clone(shared),
            clock: Rc::new(Clock::new()),
            counters,
            active: RefCell::new(Rc::clone(&active)),
            prepared: RefCell::new(None),
            clients: RefCell::new(Slots::new()),
            exchanges: RefCell::new(Slots::new()),
            endpoints: RefCell::new(endpoints),
            log: RefCell::new(None),
            environments: RefCell::new(Vec::new()),
            draining: Cell::new(None),
            emptied: Notify::new(),
            next_number: Cell::new(0),
            replacement: RefCell::new(TokenBucket::new(REPLACEMENT_BURST, REPLACEMENT_EVERY)),
        });
        let filters = FilterSet::start(&worker, &active, None)?;
        active.filters.replace(Some(Rc::new(filters)));
        worker.set_ready(true);
        Ok(worker)
    }

    pub(crate) fn active(&self) -> Rc<Active> {
        Rc::clone(&self.active.borrow())
    }

    /// Unique in the process: the worker's number is in the low bits.
    pub(crate) fn next_connection_id(&self) -> u64 {
        self.next() * self.shared.workers.len() as u64 + self.index as u64
    }

    pub(crate) fn next_vm_number(&self) -> u64 {
        self.next()
    }

    fn next(&self) -> u64 {
        self.next_number.replace(self.next_number.get() + 1)
    }

    pub(crate) fn commands(&self) -> mpsc::UnboundedSender<Command> {
        self.shared.workers.get(self.index).map_or_else(
            || mpsc::unbounded_channel().0,
            |worker| worker.commands.clone(),
        )
    }

    /// The environment of a VM that still runs.
    pub(crate) fn environment(&self, number: u64) -> Option<Rc<VmEnvironment>> {
        let mut environments = self.environments.borrow_mut();
        environments.retain(|environment| environment.strong_count() > 0);
        environments
            .iter()
            .filter_map(Weak::upgrade)
            .find(|environment| environment.number() == number)
    }

    /// A connection counted for this worker will not be served.
    pub(crate) fn forget_connection(&self) {
        if let Some(handle) = self.shared.workers.get(self.index) {
            handle.open.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether new connections may come here.
    pub(crate) fn set_ready(&self, is_ready: bool) {
        if let Some(worker) = self.shared.workers.get(self.index) {
            worker.is_ready.store(is_ready, Ordering::Release);
        }
    }

    /// Starts the filters of a generation beside the present ones.
    pub(crate) fn prepare(self: &Rc<Self>, generation: &Arc<Generation>) -> Result<(), String> {
        let active = Active::new(generation, &mut self.endpoints.borrow_mut());
        let filters = FilterSet::start(self, &active, None)?;
        active.filters.replace(Some(Rc::new(filters)));
        self.prepared.replace(Some(active));
        Ok(())
    }

    /// Serves by the prepared generation; requests in flight end on the old one.
    pub(crate) fn commit(&self) {
        let Some(prepared) = self.prepared.borrow_mut().take() else {
            return;
        };
        let old = self.active.replace(prepared);
        if let Some(filters) = old.filters.borrow_mut().take() {
            filters.stop();
        }
        self.set_ready(true);
        let active = self.active();
        self.endpoints.borrow_mut().retain(|_, endpoint| {
            let is_used = active
                .endpoints
                .iter()
                .flatten()
                .any(|used| Rc::ptr_eq(used, endpoint));
            if !is_used {
                endpoint.clear();
            }
            is_used
        });
    }

    pub(crate) fn abandon(&self) {
        if let Some(prepared) = self.prepared.borrow_mut().take()
            && let Some(filters) = prepared.filters.borrow_mut().take()
        {
            filters.stop();
        }
    }

    /// Tells every connection.
    pub(crate) fn order_all(&self, order: Order) {
        for client in self.clients.borrow().iter() {
            client.order(order);
        }
    }

    /// Every endpoint, for the janitor.
    pub(crate) fn for_each_endpoint(&self, mut visit: impl FnMut(&Endpoint)) {
        for endpoint in self.endpoints.borrow().values() {
            visit(endpoint);
        }
    }
}

impl Active {
    fn new(
        generation: &Arc<Generation>,
        endpoints: &mut HashMap<SocketAddr, Rc<Endpoint>>,
    ) -> Rc<Self> {
        let timeouts = &generation.config.timeouts;
        let phase_limits = PhaseLimits {
            head: ticks(timeouts.client_header),
            idle: ticks(timeouts.idle),
            tunnel: ticks(timeouts.tunnel),
        };
        let mut endpoint = |address| {
            Rc::clone(
                endpoints
                    .entry(address)
                    .or_insert_with(|| Rc::new(Endpoint::new(address))),
            )
        };
        let endpoints = generation
            .pools
            .iter()
            .map(|pool| {
                pool.servers
                    .iter()
                    .map(|server| endpoint(server.address))
                    .collect()
            })
            .collect();
        Rc::new(Self {
            generation: Arc::clone(generation),
            phase_limits,
            endpoints,
            filters: RefCell::new(None),
            filters_changed: Notify::new(),
            is_replacing: Cell::new(false),
        })
    }

    /// The filters of a listener, if this worker has them just now.
    pub(crate) fn chain(&self, bind: SocketAddr) -> Option<Rc<Chain>> {
        self.filters.borrow().as_ref()?.chain(bind)
    }

    pub(crate) fn endpoint(&self, pool: usize, server: usize) -> Option<Rc<Endpoint>> {
        self.endpoints.get(pool)?.get(server).map(Rc::clone)
    }

    /// Puts a connection whose exchange is complete back into its pool.
    pub(crate) fn give_back(&self, exchange: &Exchange, connection: Box<Connection>) {
        let (Some(pool), Some(server)) = (exchange.pool.get(), exchange.server.get()) else {
            return;
        };
        let (Some(endpoint), Some(pool)) =
            (self.endpoint(pool, server), self.generation.pools.get(pool))
        else {
            return;
        };
        endpoint.put(connection, &pool.keepalive, exchange.worker().clock.now());
    }

    /// Waits until filters were replaced, at most `max`.
    pub(crate) async fn wait_for_filters(&self, max: Duration) {
        // Either way the caller looks again.
        let _ = tokio::time::timeout(max, self.filters_changed.notified()).await;
    }

    /// Makes new VMs for those that died, as fast as the bucket allows.
    pub(crate) async fn replace_filters(self: Rc<Self>, worker: &Rc<Worker>) {
        if self.is_replacing.replace(true) {
            return;
        }
        let is_current = || Rc::ptr_eq(&worker.active(), &self);
        if is_current() {
            worker.set_ready(false);
        }
        // Ends with a success or with the generation.
        loop {
            let wait = worker.replacement.borrow_mut().take(Instant::now());
            if let Some(wait) = wait {
                tokio::time::sleep(wait).await;
                continue;
            }
            let previous = self.filters.borrow().clone();
            match FilterSet::start(worker, &self, previous.as_deref()) {
                Ok(filters) => {
                    self.filters.replace(Some(Rc::new(filters)));
                    worker.counters.filter_replacements.add(1);
                    break;
                }
                Err(error) => tracing::error!("a filter cannot be started again: {error}"),
            }
            if Rc::strong_count(&self) == 1 {
                break;
            }
        }
        self.is_replacing.set(false);
        self.filters_changed.notify_waiters();
        if is_current() {
            worker.set_ready(true);
        }
    }
}

/// So many at once, then one at a time.
struct TokenBucket {
    tokens: u32,
    burst: u32,
    every: Duration,
    filled: Instant,
}

impl TokenBucket {
    fn new(burst: u32, every: Duration) -> Self {
        Self {
            tokens: burst,
            burst,
            every,
            filled: Instant::now(),
        }
    }

    /// Takes one (`None`), or tells how long until there is one.
    fn take(&mut self, now: Instant) -> Option<Duration> {
        while self.tokens < self.burst && now.saturating_duration_since(self.filled) >= self.every {
            self.tokens += 1;
            self.filled += self.every;
        }
        if self.tokens == self.burst {
            self.filled = now;
        }
        match self.tokens.checked_sub(1) {
            Some(left) => {
                self.tokens = left;
                None
            }
            None => Some(
                self.every
                    .saturating_sub(now.saturating_duration_since(self.filled)),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_burst_one_in_a_second() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(10, Duration::from_secs(1));
        assert!((0..10).all(|_| bucket.take(start).is_none()));
        assert_eq!(bucket.take(start), Some(Duration::from_secs(1)));
        assert_eq!(bucket.take(start + Duration::from_millis(1_000)), None);
        assert!(bucket.take(start + Duration::from_millis(1_500)).is_some());
        assert!((0..10).all(|_| bucket.take(start + Duration::from_secs(60)).is_none()));
        assert!(bucket.take(start + Duration::from_secs(60)).is_some());
    }
}
