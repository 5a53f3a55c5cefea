//! Idle connections of one worker to one endpoint.
//!
//! The last one put back is the first one taken (its buffers and the server's are warm), so that those not needed grow old and
//! are closed.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::task::{Context, Waker};

use evenkeel_policy::config::Keepalive;

use crate::clock::{Ticks, is_over, ticks};
use crate::upstream::connection::Connection;

/// A server as one worker sees it. Pools that name the same address share it.
pub(crate) struct Endpoint {
    address: SocketAddr,
    /// Oldest first.
    idle: RefCell<Vec<Idle>>,
}

struct Idle {
    connection: Box<Connection>,
    since: Ticks,
    /// Ticks after which it is closed.
    limit: Ticks,
}

impl Endpoint {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            idle: RefCell::new(Vec::new()),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn idle_count(&self) -> usize {
        self.idle.borrow().len()
    }

    /// The youngest idle connection that is still open as far as this process has been told.
    pub(crate) fn take(&self, cx: &mut Context<'_>) -> Option<Box<Connection>> {
        loop {
            let mut connection = self.idle.borrow_mut().pop()?.connection;
            connection.drive(cx);
            if connection.is_reusable() {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection whose exchange is complete, or closes it.
    pub(crate) fn put(&self, connection: Box<Connection>, keepalive: &Keepalive, now: Ticks) {
        let mut idle = self.idle.borrow_mut();
        let is_full = idle.len() >= keepalive.per_worker as usize;
        if !is_full && connection.requests() < keepalive.requests && connection.is_reusable() {
            idle.push(Idle {
                connection,
                since: now,
                limit: ticks(keepalive.idle),
            });
        }
    }

    /// Closes what has been idle too long or was closed by the server.
    pub(crate) fn tidy(&self, now: Ticks) {
        let mut cx = Context::from_waker(Waker::noop());
        self.idle.borrow_mut().retain_mut(|idle| {
            idle.connection.drive(&mut cx);
            idle.connection.is_reusable() && !is_over(now, idle.since, idle.limit)
        });
    }

    /// Closes all.
    pub(crate) fn clear(&self) {
        self.idle.borrow_mut().clear();
    }
}
