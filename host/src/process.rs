//! What all VMs of a process share: shared data, queues, metrics.

use std::sync::Arc;

/// Shared data by `vm_id`, queues and metrics. Clones share.
#[derive(Clone)]
pub struct Process {
    _inner: Arc<()>,
}

impl Process {
    pub fn new() -> Self {
        Self { _inner: Arc::new(()) }
    }

    /// Reads shared data of `vm_id`: the value and its compare-and-swap number.
    pub fn shared_data(&self, _vm_id: &str, _key: &[u8]) -> Option<(Vec<u8>, u32)> {
        unimplemented!()
    }

    /// Writes shared data of `vm_id`; `cas` 0 writes unconditionally. `false`: somebody else wrote since.
    pub fn set_shared_data(&self, _vm_id: &str, _key: &[u8], _value: &[u8], _cas: u32) -> bool {
        unimplemented!()
    }

    /// Every metric in Prometheus text exposition; names as guests defined them, made legal.
    pub fn render_metrics(&self, _out: &mut String) {
        unimplemented!()
    }
}

impl Default for Process {
    fn default() -> Self {
        Self::new()
    }
}
