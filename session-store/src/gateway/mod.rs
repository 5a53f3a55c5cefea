//! The gateway: what PHP connects to, and takes for a Redis.
//!
//! Everybody is served by one thread with a runtime of its own: a command is a look into a table, or a few bytes passed on, and one thread needs no
//! locks for its order. What a client may do stands in [`session`]; how its bytes come and go in [`connection`]; who waits for whom in [`locks`].

mod connection;
mod counters;
mod listen;
mod locks;
mod login;
mod session;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

pub use self::counters::Counters;
pub use self::listen::{Bound, Listen};
use self::locks::Locks;
use self::login::Logins;
pub use self::login::User;
use crate::backend::Backend;
use crate::resp::Bounds;

/// Pause after an error of accepting.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// What the gateway allows.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Who may log in; empty: everybody is let in without a password, to all databases.
    pub users: Vec<User>,
    pub limits: Limits,
    pub locks: LockSettings,
}

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at a time.
    pub clients: usize,
    /// Bytes of one argument, and so of a session.
    pub value: usize,
    /// Clients that may wait for locks at a time.
    pub parked: usize,
    /// How long a connection may ask nothing.
    pub idle: Duration,
}

/// `session_store.locks`.
#[derive(Debug, Clone, Copy)]
pub struct LockSettings {
    /// How long one who asks for a lock that is held waits, at most.
    pub wait: Duration,
    /// How long a lock without a time to live goes on living when nobody renews it.
    pub lease: Duration,
}

/// Arguments of a command, with its name.
const ARGUMENTS_MAX: usize = 1024;
/// What a request may have beside its largest argument.
const REQUEST_EXTRA: usize = 1024 * 1024;

/// What all connections share.
struct Shared<B> {
    backend: B,
    logins: Logins,
    locks: Locks,
    settings: Settings,
    bounds: Bounds,
    counters: Arc<Counters>,
    clients: AtomicUsize,
    next_client: AtomicU64,
    is_ending: AtomicBool,
}

/// A gateway that runs.
pub struct Gateway {
    counters: Arc<Counters>,
    end: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Gateway {
    /// Serves `backend` at what was bound, on a thread of its own.
    ///
    /// # Errors
    /// The thread or its runtime could not be made.
    pub fn start<B: Backend>(
        bound: Vec<Bound>,
        backend: B,
        settings: Settings,
    ) -> std::io::Result<Self> {
        let counters = Arc::new(Counters::default());
        let (end, ended) = watch::channel(false);
        let shared = Arc::new(Shared {
            backend,
            logins: Logins::new(&settings.users),
            locks: Locks::new(settings.locks, settings.limits.parked),
            bounds: Bounds {
                arguments: ARGUMENTS_MAX,
                value: settings.limits.value,
                request: settings.limits.value.saturating_add(REQUEST_EXTRA),
            },
            settings,
            counters: Arc::clone(&counters),
            clients: AtomicUsize::new(0),
            next_client: AtomicU64::new(1),
            is_ending: AtomicBool::new(false),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new()
            .name("session-store".to_owned())
            .spawn(move || {
                runtime.block_on(serve(bound, shared, ended));
            })?;
        Ok(Self {
            counters,
            end,
            thread: Some(thread),
        })
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Stops accepting, closes every connection where it is, and ends. Locks stay as they are: their holders may still be at work.
    pub fn stop(mut self) {
        self.end_now();
    }

    fn end_now(&mut self) {
        // Nobody listens any more if the thread has ended.
        let _ = self.end.send(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the session store's thread panicked");
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.end_now();
    }
}

async fn serve<B: Backend>(
    bound: Vec<Bound>,
    shared: Arc<Shared<B>>,
    mut ended: watch::Receiver<bool>,
) {
    for bound in bound {
        tokio::spawn(accept(bound, Arc::clone(&shared)));
    }
    // An error: the gateway was dropped, which is the end as well.
    let _ = ended.wait_for(|is_ended| *is_ended).await;
    shared.is_ending.store(true, Ordering::Relaxed);
}

/// Serves until the runtime ends.
async fn accept<B: Backend>(bound: Bound, shared: Arc<Shared<B>>) {
    let acceptor = match bound.listen() {
        Ok(acceptor) => acceptor,
        Err(error) => return tracing::error!("session_store.resp: cannot listen: {error}"),
    };
    loop {
        let (stream, peer) = match acceptor.accept().await {
            Ok(accepted) => accepted,
            Err(_) => {
                tokio::time::sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        let shared = Arc::clone(&shared);
        if shared.clients.fetch_add(1, Ordering::Relaxed) >= shared.settings.limits.clients {
            shared.counters.refused_clients.add();
            shared.clients.fetch_sub(1, Ordering::Relaxed);
            tokio::spawn(connection::turn_away(stream));
            continue;
        }
        tokio::spawn(async move {
            let number = shared.next_client.fetch_add(1, Ordering::Relaxed);
            connection::serve(stream, peer, number, &shared).await;
            shared.clients.fetch_sub(1, Ordering::Relaxed);
        });
    }
}
