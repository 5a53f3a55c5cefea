//! How an instance comes to life: entry points, what they may call, WASI, configuration.

use evenkeel_host::embedder::LogLevel;

use crate::puppet::{Step, call, compiled, puppet, put};
use crate::world::{options, run};

#[test]
fn the_entry_points_run_in_order() {
    let rows = [
        (
            r#"(export "_initialize" (func $i)) (export "main" (func $m)) (export "_start" (func $s))"#,
            vec!["i", "m"],
        ),
        (
            r#"(export "_initialize" (func $i)) (export "__main_void" (func $v))"#,
            vec!["i", "v"],
        ),
        (r#"(export "_start" (func $s))"#, vec!["s"]),
        (r#"(export "main" (func $m))"#, vec![]),
    ];
    for (exports, expected) in rows {
        let wat = format!(
            r#"(module (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
            (memory (export "memory") 1) (data (i32.const 0) "imsv") (func (export "proxy_abi_version_0_2_1"))
            (func $say (param i32) (drop (call $log (i32.const 2) (local.get 0) (i32.const 1))))
            (func $i (call $say (i32.const 0))) (func $m (param i32 i32) (result i32) (call $say (i32.const 1)) (i32.const 0))
            (func $s (call $say (i32.const 2))) (func $v (result i32) (call $say (i32.const 3)) (i32.const 0)) {exports})"#
        );
        assert_eq!(
            run(&compiled().0, &wat).world.lines(),
            expected,
            "{exports}"
        );
    }
}

#[test]
fn during_the_start_only_logging_and_wasi_work() {
    let wat = r#"(module
      (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
      (import "env" "proxy_set_shared_data" (func $set (param i32 i32 i32 i32 i32) (result i32)))
      (import "env" "proxy_grpc_cancel" (func $grpc (param i32) (result i32)))
      (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ (param i32 i32) (result i32)))
      (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
      (func $say (param i32) (i32.store8 (i32.const 0) (i32.add (i32.const 65) (local.get 0))) (drop (call $log (i32.const 2) (i32.const 0) (i32.const 1))))
      (func (export "_initialize")
        (call $say (call $set (i32.const 8) (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 0)))
        (call $say (call $grpc (i32.const 0)))
        (call $say (call $environ (i32.const 16) (i32.const 20)))
        (call $say (i32.load (i32.const 16)))))"#;
    // K is 10, A is 0, C is 2 (variables).
    assert_eq!(run(&compiled().0, wat).world.lines(), ["K", "K", "A", "C"]);
}

#[test]
fn the_other_allocator_is_tried_too() {
    let wat = r#"(module
      (import "env" "proxy_get_buffer_bytes" (func $get (param i32 i32 i32 i32 i32) (result i32)))
      (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
      (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
      (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
      (func (export "proxy_on_configure") (param i32 i32) (result i32)
        (drop (call $get (i32.const 7) (i32.const 0) (i32.const 99) (i32.const 16) (i32.const 20)))
        (drop (call $log (i32.const 2) (i32.load (i32.const 16)) (i32.load (i32.const 20)))) (i32.const 1)))"#;
    assert_eq!(
        run(&compiled().0, wat).world.lines(),
        ["plugin configuration"]
    );
}

#[test]
fn standard_output_goes_to_the_log() {
    let puppet = puppet();
    let iovec: Vec<u8> = [0x400_u32, 3, 0x403, 4]
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect();
    let write = |fd| call("fd_write", &[fd, 0x420, 2, 0x800]);
    puppet.strings.on(
        "tick",
        vec![
            put(0x400, "abcdef\n"),
            put(0x420, iovec),
            write(1),
            write(2),
            Step::Show(0x800, 4),
            write(0),
        ],
    );
    puppet.running.plugin.tick();
    assert_eq!(puppet.strings.take_answers(), [0, 0, 8]);
    assert_eq!(puppet.strings.take_shown()[0], [7, 0, 0, 0]);
    let expected = [
        (LogLevel::Info, "abcdef".to_owned()),
        (LogLevel::Error, "abcdef".to_owned()),
    ];
    assert_eq!(*puppet.running.world.logs.borrow(), expected);
}

#[test]
fn the_environment_is_the_vms() {
    let puppet = puppet();
    puppet.strings.on(
        "tick",
        vec![
            call("environ_get", &[0x800, 0x820]),
            Step::Show(0x800, 8),
            Step::Show(0x820, 15),
            call("environ_sizes_get", &[0x800, 0x804]),
            Step::Show(0x800, 8),
        ],
    );
    puppet.running.plugin.tick();
    let shown = puppet.strings.take_shown();
    assert_eq!(
        shown[0],
        [0x820_u32.to_le_bytes(), 0x824_u32.to_le_bytes()].concat()
    );
    assert_eq!(shown[1], b"A=1\0LONG=value\0");
    assert_eq!(
        shown[2],
        [2_u32.to_le_bytes(), 15_u32.to_le_bytes()].concat()
    );
}

#[test]
fn configurations_and_ticks_reach_the_right_side() {
    let (world, strings) = crate::puppet::strung();
    let read = |kind| {
        vec![
            call("proxy_get_buffer_bytes", &[kind, 3, 6, 0x800, 0x804]),
            Step::ShowGiven(0x800, 0x804),
        ]
    };
    strings.on("vm_start", read(6));
    strings.on(
        "configure",
        [
            read(7),
            vec![call("proxy_set_tick_period_milliseconds", &[250])],
        ]
        .concat(),
    );
    let vm = evenkeel_host::Vm::new(&compiled().1, &Default::default(), options(), world.clone())
        .unwrap();
    let plugin = vm.start_plugin("p", "r", b"the configuration").unwrap();
    let shown = strings.take_shown();
    assert_eq!(
        (&shown[0][16..22], &shown[1][16..22]),
        (&b"config"[..], &b" confi"[..])
    );
    assert_eq!(
        *world.ticks.borrow(),
        [(plugin.root_context(), std::time::Duration::from_millis(250))]
    );
    let lengths: Vec<_> = strings
        .trace
        .take()
        .into_iter()
        .map(|(_, numbers)| numbers[1])
        .collect();
    assert_eq!(lengths, [0, 16, 17]);
}

#[test]
fn an_embedder_that_enters_the_vm_again_is_refused() {
    let puppet = puppet();
    let again = puppet.running.plugin.clone();
    puppet
        .running
        .world
        .on_log
        .replace(Some(Box::new(move || again.tick())));
    puppet.strings.on(
        "tick",
        vec![put(0x400, "x"), call("proxy_log", &[2, 0x400, 1])],
    );
    puppet.running.plugin.tick();
    assert_eq!(
        (puppet.strings.take_answers(), puppet.strings.take_trace()),
        (vec![0], vec!["tick"])
    );
    assert!(puppet.running.vm.failure().is_none());
    puppet.running.world.on_log.replace(None);
}
