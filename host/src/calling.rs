//! How the host enters a VM, and what happens when the guest does not come back.
//!
//! Every call goes through [`Vm::call`]: it sets the context, the CPU budget and the ticker's flag, runs the guest, and afterwards wakes
//! the streams something was raised for. A trap or an overrun kills the VM: every stream on it hears of it, then
//! [`Environment::failed`] is told, once.
//!
//! Calls do not nest: an embedder that calls back into the VM from one of its methods is refused.

use std::rc::Rc;
use std::time::Duration;

use wasmtime::{Trap, TypedFunc, WasmParams, WasmResults};

use crate::callbacks::Callbacks;
use crate::contexts::{Context, RootContext, StreamContext};
use crate::raised::{Raised, StreamShared};
use crate::state::{Active, Budget, State};
use crate::ticker::Ticker;
use crate::vm::{Failure, Vm};

/// What a guest returned, and whether it sent a local reply to its own stream meanwhile.
pub(crate) struct Called<R> {
    pub(crate) value: R,
    pub(crate) stopped: bool,
}

/// On whose behalf, on which stream's own thread of events, and for how long.
pub(crate) type Frame = (Active, Option<Rc<StreamShared>>, Duration);

impl Vm {
    /// Calls the guest. `None`: the VM is dead, now or before.
    pub(crate) fn call<P: WasmParams, R: WasmResults>(
        &self,
        callback: &'static str,
        function: &TypedFunc<P, R>,
        (active, own, limit): Frame,
        arguments: P,
    ) -> Option<Called<R>> {
        if self.inner.failure.get().is_some() {
            return None;
        }
        let Ok(mut store) = self.inner.store.try_borrow_mut() else {
            tracing::error!(callback, "a VM was entered from within itself");
            return None;
        };
        let state = store.data_mut();
        state.active = active;
        state.own = own;
        state.stopped = false;
        state.budget = Budget::new(limit);
        store.set_epoch_deadline(1);
        self.inner.engine.ticker.enter(&self.inner.activity);
        let outcome = function.call(&mut *store, arguments);
        Ticker::leave(&self.inner.activity);
        let state = store.data_mut();
        state.active = Active::default();
        let own = state.own.take();
        let stopped = state.stopped;
        let to_wake = std::mem::take(&mut state.to_wake);
        let roots_done = std::mem::take(&mut state.roots_done);
        drop(store);
        match outcome {
            Ok(value) => {
                to_wake.iter().for_each(|stream| stream.wake());
                roots_done.iter().for_each(|root| self.delete_root(root));
                Some(Called { value, stopped })
            }
            Err(error) => {
                self.fail(failure(callback, &error, limit), own.as_ref());
                None
            }
        }
    }

    pub(crate) fn call_stream<P: WasmParams, R: WasmResults>(
        &self,
        callback: &'static str,
        function: &TypedFunc<P, R>,
        context: &Rc<StreamContext>,
        arguments: P,
    ) -> Option<Called<R>> {
        let frame = (
            Active::stream(context),
            Some(context.shared.clone()),
            self.inner.callback_deadline,
        );
        self.call(callback, function, frame, arguments)
    }

    /// Calls a callback of a root context, if the guest has it.
    pub(crate) fn notify<P: WasmParams, R: WasmResults>(
        &self,
        callback: &'static str,
        find: impl FnOnce(&Callbacks) -> Option<&TypedFunc<P, R>>,
        root: &Rc<RootContext>,
        arguments: P,
    ) {
        if let Some(function) = find(&self.inner.callbacks) {
            self.call(
                callback,
                function,
                (Active::root(root), None, self.inner.callback_deadline),
                arguments,
            );
        }
    }

    /// Looks at the state between calls. `None` also for a dead VM and for one that is being called.
    pub(crate) fn with_state<T>(&self, look: impl FnOnce(&mut State) -> Option<T>) -> Option<T> {
        if self.inner.failure.get().is_some() {
            return None;
        }
        look(self.inner.store.try_borrow_mut().ok()?.data_mut())
    }

    pub(crate) fn is_failed(&self) -> bool {
        self.inner.failure.get().is_some()
    }

    fn fail(&self, failure: Failure, own: Option<&Rc<StreamShared>>) {
        if self.inner.failure.set(failure.clone()).is_err() {
            return;
        }
        let contexts = match self.inner.store.try_borrow_mut() {
            Ok(mut store) => {
                let state = store.data_mut();
                state.calls.clear();
                state.call_outcome = None;
                state.contexts.clear()
            }
            Err(_) => Vec::new(),
        };
        for context in contexts {
            // The stream whose callback failed learns it from the verdict.
            if let Context::Stream(stream) = context
                && stream.shared.raise(Raised::Failed)
                && !own.is_some_and(|own| Rc::ptr_eq(own, &stream.shared))
            {
                stream.shared.wake();
            }
        }
        self.inner.environment.failed(&failure);
    }
}

pub(crate) fn failure(callback: &'static str, error: &wasmtime::Error, limit: Duration) -> Failure {
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => Failure::Deadline {
            callback,
            limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
        },
        Some(trap) => Failure::Trap {
            callback,
            reason: trap.to_string(),
        },
        None => Failure::Trap {
            callback,
            reason: format!("{error:#}"),
        },
    }
}
