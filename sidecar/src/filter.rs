//! The filters of one worker: a VM per module, a plugin per listener, and their replacement when a VM dies.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_host::http_filters::Chain;
use evenkeel_host::{Module, Plugin, StartError, Vm, VmOptions};

use crate::filter_environment::{QueueCalls, VmEnvironment};
use crate::worker::{Active, Worker};

/// Largest memory of one VM.
const MEMORY_MAX: usize = 256 * 1024 * 1024;
/// Thread CPU time that one callback may take.
const CALLBACK_DEADLINE: Duration = Duration::from_millis(100);
/// The same for start and configuration.
const START_DEADLINE: Duration = Duration::from_secs(10);

/// One filter of the chain, as all workers share it.
pub(crate) struct FilterSource {
    pub(crate) name: String,
    /// For messages: the file of a filter of the operator's own.
    pub(crate) label: String,
    pub(crate) vm_id: String,
    pub(crate) root_id: String,
    pub(crate) module: Module,
    pub(crate) configuration: Configuration,
}

/// What a filter is configured with.
pub(crate) enum Configuration {
    /// The same text for every listener: one plugin serves all.
    Fixed(Vec<u8>),
    /// A text for each listener, by its configured address.
    Listeners(Vec<(SocketAddr, Vec<u8>)>),
}

/// The chains of one worker.
pub(crate) struct FilterSet {
    vms: Vec<FilterVm>,
    chains: Vec<(SocketAddr, Rc<Chain>)>,
}

#[derive(Clone)]
struct FilterVm {
    vm: Vm,
    environment: Rc<VmEnvironment>,
    /// By listener; one for all where the configuration is fixed.
    plugins: Vec<(Option<SocketAddr>, Plugin)>,
}

impl FilterSet {
    /// Starts what is not running: of `previous`, VMs that live are kept.
    pub(crate) fn start(
        worker: &Rc<Worker>,
        active: &Rc<Active>,
        previous: Option<&Self>,
    ) -> Result<Self, String> {
        let mut vms = Vec::new();
        for (number, source) in active.generation.filters.iter().enumerate() {
            let kept = previous
                .and_then(|previous| previous.vms.get(number))
                .filter(|old| old.vm.failure().is_none());
            vms.push(match kept {
                Some(kept) => kept.clone(),
                None => FilterVm::start(worker, active, source)
                    .map_err(|error| format!("{}: {error}", source.label))?,
            });
        }
        let chains = active
            .generation
            .config
            .listeners
            .iter()
            .map(|listener| {
                let plugins = vms
                    .iter()
                    .filter_map(|vm| vm.plugin(listener.bind))
                    .collect();
                (listener.bind, Chain::new(plugins))
            })
            .collect();
        Ok(Self { vms, chains })
    }

    pub(crate) fn chain(&self, bind: SocketAddr) -> Option<Rc<Chain>> {
        self.chains
            .iter()
            .find(|(address, _)| *address == bind)
            .map(|(_, chain)| Rc::clone(chain))
    }

    /// Ends the plugins; streams that run on them finish first.
    pub(crate) fn stop(&self) {
        for vm in &self.vms {
            vm.environment.retire();
            for (_, plugin) in &vm.plugins {
                plugin.stop();
            }
        }
    }
}

impl FilterVm {
    fn start(
        worker: &Rc<Worker>,
        active: &Rc<Active>,
        source: &FilterSource,
    ) -> Result<Self, StartError> {
        let environment = VmEnvironment::new(worker, active, &source.name);
        let options = VmOptions {
            vm_id: source.vm_id.clone(),
            vm_configuration: Vec::new(),
            environment_variables: Vec::new(),
            memory_max: MEMORY_MAX,
            callback_deadline: CALLBACK_DEADLINE,
            start_deadline: START_DEADLINE,
            queue_waker: Some(Arc::new(QueueCalls::new(worker, environment.number()))),
        };
        let handle: Rc<dyn evenkeel_host::embedder::Environment> =
            Rc::<VmEnvironment>::clone(&environment);
        let vm = Vm::new(&source.module, &worker.shared.process, options, handle)?;
        let mut plugins = Vec::new();
        match &source.configuration {
            Configuration::Fixed(text) => {
                plugins.push((None, vm.start_plugin(&source.name, &source.root_id, text)?))
            }
            Configuration::Listeners(texts) => {
                for (bind, text) in texts {
                    plugins.push((
                        Some(*bind),
                        vm.start_plugin(&source.name, &source.root_id, text)?,
                    ));
                }
            }
        }
        environment.run(
            &vm,
            plugins.iter().map(|(_, plugin)| plugin.clone()).collect(),
        );
        Ok(Self {
            vm,
            environment,
            plugins,
        })
    }

    fn plugin(&self, bind: SocketAddr) -> Option<Plugin> {
        self.plugins
            .iter()
            .find(|(address, _)| address.is_none_or(|address| address == bind))
            .map(|(_, plugin)| plugin.clone())
    }
}
