//! evenkeel's own filter, inside the executable.

/// `evenkeel.wasm`, as `build.rs` built it.
pub const FILTER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/evenkeel.wasm"));
