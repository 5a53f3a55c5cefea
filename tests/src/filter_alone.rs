//! `evenkeel.wasm` on our host without a network: one VM, one configuration, streams that are kept in memory, and a clock that only
//! moves when it is told to, unless it is told to follow the system's.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use evenkeel_host::embedder::{CallRefused, Environment, HttpCall, HttpStream, LogLevel};
use evenkeel_host::http_filters::{Chain, HttpFilters, Verdict};
use evenkeel_host::{Engine, Failure, Module, Plugin, Process, Vm, VmOptions};
use serde_json::{Value, json};

use crate::memory_stream::MemoryStream;

/// The `vm_id` of the filter: whose shared data it sees.
pub const VM_ID: &str = "evenkeel";
/// What the sidecar gives a VM.
const MEMORY_MAX: usize = 256 << 20;
/// Nobody waits for these: a debug build on a busy machine is slow, and under valgrind everything is fifty times slower.
const DEADLINE: Duration = Duration::from_secs(600);
const RESPONSE: [(&str, &str); 2] = [(":status", "200"), ("content-length", "0")];

/// A VM with the filter.
pub struct FilterAlone {
    pub clock: Rc<Clock>,
    plugin: Plugin,
    chain: Rc<Chain>,
    vm: Vm,
}

/// What the filter is told of the time.
#[derive(Debug)]
pub struct Clock {
    /// Nanoseconds since 1970.
    pub now_ns: Cell<u64>,
    /// How far it goes on by itself each time it is read.
    pub step_ns: Cell<u64>,
    /// Whether it is the system's clock instead.
    pub is_real: Cell<bool>,
}

impl Clock {
    /// Goes on.
    pub fn pass(&self, time: Duration) {
        let passed = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.now_ns.set(self.now_ns.get().saturating_add(passed));
    }

    /// As the filter sees it.
    pub fn now_us(&self) -> u64 {
        self.now_ns.get() / 1_000
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            now_ns: Cell::new(1_800_000_000_000_000_000),
            step_ns: Cell::new(0),
            is_real: Cell::new(false),
        }
    }
}

impl FilterAlone {
    /// Compiles the filter: once for all its VMs.
    pub fn compile(wasm: &[u8]) -> Result<Module> {
        Ok(Module::compile(&Engine::new()?, wasm)?)
    }

    /// A VM of `process` that is configured with this `policy` subtree.
    pub fn start(module: &Module, process: &Process, policy: &Value) -> Result<Self> {
        let options = VmOptions {
            vm_id: VM_ID.to_owned(),
            vm_configuration: Vec::new(),
            environment_variables: Vec::new(),
            memory_max: MEMORY_MAX,
            callback_deadline: DEADLINE,
            start_deadline: DEADLINE,
            queue_waker: None,
        };
        let clock = Rc::new(Clock::default());
        let vm = Vm::new(module, process, options, Rc::new(Quiet(Rc::clone(&clock))))?;
        let listener = json!({"name": "web", "mode": "http", "pool": null});
        let configuration =
            json!({"schema": 1, "listener": listener, "secrets": [], "policy": policy});
        let plugin =
            vm.start_plugin("evenkeel", "evenkeel", configuration.to_string().as_bytes())?;
        Ok(Self {
            clock,
            chain: Chain::new(vec![plugin.clone()]),
            plugin,
            vm,
        })
    }

    /// For streams that the caller keeps.
    pub fn chain(&self) -> &Rc<Chain> {
        &self.chain
    }

    /// The head of a request; `None` if the filter answers it itself.
    pub fn request(&self, pairs: &[(&str, &str)]) -> Result<Option<Sent>> {
        let stream = Rc::new(MemoryStream::default());
        stream.request(pairs);
        let owned: Rc<dyn HttpStream> = Rc::<MemoryStream>::clone(&stream);
        let mut filters = HttpFilters::new(&self.chain, owned);
        match filters.request_headers(true) {
            Verdict::Continue => Ok(Some(Sent { stream, filters })),
            Verdict::LocalReply(_) => Ok(None),
            other => bail!("the filter did not let the request pass: {other:?}"),
        }
    }

    /// What the host does every 250 ms.
    pub fn tick(&self) {
        self.plugin.tick();
    }

    /// Bytes of the guest's memory.
    pub fn memory_bytes(&self) -> Result<usize> {
        self.vm.memory_bytes().context("the VM has no memory")
    }
}

/// A request that was let through, and is not over.
pub struct Sent {
    stream: Rc<MemoryStream>,
    filters: HttpFilters,
}

impl Sent {
    /// The servers it may go to, as the filter wrote them.
    pub fn endpoints(&self) -> String {
        self.stream
            .request_value("x-gateway-destination-endpoint")
            .unwrap_or_default()
    }

    /// The first server answers.
    pub fn answer(&mut self) -> Result<()> {
        self.stream.response(&RESPONSE);
        match self.filters.response_headers(true) {
            Verdict::Continue => Ok(()),
            other => bail!("the filter did not let the answer pass: {other:?}"),
        }
    }

    /// It is over, answered or not.
    pub fn finish(mut self) {
        self.filters.finish();
    }
}

/// A world in which nothing happens but time.
struct Quiet(Rc<Clock>);

impl Environment for Quiet {
    fn log(&self, level: LogLevel, message: &[u8]) {
        if level >= LogLevel::Warn {
            eprintln!("the filter says: {}", String::from_utf8_lossy(message));
        }
    }

    fn log_level(&self) -> LogLevel {
        LogLevel::Warn
    }

    fn http_call(&self, _call: HttpCall) -> Result<(), CallRefused> {
        Err(CallRefused::UnknownUpstream)
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

    fn wall_clock(&self) -> SystemTime {
        if self.0.is_real.get() {
            return SystemTime::now();
        }
        let now_ns = self.0.now_ns.get();
        self.0
            .now_ns
            .set(now_ns.saturating_add(self.0.step_ns.get()));
        SystemTime::UNIX_EPOCH + Duration::from_nanos(now_ns)
    }

    fn failed(&self, failure: &Failure) {
        eprintln!("{failure}");
    }
}
