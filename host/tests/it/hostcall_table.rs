//! Every host function in every phase, with good and with bad pointers: the status, and that nothing is written but the answer.
//!
//! Inputs lie in one region of the guest's memory, outputs in another that is filled with 0xAA before each call. A call that
//! answers Ok may change its outputs only, any other call nothing. A bad pointer (at the end, beyond, wrapping) is BadArgument,
//! or whatever the phase alone says.

use std::rc::Rc;

use evenkeel_host::embedder::{HeaderMap, HttpCallOutcome};
use evenkeel_host::tcp_filters::{ClosedBy, TcpFilters};

use crate::puppet::{IMPORTS, MEMORY_END, Puppet, Step, call, compiled, puppet, put};
use crate::tcp::Connection;
use crate::world::owned;

/// Where outputs go: pointer, length, third; each with room around.
const OUT: u32 = 0x800;
const OUT_END: u32 = 0x900;
const P: i64 = 0x820;
const L: i64 = 0x840;
const T: i64 = 0x860;
/// Inputs.
const NAME: i64 = 0x400;
const VALUE: i64 = 0x440;
const PAIRS: i64 = 0x480;
const STATE: i64 = 0x500;
const IOVEC: i64 = 0x540;
const PATH: i64 = 0x580;

/// What an argument is, for the sake of bad ones.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// A plain number.
    N,
    /// An input address; the length is the next argument.
    In,
    /// An output address, and the bytes written there.
    Out(u32),
    /// An output address where 0 means "not wanted".
    Maybe(u32),
}
use Kind::{In, Maybe, N, Out};

/// Phases by callback.
const PHASES: [&str; 19] = [
    "vm_start",
    "configure",
    "tick",
    "queue_ready",
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
    "downstream_connection_close",
];
const ROOT: &[&str] = &[
    "vm_start",
    "configure",
    "tick",
    "queue_ready",
    "http_call_response",
];

struct Row {
    name: &'static str,
    arguments: Vec<(i64, Kind)>,
    /// The status, and where it is another.
    usual: u32,
    except: Vec<(&'static [&'static str], u32)>,
}

fn row(
    name: &'static str,
    arguments: &[(i64, Kind)],
    usual: u32,
    except: &[(&'static [&'static str], u32)],
) -> Row {
    Row {
        name,
        arguments: arguments.to_vec(),
        usual,
        except: except.to_vec(),
    }
}

const REQUEST: &[&str] = &["request_headers"];
const REQUEST_OR_LOG: &[&str] = &["request_headers", "log"];
const CALL: &[&str] = &["http_call_response"];

fn rows() -> Vec<Row> {
    let (n, v) = ([(NAME, In), (6, N)], [(VALUE, In), (3, N)]);
    let with = |parts: &[&[(i64, Kind)]]| parts.concat();
    let out = [(P, Out(4)), (L, Out(4))];
    let mut rows = vec![
        row("proxy_log", &with(&[&[(2, N)], &n]), 0, &[]),
        row("proxy_log", &with(&[&[(6, N)], &n]), 2, &[]),
        row("proxy_get_log_level", &[(P, Out(4))], 0, &[]),
        row("proxy_get_current_time_nanoseconds", &[(P, Out(8))], 0, &[]),
        row("proxy_set_tick_period_milliseconds", &[(7, N)], 0, &[]),
        row(
            "proxy_get_header_map_size",
            &[(0, N), (P, Out(4))],
            2,
            &[(REQUEST, 0)],
        ),
        row("proxy_get_header_map_size", &[(8, N), (P, Out(4))], 2, &[]),
        row(
            "proxy_get_property",
            &with(&[&[(PATH, In), (14, N)], &out]),
            0,
            &[(ROOT, 1)],
        ),
        row("proxy_get_property", &with(&[&n, &out]), 1, &[]),
        row(
            "proxy_get_property",
            &with(&[&[(PATH, In), (6, N)], &out]),
            3,
            &[(ROOT, 1)],
        ),
        row("proxy_set_property", &with(&[&n, &v]), 0, &[(ROOT, 1)]),
        row(
            "proxy_get_shared_data",
            &with(&[&n, &out, &[(T, Out(4))]]),
            0,
            &[],
        ),
        row(
            "proxy_get_shared_data",
            &with(&[&v, &out, &[(T, Out(4))]]),
            1,
            &[],
        ),
        row("proxy_set_shared_data", &with(&[&n, &v, &[(0, N)]]), 0, &[]),
        row(
            "proxy_set_shared_data",
            &with(&[&n, &v, &[(-2, N)]]),
            8,
            &[],
        ),
        row(
            "proxy_register_shared_queue",
            &with(&[&n, &[(P, Out(4))]]),
            0,
            &[],
        ),
        row(
            "proxy_resolve_shared_queue",
            &with(&[&[(NAME + 16, In), (4, N)], &n, &[(P, Out(4))]]),
            0,
            &[],
        ),
        row(
            "proxy_resolve_shared_queue",
            &with(&[&n, &n, &[(P, Out(4))]]),
            1,
            &[],
        ),
        row(
            "proxy_enqueue_shared_queue",
            &with(&[&[(1, N)], &v]),
            0,
            &[],
        ),
        row(
            "proxy_enqueue_shared_queue",
            &with(&[&[(99, N)], &v]),
            1,
            &[],
        ),
        row(
            "proxy_dequeue_shared_queue",
            &with(&[&[(1, N)], &out]),
            0,
            &[],
        ),
        row(
            "proxy_dequeue_shared_queue",
            &with(&[&[(2, N)], &out]),
            7,
            &[],
        ),
        row(
            "proxy_dequeue_shared_queue",
            &with(&[&[(99, N)], &out]),
            1,
            &[],
        ),
        row("proxy_set_effective_context", &[(9999, N)], 2, &[]),
        row("proxy_done", &[], 1, &[]),
        row("proxy_get_status", &with(&[&[(T, Out(4))], &out]), 0, &[]),
        row(
            "proxy_define_metric",
            &with(&[&[(0, N)], &n, &[(P, Out(4))]]),
            0,
            &[],
        ),
        row(
            "proxy_define_metric",
            &with(&[&[(3, N)], &n, &[(P, Out(4))]]),
            2,
            &[],
        ),
        row("proxy_get_metric", &[(0, N), (P, Out(8))], 0, &[]),
        row("proxy_get_metric", &[(40, N), (P, Out(8))], 1, &[]),
        row("proxy_record_metric", &[(0, N), (5, N)], 0, &[]),
        row("proxy_record_metric", &[(44, N), (5, N)], 1, &[]),
        row("proxy_increment_metric", &[(0, N), (5, N)], 0, &[]),
        row("proxy_increment_metric", &[(0, N), (-5, N)], 2, &[]),
        row("proxy_continue_stream", &[(3, N)], 10, &[]),
        row("proxy_continue_stream", &[(4, N)], 2, &[]),
        row("proxy_close_stream", &[(4, N)], 2, &[]),
        row(
            "proxy_send_local_response",
            &with(&[&[(99, N)], &n, &v, &[(PAIRS, In), (16, N), (-1, N)]]),
            2,
            &[],
        ),
        row(
            "proxy_send_local_response",
            &with(&[&[(200, N)], &n, &v, &[(PAIRS, In), (5, N), (-1, N)]]),
            2,
            &[],
        ),
    ];
    rows.extend(map_rows(&with));
    rows.extend(buffer_rows(&with));
    rows.extend(call_rows(&with));
    rows.extend(wasi_rows());
    // These change what the others would see.
    rows.push(row(
        "proxy_set_header_map_pairs",
        &[(6, N), (PAIRS, In), (16, N)],
        2,
        &[],
    ));
    rows.push(row(
        "proxy_set_header_map_pairs",
        &[(0, N), (PAIRS, In), (16, N)],
        2,
        &[(REQUEST, 0)],
    ));
    rows.push(row("proxy_set_effective_context", &[(1, N)], 0, &[]));
    rows
}

fn map_rows(with: &dyn Fn(&[&[(i64, Kind)]]) -> Vec<(i64, Kind)>) -> Vec<Row> {
    let (n, v, out) = (
        [(NAME, In), (6, N)],
        [(VALUE, In), (3, N)],
        [(P, Out(4)), (L, Out(4))],
    );
    let readable: [&'static [&'static str]; 8] = [
        REQUEST_OR_LOG,
        &["request_trailers"],
        &["response_headers", "log"],
        &["response_trailers", "log"],
        &[],
        &[],
        CALL,
        CALL,
    ];
    let writable: [&'static [&'static str]; 8] = [
        REQUEST,
        &["request_trailers"],
        &["response_headers"],
        &["response_trailers"],
        &[],
        &[],
        &[],
        &[],
    ];
    let mut rows = Vec::new();
    for map in 0..8 {
        let (reads, writes) = (readable[map], writable[map]);
        let map = [(map as i64, N)];
        rows.push(row(
            "proxy_get_header_map_pairs",
            &with(&[&map, &out]),
            0,
            &[],
        ));
        rows.push(row(
            "proxy_get_header_map_value",
            &with(&[&map, &[(NAME + 32, In), (7, N)], &out]),
            2,
            &[(reads, 0)],
        ));
        rows.push(row(
            "proxy_get_header_map_value",
            &with(&[&map, &v, &out]),
            2,
            &[(reads, 1)],
        ));
        rows.push(row(
            "proxy_add_header_map_value",
            &with(&[&map, &n, &v]),
            2,
            &[(writes, 0)],
        ));
        rows.push(row(
            "proxy_replace_header_map_value",
            &with(&[&map, &n, &v]),
            2,
            &[(writes, 0)],
        ));
        rows.push(row(
            "proxy_remove_header_map_value",
            &with(&[&map, &n]),
            2,
            &[(writes, 0)],
        ));
    }
    rows.push(row(
        "proxy_get_header_map_pairs",
        &with(&[&[(8, N)], &out]),
        2,
        &[],
    ));
    rows.push(row(
        "proxy_get_header_map_value",
        &with(&[&[(-1, N)], &n, &out]),
        2,
        &[],
    ));
    rows
}

fn buffer_rows(with: &dyn Fn(&[&[(i64, Kind)]]) -> Vec<(i64, Kind)>) -> Vec<Row> {
    let (v, out) = ([(VALUE, In), (3, N)], [(P, Out(4)), (L, Out(4))]);
    let bodies: [&'static [&'static str]; 4] = [
        &["request_body"],
        &["response_body"],
        &["downstream_data"],
        &["upstream_data"],
    ];
    let mut rows = Vec::new();
    for kind in 0..10_i64 {
        let (usual, except): (u32, &[(&'static [&'static str], u32)]) = match kind {
            0..=3 | 6 | 8 => (0, &[]),
            4 => (1, &[(CALL, 0)]),
            7 => (1, &[(&["configure"], 0)]),
            5 => (1, &[]),
            _ => (2, &[]),
        };
        rows.push(row(
            "proxy_get_buffer_bytes",
            &with(&[&[(kind, N), (0, N), (100, N)], &out]),
            usual,
            except,
        ));
        rows.push(row(
            "proxy_get_buffer_status",
            &[(kind, N), (P, Out(4)), (L, Out(4))],
            usual,
            except,
        ));
        let set: Vec<(&'static [&'static str], u32)> = match kind {
            0..=3 => vec![(bodies[kind as usize], 0)],
            4 => vec![(&["http_call_response"], 2)],
            7 => vec![(&["configure"], 2)],
            _ => vec![],
        };
        let usual = if matches!(kind, 4 | 5 | 7) { 1 } else { 2 };
        rows.push(row(
            "proxy_set_buffer_bytes",
            &with(&[&[(kind, N), (0, N), (100, N)], &v]),
            usual,
            &set,
        ));
    }
    rows.push(row(
        "proxy_get_buffer_bytes",
        &with(&[&[(6, N), (9, N), (-1, N)], &out]),
        2,
        &[],
    ));
    rows
}

fn call_rows(with: &dyn Fn(&[&[(i64, Kind)]]) -> Vec<(i64, Kind)>) -> Vec<Row> {
    let (n, v, none) = (
        [(NAME, In), (6, N)],
        [(VALUE, In), (3, N)],
        [(0, N), (0, N)],
    );
    let result = [(P, Maybe(4)), (L, Maybe(4))];
    let head = [(PAIRS + 32, In), (HEAD.len() as i64, N)];
    let mut rows = vec![
        row(
            "proxy_http_call",
            &with(&[&n, &head, &v, &none, &[(50, N), (T, Out(4))]]),
            0,
            &[],
        ),
        row(
            "proxy_http_call",
            &with(&[
                &n,
                &[(PAIRS, In), (16, N)],
                &v,
                &none,
                &[(50, N), (T, Out(4))],
            ]),
            2,
            &[],
        ),
        row(
            "proxy_http_call",
            &with(&[&n, &head, &v, &none, &[(-1, N), (T, Out(4))]]),
            2,
            &[],
        ),
        row(
            "proxy_call_foreign_function",
            &with(&[&n, &v, &result]),
            1,
            &[],
        ),
        row(
            "proxy_call_foreign_function",
            &with(&[
                &[(STATE, In), (22, N)],
                &[(STATE + 32, In), (16, N)],
                &result,
            ]),
            0,
            &[(ROOT, 1)],
        ),
        row(
            "proxy_call_foreign_function",
            &with(&[&[(STATE, In), (22, N)], &v, &result]),
            2,
            &[],
        ),
        row(
            "proxy_call_foreign_function",
            &with(&[&[(NAME + 40, In), (8, N)], &v, &result]),
            0,
            &[],
        ),
    ];
    let letters = |name: &str| {
        IMPORTS
            .iter()
            .find(|(_, known, _)| *known == name)
            .unwrap()
            .2
            .len()
    };
    for name in [
        "proxy_grpc_call",
        "proxy_grpc_stream",
        "proxy_grpc_send",
        "proxy_grpc_cancel",
        "proxy_grpc_close",
    ] {
        rows.push(row(name, &vec![(P, N); letters(name)], 10, &[]));
    }
    rows
}

/// WASI answers 21 to a bad pointer.
fn wasi_rows() -> Vec<Row> {
    vec![
        row(
            "fd_write",
            &[(1, N), (IOVEC, In), (2, N), (P, Out(4))],
            0,
            &[],
        ),
        row(
            "fd_write",
            &[(3, N), (IOVEC, In), (2, N), (P, Out(4))],
            8,
            &[],
        ),
        row("fd_fdstat_get", &[(2, N), (P, Out(24))], 0, &[]),
        row("fd_fdstat_get", &[(0, N), (P, Out(24))], 8, &[]),
        row("environ_get", &[(P, Out(8)), (L, Out(15))], 0, &[]),
        row("environ_sizes_get", &[(P, Out(4)), (L, Out(4))], 0, &[]),
        row("args_get", &[(P, N), (L, N)], 0, &[]),
        row("args_sizes_get", &[(P, Out(4)), (L, Out(4))], 0, &[]),
        row("clock_time_get", &[(0, N), (0, N), (P, Out(8))], 0, &[]),
        row("clock_time_get", &[(1, N), (0, N), (P, Out(8))], 0, &[]),
        row("clock_time_get", &[(2, N), (0, N), (P, Out(8))], 58, &[]),
        row("clock_res_get", &[(1, N), (P, Out(8))], 0, &[]),
        row("random_get", &[(P, Out(16)), (16, N)], 0, &[]),
        row("random_get", &[(P, Out(0)), (65_537, N)], 28, &[]),
        row("sched_yield", &[], 0, &[]),
        row("fd_read", &[(0, N); 4], 52, &[]),
        row("fd_seek", &[(0, N); 4], 0, &[]),
        row("fd_close", &[(0, N)], 0, &[]),
        row("path_open", &[(0, N); 9], 44, &[]),
        row("fd_prestat_get", &[(3, N), (P, N)], 8, &[]),
        row("poll_oneoff", &[(0, N); 4], 52, &[]),
        row("pthread_equal", &[(4, N), (4, N)], 1, &[]),
    ]
}

const HEAD: &[u8] = b"\x03\0\0\0\x07\0\0\0\x03\0\0\0\x05\0\0\0\x01\0\0\0\x0A\0\0\0\x01\0\0\0:method\0GET\0:path\0/\0:authority\0h\0";

fn inputs() -> Vec<Step> {
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
                N => continue,
                In => vec![
                    (end + 1, None),
                    (-1, None),
                    (good[position], Some(i64::from(u32::MAX))),
                    (end - 1, None),
                ],
                Out(0) => continue,
                Out(length) | Maybe(length) => vec![
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
                let too_many = row.name == "fd_write" && length.is_some();
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
        "new_connection" | "downstream_data" | "upstream_data" | "downstream_connection_close" => {
            strings.on(phase, steps);
            let mut filters = TcpFilters::new(&running.chain, Rc::new(Connection::default()));
            filters.new_connection();
            filters.downstream_data(&mut b"from the client".to_vec(), false);
            filters.upstream_data(&mut b"from the server".to_vec(), false);
            filters.downstream_closed(ClosedBy::Remote);
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
fn every_host_function_answers_as_documented_in_every_phase_and_writes_nothing_else() {
    compiled();
    let rows = rows();
    for (_, name, _) in IMPORTS {
        let tested_elsewhere = [
            "proxy_continue_stream",
            "proxy_close_stream",
            "proxy_send_local_response",
        ];
        assert!(
            tested_elsewhere.contains(name) || rows.iter().any(|row| row.name == *name),
            "{name} has no row"
        );
    }
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
            Out(length) | Maybe(length) => (*start..*start + i64::from(*length)).contains(&at),
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
    let pairs = b"\x02\0\0\0\x07\0\0\0\x03\0\0\0\x07\0\0\0\x03\0\0\0present\0yes\0:status\0200\0";
    assert_eq!(shown[1], [&guard[..], pairs, &guard[..]].concat());
    assert_eq!(
        (shown[2].as_slice(), shown[3].as_slice()),
        (&[0; 4][..], &[0; 4][..]),
        "no bytes: pointer 0"
    );
}
