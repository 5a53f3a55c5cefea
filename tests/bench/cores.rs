//! Which core does what: the proxy under test has one for itself, everything else shares another.

use anyhow::{Context as _, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The two cores of a run.
#[derive(Debug, Clone, Copy)]
pub struct Cores {
    /// Of the proxy under test, alone.
    pub proxy: usize,
    /// Of the load generator and the servers behind.
    pub rest: usize,
}

impl Cores {
    /// The first two cores this process may use.
    ///
    /// # Errors
    /// When there is only one: load and proxy would take time from each other, and the figures would mean nothing.
    pub fn find() -> Result<Self> {
        let allowed = sched_getaffinity(None).context("reading the allowed cores")?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        match (cores.next(), cores.next()) {
            (Some(proxy), Some(rest)) => Ok(Self { proxy, rest }),
            _ => anyhow::bail!(
                "two cores are needed: one for the proxy, one for the load and the servers"
            ),
        }
    }
}

/// Runs `work` with the calling thread on `core`, and restores what was allowed before. A child started within inherits it.
pub fn on_core<T>(core: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = sched_getaffinity(None).context("reading the allowed cores")?;
    let mut only = CpuSet::new();
    only.set(core);
    sched_setaffinity(None, &only).with_context(|| format!("moving to core {core}"))?;
    let result = work();
    sched_setaffinity(None, &before).context("restoring the allowed cores")?;
    result
}
