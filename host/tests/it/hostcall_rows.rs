//! What every host function answers, row by row: its arguments, its usual status, and the phases where that is another.
//!
//! Driven by `hostcall_table`.

use crate::puppet::{UNSTABLE, WASI, imports};

/// Where outputs go: pointer, length, third; each with room around.
pub(crate) const OUT: u32 = 0x800;
pub(crate) const OUT_END: u32 = 0x900;
pub(crate) const P: i64 = 0x820;
pub(crate) const L: i64 = 0x840;
pub(crate) const T: i64 = 0x860;
/// Inputs.
pub(crate) const NAME: i64 = 0x400;
pub(crate) const VALUE: i64 = 0x440;
pub(crate) const PAIRS: i64 = 0x480;
pub(crate) const STATE: i64 = 0x500;
pub(crate) const IOVEC: i64 = 0x540;
pub(crate) const PATH: i64 = 0x580;

/// What an argument is, for the sake of bad ones.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
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

type With<'a> = &'a dyn Fn(&[&[(i64, Kind)]]) -> Vec<(i64, Kind)>;

pub(crate) const ROOT: &[&str] = &[
    "vm_start",
    "configure",
    "tick",
    "queue_ready",
    "foreign_function",
    "http_call_response",
];

pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) arguments: Vec<(i64, Kind)>,
    /// The status, and where it is another.
    pub(crate) usual: u32,
    pub(crate) except: Vec<(&'static [&'static str], u32)>,
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

pub(crate) const REQUEST: &[&str] = &["request_headers"];
pub(crate) const REQUEST_OR_LOG: &[&str] = &["request_headers", "log"];
/// Every map is there then, if without content.
pub(crate) const LOG: &[&str] = &["log"];
pub(crate) const CALL: &[&str] = &["http_call_response"];

#[rustfmt::skip]
pub(crate) fn rows() -> Vec<Row> {
    let (n, v) = ([(NAME, In), (6, N)], [(VALUE, In), (3, N)]);
    let with = |parts: &[&[(i64, Kind)]]| parts.concat();
    let out = [(P, Out(4)), (L, Out(4))];
    let mut rows = vec![
        row("proxy_log", &with(&[&[(2, N)], &n]), 0, &[]),
        row("proxy_log", &with(&[&[(6, N)], &n]), 2, &[]),
        row("proxy_get_log_level", &[(P, Out(4))], 0, &[]),
        row("proxy_get_current_time_nanoseconds", &[(P, Out(8))], 0, &[]),
        row("proxy_set_tick_period_milliseconds", &[(7, N)], 0, &[]),
        row("proxy_get_header_map_size", &[(0, N), (P, Out(4))], 2, &[(REQUEST, 0)]),
        row("proxy_get_header_map_size", &[(8, N), (P, Out(4))], 2, &[]),
        row("proxy_get_property", &with(&[&[(PATH, In), (14, N)], &out]), 0, &[(ROOT, 1)]),
        row("proxy_get_property", &with(&[&n, &out]), 1, &[]),
        row("proxy_get_property", &with(&[&[(PATH, In), (6, N)], &out]), 3, &[(ROOT, 1)]),
        row("proxy_set_property", &with(&[&n, &v]), 0, &[(ROOT, 1)]),
        row("proxy_get_shared_data", &with(&[&n, &out, &[(T, Out(4))]]), 0, &[]),
        row("proxy_get_shared_data", &with(&[&v, &out, &[(T, Out(4))]]), 1, &[]),
        row("proxy_set_shared_data", &with(&[&n, &v, &[(0, N)]]), 0, &[]),
        row("proxy_set_shared_data", &with(&[&n, &v, &[(-2, N)]]), 8, &[]),
        row("proxy_register_shared_queue", &with(&[&n, &[(P, Out(4))]]), 0, &[]),
        row("proxy_resolve_shared_queue", &with(&[&[(NAME + 16, In), (4, N)], &n, &[(P, Out(4))]]), 0, &[]),
        row("proxy_resolve_shared_queue", &with(&[&n, &n, &[(P, Out(4))]]), 1, &[]),
        row("proxy_enqueue_shared_queue", &with(&[&[(1, N)], &v]), 0, &[]),
        row("proxy_enqueue_shared_queue", &with(&[&[(99, N)], &v]), 1, &[]),
        row("proxy_dequeue_shared_queue", &with(&[&[(1, N)], &out]), 0, &[]),
        row("proxy_dequeue_shared_queue", &with(&[&[(2, N)], &out]), 7, &[]),
        row("proxy_dequeue_shared_queue", &with(&[&[(99, N)], &out]), 1, &[]),
        row("proxy_set_effective_context", &[(9999, N)], 2, &[]),
        row("proxy_done", &[], 1, &[]),
        row("proxy_get_status", &with(&[&[(T, Out(4))], &out]), 0, &[]),
        row("proxy_define_metric", &with(&[&[(0, N)], &n, &[(P, Out(4))]]), 0, &[]),
        row("proxy_define_metric", &with(&[&[(3, N)], &n, &[(P, Out(4))]]), 2, &[]),
        row("proxy_get_metric", &[(0, N), (P, Out(8))], 0, &[]),
        row("proxy_get_metric", &[(40, N), (P, Out(8))], 1, &[]),
        row("proxy_record_metric", &[(0, N), (5, N)], 0, &[]),
        row("proxy_record_metric", &[(44, N), (5, N)], 1, &[]),
        row("proxy_increment_metric", &[(0, N), (5, N)], 0, &[]),
        row("proxy_increment_metric", &[(0, N), (-5, N)], 2, &[]),
        row("proxy_continue_stream", &[(3, N)], 10, &[]),
        row("proxy_continue_stream", &[(4, N)], 2, &[]),
        row("proxy_close_stream", &[(4, N)], 2, &[]),
        row("proxy_send_local_response", &with(&[&[(99, N)], &n, &v, &[(PAIRS, In), (16, N), (-1, N)]]), 2, &[]),
        row("proxy_send_local_response", &with(&[&[(200, N)], &n, &v, &[(PAIRS, In), (5, N), (-1, N)]]), 2, &[]),
    ];
    rows.extend(map_rows(&with));
    rows.extend(buffer_rows(&with));
    rows.extend(call_rows(&with));
    rows.extend(wasi_rows());
    // These change what the others would see.
    rows.push(row("proxy_set_header_map_pairs", &[(6, N), (PAIRS, In), (16, N)], 2, &[]));
    rows.push(row("proxy_set_header_map_pairs", &[(0, N), (PAIRS, In), (16, N)], 2, &[(REQUEST, 0)]));
    rows.push(row("proxy_continue_stream", &[(0, N)], 0, &[]));
    rows.push(row("proxy_continue_stream", &[(1, N)], 0, &[]));
    rows.push(row("proxy_continue_stream", &[(2, N)], 0, &[]));
    rows.push(row("proxy_close_stream", &[(0, N)], 0, &[]));
    rows.push(row("proxy_close_stream", &[(1, N)], 0, &[]));
    rows.push(row("proxy_close_stream", &[(2, N)], 0, &[]));
    rows.push(row("proxy_close_stream", &[(3, N)], 0, &[]));
    rows.push(row("proxy_send_local_response", &with(&[&[(200, N)], &n, &v, &[(PAIRS, In), (16, N), (-1, N)]]), 0, &[]));
    rows.push(row("proxy_set_effective_context", &[(1, N)], 0, &[]));
    rows
}

#[rustfmt::skip]
fn map_rows(with: With<'_>) -> Vec<Row> {
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
        rows.push(row("proxy_get_header_map_pairs", &with(&[&map, &out]), 0, &[]));
        rows.push(row("proxy_get_header_map_value", &with(&[&map, &[(NAME + 32, In), (7, N)], &out]), 2, &[(reads, 0), (LOG, 1)]));
        rows.push(row("proxy_get_header_map_value", &with(&[&map, &v, &out]), 2, &[(reads, 1), (LOG, 1)]));
        rows.push(row("proxy_add_header_map_value", &with(&[&map, &n, &v]), 2, &[(writes, 0)]));
        rows.push(row("proxy_replace_header_map_value", &with(&[&map, &n, &v]), 2, &[(writes, 0)]));
        rows.push(row("proxy_remove_header_map_value", &with(&[&map, &n]), 2, &[(writes, 0)]));
    }
    rows.push(row("proxy_get_header_map_pairs", &with(&[&[(8, N)], &out]), 2, &[]));
    rows.push(row("proxy_get_header_map_value", &with(&[&[(-1, N)], &n, &out]), 2, &[]));
    rows
}

#[rustfmt::skip]
fn buffer_rows(with: With<'_>) -> Vec<Row> {
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
        rows.push(row("proxy_get_buffer_bytes", &with(&[&[(kind, N), (0, N), (100, N)], &out]), usual, except));
        rows.push(row("proxy_get_buffer_status", &[(kind, N), (P, Out(4)), (L, Out(4))], usual, except));
        let set: Vec<(&'static [&'static str], u32)> = match kind {
            0..=3 => vec![(bodies[kind as usize], 0)],
            4 => vec![(&["http_call_response"], 2)],
            7 => vec![(&["configure"], 2)],
            _ => vec![],
        };
        let usual = if matches!(kind, 4 | 5 | 7) { 1 } else { 2 };
        rows.push(row("proxy_set_buffer_bytes", &with(&[&[(kind, N), (0, N), (100, N)], &v]), usual, &set));
    }
    rows.push(row("proxy_get_buffer_bytes", &with(&[&[(6, N), (9, N), (-1, N)], &out]), 0, &[]));
    rows
}

#[rustfmt::skip]
fn call_rows(with: With<'_>) -> Vec<Row> {
    let (n, v, none) = (
        [(NAME, In), (6, N)],
        [(VALUE, In), (3, N)],
        [(0, N), (0, N)],
    );
    let result = [(P, Maybe(4)), (L, Maybe(4))];
    let head = [(PAIRS + 32, In), (HEAD.len() as i64, N)];
    let mut rows = vec![
        row("proxy_http_call", &with(&[&n, &head, &v, &none, &[(50, N), (T, Out(4))]]), 0, &[]),
        row("proxy_http_call", &with(&[&n, &[(PAIRS, In), (16, N)], &v, &none, &[(50, N), (T, Out(4))]]), 2, &[]),
        row("proxy_http_call", &with(&[&n, &head, &v, &none, &[(-1, N), (T, Out(4))]]), 2, &[]),
        row("proxy_call_foreign_function", &with(&[&n, &v, &result]), 1, &[]),
        row("proxy_call_foreign_function", &with(&[&[(STATE, In), (22, N)], &[(STATE + 32, In), (16, N)], &result]), 0, &[(ROOT, 1)]),
        row("proxy_call_foreign_function", &with(&[&[(STATE, In), (22, N)], &v, &result]), 2, &[]),
        row("proxy_call_foreign_function", &with(&[&[(NAME + 40, In), (8, N)], &v, &result]), 0, &[]),
    ];
    let letters = |name: &str| {
        let import = imports().iter().find(|import| import.name == name);
        import.unwrap().parameters.len()
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

/// WASI's answer to a function that Envoy does not have either.
const NOSYS: u32 = 52;

/// WASI answers 21 to a bad pointer. Its functions are the same in both of its modules.
#[rustfmt::skip]
fn wasi_rows() -> Vec<Row> {
    let mut rows = vec![
        row("fd_write", &[(1, N), (IOVEC, In), (2, N), (P, Out(4))], 0, &[]),
        row("fd_write", &[(3, N), (IOVEC, In), (2, N), (P, Out(4))], 8, &[]),
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
        row("clock_res_get", &[(2, N), (P, Out(8))], 58, &[]),
        row("random_get", &[(P, Out(16)), (16, N)], 0, &[]),
        row("random_get", &[(P, Out(0)), (65_537, N)], 28, &[]),
        row("poll_oneoff", &[(P, N), (L, N), (0, N), (T, Out(4))], 0, &[]),
        row("poll_oneoff", &[(P, N), (L, N), (-1, N), (T, Out(4))], 0, &[]),
        row("sched_yield", &[], 0, &[]),
        // Has no effect, as in Envoy, so the guest goes on and shows that nothing was written.
        row("proc_exit", &[(P, N)], 0, &[]),
        row("fd_seek", &[(P, N); 4], 0, &[]),
        row("fd_close", &[(P, N)], 0, &[]),
        row("path_open", &[(P, N); 9], 44, &[]),
        row("fd_prestat_get", &[(P, N), (L, N)], 8, &[]),
    ];
    for (name, parameters) in WASI {
        if !rows.iter().any(|row| row.name == *name) {
            rows.push(row(name, &vec![(P, N); parameters.len()], NOSYS, &[]));
        }
    }
    let unstable: Vec<Row> = imports()
        .iter()
        .filter(|import| import.name.starts_with(UNSTABLE))
        .flat_map(|import| {
            let same = rows.iter().filter(|row| row.name == import.own_name());
            same.map(|known| row(import.name, &known.arguments, known.usual, &known.except))
        })
        .collect();
    rows.extend(unstable);
    rows.push(row("pthread_equal", &[(P, N), (P, N)], 1, &[]));
    rows.push(row("pthread_equal", &[(P, N), (L, N)], 0, &[]));
    rows.push(row("emscripten_notify_memory_growth", &[(P, N)], 0, &[]));
    rows
}

pub(crate) const HEAD: &[u8] = b"\x03\0\0\0\x07\0\0\0\x03\0\0\0\x05\0\0\0\x01\0\0\0\x0A\0\0\0\x01\0\0\0:method\0GET\0:path\0/\0:authority\0h\0";
