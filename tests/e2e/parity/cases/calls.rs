//! `proxy_http_call`: every outcome, what its callback can read, and calls from odd places.

use super::super::case::Case;
use super::super::client::Request;
use super::super::hostcalls::{
    CALL_BODY, CALL_HEADERS, CALL_TRAILERS, REQUEST_HEADERS, buffer, buffer_status,
    continue_stream, effective_context, get, http_call, http_get, pairs, property, replace, status,
    tick_period, unsteered_call,
};
use super::super::origin;
use super::super::program::{Argument, Call, Phase, Program, Step};

/// What the callback reads of a response.
fn read() -> Vec<Call> {
    vec![
        get(CALL_HEADERS, ":status"),
        pairs(CALL_HEADERS),
        buffer(CALL_BODY, 0, 2000),
        buffer(CALL_BODY, 3, 4),
        buffer_status(CALL_BODY),
        pairs(CALL_TRAILERS),
        get(CALL_TRAILERS, "x-end"),
        status(),
    ]
}

/// A request that waits for one call and goes on then.
fn waits_for(name: &str, call: Call) -> Case {
    let program = Program::new()
        .at(Phase::RequestHeaders, [call.into(), Step::Return(1)])
        .at(
            Phase::CallResponse,
            read()
                .into_iter()
                .chain([effective_context(Argument::Stream), continue_stream(0)])
                .map(Step::from),
        );
    Case::new(format!("call/{name}"), Request::get("/plain"), program).until(Phase::CallResponse, 1)
}

/// A request that makes calls which end at once, and does not wait.
fn refused(name: &str, calls: Vec<Call>) -> Case {
    Case::new(
        format!("call/{name}"),
        Request::get("/plain"),
        Program::new().at(Phase::RequestHeaders, calls),
    )
}

pub(crate) fn cases() -> Vec<Case> {
    let full = [
        (":method", "POST"),
        (":path", "/call/echo"),
        (":authority", "call.test"),
        ("X-P-Call", "1"),
        ("x-p-call", "2"),
    ];
    let mut cases = vec![
        waits_for("answered", http_get("alive", "/call/plain", 5000)),
        waits_for(
            "answered with trailers",
            http_get("alive", "/call/trailers", 5000),
        ),
        waits_for(
            "answered without a body",
            http_get("alive", "/call/empty", 5000),
        ),
        waits_for("no content", http_get("alive", "/call/no-content", 5000)),
        waits_for(
            "answered by an error",
            http_get("alive", "/call/unavailable", 5000),
        ),
        waits_for("a post", http_call("alive", &full, "the body", &[], 5000)),
        waits_for(
            "a post with trailers",
            http_call("alive", &full, "the body", &[("x-p-trailer", "1")], 5000),
        ),
        waits_for(
            "trailers without a body",
            http_call("alive", &full, "", &[("x-p-trailer", "1")], 5000),
        ),
        waits_for(
            "a head",
            http_call(
                "alive",
                &[
                    (":method", "HEAD"),
                    (":path", "/call/plain"),
                    (":authority", "call.test"),
                ],
                "",
                &[],
                5000,
            ),
        ),
        waits_for(
            "a scheme",
            http_call(
                "alive",
                &[
                    (":method", "GET"),
                    (":path", "/call/echo"),
                    (":authority", "call.test"),
                    (":scheme", "https"),
                ],
                "",
                &[],
                5000,
            ),
        ),
        waits_for("a big answer", http_get("alive", "/call/big?60000", 5000)),
        waits_for(
            "too big an answer",
            http_get("alive", "/call/big?300000", 5000),
        ),
        waits_for(
            "a refused connection",
            http_get("dead", "/call/plain", 5000),
        ),
        waits_for(
            "closed before an answer",
            http_get("alive", "/call/reset", 5000),
        ),
        waits_for("closed in the body", http_get("alive", "/call/half", 5000)),
        waits_for("too slow", http_get("alive", "/call/hang", 100)),
        waits_for("too slow a body", http_get("alive", "/call/stall", 100)),
        no_server_named(),
        refused(
            "an unknown pool",
            vec![http_get("nobody", "/call/plain", 5000)],
        ),
        refused("a nameless pool", vec![http_get("", "/call/plain", 5000)]),
        refused(
            "a missing pseudo-header",
            vec![
                http_call("alive", &[], "", &[], 5000),
                http_call(
                    "alive",
                    &[(":path", "/"), (":authority", "call.test")],
                    "",
                    &[],
                    5000,
                ),
                http_call(
                    "alive",
                    &[(":method", "GET"), (":authority", "call.test")],
                    "",
                    &[],
                    5000,
                ),
                http_call(
                    "alive",
                    &[(":method", "GET"), (":path", "/")],
                    "",
                    &[],
                    5000,
                ),
            ],
        ),
        waits_for(
            "host in place of authority",
            http_call(
                "alive",
                &[
                    (":method", "GET"),
                    (":path", "/call/echo"),
                    ("host", "call.test"),
                ],
                "",
                &[],
                5000,
            ),
        ),
    ];
    cases.extend(without_a_body());
    cases.extend(strict());
    cases.push(without_waiting());
    cases.push(outlives_its_stream());
    cases.extend(from_odd_places());
    cases.push(two_in_a_row());
    cases.push(maps_end_with_the_resume());
    cases
}

/// Which methods say that they have no body.
fn without_a_body() -> impl Iterator<Item = Case> {
    ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "REPORT"]
        .into_iter()
        .map(|method| {
            let headers = [
                (":method", method),
                (":path", "/call/echo"),
                (":authority", "call.test"),
            ];
            let call = http_call("alive", &headers, "", &[], 5000);
            waits_for(&format!("{method} without a body"), call)
        })
}

/// Like a request, a call names its server. Should the call be made all the same, its response comes before the stream's.
fn no_server_named() -> Case {
    let headers = [
        (":method", "GET"),
        (":path", "/call/plain"),
        (":authority", "call.test"),
    ];
    let program = Program::new().at(
        Phase::RequestHeaders,
        [unsteered_call("alive", &headers, "", &[], 5000)],
    );
    Case::new("call/no server named", Request::get("/slow?300"), program)
}

/// The pool's twin for checks: one exact server, or none.
fn strict() -> Vec<Case> {
    let call = |server: String| {
        let headers = [
            (":method", "GET"),
            (":path", "/call/plain"),
            (":authority", "call.test"),
            ("x-gateway-destination-endpoint", server.as_str()),
        ];
        unsteered_call("alive.check", &headers, "", &[], 5000)
    };
    vec![
        waits_for(
            "a member of the strict twin",
            call(origin::ALIVE.to_string()),
        ),
        Case::new(
            "call/no member of the strict twin",
            Request::get("/slow?300"),
            Program::new().at(Phase::RequestHeaders, [call(origin::DEAD.to_string())]),
        ),
    ]
}

/// The stream goes on; the response comes when it likes.
fn without_waiting() -> Case {
    let program = Program::new()
        .at(
            Phase::RequestHeaders,
            [http_get("alive", "/call/plain", 5000)],
        )
        .at(Phase::CallResponse, [get(CALL_HEADERS, ":status")]);
    Case::new("call/without waiting", Request::get("/slow?300"), program)
        .until(Phase::CallResponse, 1)
}

/// The client goes away; log, done and delete come first, the response later, and the stream's context is no more.
fn outlives_its_stream() -> Case {
    let calls = [
        effective_context(Argument::Stream),
        get(CALL_HEADERS, ":status"),
        continue_stream(0),
    ];
    let program = Program::new()
        .at(
            Phase::RequestHeaders,
            [
                http_get("alive", "/call/slow?400", 5000).into(),
                Step::Return(1),
            ],
        )
        .at(Phase::CallResponse, calls.map(Step::from));
    let request = Request {
        abort_after: Some(Phase::RequestHeaders),
        ..Request::get("/plain")
    };
    Case::new("call/outlives its stream", request, program).until(Phase::CallResponse, 1)
}

/// From each phase, also those in which the stream no longer can be changed.
fn from_odd_places() -> Vec<Case> {
    // The response comes before the server's answer to the stream, or long after its end: never at the same time.
    [
        (Phase::RequestTrailers, "/slow?300", "/call/plain"),
        (Phase::ResponseHeaders, "/trailers", "/call/slow?200"),
        (Phase::ResponseTrailers, "/trailers", "/call/slow?200"),
        (Phase::Log, "/trailers", "/call/slow?200"),
        (Phase::Done, "/trailers", "/call/slow?200"),
    ]
    .into_iter()
    .map(|(phase, path, call)| {
        let program = Program::new()
            .at(phase, [http_get("alive", call, 5000)])
            .at(Phase::CallResponse, read());
        Case::new(
            format!("call/from {}", phase.name()),
            Request::with_trailers(path),
            program,
        )
        .until(Phase::CallResponse, 1)
    })
    .chain([from_a_tick()])
    .collect()
}

fn from_a_tick() -> Case {
    let program = Program::new()
        .at(
            Phase::RequestHeaders,
            [tick_period(5).into(), Step::Return(1)],
        )
        .at(
            Phase::Tick,
            [tick_period(0), http_get("alive", "/call/plain", 5000)],
        )
        .at(
            Phase::CallResponse,
            read()
                .into_iter()
                .chain([effective_context(Argument::Stream), continue_stream(0)]),
        );
    Case::new("call/from a tick", Request::get("/plain"), program).until(Phase::CallResponse, 1)
}

/// Two calls, the slower one first: each response has its own token.
fn two_in_a_row() -> Case {
    let program = Program::new()
        .at(
            Phase::RequestHeaders,
            [
                http_get("alive", "/call/slow?200", 5000),
                http_get("alive", "/call/plain", 5000),
            ],
        )
        .at(Phase::CallResponse, [buffer(CALL_BODY, 0, 100)]);
    Case::new("call/two in a row", Request::get("/slow?500"), program).until(Phase::CallResponse, 2)
}

/// The resumed stream's maps are gone at once, the call's stay to the end of the callback.
fn maps_end_with_the_resume() -> Case {
    let program = Program::new()
        .at(
            Phase::RequestHeaders,
            [
                http_get("alive", "/call/plain", 5000).into(),
                Step::Return(1),
            ],
        )
        .at(
            Phase::CallResponse,
            [
                get(REQUEST_HEADERS, "x-p-one"),
                property("request.path"),
                effective_context(Argument::Stream),
                get(REQUEST_HEADERS, "x-p-one"),
                get(CALL_HEADERS, ":status"),
                property("request.path"),
                continue_stream(0),
                get(REQUEST_HEADERS, "x-p-one"),
                replace(REQUEST_HEADERS, "x-p-one", "late"),
                get(CALL_HEADERS, ":status"),
                effective_context(Argument::Context),
                get(CALL_HEADERS, ":status"),
            ],
        );
    Case::new(
        "call/maps end with the resume",
        Request::get("/echo"),
        program,
    )
}
