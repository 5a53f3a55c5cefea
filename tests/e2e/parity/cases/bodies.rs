//! Bodies and other buffers: what can be read and changed, held back and let go.

use super::super::case::Case;
use super::super::client::{Body, Request};
use super::super::hostcalls::{
    CALL_BODY, PLUGIN_CONFIGURATION, REQUEST_BODY, REQUEST_HEADERS, RESPONSE_BODY,
    RESPONSE_HEADERS, VM_CONFIGURATION, buffer, buffer_status, continue_stream, effective_context,
    remove, set_buffer, tick_period,
};
use super::super::program::{Argument, Call, Phase, Program, Step};
use super::in_every_phase;

/// Downstream and upstream data (2, 3), gRPC (5) and call data (8) have no content here; 9 and the largest number name no buffer.
const BUFFERS: [u32; 11] = [
    REQUEST_BODY,
    RESPONSE_BODY,
    2,
    3,
    CALL_BODY,
    5,
    VM_CONFIGURATION,
    PLUGIN_CONFIGURATION,
    8,
    9,
    u32::MAX,
];

pub(crate) fn cases() -> Vec<Case> {
    let read: Vec<Step> = BUFFERS
        .into_iter()
        .flat_map(|which| [buffer(which, 0, 100), buffer_status(which)])
        .map(Step::from)
        .collect();
    let mut cases = in_every_phase("buffers/read", &read);
    let write: Vec<Step> = BUFFERS
        .into_iter()
        .filter(|which| *which > RESPONSE_BODY)
        .map(|which| set_buffer(which, 0, 100, "written"))
        .map(Step::from)
        .collect();
    cases.extend(in_every_phase("buffers/write", &write));
    // The bodies themselves, where they are not there.
    let absent = [
        set_buffer(REQUEST_BODY, 0, 100, "written"),
        set_buffer(RESPONSE_BODY, 0, 100, "written"),
    ];
    for phase in [
        Phase::RequestHeaders,
        Phase::ResponseHeaders,
        Phase::Log,
        Phase::Done,
    ] {
        let program = Program::new().at(phase, absent.clone());
        cases.push(Case::new(
            format!("buffers/write a body in {}", phase.name()),
            Request::get("/no-content"),
            program,
        ));
    }
    cases.extend(ranges());
    cases.extend(changes());
    cases.extend(held());
    cases
}

/// Starts and lengths, also beyond the end, in a body that is held until it is whole.
fn ranges() -> [Case; 2] {
    let ranges = [
        (0, 100),
        (0, 3),
        (3, 3),
        (8, 1),
        (8, 100),
        (9, 1),
        (10, 1),
        (0, 0),
        (0, u32::MAX),
        (5, u32::MAX),
        (u32::MAX, 1),
        (u32::MAX, u32::MAX),
    ];
    let steps = |which: u32| {
        let reads = ranges
            .into_iter()
            .map(move |(start, max)| Step::from(buffer(which, start, max)));
        [Step::ReturnUntilEnd(1), Step::OnlyAtEnd]
            .into_iter()
            .chain(reads)
            .chain([buffer_status(which).into()])
    };
    [
        Case::new(
            "buffers/ranges of a request",
            Request::post("/echo", "some body"),
            Program::new().at(Phase::RequestBody, steps(REQUEST_BODY)),
        ),
        Case::new(
            "buffers/ranges of a response",
            Request::get("/plain"),
            Program::new().at(Phase::ResponseBody, steps(RESPONSE_BODY)),
        ),
    ]
}

/// One change of a whole body each, and what arrives at the other end.
fn changes() -> Vec<Case> {
    let changes: [(u32, u32, &str); 13] = [
        (0, u32::MAX, "replaced"),
        (0, 9, "exactly"),
        (0, 4, "part"),
        (0, 0, "before "),
        (9, 0, " after"),
        (u32::MAX, 0, " after"),
        (u32::MAX, u32::MAX, " after"),
        (3, 2, "XX"),
        (2, 0, "inserted"),
        (5, u32::MAX, "tail"),
        (0, u32::MAX, ""),
        (0, 4, ""),
        (100, 100, "beyond"),
    ];
    let steps = |which: u32, (start, size, data)| {
        let calls = [set_buffer(which, start, size, data), buffer(which, 0, 1000)];
        [Step::ReturnUntilEnd(1), Step::OnlyAtEnd]
            .into_iter()
            .chain(calls.map(Step::from))
    };
    let mut cases = Vec::new();
    for change in changes {
        let request = Program::new()
            .at(
                Phase::RequestHeaders,
                [remove(REQUEST_HEADERS, "content-length")],
            )
            .at(Phase::RequestBody, steps(REQUEST_BODY, change));
        let response = Program::new()
            .at(
                Phase::ResponseHeaders,
                [remove(RESPONSE_HEADERS, "content-length")],
            )
            .at(Phase::ResponseBody, steps(RESPONSE_BODY, change));
        cases.push(Case::new(
            format!("buffers/request changed by {change:?}"),
            Request::post("/echo", "some body"),
            request,
        ));
        cases.push(Case::new(
            format!("buffers/response changed by {change:?}"),
            Request::get("/plain"),
            response,
        ));
    }
    cases
}

/// Paused headers, bodies and trailers, resumed by a tick, or by the body's end.
fn held() -> Vec<Case> {
    let resumed = |phase: Phase, which: u32| {
        Program::new()
            .at(phase, [tick_period(5).into(), Step::Return(1)])
            .at(
                Phase::Tick,
                [
                    tick_period(0),
                    effective_context(Argument::Stream),
                    continue_stream(which),
                ]
                .map(Step::from),
            )
    };
    let mut cases = Vec::new();
    for (phase, which) in [
        (Phase::RequestHeaders, 0),
        (Phase::RequestTrailers, 0),
        (Phase::ResponseHeaders, 1),
        (Phase::ResponseTrailers, 1),
    ] {
        let name = format!("held/{} until a tick", phase.name());
        cases.push(Case::new(
            name,
            Request::with_trailers("/trailers"),
            resumed(phase, which),
        ));
    }
    cases.push(Case::new(
        "held/headers of a post until a tick",
        Request::post("/echo", "some body"),
        resumed(Phase::RequestHeaders, 0),
    ));
    cases.push(Case::new(
        "held/headers of a big post until a tick",
        Request::post("/echo", vec![b'x'; 100_000]),
        resumed(Phase::RequestHeaders, 0),
    ));
    cases.push(Case::new(
        "held/headers of a response until a tick",
        Request::get("/plain"),
        resumed(Phase::ResponseHeaders, 1),
    ));
    cases.push(Case::new(
        "held/headers of a response without a body",
        Request::get("/no-content"),
        resumed(Phase::ResponseHeaders, 1),
    ));

    let whole = |phase: Phase, calls: &[Call]| {
        Program::new().at(
            phase,
            [Step::ReturnUntilEnd(1), Step::OnlyAtEnd]
                .into_iter()
                .chain(calls.iter().cloned().map(Step::from)),
        )
    };
    let request = |size: usize| Request::post("/echo", vec![b'x'; size]);
    cases.push(Case::new(
        "held/body of a request",
        request(100_000),
        whole(Phase::RequestBody, &[buffer(REQUEST_BODY, 99_998, 10)]),
    ));
    cases.push(Case::new(
        "held/body of a response",
        Request::get("/big?100000"),
        whole(Phase::ResponseBody, &[buffer(RESPONSE_BODY, 99_998, 10)]),
    ));
    cases.push(
        Case::new(
            "held/body of a request over the bound",
            request(3 << 20),
            whole(Phase::RequestBody, &[]),
        )
        .with_cut_body(),
    );
    cases.push(
        Case::new(
            "held/body of a response over the bound",
            Request::get("/big?3000000"),
            whole(Phase::ResponseBody, &[]),
        )
        .with_cut_body(),
    );
    // A body with trailers ends with them: what was held goes on then.
    let until_trailers = |phase: Phase| Program::new().at(phase, [Step::Return(1)]);
    cases.push(Case::new(
        "held/body until trailers",
        Request::with_trailers("/echo"),
        until_trailers(Phase::RequestBody),
    ));
    cases.push(Case::new(
        "held/response body until trailers",
        Request::get("/trailers"),
        until_trailers(Phase::ResponseBody),
    ));
    let chunks = Body::Chunked(vec![b"first ".to_vec(), b"second".to_vec()], Vec::new());
    let chunked = Request {
        method: "POST",
        body: chunks,
        ..Request::get("/echo")
    };
    cases.push(Case::new(
        "held/chunked body",
        chunked,
        whole(Phase::RequestBody, &[buffer(REQUEST_BODY, 0, 100)]),
    ));
    for phase in [Phase::RequestHeaders, Phase::ResponseHeaders] {
        let request = Request {
            abort_after: Some(phase),
            ..Request::get("/plain")
        };
        cases.push(Case::new(
            format!("held/{}, and the client gone", phase.name()),
            request,
            Program::new().at(phase, [Step::Return(1)]),
        ));
    }
    cases
}
