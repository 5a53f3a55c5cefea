//! A complete proxy-wasm ABI 0.2.1 host on wasmtime.
//!
//! It knows nothing of balancing, sessions, hyper or evenkeel's filter, and opens no socket: an *embedder* (a proxy)
//! implements the traits of [`embedder`], drives streams through [`http_filters`] and [`tcp_filters`], and gets decisions back.
//!
//! One [`Vm`] belongs to one thread; several threads share [`Module`]s and one [`Process`] (shared data, queues, metrics).
//!
//! # The life of a stream
//! ```text
//! owner (the proxy)                     host                               guest
//! HttpFilters::new(chain, stream)
//! request_headers(eos) ───────▶ for each filter, forwards:      on_context_create, on_request_headers
//!   ◀── Continue | Pause | LocalReply | Reset | Failed
//! request_body, request_trailers ─▶ the same                    on_request_body, on_request_trailers
//!   … forwards, gets the head of a response (or makes one) …
//! response_headers(eos) ──────▶ for each filter, backwards:     on_response_headers
//! response_body, response_trailers                              on_response_body, on_response_trailers
//! finish() ──────────────────▶ for each filter:                 on_log; then on_done, on_delete
//! ```
//! What a guest asks for in a callback (resume, local reply, close) happens after the callback has returned: by the verdict if it is the stream's
//! own callback, else by [`embedder::HttpStream::wake`] and [`http_filters::HttpFilters::poll_event`]. A trap or an overrun of CPU time kills the
//! VM: every stream on it is woken and sees `Failed`, then [`embedder::Environment::failed`] is told.

pub mod embedder;
pub mod http_filters;
pub mod tcp_filters;

mod callbacks;
mod calling;
mod calls;
mod contexts;
mod custom_section;
mod engine;
mod guest_memory;
mod hostcalls;
mod http_passage;
mod metrics;
mod pairs;
mod precompiled;
mod process;
mod published;
mod raised;
mod shared_data;
mod shared_queues;
mod start;
mod state;
mod status;
mod ticker;
mod vm;

pub use engine::{Engine, Module, ModuleError};
pub use process::Process;
pub use state::Usage;
pub use vm::{Failure, Plugin, StartError, Vm, VmOptions};
