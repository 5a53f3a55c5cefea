//! Guests whose allocator is hostile: the host calls it in the middle of a host function, with memory and maps in its hands.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use evenkeel_host::http_filters::Verdict;
use evenkeel_host::{Failure, Process, VmOptions};

use crate::world::{World, engine, options, run_with};

/// Asks for all request headers, and shows the status and 32 bytes where the answer belongs; `malloc` is the rest.
fn guest(malloc: &str) -> String {
    format!(
        r#"(module
(import "env" "proxy_get_header_map_pairs" (func $pairs (param i32 i32 i32) (result i32)))
(import "env" "proxy_get_property" (func $property (param i32 i32 i32 i32) (result i32)))
(import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
(import "env" "proxy_remove_header_map_value" (func $remove (param i32 i32 i32) (result i32)))
(import "env" "proxy_set_effective_context" (func $effective (param i32) (result i32)))
(import "env" "proxy_call_foreign_function" (func $foreign (param i32 i32 i32 i32 i32 i32) (result i32)))
(memory (export "memory") 2)
(data (i32.const 0x80) "dump")
(data (i32.const 0x90) "x-new")
(data (i32.const 0xA0) "plugin_name")
(data (i32.const 0xB0) "cookie")
(func (export "proxy_abi_version_0_2_1"))
(func $malloc (export "malloc") (param $size i32) (result i32) {malloc})
(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (memory.fill (i32.const 0x800) (i32.const 0xAA) (i32.const 0x40))
  (i32.store (i32.const 0x820) (call $pairs (i32.const 0) (i32.const 0x804) (i32.const 0x80C)))
  (drop (call $foreign (i32.const 0x80) (i32.const 4) (i32.const 0) (i32.const 0x20000) (i32.const 0) (i32.const 0)))
  (i32.const 0)))"#
    )
}

/// The guest's memory after the call, or why the VM died.
fn run(malloc: &str) -> Result<Vec<u8>, Failure> {
    let world = Rc::new(World::default());
    let shown = Rc::new(RefCell::new(Vec::new()));
    let into = shown.clone();
    world.foreign.replace(Some(Box::new(move |_, memory| {
        into.replace(memory.to_vec());
        Some(Vec::new())
    })));
    let options = VmOptions {
        callback_deadline: Duration::from_millis(50),
        ..options()
    };
    let running = run_with(&engine(), &guest(malloc), Process::new(), options, world).unwrap();
    let (_stream, mut filters) = running.stream();
    match filters.request_headers(true) {
        Verdict::Failed => Err(running.vm.failure().unwrap()),
        _ => Ok(shown.take()),
    }
}

/// The status, and whether pointer and length were left alone.
fn outcome(memory: &[u8]) -> (u32, bool) {
    let status = u32::from_le_bytes(memory[0x820..0x824].try_into().unwrap());
    let is_untouched = memory[0x800..0x820].iter().all(|byte| *byte == 0xAA);
    (status, is_untouched)
}

#[test]
fn an_address_that_does_not_fit_is_refused_and_nothing_is_written() {
    let rows = [
        ("nothing", "(i32.const 0)"),
        ("the last byte", "(i32.const 0x1FFFF)"),
        ("the end", "(i32.const 0x20000)"),
        ("far beyond", "(i32.const 0x7FFFFFFF)"),
        ("one that wraps", "(i32.const -1)"),
    ];
    for (what, malloc) in rows {
        assert_eq!(outcome(&run(malloc).unwrap()), (10, true), "{what}");
    }
}

#[test]
fn a_map_that_changes_while_it_is_measured_is_not_written_beyond_its_measure() {
    let add = "(drop (call $add (i32.const 0) (i32.const 0x90) (i32.const 5) (i32.const 0x90) (i32.const 5)))";
    let remove = "(drop (call $remove (i32.const 0) (i32.const 0xB0) (i32.const 6)))";
    let fill = "(memory.fill (i32.const 0x1000) (i32.const 0xAA) (i32.const 0x1000))";
    for change in [add, remove] {
        let memory = run(&format!("{change} {fill} (i32.const 0x1010)")).unwrap();
        assert_eq!(outcome(&memory), (10, true));
        let is_guard = |byte: &u8| *byte == 0xAA;
        assert!(memory[0x1000..0x1010].iter().all(is_guard));
        assert!(memory[0x1010 + MEASURE..0x2000].iter().all(is_guard));
    }
}

/// The stream's request headers, encoded: six pairs with 77 bytes of text.
const MEASURE: usize = 4 + 6 * 10 + 77;

#[test]
fn memory_that_grows_and_a_context_that_changes_meanwhile_are_seen() {
    let grown = run("(drop (memory.grow (i32.const 1))) (i32.const 0x20000)").unwrap();
    assert_eq!(outcome(&grown), (0, false));
    // What the call was about stays what it was: the stream's map.
    let away = run("(drop (call $effective (i32.const 1))) (i32.const 0x1000)").unwrap();
    assert_eq!(outcome(&away), (0, false));
    assert_eq!(&memory_word(&away, 0x1000), &6);
}

fn memory_word(memory: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(memory[at..at + 4].try_into().unwrap())
}

#[test]
fn an_allocator_that_traps_loops_or_calls_itself_by_the_host_kills_its_vm_only() {
    let trap = run("unreachable").unwrap_err();
    assert!(matches!(trap, Failure::Trap { .. }), "{trap}");
    let loops = run("(loop $for_ever (br $for_ever)) (i32.const 0)").unwrap_err();
    assert!(matches!(loops, Failure::Deadline { .. }), "{loops}");
    let recursion = "(drop (call $property (i32.const 0xA0) (i32.const 11) (i32.const 0x900) (i32.const 0x904))) (i32.const 0x1000)";
    let deep = run(recursion).unwrap_err();
    assert!(
        matches!(&deep, Failure::Trap { reason, .. } if reason.contains("stack")),
        "{deep}"
    );
}
