//! The compiler ([`Engine`]) and compiled modules ([`Module`]), shared by all threads.

use thiserror::Error;

/// Compiles and runs modules. Clones share one compiler and one epoch ticker.
#[derive(Clone)]
pub struct Engine {}

/// A compiled and checked module: ABI 0.2.1, every import known.
#[derive(Clone)]
pub struct Module {}

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
        unimplemented!()
    }

    /// Compiles for [`Module::load`]. For build time: native code for this machine's features.
    pub fn precompile(&self, _wasm: &[u8]) -> Result<Vec<u8>, ModuleError> {
        unimplemented!()
    }
}

impl Module {
    /// Compiles a module and checks its imports and ABI marker.
    pub fn compile(_engine: &Engine, _wasm: &[u8]) -> Result<Self, ModuleError> {
        unimplemented!()
    }

    /// Takes `precompiled` if it was made from exactly `wasm` by exactly this wasmtime and for this machine; else compiles.
    /// `precompiled` must come from a place that may run code in this process (it is native code).
    pub fn load(_engine: &Engine, _wasm: &[u8], _precompiled: Option<&[u8]>) -> Result<Self, ModuleError> {
        unimplemented!()
    }

    /// Whether filters of this module want request or response bodies (true for modules without `evenkeel.callbacks`).
    pub fn wants_bodies(&self) -> bool {
        unimplemented!()
    }
}
