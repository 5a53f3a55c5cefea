//! Filters for tests: small WebAssembly text, made into modules when a test starts.

use std::path::PathBuf;

use tempfile::TempDir;

/// A module in a file.
pub struct Guest {
    directory: TempDir,
}

impl Guest {
    pub fn from_text(text: &str) -> Self {
        Self::from_bytes(&wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}")))
    }

    pub fn from_bytes(bytes: &[u8]) -> Self {
        let directory = TempDir::new().unwrap();
        std::fs::write(directory.path().join("guest.wasm"), bytes).unwrap();
        Self { directory }
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("guest.wasm")
    }

    /// The `filters:` key with just this filter.
    pub fn filters(&self) -> String {
        format!("filters: [{{path: '{}'}}]", self.path().display())
    }
}

/// Traps on a request that carries `x-poison`.
pub fn poison() -> Guest {
    Guest::from_text(&on_header("x-poison", "unreachable"))
}

/// Never returns from a request that carries `x-endless`.
pub fn endless() -> Guest {
    Guest::from_text(&on_header("x-endless", "(loop $for_ever (br $for_ever))"))
}

/// Needs a host function that no host has.
pub fn missing_import() -> Guest {
    Guest::from_text(
        r#"(module (import "env" "proxy_make_coffee" (func (param i32) (result i32)))
        (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1")))"#,
    )
}

/// WebAssembly, but not a proxy-wasm filter: no ABI marker.
pub fn no_marker() -> Guest {
    Guest::from_text(r#"(module (memory (export "memory") 1))"#)
}

/// Refuses its configuration.
pub fn refuses_configuration() -> Guest {
    Guest::from_text(
        r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_context_create") (param i32 i32))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
        (func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 0)))"#,
    )
}

/// Not WebAssembly at all.
pub fn not_wasm() -> Guest {
    Guest::from_bytes(b"#!/bin/sh\necho no\n")
}

fn on_header(name: &str, act: &str) -> String {
    format!(
        r#"(module
  (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (global $heap (mut i32) (i32.const 4096))
  (data (i32.const 64) "{name}")
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param $size i32) (result i32) (local $at i32)
    (if (i32.gt_u (i32.add (global.get $heap) (local.get $size)) (i32.const 60000))
      (then (global.set $heap (i32.const 4096))))
    (local.set $at (global.get $heap))
    (global.set $heap (i32.add (global.get $heap) (local.get $size)))
    (local.get $at))
  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (if (i32.eqz (call $get (i32.const 0) (i32.const 64) (i32.const {length}) (i32.const 16) (i32.const 20)))
      (then {act}))
    (i32.const 0)))"#,
        length = name.len()
    )
}
