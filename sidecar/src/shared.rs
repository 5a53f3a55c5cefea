//! What the threads of the process share: each worker's door bell, load and counters, and the configuration in force.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use evenkeel_host::Process;
use tokio::sync::mpsc;

use crate::counters::WorkerCounters;
use crate::generation::Generation;
use crate::members::Changes;
use crate::members::names::Names;
use crate::store::Store;
use crate::worker::Command;

/// Shared by all threads. Nothing of it is written on a request's path but a worker's own counters.
pub(crate) struct Shared {
    pub(crate) workers: Vec<WorkerHandle>,
    /// Shared data, queues and metrics of filters.
    pub(crate) process: Process,
    pub(crate) options: Options,
    pub(crate) started: Instant,
    pub(crate) generation: ArcSwap<Generation>,
    /// What was changed about servers at run time.
    pub(crate) members: Changes,
    pub(crate) names: Names,
    /// The session store, where one is configured.
    pub(crate) store: Option<Store>,
    pub(crate) is_draining: AtomicBool,
    pub(crate) reloads_failed: AtomicUsize,
    /// Connections to balanced listeners over `limits.connections`.
    pub(crate) refused_balanced: AtomicUsize,
}

/// What the embedder asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Options {
    /// Show each decision of the filter as a response header.
    pub(crate) show_decision: bool,
}

/// A worker as others see it.
pub(crate) struct WorkerHandle {
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    /// Open client connections, counted when they are accepted, by whoever accepts.
    pub(crate) open: AtomicUsize,
    /// It has its filters.
    pub(crate) is_ready: AtomicBool,
    pub(crate) counters: Arc<WorkerCounters>,
}

impl Shared {
    /// Open client connections of the process.
    pub(crate) fn open_connections(&self) -> usize {
        self.workers
            .iter()
            .map(|worker| worker.open.load(Ordering::Relaxed))
            .sum()
    }

    /// The ready worker with the fewest open connections; any, if none is ready.
    pub(crate) fn least_loaded(&self) -> Option<usize> {
        let by_load = |number: &usize| {
            self.workers
                .get(*number)
                .map_or(usize::MAX, |worker| worker.open.load(Ordering::Relaxed))
        };
        let is_ready = |number: &usize| {
            self.workers
                .get(*number)
                .is_some_and(|worker| worker.is_ready.load(Ordering::Acquire))
        };
        let all = 0..self.workers.len();
        all.clone()
            .filter(is_ready)
            .min_by_key(by_load)
            .or_else(|| all.min_by_key(by_load))
    }

    /// Serving, with filters everywhere.
    pub(crate) fn is_ready(&self) -> bool {
        !self.is_draining.load(Ordering::Acquire)
            && self
                .workers
                .iter()
                .all(|worker| worker.is_ready.load(Ordering::Acquire))
    }
}
