//! How an instance comes to life.
//!
//! A reactor exports `_initialize`, and then perhaps `main` or `__main_void`; a command exports `_start`. While these run the guest
//! may only log and use WASI (cpp-host's restricted callbacks): there is no context yet that anything else could act for.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use wasmtime::{Instance, Store, StoreLimits, StoreLimitsBuilder, TypedFunc, UpdateDeadline};

use crate::callbacks::Callbacks;
use crate::calling::failure;
use crate::calls::Calls;
use crate::contexts::Contexts;
use crate::embedder::Environment;
use crate::metrics::VmMetrics;
use crate::state::{Active, Budget, Configuring, State};
use crate::ticker::{Activity, Ticker};
use crate::vm::{Failure, Inner, StartError, VmOptions};
use crate::{Engine, Module, Process};

/// Most elements of a guest's tables (function pointers).
const TABLE_ELEMENTS_MAX: usize = 100_000;

pub(crate) fn instantiate(
    module: &Module,
    process: &Process,
    options: VmOptions,
    environment: Rc<dyn Environment>,
) -> Result<Inner, StartError> {
    let engine = module.shared.engine.clone();
    let activity = engine.shared.ticker.register();
    let (callback_deadline, start_deadline) = (options.callback_deadline, options.start_deadline);
    let mut store = Store::new(
        &engine.shared.engine,
        new_state(process, options, environment.clone()),
    );
    store.limiter(|state| &mut state.limits);
    store.epoch_deadline_callback(|mut context| {
        Ok(if context.data_mut().budget.is_spent() {
            UpdateDeadline::Interrupt
        } else {
            UpdateDeadline::Continue(1)
        })
    });
    let mut run = Run {
        engine: &engine,
        activity: &activity,
        store: &mut store,
        limit: start_deadline,
    };
    let instance = run.guarded("instantiation", |store| {
        module.shared.instance.instantiate(store)
    })?;
    let memory = instance.get_memory(&mut *run.store, "memory");
    let allocate = ["malloc", "proxy_on_memory_allocate"]
        .iter()
        .find_map(|name| {
            instance
                .get_typed_func::<u32, u32>(&mut *run.store, name)
                .ok()
        })
        .map(Rc::new);
    let state = run.store.data_mut();
    state.memory = memory;
    state.allocate = allocate;
    run.entry_points(&instance)?;
    store.data_mut().restricted = false;
    let callbacks = Callbacks::look_up(&instance, &mut store, &module.shared.wanted);
    Ok(Inner {
        store: RefCell::new(store),
        callbacks,
        environment,
        failure: OnceCell::new(),
        engine: engine.shared.clone(),
        activity,
        callback_deadline,
        start_deadline,
        wants_bodies: module.wants_bodies(),
        wants_tcp_data: module.shared.wanted.tcp_data(),
    })
}

/// The calls of a start, each under the start deadline.
struct Run<'a> {
    engine: &'a Engine,
    activity: &'a Activity,
    store: &'a mut Store<State>,
    limit: Duration,
}

impl Run<'_> {
    fn entry_points(&mut self, instance: &Instance) -> Result<(), Failure> {
        if let Ok(initialize) = instance.get_typed_func::<(), ()>(&mut *self.store, "_initialize") {
            self.guarded("_initialize", |store| initialize.call(store, ()))?;
            if let Ok(main) = instance.get_typed_func::<(u32, u32), u32>(&mut *self.store, "main") {
                self.guarded("main", |store| main.call(store, (0, 0)))?;
            } else if let Ok(main) =
                instance.get_typed_func::<(), u32>(&mut *self.store, "__main_void")
            {
                self.guarded("__main_void", |store| main.call(store, ()))?;
            }
        } else if let Ok(start) = instance.get_typed_func::<(), ()>(&mut *self.store, "_start") {
            let start: TypedFunc<(), ()> = start;
            self.guarded("_start", |store| start.call(store, ()))?;
        }
        Ok(())
    }

    fn guarded<T>(
        &mut self,
        name: &'static str,
        call: impl FnOnce(&mut Store<State>) -> wasmtime::Result<T>,
    ) -> Result<T, Failure> {
        self.store.data_mut().budget = Budget::new(self.limit);
        self.store.set_epoch_deadline(1);
        self.engine.shared.ticker.enter(self.activity);
        let outcome = call(self.store);
        Ticker::leave(self.activity);
        outcome.map_err(|error| failure(name, &error, self.limit))
    }
}

fn new_state(process: &Process, options: VmOptions, environment: Rc<dyn Environment>) -> State {
    State {
        memory: None,
        usage: crate::Usage::default(),
        allocate: None,
        limits: limits(options.memory_max),
        environment,
        process: process.clone(),
        space: process.join(&options.vm_id),
        metrics: VmMetrics::new(process),
        vm_id: options.vm_id,
        vm_configuration: options.vm_configuration,
        environment_variables: options.environment_variables,
        queue_waker: options.queue_waker,
        contexts: Contexts::default(),
        active: Active::default(),
        restricted: true,
        configuring: Configuring::Nothing,
        own: None,
        stopped: false,
        to_wake: Vec::new(),
        roots_done: Vec::new(),
        calls: Calls::default(),
        call_outcome: None,
        call_data: None,
        budget: Budget::new(options.start_deadline),
        scratch: RefCell::default(),
    }
}

fn limits(memory_max: usize) -> StoreLimits {
    StoreLimitsBuilder::new()
        .memory_size(memory_max)
        .table_elements(TABLE_ELEMENTS_MAX)
        .instances(1)
        .memories(1)
        .build()
}
