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
use crate::filter::{FilterSet, Running};
use crate::filter_environment::VmEnvironment;
use crate::generation::Generation;
use crate::http::client::{Client, Order, PhaseLimits};
use crate::http::exchange::Exchange;
use crate::listen::Handover;
use crate::members::{Roster, Server, Standing};
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
    endpoints: Rc<Endpoints>,
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
    /// By the number of the pool.
    pools: Vec<RefCell<Rc<Reach>>>,
    endpoints: Rc<Endpoints>,
    filters: RefCell<Option<Rc<FilterSet>>>,
    filters_changed: Notify,
    is_replacing: Cell<bool>,
}

/// Idle connections by address: pools that name the same one share them, and so do configurations.
type Endpoints = RefCell<HashMap<SocketAddr, Rc<Endpoint>>>;

/// The servers of a pool as a worker reaches them.
pub(crate) struct Reach {
    pub(crate) roster: Arc<Roster>,
    /// By the number of the server.
    endpoints: Vec<Rc<Endpoint>>,
}

impl Reach {
    fn new(roster: Arc<Roster>, endpoints: &Endpoints) -> Rc<Self> {
        let mut known = endpoints.borrow_mut();
        let mut endpoint = |address| {
            let entry = known.entry(address);
            Rc::clone(entry.or_insert_with(|| Rc::new(Endpoint::new(address))))
        };
        let servers = roster.servers.iter();
        let endpoints = servers.map(|server| endpoint(server.address)).collect();
        Rc::new(Self { roster, endpoints })
    }

    pub(crate) fn server(&self, number: usize) -> Option<&Arc<Server>> {
        self.roster.servers.get(number)
    }

    pub(crate) fn endpoint(&self, number: usize) -> Option<&Rc<Endpoint>> {
        self.endpoints.get(number)
    }
}

impl Worker {
    /// Starts the filters too: a worker exists only when it can serve.
    pub(crate) fn start(
        index: usize,
        shared: &Arc<Shared>,
        generation: &Arc<Generation>,
    ) -> Result<Rc<Self>, String> {
        let endpoints = Rc::new(Endpoints::default());
        let active = Active::new(generation, &endpoints);
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
            endpoints,
            log: RefCell::new(None),
            environments: RefCell::new(Vec::new()),
            draining: Cell::new(None),
            emptied: Notify::new(),
            next_number: Cell::new(0),
            replacement: RefCell::new(TokenBucket::new(REPLACEMENT_BURST, REPLACEMENT_EVERY)),
        });
        let filters = FilterSet::start(&worker, &active, Running::None)?;
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
        let active = Active::new(generation, &self.endpoints);
        let present = self.active().filters.borrow().clone();
        let running = match &present {
            Some(present) => Running::Reload(present),
            None => Running::None,
        };
        let filters = FilterSet::start(self, &active, running)?;
        active.filters.replace(Some(Rc::new(filters)));
        self.prepared.replace(Some(active));
        Ok(())
    }

    /// Serves by the prepared generation; requests in flight end on the old one.
    pub(crate) fn commit(self: &Rc<Self>) {
        let Some(prepared) = self.prepared.borrow_mut().take() else {
            return;
        };
        let old = self.active.replace(Rc::clone(&prepared));
        let filters = prepared.filters.borrow().clone();
        let all_live = filters
            .as_ref()
            .is_none_or(|filters| filters.take_over(&prepared));
        if let Some(old) = old.filters.borrow_mut().take() {
            old.stop(filters.as_deref());
        }
        self.set_ready(true);
        self.forget_unused_endpoints();
        // A VM that died since then was replaced for the old configuration only.
        if !all_live {
            let worker = Rc::clone(self);
            tokio::task::spawn_local(async move { prepared.replace_filters(&worker).await });
        }
    }

    /// Closes the idle connections of addresses that no configuration in use has as a member's.
    pub(crate) fn forget_unused_endpoints(&self) {
        self.endpoints
            .borrow_mut()
            .retain(|_, endpoint| Rc::strong_count(endpoint) > 1);
    }

    pub(crate) fn abandon(&self) {
        if let Some(prepared) = self.prepared.borrow_mut().take()
            && let Some(filters) = prepared.filters.borrow_mut().take()
        {
            filters.stop(self.active().filters.borrow().as_deref());
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
    fn new(generation: &Arc<Generation>, endpoints: &Rc<Endpoints>) -> Rc<Self> {
        let timeouts = &generation.config.timeouts;
        let phase_limits = PhaseLimits {
            head: ticks(timeouts.client_header),
            idle: ticks(timeouts.idle),
            tunnel: ticks(timeouts.tunnel),
        };
        let pools = generation.pools.iter();
        let pools = pools.map(|pool| RefCell::new(Reach::new(pool.roster(), endpoints)));
        Rc::new(Self {
            generation: Arc::clone(generation),
            phase_limits,
            pools: pools.collect(),
            endpoints: Rc::clone(endpoints),
            filters: RefCell::new(None),
            filters_changed: Notify::new(),
            is_replacing: Cell::new(false),
        })
    }

    /// The servers of a pool as they are now.
    pub(crate) fn reach(&self, number: usize) -> Option<Rc<Reach>> {
        let (known, pool) = (self.pools.get(number)?, self.generation.pools.get(number)?);
        let mut known = known.borrow_mut();
        if !pool.is_current(&known.roster) {
            *known = Reach::new(pool.roster(), &self.endpoints);
        }
        Some(Rc::clone(&known))
    }

    /// The filters of a listener, if this worker has them just now.
    pub(crate) fn chain(&self, bind: SocketAddr) -> Option<Rc<Chain>> {
        self.filters.borrow().as_ref()?.chain(bind)
    }

    /// Puts a connection whose exchange is complete back into its pool, unless its server is to get nothing new.
    pub(crate) fn give_back(&self, exchange: &Exchange, connection: Box<Connection>) {
        let (Some(pool), Some(number)) = (exchange.pool.get(), exchange.server.get()) else {
            return;
        };
        let reach = exchange.reach.borrow();
        let (Some(reach), Some(pool)) = (reach.as_ref(), self.generation.pools.get(pool)) else {
            return;
        };
        let is_ready = |server: &Arc<Server>| server.standing == Standing::Ready;
        if let Some(endpoint) = reach.endpoint(number)
            && reach.server(number).is_some_and(is_ready)
        {
            endpoint.put(connection, &pool.keepalive, exchange.worker().clock.now());
        }
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
            let running = match &previous {
                Some(previous) => Running::Replace(previous),
                None => Running::None,
            };
            match FilterSet::start(worker, &self, running) {
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
