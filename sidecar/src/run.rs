//! Running the proxy: everything that can fail is done before the first connection is accepted.

use std::fmt;
use std::io::IsTerminal;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::Context;
use arc_swap::ArcSwap;
use evenkeel_host::Process;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::mpsc as async_mpsc;
use tracing_subscriber::EnvFilter;

use crate::access_log::Writer;
use crate::config::Config;
use crate::control::{self, Control, Request};
use crate::generation::Generation;
use crate::listen::bind::{self, Bound};
pub use crate::members::names::Resolve;
use crate::members::names::{self, Names};
use crate::members::{self, Changes};
use crate::modules::Modules;
use crate::shared::{Options, Shared, WorkerHandle};
use crate::store;
use crate::worker::Command;
use crate::worker_thread::{self, LogTo};

/// Reads the configuration anew, for a reload.
pub type Load = Box<dyn Fn() -> Result<Config, String> + Send>;

/// What else there is to know for a run.
#[derive(Default)]
pub struct RunOptions {
    /// Without it there is nothing to reload.
    pub load: Option<Load>,
    /// SIGTERM, SIGINT, SIGHUP and SIGUSR1 are served.
    pub handle_signals: bool,
    /// Ask the filter why, for every request, and show it as `x-evenkeel-decision`.
    pub show_decision: bool,
    /// In place of the system's resolver.
    pub resolve: Option<Resolve>,
}

/// A running proxy. It goes on when this is dropped; [`Running::stop`] ends it.
pub struct Running {
    addresses: Vec<(String, SocketAddr)>,
    process: Process,
    admin: Option<SocketAddr>,
    requests: async_mpsc::UnboundedSender<Request>,
    thread: JoinHandle<()>,
}

/// The configuration is wrong in a way that shows only when it is used: exit code 2.
#[derive(Debug)]
pub struct Wrong(pub String);

impl fmt::Display for Wrong {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Wrong {}

/// What is logged unless somebody says otherwise.
const LOG_LEVEL: &str = "info";

/// Operational messages go to standard error; `EVENKEEL_LOG` says which (`info` unless set; tracing's filter syntax).
pub fn log_to_stderr() {
    let wanted = std::env::var("EVENKEEL_LOG").unwrap_or_default();
    let parsed = match wanted.as_str() {
        "" => Ok(EnvFilter::new(LOG_LEVEL)),
        wanted => EnvFilter::try_new(wanted),
    };
    let (filter, error) = match parsed {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new(LOG_LEVEL), Some(error)),
    };
    // Somebody who embeds this library may log elsewhere already.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && !is_colour_unwanted())
        .with_target(false)
        .try_init();
    if let Some(error) = error {
        tracing::warn!("EVENKEEL_LOG: `{wanted}` is not understood ({error}): {LOG_LEVEL} instead");
    }
}

/// Whether `NO_COLOR` is set, to anything but nothing (no-color.org).
fn is_colour_unwanted() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Runs until a signal ends it. An error is [`Wrong`], or something of the machine (a port in use).
pub fn run(config: Config, mut options: RunOptions) -> anyhow::Result<ExitCode> {
    options.handle_signals = true;
    let (path, workers) = (config.path.clone(), config.workers.max(1));
    if config.policy.routes.is_empty() {
        tracing::warn!("policy.routes: there are none, so every request is answered 404");
    }
    let running = start(config, options)?;
    for (name, address) in running.addresses() {
        tracing::info!("listener {name} on {address}");
    }
    if let Some(address) = running.admin_address() {
        tracing::info!("admin on {address}");
    }
    tracing::info!(
        "evenkeel {} serves {} with {workers} workers",
        env!("CARGO_PKG_VERSION"),
        path.display()
    );
    running.wait();
    Ok(ExitCode::SUCCESS)
}

/// Starts the proxy and returns when it accepts connections.
pub fn start(config: Config, options: RunOptions) -> anyhow::Result<Running> {
    raise_descriptor_limit();
    let mut modules = Modules::new().map_err(anyhow::Error::msg)?;
    let filters = modules.load(&config).map_err(Wrong)?;
    let workers = config.workers.max(1);
    let listeners = bind_all(&config, workers)?;
    let admin = config.admin.map(bind_admin).transpose()?;
    let log = config
        .access_log
        .as_ref()
        .map(|log| {
            Writer::start(&log.target)
                .with_context(|| format!("cannot open the access log {}", log.target))
        })
        .transpose()?;
    let log_to = config.access_log.as_ref().zip(log.as_ref());
    let log_to = log_to.map(|(config, writer)| LogTo {
        format: config.format,
        writer: writer.messages(),
    });
    let addresses = config
        .listeners
        .iter()
        .zip(&listeners)
        .map(|(listener, bound)| (listener.name.clone(), bound.address))
        .collect();
    let store = config
        .session_store
        .as_ref()
        .map(store::start)
        .transpose()?;
    let (members, names) = (Changes::default(), Names::new(options.resolve.clone()));
    names::resolve(&names, &members, config.policy.pools.iter());
    let generation = Arc::new(Generation::new(
        config,
        filters,
        workers,
        &members.table(),
        None,
    ));
    let (handles, receivers): (Vec<_>, Vec<_>) = (0..workers).map(|_| worker_handle()).unzip();
    let process = Process::new();
    // What the filter's VMs share outlives the last of them: a worker that replaces its only VM keeps members and leases.
    process.pin_shared_data(evenkeel_policy::contract::VM_ID);
    let shared = Arc::new(Shared {
        workers: handles,
        process: process.clone(),
        options: Options {
            show_decision: options.show_decision,
        },
        started: Instant::now(),
        generation: ArcSwap::from(Arc::clone(&generation)),
        members,
        names,
        store,
        is_draining: AtomicBool::new(false),
        reloads_failed: AtomicUsize::new(0),
        refused_balanced: AtomicUsize::new(0),
    });
    // The filters read what names resolved to before their first request.
    members::put_into_force(&shared, None).map_err(anyhow::Error::msg)?;
    let threads = start_workers(&shared, &generation, receivers, log_to.as_ref())?;
    let admin_address = admin.as_ref().map(TcpListener::local_addr).transpose()?;
    let (requests, received) = async_mpsc::unbounded_channel();
    let control = Control {
        shared,
        listeners,
        admin,
        log,
        modules,
        threads,
        options,
        requests: received,
    };
    let thread = control::start(control)?;
    Ok(Running {
        addresses,
        process,
        admin: admin_address,
        requests,
        thread,
    })
}

fn worker_handle() -> (WorkerHandle, async_mpsc::UnboundedReceiver<Command>) {
    let (commands, received) = async_mpsc::unbounded_channel();
    let handle = WorkerHandle {
        commands,
        open: AtomicUsize::new(0),
        is_ready: AtomicBool::new(false),
        counters: Arc::default(),
    };
    (handle, received)
}

fn bind_all(config: &Config, workers: usize) -> anyhow::Result<Vec<Bound>> {
    config
        .listeners
        .iter()
        .map(|listener| {
            bind::probe(listener.bind)
                .and_then(|()| bind::bind(listener, workers))
                .with_context(|| {
                    format!(
                        "listener {}: cannot listen on {}",
                        listener.name, listener.bind
                    )
                })
        })
        .collect()
}

fn bind_admin(address: SocketAddr) -> anyhow::Result<TcpListener> {
    bind::bind_single(address).with_context(|| format!("admin: cannot listen on {address}"))
}

/// Starts all workers or none.
fn start_workers(
    shared: &Arc<Shared>,
    generation: &Arc<Generation>,
    receivers: Vec<async_mpsc::UnboundedReceiver<Command>>,
    log: Option<&LogTo>,
) -> anyhow::Result<Vec<JoinHandle<()>>> {
    let (started, outcomes) = mpsc::channel();
    let mut threads = Vec::new();
    for (index, receiver) in receivers.into_iter().enumerate() {
        let (shared, generation) = (Arc::clone(shared), Arc::clone(generation));
        threads.push(worker_thread::spawn(
            index,
            shared,
            generation,
            receiver,
            log.cloned(),
            started.clone(),
        )?);
    }
    drop(started);
    let failed = outcomes.iter().find_map(Result::err);
    let Some(error) = failed else {
        return Ok(threads);
    };
    for worker in &shared.workers {
        // Those that failed have ended.
        let _ = worker.commands.send(Command::Stop);
    }
    for thread in threads {
        let _ = thread.join();
    }
    Err(Wrong(format!("the filter cannot be started: {error}")).into())
}

/// Each connection takes two descriptors: take what the system gives.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: limit.maximum,
                maximum: limit.maximum,
            },
        )
    {
        tracing::warn!("cannot raise the limit of open files: {error}");
    }
}

impl Running {
    /// Where each listener really listens, in the order of the configuration.
    pub fn addresses(&self) -> &[(String, SocketAddr)] {
        &self.addresses
    }

    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// What the filters of all workers share: whoever changes servers at run time writes there
    /// ([`evenkeel_policy::upstream::Members`], for [`evenkeel_policy::contract::VM_ID`]).
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Serves what is open, for `timeouts.drain` at most, and ends.
    pub fn stop(self) {
        // A control thread that has ended needs no telling.
        let _ = self.requests.send(Request::Drain);
        self.wait();
    }

    /// Reads the configuration anew, as SIGHUP does.
    pub fn reload(&self) {
        let _ = self.requests.send(Request::Reload);
    }

    /// Waits until the proxy has ended.
    pub fn wait(self) {
        if self.thread.join().is_err() {
            tracing::error!("the control thread panicked");
        }
    }
}
