//! A complete proxy-wasm ABI 0.2.1 host on wasmtime.
//!
//! It knows nothing of balancing, sessions, hyper or evenkeel's filter, and opens no socket: an *embedder* (a proxy)
//! implements the traits of [`embedder`], drives streams through [`http_filters`], and gets decisions back.
//!
//! One [`Vm`] belongs to one thread; several threads share [`Module`]s and one [`Process`] (shared data, queues, metrics).

pub mod embedder;
mod engine;
pub mod http_filters;
mod process;
mod vm;

pub use engine::{Engine, Module, ModuleError};
pub use process::Process;
pub use vm::{Failure, Plugin, StartError, Vm, VmOptions};
