//! Pointers beyond the guest's memory: each pointer of each call, one at a time, and lengths that wrap around.

use super::super::case::Case;
use super::super::client::Request;
use super::super::hostcalls::{
    add, buffer, buffer_status, call, define_metric, dequeue, enqueue, foreign, get, grpc_call,
    grpc_send, grpc_stream, http_get, local_response, log, log_level, map_size, metric, number,
    pairs, property, register_queue, remove, replace, resolve_queue, set_buffer, set_pairs,
    set_property, set_shared, shared, status, time,
};
use super::super::program::{Argument, Call, Phase, Program, Step};

/// In no memory a probe has.
const BEYOND: u32 = 0xffff_fff0;

pub(crate) fn cases() -> Vec<Case> {
    let calls = [
        log(2, "text"),
        log_level(),
        time(),
        buffer(7, 0, 100),
        set_buffer(1, 0, 100, "text"),
        buffer_status(7),
        map_size(2),
        pairs(2),
        set_pairs(2, &[(":status", "200")]),
        get(2, "x-origin"),
        replace(2, "x-p-bad", "value"),
        add(2, "x-p-bad", "value"),
        remove(2, "x-p-bad"),
        property("plugin_root_id"),
        set_property("probe_bad", "value"),
        set_shared("pointers", "value", number(0)),
        shared("pointers"),
        register_queue("pointers"),
        resolve_queue("probe", "pointers"),
        enqueue(number(1), "text"),
        dequeue(number(1)),
        http_get("alive", "/call/plain", 1000),
        grpc_call("nobody"),
        grpc_stream("nobody"),
        grpc_send(1),
        status(),
        foreign("compress", "text"),
        define_metric(0, "pointers"),
        metric(number(1)),
        local_response(418, "details", "body", &[("x-p-reply", "1")]),
        call(
            40,
            "fd_write",
            [number(1), number(0x60000), number(1), Argument::Cell],
        ),
        call(
            41,
            "clock_time_get",
            [number(0), Argument::Wide(1), Argument::Cell],
        ),
        call(43, "random_get", [Argument::Cell, number(8)]),
        call(44, "environ_sizes_get", [Argument::Cell, Argument::Cell]),
        call(46, "args_sizes_get", [Argument::Cell, Argument::Cell]),
    ];
    calls
        .into_iter()
        .map(|call| {
            Case::new(
                format!("pointers/{}", call.label),
                Request::get("/plain"),
                Program::new().at(Phase::ResponseHeaders, bad(&call)),
            )
        })
        .collect()
}

/// The call with each of its pointers made bad in turn; the good one first where it has no effect that would last.
fn bad(call: &Call) -> Vec<Step> {
    let mut steps = Vec::new();
    for (place, argument) in call.arguments.iter().enumerate() {
        let variants: Vec<(&str, Vec<Argument>)> = match argument {
            Argument::Text(bytes) => vec![
                (
                    "beyond",
                    vec![
                        number(BEYOND),
                        number(u32::try_from(bytes.len()).expect("a short text")),
                    ],
                ),
                ("across the end", vec![number(64 * 65_536 - 1), number(2)]),
                ("wrapping", vec![number(0x60000), number(u32::MAX)]),
            ],
            Argument::Cell => vec![
                ("beyond", vec![number(BEYOND)]),
                ("across the end", vec![number(64 * 65_536 - 2)]),
            ],
            Argument::Result => {
                vec![
                    ("pointer beyond", vec![number(BEYOND), Argument::Cell]),
                    ("length beyond", vec![Argument::Cell, number(BEYOND)]),
                ]
            }
            _ => Vec::new(),
        };
        for (what, replacement) in variants {
            let mut changed = call
                .clone()
                .labelled(format!("{} with argument {place} {what}", call.label));
            changed.arguments.splice(place..=place, replacement);
            steps.push(changed.into());
        }
    }
    steps
}
