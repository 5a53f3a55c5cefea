//! What all VMs of a process share: shared data, queues, metrics.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::metrics::Metrics;
use crate::shared_data::{CasNumbers, Space, Written};
use crate::shared_queues::Queues;

/// Most different `vm_id`s a process keeps shared data for.
const SPACES_MAX: usize = 1024;

/// Shared data by `vm_id`, queues and metrics. Clones share.
///
/// The data of a `vm_id` is dropped when its last VM is, as in Envoy, unless it is pinned ([`Process::pin_shared_data`]); what the embedder
/// writes before the first VM waits for it.
#[derive(Clone)]
pub struct Process {
    inner: Arc<Inner>,
}

struct Inner {
    spaces: Mutex<HashMap<String, Known>>,
    cas: Arc<CasNumbers>,
    queues: Queues,
    metrics: Metrics,
}

struct Known {
    space: Arc<Space>,
    vms: usize,
    pinned: bool,
}

impl Process {
    pub fn new() -> Self {
        let (spaces, cas) = (Mutex::default(), Arc::default());
        Self {
            inner: Arc::new(Inner {
                spaces,
                cas,
                queues: Queues::default(),
                metrics: Metrics::default(),
            }),
        }
    }

    /// Reads shared data of `vm_id`: the value and its compare-and-swap number.
    pub fn shared_data(&self, vm_id: &str, key: &[u8]) -> Option<(Vec<u8>, u32)> {
        let space = self.spaces().get(vm_id).map(|known| known.space.clone())?;
        let mut value = Vec::new();
        let cas = space.read(key, &mut value)?;
        Some((value, cas))
    }

    /// Writes shared data of `vm_id`; `cas` 0 writes unconditionally. `false`: somebody else wrote since, or a bound is reached.
    pub fn set_shared_data(&self, vm_id: &str, key: &[u8], value: &[u8], cas: u32) -> bool {
        let space = {
            let mut spaces = self.spaces();
            if !spaces.contains_key(vm_id) && spaces.len() >= SPACES_MAX {
                return false;
            }
            self.known(&mut spaces, vm_id).space.clone()
        };
        space.write(key, value, cas) == Written::Yes
    }

    /// Keeps the shared data of `vm_id` also while it has no VM: for an embedder that replaces its only VM.
    pub fn pin_shared_data(&self, vm_id: &str) {
        self.known(&mut self.spaces(), vm_id).pinned = true;
    }

    /// Every metric in Prometheus text exposition; names as guests defined them, made legal.
    pub fn render_metrics(&self, out: &mut String) {
        self.inner.metrics.render(out);
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    pub(crate) fn queues(&self) -> &Queues {
        &self.inner.queues
    }

    /// One more VM of `vm_id`; [`Process::leave`] is its end.
    pub(crate) fn join(&self, vm_id: &str) -> Arc<Space> {
        let mut spaces = self.spaces();
        let known = self.known(&mut spaces, vm_id);
        known.vms += 1;
        known.space.clone()
    }

    pub(crate) fn leave(&self, vm_id: &str) {
        let mut spaces = self.spaces();
        let Some(known) = spaces.get_mut(vm_id) else {
            return;
        };
        known.vms = known.vms.saturating_sub(1);
        if known.vms == 0 {
            if !known.pinned {
                spaces.remove(vm_id);
            }
            self.inner.queues.drop_of(vm_id);
        }
    }

    fn known<'a>(&self, spaces: &'a mut HashMap<String, Known>, vm_id: &str) -> &'a mut Known {
        spaces.entry(vm_id.to_owned()).or_insert_with(|| {
            let space = Arc::new(Space::new(self.inner.cas.clone()));
            Known {
                space,
                vms: 0,
                pinned: false,
            }
        })
    }

    fn spaces(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.inner
            .spaces
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Process {
    fn default() -> Self {
        Self::new()
    }
}
