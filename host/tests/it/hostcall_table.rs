//! Every host function in every phase, with good and with bad pointers: the status, and that nothing is written but the answer.
//!
//! Inputs lie in one region of the guest's memory, outputs in another that is filled with 0xAA before each call. A call that
//! answers Ok may change its outputs only, any other call nothing. A bad pointer (at the end, beyond, wrapping) is BadArgument,
//! or whatever the phase alone says.

use std::rc::Rc;

use evenkeel_host::embedder::{HeaderMap, HttpCallOutcome};
use evenkeel_host::tcp_filters::{ClosedBy, TcpFilters};

use crate::hostcall_rows::{
    HEAD, IOVEC, Kind, L, NAME, OUT, OUT_END, P, PAIRS, PATH, Row, STATE, VALUE, rows,
};
use crate::puppet::{MEMORY_END, Puppet, Step, call, compiled, imports, puppet, put};
use crate::tcp::Connection;
use crate::world::owned;

/// Phases by callback.
const PHASES: [&str; 21] = [
    "vm_start",
    "configure",
    "tick",
    "queue_ready",
    "foreign_function",
    "http_call_response",
    "context_create",
    "request_headers",
    "request_body",
    "request_trailers",
    "response_headers",
    "response_body",
    "response_trailers",
    "log",
    "done",
    "delete",
    "new_connection",
    "downstream_data",
    "upstream_data",
    "upstream_connection_close",
    "downstream_connection_close",
];

pub(crate) fn inputs() -> Vec<Step> {
    let iovec: Vec<u8> = [VALUE as u32, 2, NAME as u32, 3]
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect();
    vec![
        put(NAME as u32, b"a-name\0\0\0\0\0\0\0\0\0\0test"),
        put(NAME as u32 + 32, b"present\0compress"),
        put(VALUE as u32, b"val"),
        put(PAIRS as u32, b"\x01\0\0\0\x01\0\0\0\x01\0\0\0x\0y\0"),
        put(PAIRS as u32 + 32, HEAD),
        put(STATE as u32, b"set_envoy_filter_state"),
        put(STATE as u32 + 32, b"\x0A\x0Benvoy.known\x12\x01v"),
        put(IOVEC as u32, iovec),
        put(PATH as u32, b"source\0address"),
        call("proxy_set_shared_data", &[NAME, 6, VALUE, 3, 0]),
        call("proxy_register_shared_queue", &[NAME, 6, 0x700]),
        call("proxy_register_shared_queue", &[VALUE, 3, 0x700]),
        call("proxy_define_metric", &[0, NAME, 6, 0x700]),
    ]
}

/// One call as it is and with each pointer made bad, each with its guards checked.
struct Case {
    row: usize,
    arguments: Vec<i64>,
    expected: u32,
    bad: bool,
}

fn cases(rows: &[Row], phase: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let expected = row
            .except
            .iter()
            .find(|(phases, _)| phases.contains(&phase))
            .map_or(row.usual, |(_, status)| *status);
        let good: Vec<i64> = row.arguments.iter().map(|(value, _)| *value).collect();
        cases.push(Case {
            row: index,
            arguments: good.clone(),
            expected,
            bad: false,
        });
        let wasi = !row.name.starts_with("proxy_");
        let refused = if wasi { 21 } else { 2 };
        for (position, (_, kind)) in row.arguments.iter().enumerate() {
            let end = i64::from(MEMORY_END);
            let bad: Vec<(i64, Option<i64>)> = match kind {
                Kind::N => continue,
                Kind::In => vec![
                    (end + 1, None),
                    (-1, None),
                    (good[position], Some(i64::from(u32::MAX))),
                    (end - 1, None),
                ],
                Kind::Out(0) => continue,
                Kind::Out(length) | Kind::Maybe(length) => vec![
                    (end - i64::from(*length) + 1, None),
                    (-1, None),
                    (end, None),
                ],
            };
            for (address, length) in bad {
                let mut arguments = good.clone();
                arguments[position] = address;
                if let Some(length) = length {
                    arguments[position + 1] = length;
                }
                // A phase's own refusal may come first; what would be fine is refused for the pointer.
                let too_many = row.name.ends_with("fd_write") && length.is_some();
                let status = if expected != 0 {
                    u32::MAX
                } else if too_many {
                    28
                } else {
                    refused
                };
                cases.push(Case {
                    row: index,
                    arguments,
                    expected: status,
                    bad: true,
                });
            }
        }
    }
    cases
}

/// Every callback of a TCP connection.
fn drive_tcp(puppet: &Puppet) {
    let running = &puppet.running;
    let mut filters = TcpFilters::new(&running.chain, Rc::new(Connection::default()));
    filters.new_connection();
    filters.downstream_data(&mut b"from the client".to_vec(), false);
    filters.upstream_data(&mut b"from the server".to_vec(), false);
    filters.upstream_closed(ClosedBy::Local);
    filters.downstream_closed(ClosedBy::Remote);
}

/// Drives a stream so that `phase` happens, with `steps` done in it.
fn drive(puppet: &Puppet, phase: &'static str, steps: Vec<Step>) {
    let (strings, running) = (&puppet.strings, &puppet.running);
    match phase {
        "tick" => {
            strings.on(phase, steps);
            running.plugin.tick();
        }
        "queue_ready" => {
            strings.on(phase, steps);
            running.vm.queue_ready(running.plugin.root_context(), 1);
        }
        "foreign_function" => {
            strings.on(phase, steps);
            running.plugin.foreign_function(1, b"data");
        }
        "vm_start" | "configure" => {
            strings.on(phase, steps);
            running
                .vm
                .start_plugin("plugin", "root", b"plugin configuration")
                .unwrap();
        }
        "http_call_response" => {
            let mut head = vec![put(0x400, "up"), put(0x420, HEAD)];
            head.push(call(
                "proxy_http_call",
                &[0x400, 2, 0x420, HEAD.len() as i64, 0, 0, 0, 0, 5, 0x700],
            ));
            strings.on("tick", head);
            running.plugin.tick();
            let token = running.world.calls.borrow_mut().pop_back().unwrap().token;
            strings.on(phase, steps);
            let (headers, trailers) = (owned(&[("present", "1")]), owned(&[("present", "2")]));
            running.vm.http_call_done(
                token,
                HttpCallOutcome::Response {
                    headers,
                    body: b"body".to_vec(),
                    trailers,
                },
            );
        }
        "new_connection"
        | "downstream_data"
        | "upstream_data"
        | "upstream_connection_close"
        | "downstream_connection_close" => {
            strings.on(phase, steps);
            drive_tcp(puppet);
        }
        _ => {
            strings.on(phase, steps);
            let (stream, mut filters) = running.stream();
            for map in [
                HeaderMap::RequestHeaders,
                HeaderMap::RequestTrailers,
                HeaderMap::ResponseHeaders,
                HeaderMap::ResponseTrailers,
            ] {
                stream.put(map, &[("present", "yes"), (":status", "200")]);
            }
            filters.request_headers(false);
            filters.request_body(&mut b"request body".to_vec(), false);
            filters.request_trailers();
            filters.response_headers(false);
            filters.response_body(&mut b"response body".to_vec(), false);
            filters.response_trailers();
        }
    }
}

#[test]
fn every_import_that_is_linked_has_a_row() {
    let rows = rows();
    let mut linked: Vec<(&str, &str)> = compiled().0.imports().collect();
    let mut tested: Vec<(&str, &str)> = imports()
        .iter()
        .filter(|import| rows.iter().any(|row| row.name == import.name))
        .map(|import| (import.module, import.own_name()))
        .collect();
    linked.sort_unstable();
    tested.sort_unstable();
    assert_eq!(linked, tested);
}

#[test]
fn every_host_function_answers_as_documented_in_every_phase_and_writes_nothing_else() {
    compiled();
    let rows = rows();
    for phase in PHASES {
        let cases = cases(&rows, phase);
        // A few hundred calls at a time: the guest's memory is small and given back only after a callback.
        for chunk in cases.chunks(100) {
            let puppet = puppet();
            let mut steps = inputs();
            let prepared = steps
                .iter()
                .filter(|step| matches!(step, Step::Call(..)))
                .count();
            for case in chunk {
                let row = &rows[case.row];
                steps.push(call("proxy_set_shared_data", &[NAME, 6, VALUE, 3, 0]));
                steps.push(call("proxy_enqueue_shared_queue", &[1, VALUE, 3]));
                steps.push(put(OUT, [0xAA; (OUT_END - OUT) as usize]));
                steps.push(call(row.name, &case.arguments));
                steps.push(Step::Show(OUT, OUT_END - OUT));
            }
            drive(&puppet, phase, steps);
            let answers: Vec<u32> = puppet
                .strings
                .take_answers()
                .into_iter()
                .skip(prepared_in(phase) + prepared)
                .collect();
            let shown = puppet.strings.take_shown();
            assert_eq!(
                (answers.len(), shown.len()),
                (chunk.len() * 3, chunk.len()),
                "{phase}: {:?}",
                puppet.running.vm.failure()
            );
            for (index, case) in chunk.iter().enumerate() {
                check(
                    &rows[case.row],
                    case,
                    phase,
                    answers[index * 3 + 2],
                    &shown[index],
                );
            }
        }
    }
}

/// Answers recorded before the phase itself.
fn prepared_in(phase: &str) -> usize {
    usize::from(phase == "http_call_response")
}

#[track_caller]
fn check(row: &Row, case: &Case, phase: &str, status: u32, shown: &[u8]) {
    let what = || format!("{} {:x?} in {phase}: {status}", row.name, case.arguments);
    if case.expected == u32::MAX {
        assert_ne!(status, 0, "{}", what());
    } else {
        assert_eq!(status, case.expected, "{}", what());
    }
    assert!(
        !row.name.starts_with("proxy_") || [0, 1, 2, 3, 4, 7, 8, 10].contains(&status),
        "{}",
        what()
    );
    let ok = status == 0 && !case.bad;
    for (offset, byte) in shown.iter().enumerate() {
        let at = i64::from(OUT) + offset as i64;
        let is_output = row.arguments.iter().any(|(start, kind)| match kind {
            Kind::Out(length) | Kind::Maybe(length) => {
                (*start..*start + i64::from(*length)).contains(&at)
            }
            _ => false,
        });
        assert!(
            (ok && is_output) || *byte == 0xAA,
            "{}: byte {at:#x} was written",
            what()
        );
    }
}

#[test]
fn what_is_given_is_as_long_as_it_says_and_no_longer() {
    let puppet = puppet();
    let steps = vec![
        put(0x400, "plugin_vm_id"),
        call("proxy_get_property", &[0x400, 12, P, L]),
        Step::ShowGiven(P as u32, L as u32),
        call("proxy_get_header_map_pairs", &[0, P, L]),
        Step::ShowGiven(P as u32, L as u32),
        call("proxy_get_header_map_pairs", &[2, P, L]),
        Step::Show(P as u32, 4),
        Step::Show(L as u32, 4),
    ];
    drive(&puppet, "request_headers", steps);
    assert_eq!(puppet.strings.take_answers(), [0, 0, 0]);
    let shown = puppet.strings.take_shown();
    let guard = [0xAA_u8; 16];
    assert_eq!(shown[0], [&guard[..], b"test", &guard[..]].concat());
    let pairs = b"\x02\0\0\0\x07\0\0\0\x03\0\0\0\x07\0\0\0\x03\0\0\0present\0yes\0:status\x00200\0";
    assert_eq!(shown[1], [&guard[..], pairs, &guard[..]].concat());
    assert_eq!(
        (shown[2].as_slice(), shown[3].as_slice()),
        (&[0; 4][..], &[0; 4][..]),
        "no bytes: pointer 0"
    );
}
