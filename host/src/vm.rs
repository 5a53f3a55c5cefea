//! One instance of a module ([`Vm`]) and the plugins configured in it ([`Plugin`]).

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::embedder::{Environment, HttpCallOutcome, QueueWaker};
use crate::{Module, Process};

/// How a VM is made.
pub struct VmOptions {
    pub vm_id: String,
    pub vm_configuration: Vec<u8>,
    pub environment_variables: Vec<(String, String)>,
    /// Largest linear memory, bytes.
    pub memory_max: usize,
    /// Thread CPU time one callback may take.
    pub callback_deadline: Duration,
    /// The same for `_initialize`, `on_vm_start` and `on_configure`.
    pub start_deadline: Duration,
    pub queue_waker: Option<Arc<dyn QueueWaker>>,
}

/// A VM of one thread. Clones are handles to the same one.
#[derive(Clone)]
pub struct Vm {
    _inner: Rc<()>,
}

/// A root context: one configured plugin in a VM. Clones are handles to the same one.
#[derive(Clone)]
pub struct Plugin {}

/// Why a VM or plugin did not start.
#[derive(Debug, Error)]
pub enum StartError {
    #[error("the filter refused its configuration")]
    Refused,
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Why a VM is dead.
#[derive(Debug, Clone, Error)]
pub enum Failure {
    #[error("the filter trapped in {callback}: {reason}")]
    Trap { callback: &'static str, reason: String },
    #[error("the filter used more than {limit_ms} ms of CPU time in {callback}")]
    Deadline { callback: &'static str, limit_ms: u64 },
}

impl Vm {
    pub fn new(_module: &Module, _process: &Process, _options: VmOptions, _environment: Rc<dyn Environment>) -> Result<Self, StartError> {
        unimplemented!()
    }

    /// Creates a root context, starts and configures it. `configuration` is what the guest reads as plugin configuration.
    pub fn start_plugin(&self, _name: &str, _root_id: &str, _configuration: &[u8]) -> Result<Plugin, StartError> {
        unimplemented!()
    }

    /// The outcome of a call made through [`Environment::http_call`]. Tokens nobody waits for are ignored.
    pub fn http_call_done(&self, _token: u32, _outcome: HttpCallOutcome) {
        unimplemented!()
    }

    /// A queue registered by `root_context` has something to read.
    pub fn queue_ready(&self, _root_context: u32, _queue: u32) {
        unimplemented!()
    }

    /// Why it is dead, if it is.
    pub fn failure(&self) -> Option<Failure> {
        unimplemented!()
    }
}

impl Plugin {
    /// The root context's id, as in [`Environment::set_tick_period`].
    pub fn root_context(&self) -> u32 {
        unimplemented!()
    }

    pub fn vm(&self) -> &Vm {
        unimplemented!()
    }

    pub fn tick(&self) {
        unimplemented!()
    }

    /// Ends the root context: done, then delete. Streams that still run on it keep it alive until they finish.
    pub fn stop(&self) {
        unimplemented!()
    }
}
