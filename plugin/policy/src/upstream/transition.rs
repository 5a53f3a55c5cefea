//! Servers that are taken out or come back: each time one log line and one metric, with the reason.

use std::fmt;

/// A server that requests see from now on, or see no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// Its index in the pool.
    pub server: usize,
    pub to: Standing,
    pub cause: Cause,
    /// For people: a few words.
    pub reason: String,
}

/// What a server has become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Up,
    /// By checks.
    Down,
    /// By `max_fails`.
    Banned,
    /// By passive health.
    Ejected,
}

/// Why, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// So many checks passed.
    Checks,
    /// No connection.
    Connect,
    /// No answer in time.
    Timeout,
    /// An answer of another status than expected.
    Status,
    /// An answer without what was expected in its body.
    Body,
    /// An answer that broke off, was too long or took too long.
    Broken,
    /// What the bridge found out.
    Bridge,
    /// Attempts that failed, and answers that count as such.
    Failures,
    /// A request that was answered.
    Answered,
    /// Its time was over.
    Time,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Banned => "banned",
            Self::Ejected => "ejected",
        })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Checks => "checks",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::Body => "body",
            Self::Broken => "broken",
            Self::Bridge => "bridge",
            Self::Failures => "failures",
            Self::Answered => "answered",
            Self::Time => "time",
        })
    }
}
