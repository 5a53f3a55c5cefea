//! Counters that cost a plain addition: each has one writing thread, and anybody may read.
//!
//! An atomic read-modify-write costs some twenty times an addition even without contention, so each worker has counters of
//! its own, on cache lines of its own, and whoever shows them adds them up.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread writes.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Only on the thread that owns the counter.
    pub(crate) fn add(&self, amount: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(amount),
            Ordering::Relaxed,
        );
    }

    /// Only on the thread that owns the counter; stops at zero.
    pub(crate) fn subtract(&self, amount: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).saturating_sub(amount),
            Ordering::Relaxed,
        );
    }

    /// Only on the thread that owns the counter.
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one worker has done.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct WorkerCounters {
    pub(crate) connections_accepted: Counter,
    /// Closed at once, because `limits.connections` was reached.
    pub(crate) connections_refused: Counter,
    /// Given to another worker, because this one had no filter.
    pub(crate) connections_handed_over: Counter,
    /// Closed for what they sent (400, 431) or did not send in time.
    pub(crate) connections_failed: Counter,
    pub(crate) requests: Counter,
    pub(crate) requests_in_flight: Counter,
    /// By the first digit of the status; index 0: none was sent.
    pub(crate) responses: [Counter; 6],
    pub(crate) retries: Counter,
    pub(crate) upstream_connects: Counter,
    pub(crate) upstream_connect_failures: Counter,
    pub(crate) upstream_reuses: Counter,
    pub(crate) filter_failures: Counter,
    pub(crate) filter_replacements: Counter,
    pub(crate) filter_calls: Counter,
    pub(crate) log_lines_dropped: Counter,
}

/// What one worker has done with one server.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct ServerCounters {
    pub(crate) requests: Counter,
    pub(crate) in_flight: Counter,
    /// Connect failures, resets before the response head, response timeouts.
    pub(crate) failures: Counter,
    pub(crate) idle_connections: Counter,
}
