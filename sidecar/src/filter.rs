//! The filters of one worker: a VM per module, a plugin per listener, and their replacement when a VM dies.
//!
//! # Why a reload keeps the VMs
//! As in Envoy, where VMs are found by their id and code: the plugins of a new configuration start beside the old ones, which end with
//! their last stream. So what a filter knows of its worker (requests in flight, places taken, who failed lately) is forgotten by no
//! reload, and reloads under long connections do not heap up VMs. A configuration that kills its VM would kill what serves, so each is
//! tried out in VMs of its own before ([`try_out`]). A VM that has grown too large is not gone on with: a new one begins beside it, knows
//! nothing of it, and it ends with its streams.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_host::embedder::{
    CallRefused, Environment, HttpCall, HttpStream, LogLevel, QueueWaker,
};
use evenkeel_host::http_filters::Chain;
use evenkeel_host::{Failure, Module, Plugin, Process, StartError, Vm, VmOptions};

use crate::filter_environment::{QueueCalls, VmEnvironment};
use crate::worker::{Active, Worker};

/// Largest memory of one VM.
const MEMORY_MAX: usize = 256 * 1024 * 1024;
/// A VM whose memory has grown larger is not gone on with: there must be room for one configuration more, and what the many before it
/// have left behind, for streams that never end, must not add up for ever.
const MEMORY_KEPT_MAX: usize = MEMORY_MAX / 2;
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
#[derive(PartialEq, Eq)]
pub(crate) enum Configuration {
    /// The same text for every listener: one plugin serves all.
    Fixed(Arc<[u8]>),
    /// A text for each listener, by its configured address.
    Listeners(Vec<(SocketAddr, Arc<[u8]>)>),
}

impl FilterSource {
    /// Whether nothing of it has changed.
    fn is_as(&self, before: &Self) -> bool {
        self.vm_id == before.vm_id
            && self.module == before.module
            && self.configuration == before.configuration
    }

    /// The texts it is configured with, and for which listeners; `None`: for all.
    fn texts(&self) -> Vec<(Option<SocketAddr>, &Arc<[u8]>)> {
        match &self.configuration {
            Configuration::Fixed(text) => vec![(None, text)],
            Configuration::Listeners(texts) => {
                let texts = texts.iter().map(|(bind, text)| (Some(*bind), text));
                texts.collect()
            }
        }
    }
}

/// The chains of one worker.
pub(crate) struct FilterSet {
    vms: Vec<FilterVm>,
    chains: Vec<(SocketAddr, Rc<Chain>)>,
}

#[derive(Clone)]
struct FilterVm {
    vm: Vm,
    vm_id: String,
    module: Module,
    environment: Rc<VmEnvironment>,
    plugins: Vec<Configured>,
}

/// One plugin, and what it was configured with.
#[derive(Clone)]
struct Configured {
    /// The listener it serves; `None`: all of them.
    bind: Option<SocketAddr>,
    text: Arc<[u8]>,
    plugin: Plugin,
}

/// What becomes of running VMs.
#[derive(Clone, Copy)]
pub(crate) enum Running<'a> {
    /// There are none.
    None,
    /// They are of the same configuration: those that live stay, with their plugins.
    Replace(&'a FilterSet),
    /// They are of the configuration before: new plugins start in those that live.
    Reload(&'a FilterSet),
}

impl FilterSet {
    /// Starts what is not running. What starts in a VM that does is not ticked before [`FilterSet::take_over`].
    pub(crate) fn start(
        worker: &Rc<Worker>,
        active: &Rc<Active>,
        running: Running<'_>,
    ) -> Result<Self, String> {
        let mut set = Self {
            vms: Vec::new(),
            chains: Vec::new(),
        };
        for (number, source) in active.generation.filters.iter().enumerate() {
            let started = match running {
                Running::Replace(set) if set.vm_that_lives(number).is_some() => {
                    Ok(set.vm_that_lives(number).cloned())
                }
                Running::Reload(set) => set
                    .vm_for(source)
                    .map(|vm| vm.configured_anew(source))
                    .transpose(),
                Running::None | Running::Replace(_) => Ok(None),
            };
            let started = started.and_then(|started| match started {
                Some(started) => Ok(started),
                None => FilterVm::start(worker, active, source),
            });
            match started {
                Ok(started) => set.vms.push(started),
                Err(error) => {
                    if let Running::Replace(kept) = running {
                        set.vms.retain(|vm| !kept.has(vm));
                    }
                    set.stop(running.set());
                    return Err(format!("{}: {error}", source.label));
                }
            }
        }
        let listeners = active.generation.config.listeners.iter();
        set.chains = listeners
            .map(|listener| {
                let plugins = set.vms.iter();
                let plugins = plugins.filter_map(|vm| vm.plugin(listener.bind));
                (listener.bind, Chain::new(plugins.collect()))
            })
            .collect();
        Ok(set)
    }

    /// These serve from now on: their plugins are ticked, and call servers of `active`. Whether all VMs still live.
    pub(crate) fn take_over(&self, active: &Rc<Active>) -> bool {
        for vm in &self.vms {
            vm.serve(active);
        }
        self.vms.iter().all(|vm| vm.vm.failure().is_none())
    }

    /// Whether it has the VM of another set.
    fn has(&self, other: &FilterVm) -> bool {
        let mut vms = self.vms.iter();
        vms.any(|vm| Rc::ptr_eq(&vm.environment, &other.environment))
    }

    /// Whether a plugin of another set's VM is one of its own, too.
    fn serves_by(&self, other: &FilterVm, plugin: &Plugin) -> bool {
        let vms = self.vms.iter();
        let mut same = vms.filter(|vm| Rc::ptr_eq(&vm.environment, &other.environment));
        same.any(|vm| {
            let mut roots = vm.plugins.iter().map(|known| known.plugin.root_context());
            roots.any(|root| root == plugin.root_context())
        })
    }

    fn vm_that_lives(&self, number: usize) -> Option<&FilterVm> {
        let vm = self.vms.get(number);
        vm.filter(|vm| vm.vm.failure().is_none())
    }

    /// The VM in which a filter of a new configuration starts, if it need not be a new one.
    fn vm_for(&self, source: &FilterSource) -> Option<&FilterVm> {
        self.vms.iter().find(|vm| {
            vm.vm_id == source.vm_id
                && vm.module == source.module
                && vm.vm.failure().is_none()
                && vm.vm.memory_bytes().unwrap_or(0) <= MEMORY_KEPT_MAX
        })
    }

    pub(crate) fn chain(&self, bind: SocketAddr) -> Option<Rc<Chain>> {
        self.chains
            .iter()
            .find(|(address, _)| *address == bind)
            .map(|(_, chain)| Rc::clone(chain))
    }

    /// Ends the plugins; streams that run on them finish first. VMs end with them, unless `others` serve in them, too.
    pub(crate) fn stop(&self, others: Option<&Self>) {
        for vm in &self.vms {
            if !others.is_some_and(|others| others.has(vm)) {
                vm.environment.retire();
            }
            let goes_on = |configured: &Configured| {
                others.is_some_and(|others| others.serves_by(vm, &configured.plugin))
            };
            for ended in vm.plugins.iter().filter(|plugin| !goes_on(plugin)) {
                ended.plugin.stop();
            }
            vm.environment.forget_strangers();
        }
    }
}

impl<'a> Running<'a> {
    fn set(self) -> Option<&'a FilterSet> {
        match self {
            Self::None => None,
            Self::Replace(set) | Self::Reload(set) => Some(set),
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
        let waker = QueueCalls::new(worker, environment.number());
        let handle: Rc<dyn Environment> = Rc::<VmEnvironment>::clone(&environment);
        let options = options(source, Some(Arc::new(waker)));
        let vm = Vm::new(&source.module, &worker.shared.process, options, handle)?;
        let plugins = configure(&vm, source, &[])?;
        let started = Self {
            vm,
            vm_id: source.vm_id.clone(),
            module: source.module.clone(),
            environment,
            plugins,
        };
        started.serve(active);
        started.environment.run(&started.vm);
        Ok(started)
    }

    /// Its plugins are ticked, and call servers of `active`.
    fn serve(&self, active: &Rc<Active>) {
        let plugins = self.plugins.iter();
        let plugins = plugins.map(|configured| configured.plugin.clone());
        self.environment.serve(active, plugins);
    }

    /// The same VM with the plugins of another configuration.
    fn configured_anew(&self, source: &FilterSource) -> Result<Self, StartError> {
        let plugins = configure(&self.vm, source, &self.plugins);
        if plugins.is_err() {
            self.environment.forget_strangers();
        }
        Ok(Self {
            plugins: plugins?,
            ..self.clone()
        })
    }

    fn plugin(&self, bind: SocketAddr) -> Option<Plugin> {
        self.plugins
            .iter()
            .find(|configured| configured.bind.is_none_or(|own| own == bind))
            .map(|configured| configured.plugin.clone())
    }
}

fn options(source: &FilterSource, queue_waker: Option<Arc<dyn QueueWaker>>) -> VmOptions {
    VmOptions {
        vm_id: source.vm_id.clone(),
        vm_configuration: Vec::new(),
        environment_variables: Vec::new(),
        memory_max: MEMORY_MAX,
        callback_deadline: CALLBACK_DEADLINE,
        start_deadline: START_DEADLINE,
        queue_waker,
    }
}

/// Starts a filter's plugins, but for those that run with the same text for the same listener; all of them, or none.
fn configure(
    vm: &Vm,
    source: &FilterSource,
    running: &[Configured],
) -> Result<Vec<Configured>, StartError> {
    let (mut plugins, mut started) = (Vec::new(), Vec::new());
    for (bind, text) in source.texts() {
        let is_same = |known: &&Configured| known.bind == bind && known.text == *text;
        if let Some(known) = running.iter().find(is_same) {
            plugins.push(known.clone());
            continue;
        }
        match vm.start_plugin(&source.name, &source.root_id, text) {
            Ok(plugin) => {
                started.push(plugin.clone());
                let text = Arc::clone(text);
                plugins.push(Configured { bind, text, plugin });
            }
            Err(error) => {
                started.iter().for_each(Plugin::stop);
                return Err(error);
            }
        }
    }
    Ok(plugins)
}

/// Configures filters in VMs that serve nobody and end at once: what they refuse, or do not survive, is found here. Those that are as
/// `before` need no trial.
///
/// # Errors
/// Names the filter and what became of it.
pub(crate) fn try_out(
    sources: &[FilterSource],
    before: &[FilterSource],
    process: &Process,
) -> Result<(), String> {
    let is_new = |source: &&FilterSource| !before.iter().any(|before| source.is_as(before));
    for source in sources.iter().filter(is_new) {
        let environment: Rc<dyn Environment> = Rc::new(Trial(source.name.clone()));
        Vm::new(&source.module, process, options(source, None), environment)
            .and_then(|vm| configure(&vm, source, &[]))
            .map_err(|error| format!("{}: {error}", source.label))?
            .iter()
            .for_each(|configured| configured.plugin.stop());
    }
    Ok(())
}

/// The world of a VM that is only tried out: nothing happens in it, but what it complains of is heard.
struct Trial(String);

impl Environment for Trial {
    fn log(&self, level: LogLevel, message: &[u8]) {
        let (filter, message) = (self.0.as_str(), String::from_utf8_lossy(message));
        match level {
            LogLevel::Error | LogLevel::Critical => tracing::error!(filter, "{message}"),
            _ => tracing::debug!(filter, "{message}"),
        }
    }

    fn log_level(&self) -> LogLevel {
        LogLevel::Warn
    }

    fn http_call(&self, _call: HttpCall) -> Result<(), CallRefused> {
        Err(CallRefused::NoEndpoints)
    }

    fn set_tick_period(&self, _root_context: u32, _period: Duration) {}

    fn foreign_function(
        &self,
        _stream: Option<&dyn HttpStream>,
        _name: &[u8],
        _arguments: &[u8],
    ) -> Option<Vec<u8>> {
        None
    }

    fn failed(&self, _failure: &Failure) {}
}
