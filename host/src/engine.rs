//! The compiler ([`Engine`]) and compiled modules ([`Module`]), shared by all threads.

use std::sync::Arc;

use thiserror::Error;
use wasmtime::{Config, ExternType, InstancePre, Linker, OptLevel, ValType, WasmBacktraceDetails};

use crate::callbacks::{self, Wanted};
use crate::hostcalls::{self, Imports};
use crate::state::State;
use crate::ticker::Ticker;
use crate::{custom_section, precompiled};

/// Markers of the ABI versions this host speaks; 0.2.0 is a subset of 0.2.1.
const ABI_MARKERS: [&str; 2] = ["proxy_abi_version_0_2_1", "proxy_abi_version_0_2_0"];
/// Stack of compiled code, bytes; a guest that recurses deeper traps. Threads that run VMs need this much and some more.
const GUEST_STACK_BYTES: usize = 512 << 10;

/// Compiles and runs modules. Clones share one compiler and one epoch ticker.
#[derive(Clone)]
pub struct Engine {
    pub(crate) shared: Arc<EngineShared>,
}

pub(crate) struct EngineShared {
    pub(crate) engine: wasmtime::Engine,
    pub(crate) ticker: Ticker,
    linker: Linker<State>,
    imports: Imports,
}

/// A compiled and checked module: ABI 0.2.1, every import known.
#[derive(Clone)]
pub struct Module {
    pub(crate) shared: Arc<ModuleShared>,
}

/// The same module: compiled once, not only of the same bytes.
impl PartialEq for Module {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

pub(crate) struct ModuleShared {
    pub(crate) engine: Engine,
    pub(crate) instance: InstancePre<State>,
    pub(crate) wanted: Wanted,
    wants_bodies: bool,
}

/// Why a module cannot be used.
#[derive(Debug, Error)]
pub enum ModuleError {
    #[error("not a WebAssembly module: {0}")]
    Malformed(String),
    #[error("missing import: {0}")]
    MissingImport(String),
    #[error("not a proxy-wasm 0.2.x module: no proxy_abi_version export")]
    NoAbi,
}

impl Engine {
    /// A new engine and its ticker thread (10 ms, parked while no VM is inside a callback).
    pub fn new() -> Result<Self, ModuleError> {
        let mut config = Config::new();
        config.epoch_interruption(true);
        config.cranelift_opt_level(OptLevel::Speed);
        config.wasm_backtrace_details(WasmBacktraceDetails::Disable);
        config.wasm_multi_memory(false);
        config.max_wasm_stack(GUEST_STACK_BYTES);
        let engine = wasmtime::Engine::new(&config).map_err(malformed)?;
        let ticker = Ticker::start(engine.weak())
            .map_err(|error| ModuleError::Malformed(format!("no ticker thread: {error}")))?;
        let (linker, imports) = hostcalls::link(&engine).map_err(malformed)?;
        Ok(Self {
            shared: Arc::new(EngineShared {
                engine,
                ticker,
                linker,
                imports,
            }),
        })
    }

    /// Everything that a module may import: module and name.
    pub fn imports(&self) -> impl Iterator<Item = (&str, &str)> {
        self.shared.imports.iter()
    }

    /// Compiles for [`Module::load`]. For build time: native code for this machine's features.
    pub fn precompile(&self, wasm: &[u8]) -> Result<Vec<u8>, ModuleError> {
        precompiled::make(&self.shared.engine, wasm).map_err(malformed)
    }
}

impl Module {
    /// Compiles a module and checks its imports and ABI marker.
    pub fn compile(engine: &Engine, wasm: &[u8]) -> Result<Self, ModuleError> {
        let module =
            wasmtime::Module::from_binary(&engine.shared.engine, wasm).map_err(malformed)?;
        Self::check(engine, wasm, &module)
    }

    /// Takes `precompiled` if it was made from exactly `wasm` by exactly this wasmtime and for this machine; else compiles.
    /// `precompiled` must come from a place that may run code in this process (it is native code).
    pub fn load(
        engine: &Engine,
        wasm: &[u8],
        precompiled: Option<&[u8]>,
    ) -> Result<Self, ModuleError> {
        match precompiled
            .and_then(|artefact| precompiled::load(&engine.shared.engine, wasm, artefact))
        {
            Some(module) => Self::check(engine, wasm, &module),
            None => Self::compile(engine, wasm),
        }
    }

    /// Whether filters of this module want request or response bodies (true for modules without `evenkeel.callbacks`).
    pub fn wants_bodies(&self) -> bool {
        self.shared.wants_bodies
    }

    fn check(engine: &Engine, wasm: &[u8], module: &wasmtime::Module) -> Result<Self, ModuleError> {
        let missing: Vec<String> = module
            .imports()
            .filter(|import| {
                !engine
                    .shared
                    .imports
                    .contains(import.module(), import.name())
            })
            .map(|import| format!("{}.{}", import.module(), import.name()))
            .collect();
        if !missing.is_empty() {
            return Err(ModuleError::MissingImport(missing.join(", ")));
        }
        if !ABI_MARKERS
            .iter()
            .any(|marker| module.get_export_index(marker).is_some())
        {
            return Err(ModuleError::NoAbi);
        }
        if !matches!(module.get_export("memory"), Some(ExternType::Memory(memory)) if !memory.is_64() && !memory.is_shared())
        {
            return Err(ModuleError::Malformed(
                "no memory is exported as `memory`".to_owned(),
            ));
        }
        check_shapes(module)?;
        let instance = engine
            .shared
            .linker
            .instantiate_pre(module)
            .map_err(malformed)?;
        let wanted = Wanted::from_section(custom_section::find(wasm, custom_section::CALLBACKS));
        let wants_bodies = wanted.bodies();
        Ok(Self {
            shared: Arc::new(ModuleShared {
                engine: engine.clone(),
                instance,
                wanted,
                wants_bodies,
            }),
        })
    }
}

/// Refuses a module that exports a callback with other parameters than the ABI's.
fn check_shapes(module: &wasmtime::Module) -> Result<(), ModuleError> {
    for (name, parameters, results) in callbacks::SHAPES {
        match module.get_export(name) {
            None => {}
            Some(ExternType::Func(shape)) => {
                let numbers = shape
                    .params()
                    .chain(shape.results())
                    .all(|kind| matches!(kind, ValType::I32));
                if !numbers
                    || shape.params().len() != *parameters
                    || shape.results().len() != *results
                {
                    return Err(ModuleError::Malformed(format!(
                        "{name} has not the parameters of ABI 0.2.1"
                    )));
                }
            }
            Some(_) => return Err(ModuleError::Malformed(format!("{name} is not a function"))),
        }
    }
    Ok(())
}

fn malformed(error: wasmtime::Error) -> ModuleError {
    ModuleError::Malformed(format!("{error:#}"))
}
