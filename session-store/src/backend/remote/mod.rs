//! A Redis: the one that takes writes, wherever it is at the moment.
//!
//! # Why not through the `redis` crate
//! Its connections do not say whether a command that failed was ever written, and that is the question on which every repetition hangs
//! (an unsent write is sent again, a sent one perhaps not); they give values where the gateway passes answers on; and they keep
//! no order between commands that wait for a master and those that come later. What the gateway needs is a queue and two encoders
//! ([`lane`]). The crate still asks for health ([`crate::check`]).

pub mod address;
mod again;
mod backoff;
mod dial;
mod lane;
mod sentinel;
pub mod tls;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

pub use self::dial::Login;
use self::dial::{Connection, dial};
use self::lane::Job;
use super::{Backend, DATABASES, Failure, Why, metric};
use crate::command::Request;
use crate::resp::Reply;
use crate::resp::reply::encode_request;

/// How long a transaction on a connection of its own may take.
const PINNED_MAX: Duration = Duration::from_secs(5);

/// How a Redis is used.
#[derive(Clone)]
pub struct Settings {
    pub login: Login,
    /// How long a command waits for a master before it fails.
    pub failover_wait: Duration,
    /// How many commands may wait while there is none.
    pub parked_max: usize,
}

/// The store. Its connections live on the runtime that first asks it something.
#[derive(Clone)]
pub struct Redis {
    shared: Arc<Shared>,
    lanes: Arc<Mutex<Vec<Option<mpsc::UnboundedSender<Job>>>>>,
}

struct Shared {
    login: Login,
    failover_wait: Duration,
    parked_max: usize,
    /// Commands without an answer.
    waiting: AtomicUsize,
    is_connected: AtomicBool,
    is_told: AtomicBool,
    failovers: AtomicU64,
    replays: AtomicU64,
    ambiguous: AtomicU64,
}

/// What `/metrics` tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    pub waiting: usize,
    pub is_connected: bool,
    /// Connections that were made anew.
    pub failovers: u64,
    pub replays: u64,
    pub ambiguous: u64,
}

impl Figures {
    /// Appends them in Prometheus' text format.
    pub fn render(&self, out: &mut String) {
        let connected = u64::from(self.is_connected);
        for (name, kind, help, value) in [
            (
                "waiting",
                "gauge",
                "commands that Redis has not answered",
                self.waiting as u64,
            ),
            (
                "backend_role{role=\"master\"}",
                "gauge",
                "1 while a verified master is connected",
                connected,
            ),
            (
                "failovers_total",
                "counter",
                "connections to a master that ended",
                self.failovers,
            ),
            (
                "replays_total",
                "counter",
                "commands sent again because their answer was lost",
                self.replays,
            ),
            (
                "ambiguous_total",
                "counter",
                "commands of which nobody knows whether they were executed",
                self.ambiguous,
            ),
        ] {
            metric(out, name, kind, help, value);
        }
    }
}

impl Redis {
    /// Connects when it is first asked something.
    pub fn new(settings: Settings) -> Self {
        let shared = Arc::new(Shared {
            login: settings.login,
            failover_wait: settings.failover_wait,
            parked_max: settings.parked_max,
            waiting: AtomicUsize::new(0),
            is_connected: AtomicBool::new(true),
            is_told: AtomicBool::new(false),
            failovers: AtomicU64::new(0),
            replays: AtomicU64::new(0),
            ambiguous: AtomicU64::new(0),
        });
        let lanes = (0..DATABASES).map(|_| None).collect();
        Self {
            shared,
            lanes: Arc::new(Mutex::new(lanes)),
        }
    }

    pub fn figures(&self) -> Figures {
        let shared = &self.shared;
        Figures {
            waiting: shared.waiting.load(Ordering::Relaxed),
            is_connected: shared.is_connected.load(Ordering::Relaxed),
            failovers: shared.failovers.load(Ordering::Relaxed),
            replays: shared.replays.load(Ordering::Relaxed),
            ambiguous: shared.ambiguous.load(Ordering::Relaxed),
        }
    }

    fn ask(&self, database: u8, requests: Vec<Request>, is_transaction: bool) -> Awaited {
        let (answer, receiver) = oneshot::channel();
        let shared = &self.shared;
        let before = shared.waiting.fetch_add(1, Ordering::Relaxed);
        if before >= shared.parked_max && !shared.is_connected.load(Ordering::Relaxed) {
            shared.gone(1);
            let _ = answer.send(Err(Failure::Refused(Why::Crowded)));
            return Awaited(receiver);
        }
        let job = Job {
            requests,
            is_transaction,
            answer,
            deadline: Instant::now() + shared.failover_wait,
            nil_is_ok: false,
        };
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lane) = lanes.get_mut(usize::from(database)) {
            let lane = lane.get_or_insert_with(|| {
                let (sender, jobs) = mpsc::unbounded_channel();
                tokio::spawn(lane::run(Arc::clone(shared), database, jobs));
                sender
            });
            // A lane ends only with its senders.
            let _ = lane.send(job);
        }
        Awaited(receiver)
    }
}

impl Backend for Redis {
    type Answer = Awaited;
    type Watch = Pinned;

    fn submit(&self, database: u8, request: Request) -> Awaited {
        self.ask(database, vec![request], false)
    }

    fn transact(&self, database: u8, requests: Vec<Request>, watch: Option<Pinned>) -> Awaited {
        let Some(Pinned(connection)) = watch else {
            return self.ask(database, requests, true);
        };
        let (answer, receiver) = oneshot::channel();
        tokio::spawn(async move {
            let done = timeout(PINNED_MAX, pinned_transaction(connection, &requests)).await;
            let _ = answer.send(match done {
                Ok(Ok(reply)) => Ok(reply),
                Ok(Err(_)) | Err(_) => Err(Failure::Ambiguous),
            });
        });
        Awaited(receiver)
    }

    async fn watch(
        &self,
        database: u8,
        keys: &[Bytes],
        before: Option<Pinned>,
    ) -> Result<Pinned, Failure> {
        const UNREACHABLE: Failure = Failure::Refused(Why::Unreachable);
        let watching = async {
            let mut connection = match before {
                Some(Pinned(connection)) => connection,
                None => dial(&self.shared.login, database)
                    .await
                    .map_err(|_| UNREACHABLE)?,
            };
            let mut out = BytesMut::new();
            let words: Vec<Bytes> = [Bytes::from_static(b"WATCH")]
                .into_iter()
                .chain(keys.iter().cloned())
                .collect();
            encode_request(&words, &mut out);
            connection
                .stream
                .write_all(&out)
                .await
                .map_err(|_| UNREACHABLE)?;
            match connection.answer().await {
                Ok(Reply::Simple(_)) => Ok(Pinned(connection)),
                _ => Err(UNREACHABLE),
            }
        };
        timeout(PINNED_MAX, watching)
            .await
            .unwrap_or(Err(UNREACHABLE))
    }
}

/// A connection of its own: what a `WATCH` needs. Dropped, it watches nothing.
pub struct Pinned(Connection);

async fn pinned_transaction(
    mut connection: Connection,
    requests: &[Request],
) -> std::io::Result<Reply> {
    let mut out = BytesMut::from(&b"*1\r\n$5\r\nMULTI\r\n"[..]);
    for request in requests {
        encode_request(&request.arguments, &mut out);
    }
    out.extend_from_slice(b"*1\r\n$4\r\nEXEC\r\n");
    connection.stream.write_all(&out).await?;
    let mut error = None;
    for _ in 0..=requests.len() {
        let reply = connection.answer().await?;
        if matches!(reply, Reply::Error(_)) {
            error.get_or_insert(reply);
        }
    }
    let last = connection.answer().await?;
    Ok(error.unwrap_or(last))
}

/// An answer that is still to come. Dropped before its command was sent, the command is not sent.
pub struct Awaited(oneshot::Receiver<Result<Reply, Failure>>);

impl Future for Awaited {
    type Output = Result<Reply, Failure>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.0).poll(context));
        Poll::Ready(answer.unwrap_or(Err(Failure::Ambiguous)))
    }
}

impl Shared {
    fn gone(&self, count: usize) {
        self.waiting.fetch_sub(count, Ordering::Relaxed);
    }

    fn connected(&self, database: u8) {
        self.is_connected.store(true, Ordering::Relaxed);
        if self.is_told.swap(false, Ordering::Relaxed) {
            tracing::info!(
                "session_store.backend: connected to the master again (database {database})"
            );
        }
    }

    fn broken(&self) {
        self.is_connected.store(false, Ordering::Relaxed);
        self.failovers.fetch_add(1, Ordering::Relaxed);
    }

    fn unreachable(&self, database: u8, why: &str) {
        self.is_connected.store(false, Ordering::Relaxed);
        if !self.is_told.swap(true, Ordering::Relaxed) {
            tracing::warn!("session_store.backend: no master (database {database}): {why}");
        }
    }

    fn replayed(&self) {
        self.replays.fetch_add(1, Ordering::Relaxed);
    }

    fn ambiguous(&self) {
        self.ambiguous.fetch_add(1, Ordering::Relaxed);
    }
}
