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

/// Reads and writes shared data for whoever asks by header: `x-shared-key` alone answers its value as a body (404: there is none),
/// with `x-shared-value` (hexadecimal) it is written. Requests without them pass.
///
/// Shared data is one per `vm_id`: this guest sees what the filter shares only where it is given the filter's.
pub fn shared_data() -> Guest {
    Guest::from_text(
        r#"(module
  (import "env" "proxy_get_header_map_value" (func $header (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_shared_data" (func $get (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_shared_data" (func $set (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_send_local_response" (func $answer (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 8)
  (global $heap (mut i32) (i32.const 65536))
  (data (i32.const 64) "x-shared-key")
  (data (i32.const 96) "x-shared-value")
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param $size i32) (result i32) (local $at i32)
    (local.set $at (global.get $heap))
    (global.set $heap (i32.add (global.get $heap) (local.get $size)))
    (local.get $at))
  (func (export "proxy_on_context_create") (param i32 i32))
  (func $digit (param $at i32) (result i32) (local $character i32)
    (local.set $character (i32.load8_u (local.get $at)))
    (if (result i32) (i32.gt_u (local.get $character) (i32.const 57))
      (then (i32.sub (local.get $character) (i32.const 87)))
      (else (i32.sub (local.get $character) (i32.const 48)))))
  (func $respond (param $status i32) (param $body i32) (param $size i32)
    (drop (call $answer (local.get $status) (i32.const 0) (i32.const 0) (local.get $body) (local.get $size)
      (i32.const 0) (i32.const 0) (i32.const -1))))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (local $value i32) (local $size i32) (local $at i32)
    (global.set $heap (i32.const 65536))
    (if (call $header (i32.const 0) (i32.const 64) (i32.const 12) (i32.const 16) (i32.const 20))
      (then (return (i32.const 0))))
    (if (call $header (i32.const 0) (i32.const 96) (i32.const 14) (i32.const 24) (i32.const 28))
      (then
        (if (call $get (i32.load (i32.const 16)) (i32.load (i32.const 20)) (i32.const 32) (i32.const 36) (i32.const 40))
          (then (call $respond (i32.const 404) (i32.const 0) (i32.const 0)))
          (else (call $respond (i32.const 200) (i32.load (i32.const 32)) (i32.load (i32.const 36)))))
        (return (i32.const 1))))
    (local.set $value (i32.load (i32.const 24)))
    (local.set $size (i32.shr_u (i32.load (i32.const 28)) (i32.const 1)))
    (block $decoded (loop $next
      (br_if $decoded (i32.ge_u (local.get $at) (local.get $size)))
      (i32.store8 (i32.add (local.get $value) (local.get $at))
        (i32.or
          (i32.shl (call $digit (i32.add (local.get $value) (i32.shl (local.get $at) (i32.const 1)))) (i32.const 4))
          (call $digit (i32.add (i32.add (local.get $value) (i32.shl (local.get $at) (i32.const 1))) (i32.const 1)))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br $next)))
    (if (call $set (i32.load (i32.const 16)) (i32.load (i32.const 20)) (local.get $value) (local.get $size) (i32.const 0))
      (then (call $respond (i32.const 500) (i32.const 0) (i32.const 0)))
      (else (call $respond (i32.const 200) (i32.const 0) (i32.const 0))))
    (i32.const 1)))"#,
    )
}
