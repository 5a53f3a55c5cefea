//! What a VM's store carries: all that a host function can reach.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::{Memory, StoreLimits, TypedFunc};

use crate::calls::Calls;
use crate::contexts::{Context, Contexts, RootContext, StreamContext};
use crate::embedder::{Environment, HttpCallOutcome, QueueWaker};
use crate::metrics::VmMetrics;
use crate::process::Process;
use crate::raised::{Raised, StreamShared};
use crate::shared_data::Space;

/// On whose behalf host functions act: the context of the running callback, or the one the guest has chosen since.
#[derive(Clone, Default)]
pub(crate) struct Active {
    pub(crate) root: Option<Rc<RootContext>>,
    pub(crate) stream: Option<Rc<StreamContext>>,
}

impl Active {
    pub(crate) fn root(root: &Rc<RootContext>) -> Self {
        Self {
            root: Some(root.clone()),
            stream: None,
        }
    }

    pub(crate) fn stream(stream: &Rc<StreamContext>) -> Self {
        Self {
            root: Some(stream.root.clone()),
            stream: Some(stream.clone()),
        }
    }
}

/// What is being configured, and so what the configuration buffers hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Configuring {
    Nothing,
    Plugin,
}

/// The store's data.
pub(crate) struct State {
    pub(crate) memory: Option<Memory>,
    /// In an `Rc` because cloning a `TypedFunc` touches counters that all threads share.
    pub(crate) usage: Usage,
    pub(crate) allocate: Option<Rc<TypedFunc<u32, u32>>>,
    pub(crate) limits: StoreLimits,
    pub(crate) environment: Rc<dyn Environment>,
    pub(crate) process: Process,
    pub(crate) space: Arc<Space>,
    pub(crate) metrics: VmMetrics,
    pub(crate) vm_id: String,
    pub(crate) vm_configuration: Vec<u8>,
    pub(crate) environment_variables: Vec<(String, String)>,
    pub(crate) queue_waker: Option<Arc<dyn QueueWaker>>,
    pub(crate) contexts: Contexts,
    pub(crate) active: Active,
    /// While `_initialize` or `_start` run: only logging and WASI.
    pub(crate) restricted: bool,
    pub(crate) configuring: Configuring,
    /// The running callback's own stream, and whether it sent a local reply: its direction stops whatever it returns.
    pub(crate) own: Option<Rc<StreamShared>>,
    pub(crate) stopped: bool,
    /// Streams other than the callback's own that something was raised for.
    pub(crate) to_wake: Vec<Rc<StreamShared>>,
    pub(crate) roots_done: Vec<Rc<RootContext>>,
    pub(crate) calls: Calls,
    pub(crate) call_outcome: Option<Rc<HttpCallOutcome>>,
    /// What the running `on_foreign_function` is about.
    pub(crate) call_data: Option<Rc<[u8]>>,
    pub(crate) budget: Budget,
    /// Reused for answers that are put together in the host.
    pub(crate) scratch: RefCell<Vec<u8>>,
}

impl State {
    pub(crate) fn context(&self, id: u32) -> Option<Active> {
        self.contexts.get(id).map(|context| match context {
            Context::Root(root) => Active::root(root),
            Context::Stream(stream) => Active::stream(stream),
        })
    }

    /// Keeps what the guest asked of the active stream until the callback has returned.
    pub(crate) fn raise(&mut self, shared: Rc<StreamShared>, raised: Raised) {
        let own = self
            .own
            .as_ref()
            .is_some_and(|own| Rc::ptr_eq(own, &shared));
        self.stopped |= own && matches!(raised, Raised::LocalReply(_));
        if shared.raise(raised) && !own {
            self.to_wake.push(shared);
        }
    }
}

/// CPU time of one callback. Nothing is read before the first epoch ends inside the callback, so that short calls cost nothing;
/// the count starts there, at most one tick late.
#[derive(Clone, Copy)]
pub(crate) struct Budget {
    pub(crate) limit: Duration,
    since: Option<Duration>,
}

impl Budget {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, since: None }
    }

    /// Called in each epoch: whether more than the limit has been used.
    pub(crate) fn is_spent(&mut self) -> bool {
        let now = thread_cpu_time();
        match self.since {
            None => {
                self.since = Some(now);
                self.limit.is_zero()
            }
            Some(since) => now.saturating_sub(since) >= self.limit,
        }
    }
}

/// CPU time of the calling thread: a thread that is not scheduled uses none.
fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

impl Drop for State {
    fn drop(&mut self) {
        self.process.leave(&self.vm_id);
    }
}

/// What a VM's guest has asked of its host so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Calls of ABI functions (module `env`; not WASI).
    pub hostcalls: u64,
    /// Buffers that the host had the guest allocate for an answer.
    pub allocations: u64,
}
