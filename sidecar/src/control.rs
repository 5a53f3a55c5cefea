//! The thread beside the workers: signals, reloads, the admin interface, balanced accepting, and the end.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use crate::access_log::{Message, Writer};
use crate::admin;
use crate::config::Accept;
use crate::listen::balanced;
use crate::listen::bind::Bound;
use crate::members;
use crate::modules::Modules;
use crate::reload;
use crate::run::RunOptions;
use crate::shared::Shared;
use crate::worker::Command;

/// How often a draining proxy looks whether its workers have ended.
const DRAIN_LOOK: Duration = Duration::from_millis(20);
/// What workers may take to end after they were told to end now.
const STOP_WAIT_MAX: Duration = Duration::from_secs(3);

/// What may be asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    Reload,
    ReopenLogs,
    /// The first: drain, then end. A second: end now.
    Drain,
}

/// All that it needs.
pub(crate) struct Control {
    pub(crate) shared: Arc<Shared>,
    pub(crate) listeners: Vec<Bound>,
    pub(crate) admin: Option<TcpListener>,
    pub(crate) log: Option<Writer>,
    pub(crate) modules: Modules,
    pub(crate) threads: Vec<JoinHandle<()>>,
    pub(crate) options: RunOptions,
    pub(crate) requests: mpsc::UnboundedReceiver<Request>,
}

/// A listener in service.
pub(crate) struct Listening {
    pub(crate) bind: SocketAddr,
    pub(crate) accept: Accept,
    /// Of a balanced listener: its accept loop on this thread.
    balanced: Option<(watch::Sender<bool>, tokio::task::JoinHandle<()>)>,
}

/// Starts the thread, and the accepting of connections.
pub(crate) fn start(control: Control) -> std::io::Result<JoinHandle<()>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let signals = if control.options.handle_signals {
        // Installed before anything is accepted: a signal that comes early is not lost.
        let _context = runtime.enter();
        Some(Signals::new()?)
    } else {
        None
    };
    std::thread::Builder::new()
        .name("evenkeel-main".to_owned())
        .spawn(move || runtime.block_on(run(control, signals)))
}

async fn run(mut control: Control, mut signals: Option<Signals>) {
    let bound = std::mem::take(&mut control.listeners);
    let mut listening: Vec<Listening> = bound
        .into_iter()
        .map(|bound| Listening::start(&control.shared, bound))
        .collect();
    let admin = control
        .admin
        .take()
        .map(|listener| tokio::spawn(admin::serve(Arc::clone(&control.shared), listener)));
    let sweep = tokio::spawn(members::sweep(Arc::clone(&control.shared)));
    let keep_up = tokio::spawn(members::names::keep_up(Arc::clone(&control.shared)));
    // Ends with a wish to end.
    loop {
        match next(&mut control.requests, signals.as_mut()).await {
            Request::Reload => reload::reload(&mut control, &mut listening).await,
            Request::ReopenLogs => {
                if let Some(log) = &control.log {
                    // A queue full of lines: the writer is stuck, and will be told by the next signal.
                    let _ = log.messages().try_send(Message::Reopen);
                }
            }
            Request::Drain => break,
        }
    }
    drain(&mut control, listening, signals.as_mut()).await;
    sweep.abort();
    keep_up.abort();
    if let Some(admin) = admin {
        admin.abort();
    }
    if let Some(log) = control.log.take() {
        log.join();
    }
}

async fn next(
    requests: &mut mpsc::UnboundedReceiver<Request>,
    signals: Option<&mut Signals>,
) -> Request {
    let Some(signals) = signals else {
        return match requests.recv().await {
            Some(request) => request,
            // Whoever started it has let go of it: it runs on.
            None => std::future::pending().await,
        };
    };
    tokio::select! {
        Some(request) = requests.recv() => request,
        request = signals.next() => request,
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user1: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
        })
    }

    async fn next(&mut self) -> Request {
        tokio::select! {
            _ = self.terminate.recv() => Request::Drain,
            _ = self.interrupt.recv() => Request::Drain,
            _ = self.hangup.recv() => Request::Reload,
            _ = self.user1.recv() => Request::ReopenLogs,
        }
    }
}

impl Listening {
    /// Puts a bound listener into service.
    pub(crate) fn start(shared: &Arc<Shared>, bound: Bound) -> Self {
        let bind = bound.bind;
        let mut balanced = None;
        let mut sockets = bound.sockets.into_iter();
        match bound.accept {
            Accept::Reuseport => {
                for (worker, socket) in shared.workers.iter().zip(sockets) {
                    // A worker that has ended accepts nothing.
                    let _ = worker.commands.send(Command::Listen(socket, bind));
                }
            }
            Accept::Balanced => {
                balanced = sockets.next().map(|socket| {
                    let (stop, stopped) = watch::channel(false);
                    (
                        stop,
                        tokio::spawn(balanced::run(Arc::clone(shared), socket, bind, stopped)),
                    )
                });
            }
        }
        Self {
            bind,
            accept: bound.accept,
            balanced,
        }
    }

    /// Takes it out of service: what waits in its queue is served.
    pub(crate) async fn stop(self, shared: &Shared) {
        match self.balanced {
            Some((stop, task)) => {
                drop(stop);
                // A loop that panicked has ended too.
                let _ = task.await;
            }
            None => {
                for worker in &shared.workers {
                    let _ = worker.commands.send(Command::Unlisten(self.bind));
                }
            }
        }
    }
}

/// Serves what is open, for `timeouts.drain` at most or until told a second time, and ends the workers.
async fn drain(
    control: &mut Control,
    listening: Vec<Listening>,
    mut signals: Option<&mut Signals>,
) {
    let shared = Arc::clone(&control.shared);
    let limit = shared.generation.load().config.timeouts.drain;
    tracing::info!(
        "draining: {} connections are open, {limit:?} at most",
        shared.open_connections()
    );
    shared.is_draining.store(true, Ordering::Release);
    for listener in listening {
        listener.stop(&shared).await;
    }
    tell_all(&shared, || Command::Drain);
    let deadline = Instant::now() + limit;
    let mut why = "the time to drain is over";
    while !has_ended(&control.threads) && Instant::now() < deadline {
        tokio::select! {
            () = sleep(DRAIN_LOOK) => {}
            request = next(&mut control.requests, signals.as_deref_mut()) => {
                if request == Request::Drain {
                    why = "told to end now";
                    break;
                }
            }
        }
    }
    if !has_ended(&control.threads) {
        let open = shared.open_connections();
        tracing::warn!("{why}: {open} connections are cut");
    }
    tell_all(&shared, || Command::Stop);
    if let Some(store) = &shared.store {
        store.stop();
    }
    let deadline = Instant::now() + STOP_WAIT_MAX;
    while !has_ended(&control.threads) && Instant::now() < deadline {
        sleep(DRAIN_LOOK).await;
    }
    if !has_ended(&control.threads) {
        // Its log lines are lost; waiting for it would be waiting for ever.
        tracing::error!("a worker did not end");
        control.log = None;
        return;
    }
    for thread in control.threads.drain(..) {
        if thread.join().is_err() {
            tracing::error!("a worker panicked");
        }
    }
    tracing::info!("ended");
}

fn has_ended(threads: &[JoinHandle<()>]) -> bool {
    threads.iter().all(JoinHandle::is_finished)
}

fn tell_all(shared: &Shared, command: impl Fn() -> Command) {
    for worker in &shared.workers {
        // Those that have ended need no telling.
        let _ = worker.commands.send(command());
    }
}
