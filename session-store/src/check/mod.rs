//! Asking a server whether it is well, in a protocol that a filter cannot speak: a connection, MySQL, Redis.
//!
//! Every check has a connection of its own, a bound on what it reads, and ends within its timeout. Its reason is for people: short,
//! and without the password.

mod mysql;
mod redis;
mod tcp;

#[cfg(test)]
mod mysql_login_tests;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Longest reason, bytes.
const REASON_BYTES_MAX: usize = 200;

/// What to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// It takes a connection.
    Tcp,
    Mysql(Mysql),
    Redis(Redis),
}

/// It lets a user in, and answers a query as expected.
#[derive(Clone, PartialEq, Eq)]
pub struct Mysql {
    pub user: String,
    pub password: String,
    /// `None`: a ping after the login.
    pub query: Option<String>,
    /// What the first column of the first row must be; `None`: anything, even no row.
    pub equals: Option<String>,
}

/// It answers `PING`, and has a role.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Redis {
    pub username: Option<String>,
    pub password: Option<String>,
    /// As `ROLE` says it: `master`, `slave`, `sentinel`.
    pub role: Option<String>,
}

impl std::fmt::Debug for Mysql {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Mysql {{ user: {:?}, .. }}", self.user)
    }
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Redis {{ role: {:?}, .. }}", self.role)
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The error is the reason.
    pub outcome: Result<(), String>,
    pub took: Duration,
}

/// Asks once. Ends within `timeout`.
pub async fn run(check: &Check, address: SocketAddr, timeout: Duration) -> Verdict {
    let start = Instant::now();
    let asking = async {
        match check {
            Check::Tcp => tcp::check(address).await,
            Check::Mysql(mysql) => mysql::check(address, mysql).await,
            Check::Redis(redis) => redis::check(address, redis, timeout).await,
        }
    };
    let outcome = match tokio::time::timeout(timeout, asking).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("no answer within {timeout:?}")),
    };
    Verdict {
        outcome: outcome.map_err(shortened),
        took: start.elapsed(),
    }
}

/// On one line, and no longer than it may be.
fn shortened(reason: String) -> String {
    let mut short: String = reason
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    while short.len() > REASON_BYTES_MAX {
        short.pop();
    }
    short
}
