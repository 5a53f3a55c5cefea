//! What a guest makes the host keep is bounded: whoever asks for more and more is told InternalFailure.

use std::time::Duration;

use evenkeel_host::embedder::HeaderMap;
use evenkeel_host::{Process, VmOptions};

use crate::hostcall_rows::HEAD;
use crate::puppet::{Puppet, Step, call, compiled, puppet_with, put};
use crate::world::options;

/// Free memory of the puppet: what is kept is a part of it.
const LARGE: i64 = 0x1000;
const LARGE_BYTES: i64 = 0xE000;
/// A start that appends.
const BEYOND: i64 = i32::MAX as i64;
const INTERNAL_FAILURE: u32 = 10;
/// Calls of one callback.
const BATCH: u32 = 300;

/// Runs steps in a callback, and answers what they answered.
type Run = fn(&Puppet, Vec<Step>) -> Vec<u32>;

fn on_tick(puppet: &Puppet, steps: Vec<Step>) -> Vec<u32> {
    puppet.strings.on("tick", steps);
    puppet.running.plugin.tick();
    puppet.strings.take_answers()
}

/// All in one stream's callback.
fn on_body(puppet: &Puppet, steps: Vec<Step>) -> Vec<u32> {
    puppet.strings.on("request_body", steps);
    let (stream, mut filters) = puppet.running.stream();
    stream.put(HeaderMap::RequestTrailers, &[]);
    filters.request_headers(false);
    filters.request_body(&mut b"x".to_vec(), false);
    puppet.strings.take_answers()
}

/// Asks `most` times at most, each time for something new (a number stands at 0x400, a name with it at 0x500), and checks that it is
/// refused in the end, neither at once nor by a trap.
#[track_caller]
fn check(what: &str, run: Run, most: u32, ask: &[Step]) {
    // Not what is tested here, and this is not the optimised host.
    let options = VmOptions {
        callback_deadline: Duration::from_secs(20),
        ..options()
    };
    let puppet = puppet_with(&compiled().1, Process::new(), options);
    let mut granted = 0;
    for batch in 0..most.div_ceil(BATCH) {
        let steps = (batch * BATCH..(batch + 1) * BATCH).flat_map(|number| {
            let new = [
                put(0x400, number.to_le_bytes()),
                put(0x500, format!("metric_{number:05}")),
            ];
            new.into_iter().chain(ask.iter().cloned())
        });
        let answers = run(&puppet, steps.collect());
        let failure = puppet.running.vm.failure();
        assert!(failure.is_none(), "{what}: {failure:?}");
        assert!(
            answers
                .iter()
                .all(|status| [0, INTERNAL_FAILURE].contains(status)),
            "{what}: {answers:?}"
        );
        granted += answers.iter().filter(|status| **status == 0).count();
        if answers.last() == Some(&INTERNAL_FAILURE) {
            assert!(granted > 1, "{what}: refused at once");
            return;
        }
    }
    panic!("{what}: {granted} were granted, and no end");
}

#[test]
fn what_a_guest_makes_the_host_keep_is_bounded() {
    let set = |value: &[i64]| {
        call(
            "proxy_set_shared_data",
            &[&[0x400, 4], value, &[0]].concat(),
        )
    };
    check("shared data", on_tick, 2_000, &[set(&[LARGE, LARGE_BYTES])]);
    check("keys of shared data", on_tick, 70_000, &[set(&[0, 0])]);
    let queue = call("proxy_register_shared_queue", &[0x400, 4, 0x800]);
    check("queues", on_tick, 2_000, &[queue]);
    let messages = [
        call("proxy_register_shared_queue", &[0x600, 1, 0x800]),
        call("proxy_enqueue_shared_queue", &[1, LARGE, LARGE_BYTES]),
    ];
    check("messages", on_tick, 2_000, &messages);
    let metric = call("proxy_define_metric", &[0, 0x500, 12, 0x800]);
    check("metrics", on_tick, 20_000, &[metric]);
    let head = HEAD.len() as i64;
    let calls = [
        put(0x600, HEAD),
        call(
            "proxy_http_call",
            &[0x400, 4, 0x600, head, LARGE, LARGE_BYTES, 0, 0, 1000, 0x800],
        ),
    ];
    check("calls", on_tick, 2_000, &calls);
    let property = call("proxy_set_property", &[0x400, 4, 0x400, 4]);
    check("properties", on_body, BATCH, &[property]);
    let body = call(
        "proxy_set_buffer_bytes",
        &[0, BEYOND, 0, LARGE, LARGE_BYTES],
    );
    check("a body", on_body, BATCH, &[body]);
}
