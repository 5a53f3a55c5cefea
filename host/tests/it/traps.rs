//! Traps, runaway guests, guests that only wait, memory limits.

use std::rc::Rc;
use std::time::{Duration, Instant};

use evenkeel_host::embedder::{HeaderMap, HttpCallOutcome};
use evenkeel_host::http_filters::{Event, Verdict};
use evenkeel_host::{Failure, VmOptions};

use crate::puppet::{CALLBACKS, Puppet, Step, call, compiled, puppet, puppet_with, put};
use crate::world::{options, run_with};

/// Makes `callback` happen on a stream or on the root; `true`: the stream's own verdict said Failed.
fn provoke(puppet: &Puppet, callback: &'static str) -> bool {
    let running = &puppet.running;
    let (stream, mut filters) = running.stream();
    let mut failed = false;
    let mut say = |verdict: Verdict| failed |= matches!(verdict, Verdict::Failed);
    match callback {
        "tick" => running.plugin.tick(),
        "queue_ready" => running.vm.queue_ready(1, 1),
        "foreign_function" => running.plugin.foreign_function(1, b"x"),
        "vm_start" | "configure" => assert!(running.vm.start_plugin("p", "r", b"").is_err()),
        _ => {
            for map in [
                HeaderMap::RequestTrailers,
                HeaderMap::ResponseHeaders,
                HeaderMap::ResponseTrailers,
            ] {
                stream.put(map, &[]);
            }
            say(filters.request_headers(false));
            say(filters.request_body(&mut vec![1], false));
            say(filters.request_trailers());
            say(filters.response_headers(false));
            say(filters.response_body(&mut vec![1], false));
            say(filters.response_trailers());
            filters.finish();
        }
    }
    failed
}

fn http_callbacks() -> impl Iterator<Item = &'static str> {
    let elsewhere = [
        "http_call_response",
        "new_connection",
        "downstream_data",
        "upstream_data",
        "downstream_connection_close",
        "upstream_connection_close",
    ];
    CALLBACKS
        .iter()
        .map(|(name, _, _)| *name)
        .filter(move |name| !elsewhere.contains(name))
}

#[test]
fn a_trap_in_any_callback_kills_the_vm_and_wakes_every_stream() {
    for callback in http_callbacks() {
        let puppet = puppet();
        let (waiting, mut filters) = puppet.running.stream();
        filters.request_headers(true);
        puppet.strings.on(callback, vec![Step::Trap]);
        let failed = provoke(&puppet, callback);
        let on_a_path = ![
            "tick",
            "queue_ready",
            "foreign_function",
            "vm_start",
            "configure",
            "log",
            "done",
            "delete",
        ]
        .contains(&callback);
        assert_eq!(failed, on_a_path, "{callback}");
        let Some(Failure::Trap {
            callback: named, ..
        }) = puppet.running.vm.failure()
        else {
            panic!("{callback}")
        };
        assert_eq!(named, format!("proxy_on_{callback}"));
        assert_eq!(puppet.running.world.failures.borrow().len(), 1, "told once");
        assert!(
            waiting.was_woken() && matches!(filters.poll_event(), Some(Event::Failed)),
            "{callback}"
        );
        assert!(filters.poll_event().is_none());
        assert!(matches!(
            filters.request_body(&mut Vec::new(), true),
            Verdict::Failed
        ));
        puppet.strings.take_trace();
        filters.finish();
        puppet.running.plugin.tick();
        puppet.running.vm.http_call_done(4, HttpCallOutcome::Reset);
        puppet.running.plugin.stop();
        assert!(
            puppet.strings.take_trace().is_empty(),
            "nobody enters a dead VM"
        );
        assert!(puppet.running.vm.start_plugin("p", "r", b"").is_err());
        assert_eq!(puppet.running.world.failures.borrow().len(), 1);
    }
}

#[test]
fn a_guest_that_loops_is_stopped_by_its_cpu_time() {
    let puppet = puppet();
    puppet
        .strings
        .on("request_headers", vec![Step::LoopForEver]);
    let (_, mut filters) = puppet.running.stream();
    let begin = Instant::now();
    assert!(matches!(filters.request_headers(true), Verdict::Failed));
    assert!(begin.elapsed() >= Duration::from_millis(90));
    let failure = puppet.running.vm.failure().unwrap();
    assert!(
        matches!(
            failure,
            Failure::Deadline {
                callback: "proxy_on_request_headers",
                limit_ms: 100
            }
        ),
        "{failure}"
    );
}

#[test]
fn a_guest_that_loops_after_a_quiet_time_is_stopped_too() {
    let puppet = puppet();
    // The ticker goes idle after 200 ms without calls.
    std::thread::sleep(Duration::from_millis(400));
    puppet.strings.on("tick", vec![Step::LoopForEver]);
    puppet.running.plugin.tick();
    assert!(matches!(
        puppet.running.vm.failure(),
        Some(Failure::Deadline { .. })
    ));
}

#[test]
fn a_guest_that_is_only_not_scheduled_is_left_alone() {
    let puppet = puppet();
    // Four times the deadline pass without CPU time; then the guest does something that looks at the epoch.
    puppet.running.world.on_log.replace(Some(Box::new(|| {
        std::thread::sleep(Duration::from_millis(100))
    })));
    let wait = || {
        vec![
            put(0x400, "w"),
            call("proxy_log", &[2, 0x400, 1]),
            Step::Count(1000),
        ]
    };
    puppet
        .strings
        .on("request_headers", [wait(), wait(), wait(), wait()].concat());
    let (_, mut filters) = puppet.running.stream();
    assert!(matches!(filters.request_headers(true), Verdict::Continue));
    assert!(puppet.running.vm.failure().is_none());
}

#[test]
fn the_start_has_its_own_deadline() {
    let options = || VmOptions {
        start_deadline: Duration::from_millis(30),
        ..options()
    };
    let wat = |what: &str| {
        format!(
            r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1")) (func $loop (loop (br 0))) {what})"#
        )
    };
    let engine = &compiled().0;
    for (what, named) in [
        (r#"(export "_initialize" (func $loop))"#, "_initialize"),
        ("(start $loop)", "instantiation"),
    ] {
        let error = run_with(
            engine,
            &wat(what),
            Default::default(),
            options(),
            Rc::default(),
        )
        .err()
        .unwrap()
        .to_string();
        assert!(error.contains(named) && error.contains("30 ms"), "{error}");
    }
}

#[test]
fn memory_is_limited() {
    let puppet = puppet_with(
        &compiled().1,
        Default::default(),
        VmOptions {
            memory_max: 6 << 16,
            ..options()
        },
    );
    puppet
        .strings
        .on("tick", vec![Step::Grow(2), Step::Grow(1)]);
    puppet.running.plugin.tick();
    assert_eq!(puppet.strings.take_answers(), [4, u32::MAX]);
    let small = VmOptions {
        memory_max: 1 << 16,
        ..options()
    };
    let (world, _) = crate::puppet::strung();
    assert!(evenkeel_host::Vm::new(&compiled().1, &Default::default(), small, world).is_err());
}

#[test]
fn recursion_without_end_is_a_trap() {
    let wat = r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
      (func $deep (param i32) (call $deep (local.get 0))) (func (export "proxy_on_tick") (param i32) (call $deep (local.get 0))))"#;
    let running = run_with(
        &compiled().0,
        wat,
        Default::default(),
        options(),
        Rc::default(),
    )
    .unwrap();
    running.plugin.tick();
    assert!(matches!(running.vm.failure(), Some(Failure::Trap { .. })));
}

#[test]
fn an_allocator_that_traps_or_lies_harms_nobody_else() {
    let guest = |malloc: &str| {
        format!(
            r#"(module (import "env" "proxy_get_buffer_bytes" (func $get (param i32 i32 i32 i32 i32) (result i32)))
            (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
            (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1")) (func (export "malloc") (param i32) (result i32) {malloc})
            (func (export "proxy_on_tick") (param i32)
              (drop (call $log (i32.add (i32.const -8) (call $get (i32.const 6) (i32.const 0) (i32.const 9) (i32.const 16) (i32.const 20))) (i32.const 0) (i32.const 0)))
              (if (i32.load (i32.const 16)) (then unreachable))))"#
        )
    };
    // 10 is InternalFailure, logged as level 10 - 8 = info.
    for (malloc, dead) in [
        ("(i32.const 0)", false),
        ("(i32.const -4)", false),
        ("(i32.const 65530)", false),
        ("unreachable", true),
    ] {
        let running = run_with(
            &compiled().0,
            &guest(malloc),
            Default::default(),
            options(),
            Rc::default(),
        )
        .unwrap();
        running.plugin.tick();
        assert_eq!(
            (
                running.vm.failure().is_some(),
                running.world.logs.borrow().len()
            ),
            (dead, usize::from(!dead)),
            "{malloc}"
        );
    }
}
