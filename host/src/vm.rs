//! One instance of a module ([`Vm`]) and the plugins configured in it ([`Plugin`]).

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use wasmtime::Store;

use crate::callbacks::Callbacks;
use crate::contexts::{Context, Direction, RootContext, RootLife, StreamContext};
use crate::embedder::{Environment, HttpCallOutcome, QueueWaker};
use crate::engine::EngineShared;
use crate::raised::StreamShared;
use crate::state::{Active, Configuring, State};
use crate::ticker::Activity;
use crate::{Module, Process, start};

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
    pub(crate) inner: Rc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: RefCell<Store<State>>,
    pub(crate) callbacks: Callbacks,
    pub(crate) environment: Rc<dyn Environment>,
    pub(crate) failure: OnceCell<Failure>,
    pub(crate) engine: Arc<EngineShared>,
    pub(crate) activity: Arc<Activity>,
    pub(crate) callback_deadline: Duration,
    pub(crate) start_deadline: Duration,
    pub(crate) wants_bodies: bool,
    pub(crate) wants_tcp_data: bool,
}

/// A root context: one configured plugin in a VM. Clones are handles to the same one.
#[derive(Clone)]
pub struct Plugin {
    pub(crate) vm: Vm,
    pub(crate) root: Rc<RootContext>,
}

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
    Trap {
        callback: &'static str,
        reason: String,
    },
    #[error("the filter used more than {limit_ms} ms of CPU time in {callback}")]
    Deadline {
        callback: &'static str,
        limit_ms: u64,
    },
}

impl Vm {
    /// Instantiates the module and runs `_initialize` (then `main` or `__main_void`) or `_start`.
    pub fn new(
        module: &Module,
        process: &Process,
        options: VmOptions,
        environment: Rc<dyn Environment>,
    ) -> Result<Self, StartError> {
        Ok(Self {
            inner: Rc::new(start::instantiate(module, process, options, environment)?),
        })
    }

    /// Creates a root context, starts and configures it. `configuration` is what the guest reads as plugin configuration.
    ///
    /// [`StartError::Refused`]: `on_vm_start` or `on_configure` said no; the root context is deleted again.
    pub fn start_plugin(
        &self,
        name: &str,
        root_id: &str,
        configuration: &[u8],
    ) -> Result<Plugin, StartError> {
        let root = self.new_root(name, root_id, configuration)?;
        let plugin = Plugin {
            vm: self.clone(),
            root,
        };
        let accepted = self.start_root(&plugin.root);
        if let Some(failure) = self.inner.failure.get() {
            return Err(failure.clone().into());
        }
        if !accepted {
            self.delete_root(&plugin.root);
            return Err(StartError::Refused);
        }
        Ok(plugin)
    }

    /// The outcome of a call made through [`Environment::http_call`]. Tokens nobody waits for are ignored.
    pub fn http_call_done(&self, token: u32, outcome: HttpCallOutcome) {
        let Some(root) = self.with_state(|state| {
            let root = state.calls.end(token)?;
            match state.contexts.get(root) {
                Some(Context::Root(root)) => Some(root.clone()),
                _ => None,
            }
        }) else {
            return;
        };
        let (headers, body, trailers) = match &outcome {
            HttpCallOutcome::Response {
                headers,
                body,
                trailers,
            } => (headers.len(), body.len(), trailers.len()),
            HttpCallOutcome::Reset => (0, 0, 0),
        };
        let size = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        if matches!(outcome, HttpCallOutcome::Reset) {
            root.status.set((BROKEN_CONNECTION, "reset"));
        }
        // After a reset there is nothing to read, as in Envoy: neither maps nor a body.
        let response = matches!(outcome, HttpCallOutcome::Response { .. });
        self.with_state(|state| {
            state.call_outcome = response.then(|| Rc::new(outcome));
            Some(())
        });
        let arguments = (root.id, token, size(headers), size(body), size(trailers));
        self.notify(
            "proxy_on_http_call_response",
            |known| known.http_call_response.as_ref(),
            &root,
            arguments,
        );
        self.with_state(|state| state.call_outcome.take());
        root.status.set((root.status.get().0, ""));
    }

    /// A queue registered by `root_context` has something to read.
    pub fn queue_ready(&self, root_context: u32, queue: u32) {
        self.with_state(|state| {
            state.process.queues().has_heard(queue);
            Some(())
        });
        if let Some(root) = self.root(root_context) {
            self.notify(
                "proxy_on_queue_ready",
                |known| known.queue_ready.as_ref(),
                &root,
                (root.id, queue),
            );
        }
    }

    /// What the guest has asked of the host since the VM was made; `None` inside a callback.
    pub fn usage(&self) -> Option<crate::Usage> {
        Some(self.inner.store.try_borrow().ok()?.data().usage)
    }

    /// How large the guest's memory has become; `None` inside a callback, and of a module without memory.
    pub fn memory_bytes(&self) -> Option<usize> {
        let store = self.inner.store.try_borrow().ok()?;
        Some(store.data().memory?.data_size(&*store))
    }

    /// Why it is dead, if it is.
    pub fn failure(&self) -> Option<Failure> {
        self.inner.failure.get().cloned()
    }

    fn root(&self, id: u32) -> Option<Rc<RootContext>> {
        self.with_state(|state| match state.contexts.get(id) {
            Some(Context::Root(root)) => Some(root.clone()),
            _ => None,
        })
    }

    fn new_root(
        &self,
        name: &str,
        root_id: &str,
        configuration: &[u8],
    ) -> Result<Rc<RootContext>, StartError> {
        let root = self.with_state(|state| {
            let root = Rc::new(RootContext {
                id: state.contexts.free_id()?,
                name: name.to_owned(),
                root_id: root_id.to_owned(),
                configuration: configuration.to_vec(),
                status: Cell::new((0, "")),
                streams: Cell::new(0),
                life: Cell::new(RootLife::Serving),
            });
            state.contexts.insert(root.id, Context::Root(root.clone()));
            Some(root)
        });
        match (root, self.inner.failure.get()) {
            (Some(root), _) => Ok(root),
            (None, Some(failure)) => Err(failure.clone().into()),
            (None, None) => Err(StartError::Refused),
        }
    }

    fn start_root(&self, root: &Rc<RootContext>) -> bool {
        let deadline = self.inner.start_deadline;
        let own = || (Active::root(root), None, deadline);
        let known = &self.inner.callbacks;
        if let Some(create) = &known.context_create {
            self.call("proxy_on_context_create", create, own(), (root.id, 0));
        }
        let vm_configuration = self
            .with_state(|state| u32::try_from(state.vm_configuration.len()).ok())
            .unwrap_or(0);
        if let Some(start) = &known.vm_start
            && self
                .call(
                    "proxy_on_vm_start",
                    start,
                    own(),
                    (root.id, vm_configuration),
                )
                .is_none_or(|called| called.value == 0)
        {
            return false;
        }
        let Some(configure) = &known.configure else {
            return true;
        };
        let length = u32::try_from(root.configuration.len()).unwrap_or(u32::MAX);
        self.set_configuring(Configuring::Plugin);
        let accepted = self
            .call("proxy_on_configure", configure, own(), (root.id, length))
            .is_some_and(|called| called.value != 0);
        self.set_configuring(Configuring::Nothing);
        accepted
    }

    fn set_configuring(&self, configuring: Configuring) {
        self.with_state(|state| {
            state.configuring = configuring;
            Some(())
        });
    }

    fn set_call_data(&self, data: Option<Rc<[u8]>>) {
        self.with_state(|state| {
            state.call_data = data;
            Some(())
        });
    }

    /// `on_done`, then deletion: at once, or at `proxy_done` if the guest says not yet.
    pub(crate) fn end_root(&self, root: &Rc<RootContext>) {
        if matches!(root.life.get(), RootLife::Gone | RootLife::DonePending) {
            return;
        }
        root.life.set(RootLife::DonePending);
        let deadline = self.inner.callback_deadline;
        if let Some(done) = &self.inner.callbacks.done
            && self
                .call(
                    "proxy_on_done",
                    done,
                    (Active::root(root), None, deadline),
                    root.id,
                )
                .is_some_and(|called| called.value == 0)
        {
            return;
        }
        self.delete_root(root);
    }

    pub(crate) fn delete_root(&self, root: &Rc<RootContext>) {
        if root.life.replace(RootLife::Gone) == RootLife::Gone {
            return;
        }
        self.notify(
            "proxy_on_delete",
            |known| known.delete.as_ref(),
            root,
            root.id,
        );
        self.with_state(|state| {
            state.contexts.remove(root.id);
            Some(())
        });
    }

    /// A new stream context, known to the guest. `None`: the VM is dead or full.
    pub(crate) fn new_stream(
        &self,
        root: &Rc<RootContext>,
        filter: usize,
        shared: &Rc<StreamShared>,
    ) -> Option<Rc<StreamContext>> {
        let context = self.with_state(|state| {
            let context = Rc::new(StreamContext::new(
                state.contexts.free_id()?,
                root.clone(),
                filter,
                shared.clone(),
            ));
            state
                .contexts
                .insert(context.id, Context::Stream(context.clone()));
            Some(context)
        })?;
        root.streams.set(root.streams.get() + 1);
        if let Some(create) = &self.inner.callbacks.context_create {
            self.call_stream(
                "proxy_on_context_create",
                create,
                &context,
                (context.id, root.id),
            )?;
        }
        Some(context)
    }

    /// `on_done`; its answer does not matter, as in Envoy.
    pub(crate) fn done_stream(&self, context: &Rc<StreamContext>) {
        if let Some(done) = &self.inner.callbacks.done {
            self.call_stream("proxy_on_done", done, context, context.id);
        }
    }

    /// `on_delete`, and the number is free.
    pub(crate) fn delete_stream(&self, context: &Rc<StreamContext>) {
        if let Some(delete) = &self.inner.callbacks.delete {
            self.call_stream("proxy_on_delete", delete, context, context.id);
        }
        self.with_state(|state| {
            state.contexts.remove(context.id);
            Some(())
        });
        for direction in [Direction::Request, Direction::Response] {
            context.way(direction).data_open.set(false);
        }
        let root = &context.root;
        root.streams.set(root.streams.get().saturating_sub(1));
        if root.streams.get() == 0 && root.life.get() == RootLife::Stopping {
            self.end_root(root);
        }
    }
}

/// `WasmResult::BrokenConnection`: what `proxy_get_status` says after a call was reset. A code, not a status of a host function.
const BROKEN_CONNECTION: u32 = 11;

impl Plugin {
    /// The root context's id, as in [`Environment::set_tick_period`].
    pub fn root_context(&self) -> u32 {
        self.root.id
    }

    pub fn vm(&self) -> &Vm {
        &self.vm
    }

    /// Whether streams may still run on it: not once it has ended, or its VM has failed.
    pub fn has_work(&self) -> bool {
        self.root.life.get() != RootLife::Gone && self.vm.failure().is_none()
    }

    pub fn tick(&self) {
        if self.root.life.get() != RootLife::Gone {
            self.vm.notify(
                "proxy_on_tick",
                |known| known.tick.as_ref(),
                &self.root,
                self.root.id,
            );
        }
    }

    /// Calls `on_foreign_function`: an embedder's own event for its own filters. `data` is readable as buffer 8 meanwhile.
    pub fn foreign_function(&self, function: u32, data: &[u8]) {
        if self.root.life.get() == RootLife::Gone {
            return;
        }
        let Ok(length) = u32::try_from(data.len()) else {
            return;
        };
        self.vm.set_call_data(Some(data.into()));
        let arguments = (self.root.id, function, length);
        self.vm.notify(
            "proxy_on_foreign_function",
            |known| known.foreign_function.as_ref(),
            &self.root,
            arguments,
        );
        self.vm.set_call_data(None);
    }

    /// Ends the root context: done, then delete. Streams that still run on it keep it alive until they finish.
    pub fn stop(&self) {
        if self.root.life.get() != RootLife::Serving {
            return;
        }
        self.root.life.set(RootLife::Stopping);
        if self.root.streams.get() == 0 {
            self.vm.end_root(&self.root);
        }
    }
}
