//! What the gateway needs of a store: execute a command, and say honestly what became of it.
//!
//! A store that cannot say for certain that a command was *not* executed must say so ([`Failure::Ambiguous`]): whether it is tried again
//! is decided by the command's own row ([`crate::command::Replay`]). No answer is ever made up: "there is no such key" is said only by
//! a store that knows.

pub mod embedded;
pub mod remote;

use std::fmt::{self, Write};
use std::future::Future;

use bytes::Bytes;

use crate::command::Request;
use crate::resp::Reply;

/// Databases that `SELECT` can choose, as in Redis unless configured.
pub const DATABASES: u8 = 16;

/// A store. Clones are the same store.
pub trait Backend: Clone + Send + Sync + 'static {
    /// Resolves within a bounded time, whatever happens. Dropped before its command was sent anywhere, that command is not executed.
    type Answer: Future<Output = Result<Reply, Failure>> + Send + Unpin;
    /// What a `WATCH` holds until its `EXEC`.
    type Watch: Send;

    /// Executes a command. Commands of one caller for one database are executed in the order of their submission, whether their answers
    /// were awaited or not.
    fn submit(&self, database: u8, request: Request) -> Self::Answer;

    /// Executes all or none, with nothing in between; an array of their answers, or nil if a watched key has changed.
    fn transact(
        &self,
        database: u8,
        requests: Vec<Request>,
        watch: Option<Self::Watch>,
    ) -> Self::Answer;

    /// Begins to watch keys, beside those that are watched already.
    fn watch(
        &self,
        database: u8,
        keys: &[Bytes],
        before: Option<Self::Watch>,
    ) -> impl Future<Output = Result<Self::Watch, Failure>> + Send;
}

/// Appends one metric; `name` may have labels.
fn metric(out: &mut String, name: &str, kind: &str, help: &str, value: u64) {
    let bare = name.split('{').next().unwrap_or_default();
    // Writing to a string does not fail.
    let _ = write!(
        out,
        "# HELP evenkeel_store_{bare} {help}\n# TYPE evenkeel_store_{bare} {kind}\nevenkeel_store_{name} {value}\n"
    );
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It was certainly not executed.
    Refused(Why),
    /// Nobody knows whether it was executed.
    Ambiguous,
    /// This store never will.
    Impossible(&'static str),
}

/// Why it was not executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Every byte of it is taken by sessions that are in use.
    Full,
    /// As many locks are held as may be.
    Locks,
    /// The disk takes no more.
    Disk,
    /// No master was found in time.
    Unreachable,
    /// Too many wait for a master already.
    Crowded,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Refused(Why::Full) => {
                "the store is full of sessions that are in use (session_store.max_memory)"
            }
            Self::Refused(Why::Locks) => "too many locks are held (session_store.locks.max)",
            Self::Refused(Why::Disk) => "the store cannot write to its disk",
            Self::Refused(Why::Unreachable) => "Redis cannot be reached, nothing was executed",
            Self::Refused(Why::Crowded) => {
                "Redis cannot be reached, and too many wait for it (session_store.limits.parked)"
            }
            Self::Ambiguous => "the connection to Redis broke: it may have been executed or not",
            Self::Impossible(what) => what,
        })
    }
}
