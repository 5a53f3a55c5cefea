//! A filter of a few lines: its life on a stream, from configuration to log.

use evenkeel_host::embedder::{HeaderMap, LogLevel};
use evenkeel_host::http_filters::{Event, Verdict};

use crate::world::{engine, run};

/// Adds `x-seen: yes` to requests, copies nothing; logs `configured` and `logged`; stops at `:path` lookups never.
const FILTER: &str = r#"(module
  (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "x-seen") (data (i32.const 32) "yes") (data (i32.const 48) "configured") (data (i32.const 64) "logged")
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 1024))
  (func (export "proxy_on_configure") (param i32 i32) (result i32) (drop (call $log (i32.const 2) (i32.const 48) (i32.const 10))) (i32.const 1))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (call $add (i32.const 0) (i32.const 16) (i32.const 6) (i32.const 32) (i32.const 3)))
  (func (export "proxy_on_log") (param i32) (drop (call $log (i32.const 3) (i32.const 64) (i32.const 6)))))"#;

#[test]
fn a_filter_sees_a_stream_from_head_to_log() {
    let running = run(&engine(), FILTER);
    let (stream, mut filters) = running.stream();
    assert!(matches!(filters.request_headers(true), Verdict::Continue));
    assert_eq!(
        stream.field(HeaderMap::RequestHeaders, "x-seen").as_deref(),
        Some("yes")
    );
    assert_eq!(stream.route_cleared.get(), 1);
    stream.put(HeaderMap::ResponseHeaders, &[(":status", "200")]);
    assert!(matches!(filters.response_headers(true), Verdict::Continue));
    assert!(filters.poll_event().is_none());
    filters.finish();
    drop(filters);
    assert_eq!(
        *running.world.logs.borrow(),
        [
            (LogLevel::Info, "configured".to_owned()),
            (LogLevel::Warn, "logged".to_owned())
        ]
    );
    running.plugin.stop();
}

#[test]
fn a_trap_ends_the_vm_and_every_stream_on_it() {
    let wat = FILTER.replace(
        "(drop (call $log (i32.const 3) (i32.const 64) (i32.const 6)))",
        "unreachable",
    );
    let running = run(&engine(), &wat);
    let (other, mut others) = running.stream();
    assert!(matches!(others.request_headers(true), Verdict::Continue));
    let (_, mut filters) = running.stream();
    assert!(matches!(filters.request_headers(true), Verdict::Continue));
    filters.finish();
    assert_eq!(running.world.failures.borrow().len(), 1);
    assert!(
        running
            .vm
            .failure()
            .unwrap()
            .to_string()
            .contains("proxy_on_log")
    );
    assert!(other.was_woken() && running.chain.is_failed());
    assert!(matches!(others.poll_event(), Some(Event::Failed)));
    assert!(others.poll_event().is_none());
    assert!(matches!(others.response_headers(true), Verdict::Failed));
}
