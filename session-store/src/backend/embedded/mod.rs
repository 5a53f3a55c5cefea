//! The embedded store: for one machine, whose gateway serves all its web nodes.
//!
//! A table in memory ([`table`]), bounded, with deadlines; a log on disk where a path is set ([`log`]). A command is executed at once, under
//! one lock; its answer waits until its effects are in the log. Everybody who was served in the same round of the runtime waits for
//! the same write: the first who is resumed writes for all (group commit), without a thread or a timer.

mod expiry;
mod hashes;
mod log;
mod record;
mod strings;
mod table;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

pub use self::log::Loaded;
use self::log::Log;
use self::record::{Journal, Restored};
use self::table::Table;
pub use self::table::{Capacity, Evicted};
use super::{Backend, Failure, Why, metric};
use crate::command::{Command, Effect, Request, scripts};
use crate::resp::Reply;

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The folder of its log; `None`: memory only.
    pub path: Option<PathBuf>,
    /// How often what was written is synced; 0: before every answer.
    pub fsync: Duration,
    pub capacity: Capacity,
}

/// The store.
#[derive(Clone)]
pub struct Embedded {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// The place in the log up to which everything is written.
    written: AtomicU64,
    is_failing: AtomicBool,
    syncs_always: bool,
}

struct State {
    table: Table,
    log: Option<Log>,
}

/// What `/metrics` tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    pub entries: usize,
    pub bytes: u64,
    pub evicted: Evicted,
    pub expired: u64,
}

impl Figures {
    /// Appends them in Prometheus' text format.
    pub fn render(&self, out: &mut String) {
        for (name, kind, help, value) in [
            (
                "entries",
                "gauge",
                "keys in the embedded store",
                self.entries as u64,
            ),
            (
                "bytes",
                "gauge",
                "what they count for against max_memory",
                self.bytes,
            ),
            (
                "expired_total",
                "counter",
                "keys whose time was over",
                self.expired,
            ),
            (
                "evicted_total{class=\"empty\"}",
                "counter",
                "keys put out for want of memory",
                self.evicted.empty,
            ),
        ] {
            metric(out, name, kind, help, value);
        }
        out.push_str(&format!(
            "evenkeel_store_evicted_total{{class=\"unread\"}} {}\n",
            self.evicted.unread
        ));
    }
}

impl Embedded {
    /// Opens it, with everything that its log has.
    ///
    /// # Errors
    /// What is wrong with the folder.
    pub fn open(settings: &Settings) -> std::io::Result<(Self, Loaded)> {
        let journal = match settings.path {
            Some(_) => Journal::kept(),
            None => Journal::default(),
        };
        let mut table = Table::new(settings.capacity, Journal::default());
        let opened = settings
            .path
            .as_deref()
            .map(|path| replay(path, &mut table))
            .transpose()?;
        table.journal = journal;
        let (log, loaded) = opened.unzip();
        let shared = Arc::new(Shared {
            state: Mutex::new(State { table, log }),
            written: AtomicU64::new(0),
            is_failing: AtomicBool::new(false),
            syncs_always: settings.fsync.is_zero(),
        });
        if settings.path.is_some() && !settings.fsync.is_zero() {
            let (weak, every) = (Arc::downgrade(&shared), settings.fsync);
            std::thread::Builder::new()
                .name("store-sync".to_owned())
                .spawn(move || sync_every(&weak, every))?;
        }
        Ok((Self { shared }, loaded.unwrap_or_default()))
    }

    pub fn figures(&self) -> Figures {
        let state = self.shared.lock();
        let (entries, bytes) = state.table.size();
        Figures {
            entries,
            bytes,
            evicted: state.table.evicted,
            expired: state.table.expired,
        }
    }

    /// Executes at this time, in milliseconds of the wall clock.
    fn execute(&self, now: u64, database: u8, request: &Request) -> Executed {
        let mut state = self.shared.lock();
        if let Err(failure) = self.writable(&mut state, request.rule.effect) {
            return self.executed(&state, Err(failure));
        }
        state.table.expire(now);
        let outcome = apply(&mut state.table, now, database, request);
        self.executed(&state, outcome)
    }

    /// A write is not begun while an earlier one cannot be written down.
    fn writable(&self, state: &mut State, effect: Effect) -> Result<(), Failure> {
        if effect == Effect::Write && self.shared.is_failing.load(Ordering::Relaxed) {
            return self.shared.flush(state);
        }
        Ok(())
    }

    fn executed(&self, state: &State, outcome: Result<Reply, Failure>) -> Executed {
        Executed {
            shared: Arc::clone(&self.shared),
            outcome: Some(outcome),
            end: state.table.journal.end(),
            has_waited: false,
        }
    }
}

impl Backend for Embedded {
    type Answer = Executed;
    /// Keys, and the change that each was last written by.
    type Watch = Vec<(u8, Bytes, u64)>;

    fn submit(&self, database: u8, request: Request) -> Executed {
        self.execute(wall_clock(), database, &request)
    }

    fn transact(
        &self,
        database: u8,
        requests: Vec<Request>,
        watch: Option<Self::Watch>,
    ) -> Executed {
        let now = wall_clock();
        let mut state = self.shared.lock();
        let effect = if requests
            .iter()
            .any(|request| request.rule.effect == Effect::Write)
        {
            Effect::Write
        } else {
            Effect::Read
        };
        if let Err(failure) = self.writable(&mut state, effect) {
            return self.executed(&state, Err(failure));
        }
        let watched = watch.unwrap_or_default();
        let table = &mut state.table;
        let is_changed = watched
            .iter()
            .any(|(database, key, change)| table.change_of(now, *database, key) != *change);
        if is_changed {
            return self.executed(&state, Ok(Reply::Nil));
        }
        let answers = requests
            .iter()
            .map(|request| apply(table, now, database, request).unwrap_or_else(Reply::refused));
        let answers = Reply::Array(answers.collect());
        self.executed(&state, Ok(answers))
    }

    async fn watch(
        &self,
        database: u8,
        keys: &[Bytes],
        before: Option<Self::Watch>,
    ) -> Result<Self::Watch, Failure> {
        let now = wall_clock();
        let mut state = self.shared.lock();
        let mut watched = before.unwrap_or_default();
        for key in keys {
            let change = state.table.change_of(now, database, key);
            watched.push((database, key.clone(), change));
        }
        Ok(watched)
    }
}

/// An answer that is given when everything before it is in the log.
pub struct Executed {
    shared: Arc<Shared>,
    outcome: Option<Result<Reply, Failure>>,
    end: u64,
    has_waited: bool,
}

impl Future for Executed {
    type Output = Result<Reply, Failure>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.shared.written.load(Ordering::Acquire) < self.end {
            if !self.has_waited {
                // Whoever else is ready executes first, and is written together with this.
                self.has_waited = true;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let shared = Arc::clone(&self.shared);
            let mut state = shared.lock();
            if let Err(failure) = shared.flush(&mut state) {
                return Poll::Ready(Err(failure));
            }
        }
        Poll::Ready(self.outcome.take().unwrap_or(Err(Failure::Ambiguous)))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in between is one of ours; the table's orders are then as they are, and sessions are still there.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what waits, and begins a new log when this one is long.
    fn flush(&self, state: &mut State) -> Result<(), Failure> {
        let State { table, log } = state;
        let Some(log) = log else {
            return Ok(());
        };
        let end = table.journal.end();
        let written = log.append(table.journal.waiting()).and_then(|()| {
            match self.syncs_always.then(|| log.take_to_sync()).flatten() {
                Some(file) => file.sync_data(),
                None => Ok(()),
            }
        });
        if let Err(error) = written {
            if !self.is_failing.swap(true, Ordering::Relaxed) {
                tracing::error!(
                    "session_store.path: nothing can be written, so no write is acknowledged: {error}"
                );
            }
            return Err(Failure::Refused(Why::Disk));
        }
        if self.is_failing.swap(false, Ordering::Relaxed) {
            tracing::info!("session_store.path: can be written again");
        }
        self.written.store(end, Ordering::Release);
        if log.is_long()
            && let Err(error) = log.rewrite(log::encode_all(table.entries()))
        {
            log.postpone();
            tracing::warn!(
                "session_store.path: no new log could be begun, this one goes on growing: {error}"
            );
        }
        Ok(())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(log) = &mut state.log {
            let _ = log.append(state.table.journal.waiting());
            if let Some(file) = log.take_to_sync() {
                let _ = file.sync_data();
            }
        }
    }
}

/// Ends with the store.
fn sync_every(store: &Weak<Shared>, every: Duration) {
    loop {
        std::thread::sleep(every);
        let Some(shared) = store.upgrade() else {
            return;
        };
        let file = shared.lock().log.as_mut().and_then(Log::take_to_sync);
        if let Some(Err(error)) = file.map(|file| file.sync_data()) {
            tracing::error!("session_store.path: cannot be synced: {error}");
        }
    }
}

fn replay(path: &Path, table: &mut Table) -> std::io::Result<(Log, Loaded)> {
    let now = wall_clock();
    Log::open(path, &mut |restored| match restored {
        Restored::Put {
            database,
            key,
            value,
            deadline,
            is_read,
        } => {
            if deadline != 0 && deadline <= now {
                table.remove(now, database, &key);
            } else {
                table.restore(database, key, value, deadline, is_read);
            }
        }
        Restored::Delete { database, key } => {
            table.remove(now, database, &key);
        }
        Restored::Deadline {
            database,
            key,
            deadline,
        } => {
            table.set_deadline(now, database, &key, deadline);
        }
        Restored::Seen { database, key } => table.restore_seen(database, &key),
    })
}

/// Milliseconds since 1970.
fn wall_clock() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Executes one command.
fn apply(table: &mut Table, now: u64, database: u8, request: &Request) -> Result<Reply, Failure> {
    let arguments = request.arguments.as_slice();
    let at = At {
        table,
        now,
        database,
        arguments,
    };
    let argument = |at| request.argument(at);
    match request.rule.command {
        Command::Get => strings::get(at),
        Command::Set => strings::set(at),
        Command::SetEx => strings::set_ex(at, 1_000),
        Command::PSetEx => strings::set_ex(at, 1),
        Command::SetNx => strings::set_nx(at),
        Command::GetEx => strings::get_ex(at),
        Command::GetDel => strings::get_del(at),
        Command::MGet => strings::mget(at),
        Command::StrLen => strings::length(at),
        Command::Append => strings::append(at),
        Command::Incr => strings::add(at, Some(1)),
        Command::Decr => strings::add(at, Some(-1)),
        Command::IncrBy => {
            let by = number(argument(2));
            strings::add(at, by)
        }
        Command::DecrBy => match number(argument(2)).map(i64::checked_neg) {
            Some(None) => Ok(Reply::Error("ERR decrement would overflow".into())),
            by => strings::add(at, by.flatten()),
        },
        Command::Del | Command::Unlink => Ok(expiry::delete(at)),
        Command::Exists => Ok(expiry::exists(at)),
        Command::Type => Ok(expiry::kind(at)),
        Command::Expire => expiry::expire(at, 1_000, now),
        Command::PExpire => expiry::expire(at, 1, now),
        Command::ExpireAt => expiry::expire(at, 1_000, 0),
        Command::PExpireAt => expiry::expire(at, 1, 0),
        Command::Ttl => Ok(expiry::left(at, 1_000)),
        Command::PTtl => Ok(expiry::left(at, 1)),
        Command::Persist => Ok(expiry::persist(at)),
        Command::HGet => hashes::get(at),
        Command::HSet => hashes::set(at, hashes::Answer::Added),
        Command::HMSet => hashes::set(at, hashes::Answer::Ok),
        Command::HSetNx => hashes::set_nx(at),
        Command::HMGet => hashes::get_many(at),
        Command::HGetAll => hashes::get_all(at),
        Command::HDel => hashes::delete(at),
        Command::HExists => hashes::exists(at),
        Command::HLen => hashes::length(at),
        Command::HIncrBy => hashes::add(at),
        Command::Release if argument(1) != scripts::RELEASE.as_bytes() => {
            Err(Failure::Impossible("this script is not known"))
        }
        Command::Release | Command::ReleaseBySha => Ok(expiry::release(at)),
        Command::Renew => Ok(expiry::renew(at)),
    }
}

/// Where a command is executed, when, and on what.
struct At<'a> {
    table: &'a mut Table,
    now: u64,
    database: u8,
    arguments: &'a [Bytes],
}

impl At<'_> {
    fn argument(&self, at: usize) -> &[u8] {
        self.arguments
            .get(at)
            .map(AsRef::as_ref)
            .unwrap_or_default()
    }
}

/// A number as Redis reads it (`string2ll`): no sign but `-`, no leading zero, no space.
fn number(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_plain = digits == "0" && text == "0" || !digits.starts_with(['0', '+']);
    text.parse().ok().filter(|_| is_plain)
}

const WRONG_TYPE: Reply = Reply::Error(std::borrow::Cow::Borrowed(
    "WRONGTYPE Operation against a key holding the wrong kind of value",
));
const SYNTAX: Reply = Reply::Error(std::borrow::Cow::Borrowed("ERR syntax error"));
const NO_INTEGER: Reply = Reply::Error(std::borrow::Cow::Borrowed(
    "ERR value is not an integer or out of range",
));

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
