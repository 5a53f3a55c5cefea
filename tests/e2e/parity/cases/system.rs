//! Log, time, status, WASI and gRPC: what belongs to no stream.

use super::super::case::Case;
use super::super::client::Request;
use super::super::hostcalls::{
    call, grpc_call, grpc_cancel, grpc_close, grpc_send, grpc_stream, log, log_level, number,
    status, time,
};
use super::super::program::{Argument, Call, Phase, Program, Show, Step};
use super::in_every_phase;

pub(crate) fn cases() -> Vec<Case> {
    let of_the_host: Vec<Step> = [
        log_level(),
        time(),
        status(),
        log(0, "trace"),
        log(2, "info"),
        log(2, ""),
        log(6, "no such level"),
        log(u32::MAX, "no such level"),
    ]
    .map(Step::from)
    .to_vec();
    let mut cases = in_every_phase("system/log, time and status", &of_the_host);
    let at_headers = |name: &str, calls: Vec<Call>| {
        Case::new(
            format!("system/{name}"),
            Request::get("/plain"),
            Program::new().at(Phase::RequestHeaders, calls),
        )
    };
    cases.push(at_headers("wasi", wasi()));
    cases.push(at_headers("grpc", grpc()));
    cases
}

fn wasi() -> Vec<Call> {
    let cell = || Argument::Cell;
    let written = |label: &str, function: u8, fd: u32| {
        call(
            function,
            label,
            [
                number(fd),
                Argument::Iovec(b"written by WASI\n".to_vec()),
                cell(),
            ],
        )
    };
    let scratch = || number(0x60000);
    vec![
        written("fd_write(1)", 40, 1),
        written("fd_write(2)", 40, 2),
        written("fd_write(3)", 40, 3),
        written("unstable fd_write(1)", 60, 1),
        call(
            41,
            "clock_time_get(0)",
            [number(0), Argument::Wide(1), cell()],
        )
        .shown(Show::Presence),
        call(
            41,
            "clock_time_get(1)",
            [number(1), Argument::Wide(1), cell()],
        )
        .shown(Show::Presence),
        call(
            41,
            "clock_time_get(2)",
            [number(2), Argument::Wide(1), cell()],
        )
        .shown(Show::Presence),
        call(42, "clock_res_get(0)", [number(0), cell()]).shown(Show::Presence),
        call(43, "random_get(16)", [scratch(), number(16)]),
        call(43, "random_get(0)", [scratch(), number(0)]),
        call(43, "random_get(65536)", [scratch(), number(65_536)]),
        call(43, "random_get(65537)", [scratch(), number(65_537)]),
        call(59, "unstable random_get(16)", [scratch(), number(16)]),
        call(44, "environ_sizes_get", [cell(), cell()]),
        call(45, "environ_get", [scratch(), scratch()]),
        call(46, "args_sizes_get", [cell(), cell()]),
        call(47, "args_get", [scratch(), scratch()]),
        call(48, "sched_yield", []),
        call(
            50,
            "fd_read(0)",
            [number(0), Argument::Iovec(vec![0; 4]), cell()],
        ),
        call(
            50,
            "fd_read(3)",
            [number(3), Argument::Iovec(vec![0; 4]), cell()],
        ),
        call(
            51,
            "fd_seek(1)",
            [number(1), Argument::Wide(0), number(0), cell()],
        ),
        call(52, "fd_close(1)", [number(1)]),
        call(53, "fd_fdstat_get(1)", [number(1), number(0x60000)]),
        call(53, "fd_fdstat_get(3)", [number(3), number(0x60000)]),
        call(54, "fd_prestat_get(3)", [number(3), cell()]),
        call(
            55,
            "fd_prestat_dir_name(3)",
            [number(3), scratch(), number(16)],
        ),
        call(
            56,
            "path_open",
            [
                number(3),
                number(0),
                scratch(),
                number(4),
                number(0),
                Argument::Wide(0),
                Argument::Wide(0),
                number(0),
                cell(),
            ],
        ),
        call(
            57,
            "poll_oneoff(nothing)",
            [scratch(), scratch(), number(0), cell()],
        ),
        call(
            57,
            "poll_oneoff(a clock)",
            [scratch(), scratch(), number(1), cell()],
        ),
        call(
            57,
            "poll_oneoff(too many)",
            [scratch(), scratch(), number(u32::MAX), cell()],
        ),
        call(58, "fd_fdstat_set_flags(1)", [number(1), number(0)]),
        call(49, "proc_exit(0)", [number(0)]),
    ]
}

fn grpc() -> Vec<Call> {
    vec![
        grpc_call("nobody"),
        grpc_stream("nobody"),
        grpc_send(12_345),
        grpc_cancel(12_345),
        grpc_close(12_345),
    ]
}
