//! The world of one filter VM: its log, its ticks, its HTTP calls, its queues, and its death.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;

use evenkeel_host::embedder::{
    CallRefused, Environment, HttpCall, HttpStream, LogLevel, QueueWaker,
};
use evenkeel_host::{Failure, Plugin, Vm};
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use crate::config::QUEUE_GRACE;
use crate::http::calls;
use crate::worker::{Active, Command, Worker};

/// Shortest tick period served.
const TICK_MIN: Duration = Duration::from_millis(1);

/// One VM's.
pub(crate) struct VmEnvironment {
    worker: Weak<Worker>,
    /// The newest configuration that serves in it.
    active: RefCell<Weak<Active>>,
    name: String,
    /// Tells the VMs of a worker apart.
    number: u64,
    /// Set while the VM runs; breaks the circle when it ends.
    vm: RefCell<Option<Vm>>,
    /// Those that serve, and those that end with their streams.
    plugins: RefCell<Vec<Plugin>>,
    ticks: RefCell<Vec<Tick>>,
    changed: Notify,
    is_retired: Cell<bool>,
    /// How long ticks go on afterwards, for requests that wait in a queue of this VM; 0 without queues.
    lingers: Cell<Duration>,
    pub(crate) calls_in_flight: Cell<usize>,
}

struct Tick {
    root_context: u32,
    period: Duration,
    due: Instant,
}

impl VmEnvironment {
    pub(crate) fn new(worker: &Rc<Worker>, active: &Rc<Active>, name: &str) -> Rc<Self> {
        Rc::new(Self {
            worker: Rc::downgrade(worker),
            active: RefCell::new(Rc::downgrade(active)),
            name: name.to_owned(),
            number: worker.next_vm_number(),
            vm: RefCell::new(None),
            plugins: RefCell::new(Vec::new()),
            ticks: RefCell::new(Vec::new()),
            changed: Notify::new(),
            is_retired: Cell::new(false),
            lingers: Cell::new(Duration::ZERO),
            calls_in_flight: Cell::new(0),
        })
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn vm(&self) -> Option<Vm> {
        self.vm.borrow().clone()
    }

    /// From here on, calls and ticks reach the VM.
    pub(crate) fn run(self: &Rc<Self>, vm: &Vm) {
        self.vm.replace(Some(vm.clone()));
        if let Some(worker) = self.worker.upgrade() {
            worker.environments.borrow_mut().push(Rc::downgrade(self));
        }
        tokio::task::spawn_local(run_ticks(Rc::clone(self)));
    }

    /// Plugins of a configuration serve from now on, and are ticked if they were not before.
    pub(crate) fn serve(&self, active: &Rc<Active>, plugins: impl Iterator<Item = Plugin>) {
        self.active.replace(Rc::downgrade(active));
        let queue = active.generation.config.longest_queue();
        if !queue.is_zero() {
            self.lingers
                .set(self.lingers.get().max(queue + QUEUE_GRACE));
        }
        let mut known = self.plugins.borrow_mut();
        for plugin in plugins {
            let same = |known: &Plugin| known.root_context() == plugin.root_context();
            if !known.iter().any(same) {
                known.push(plugin);
            }
        }
        self.changed.notify_one();
    }

    /// No more ticks, no more answers, once those who wait in a queue are served or turned away.
    pub(crate) fn retire(&self) {
        self.is_retired.set(true);
        self.changed.notify_one();
    }

    fn next_due(&self) -> Option<Instant> {
        self.ticks.borrow().iter().map(|tick| tick.due).min()
    }

    /// Forgets ticks of plugins that do not serve: a configuration was given up.
    pub(crate) fn forget_strangers(&self) {
        let mut ticks = self.ticks.borrow_mut();
        ticks.retain(|tick| self.plugin(tick.root_context).is_some());
    }

    /// Forgets plugins that have ended; whether any is left.
    fn has_plugins(&self) -> bool {
        let mut plugins = self.plugins.borrow_mut();
        let mut ticks = self.ticks.borrow_mut();
        plugins.retain(|plugin| {
            let stays = plugin.has_work();
            if !stays {
                ticks.retain(|tick| tick.root_context != plugin.root_context());
            }
            stays
        });
        !plugins.is_empty()
    }

    fn plugin(&self, root_context: u32) -> Option<Plugin> {
        let plugins = self.plugins.borrow();
        let mut plugins = plugins.iter();
        plugins
            .find(|plugin| plugin.root_context() == root_context)
            .cloned()
    }

    /// A root context whose tick is due; its next one is then counted from now.
    fn take_due(&self, now: Instant) -> Option<u32> {
        let mut ticks = self.ticks.borrow_mut();
        let tick = ticks.iter_mut().find(|tick| tick.due <= now)?;
        tick.due = now + tick.period;
        Some(tick.root_context)
    }
}

/// Ticks of one VM, until it is retired and nobody can wait in a queue of it any more.
async fn run_ticks(environment: Rc<VmEnvironment>) {
    let mut end = None;
    loop {
        let has_plugins = environment.has_plugins();
        if environment.is_retired.get() {
            let end = *end.get_or_insert_with(|| Instant::now() + environment.lingers.get());
            if !has_plugins || environment.next_due().is_none() || Instant::now() >= end {
                break;
            }
        }
        match environment.next_due() {
            None => environment.changed.notified().await,
            Some(due) => {
                tokio::select! {
                    () = environment.changed.notified() => {}
                    () = tokio::time::sleep_until(due) => tick(&environment),
                }
            }
        }
    }
    environment.vm.replace(None);
    environment.plugins.borrow_mut().clear();
}

/// Ticks the plugins that are due: each once at most, so that a tick that is slow does not starve requests.
fn tick(environment: &VmEnvironment) {
    let most = environment.ticks.borrow().len();
    for _ in 0..most {
        let Some(root) = environment.take_due(Instant::now()) else {
            return;
        };
        // One that does not serve yet is not ticked.
        if let Some(plugin) = environment.plugin(root) {
            plugin.tick();
        }
    }
}

impl Environment for VmEnvironment {
    fn log(&self, level: LogLevel, message: &[u8]) {
        let (filter, message) = (self.name.as_str(), String::from_utf8_lossy(message));
        match level {
            LogLevel::Trace => tracing::trace!(filter, "{message}"),
            LogLevel::Debug => tracing::debug!(filter, "{message}"),
            LogLevel::Info => tracing::info!(filter, "{message}"),
            LogLevel::Warn => tracing::warn!(filter, "{message}"),
            LogLevel::Error | LogLevel::Critical => tracing::error!(filter, "{message}"),
        }
    }

    fn log_level(&self) -> LogLevel {
        use tracing::level_filters::LevelFilter;
        let level = LevelFilter::current();
        if level >= LevelFilter::TRACE {
            LogLevel::Trace
        } else if level >= LevelFilter::DEBUG {
            LogLevel::Debug
        } else if level >= LevelFilter::INFO {
            LogLevel::Info
        } else if level >= LevelFilter::WARN {
            LogLevel::Warn
        } else {
            LogLevel::Error
        }
    }

    fn http_call(&self, call: HttpCall) -> Result<(), CallRefused> {
        let active = self.active.borrow().upgrade();
        let (Some(worker), Some(active)) = (self.worker.upgrade(), active) else {
            return Err(CallRefused::NoEndpoints);
        };
        // The environment must outlive the call's task only by its VM: look it up again by number then.
        calls::start(&worker, &active, self.number, &self.calls_in_flight, call)
    }

    fn set_tick_period(&self, root_context: u32, period: Duration) {
        let mut ticks = self.ticks.borrow_mut();
        ticks.retain(|tick| tick.root_context != root_context);
        if !period.is_zero() {
            let period = period.max(TICK_MIN);
            ticks.push(Tick {
                root_context,
                period,
                due: Instant::now() + period,
            });
        }
        self.changed.notify_one();
    }

    fn foreign_function(
        &self,
        _stream: Option<&dyn HttpStream>,
        _name: &[u8],
        _arguments: &[u8],
    ) -> Option<Vec<u8>> {
        None
    }

    fn failed(&self, failure: &Failure) {
        tracing::error!(filter = self.name.as_str(), "{failure}");
        self.retire();
        let active = self.active.borrow().upgrade();
        let (Some(worker), Some(active)) = (self.worker.upgrade(), active) else {
            return;
        };
        worker.counters.filter_failures.add(1);
        // The VM is still on the stack: what follows waits until it is not.
        tokio::task::spawn_local(async move { active.replace_filters(&worker).await });
    }
}

/// Tells the VM's worker that a queue has something.
pub(crate) struct QueueCalls {
    commands: UnboundedSender<Command>,
    vm: u64,
}

impl QueueCalls {
    pub(crate) fn new(worker: &Worker, vm: u64) -> Self {
        Self {
            commands: worker.commands(),
            vm,
        }
    }
}

impl QueueWaker for QueueCalls {
    fn wake(&self, root_context: u32, queue: u32) {
        // A worker that has ended reads no queues.
        let _ = self.commands.send(Command::QueueReady {
            vm: self.vm,
            root_context,
            queue,
        });
    }
}
