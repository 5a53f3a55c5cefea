//! Local replies and closed streams: from each phase, once and twice, with and without a pause.

use super::super::case::Case;
use super::super::client::Request;
use super::super::hostcalls::{
    REQUEST_HEADERS, RESPONSE_HEADERS, add, close_stream, continue_stream, effective_context, get,
    http_get, local_response, pairs, property, replace, tick_period,
};
use super::super::program::{Argument, Call, Phase, Program, Step};

const PHASES: [Phase; 8] = [
    Phase::RequestHeaders,
    Phase::RequestBody,
    Phase::RequestTrailers,
    Phase::ResponseHeaders,
    Phase::ResponseBody,
    Phase::ResponseTrailers,
    Phase::Log,
    Phase::Done,
];

fn reply() -> Call {
    local_response(
        418,
        "probe_details",
        "a teapot",
        &[("x-p-reply", "1"), ("X-P-Reply", "2")],
    )
}

/// How it is told at the end.
fn outcome() -> [Step; 5] {
    let properties = [
        "response.code",
        "response.code_details",
        "response.flags",
        "upstream.address",
        "response.headers.x-p-reply",
    ];
    properties.map(|name| property(name).into())
}

/// The steps in one phase, and the outcome in the log.
fn told(name: String, phase: Phase, steps: Vec<Step>) -> Case {
    let steps: Vec<Step> = [Step::OnlyOnce].into_iter().chain(steps).collect();
    let program = match phase {
        Phase::Log => Program::new().at(phase, steps.into_iter().chain(outcome())),
        _ => Program::new().at(phase, steps).at(Phase::Log, outcome()),
    };
    Case::new(name, Request::with_trailers("/trailers"), program)
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for phase in PHASES {
        cases.push(told(
            format!("reply/{}", phase.name()),
            phase,
            vec![reply().into()],
        ));
        cases.push(told(
            format!("reply/{} and pause", phase.name()),
            phase,
            vec![reply().into(), Step::Return(1)],
        ));
        for which in [0, 1, 2, 3, 4] {
            cases.push(told(
                format!("close {which}/{}", phase.name()),
                phase,
                vec![close_stream(which).into()],
            ));
            cases.push(told(
                format!("continue {which}/{}", phase.name()),
                phase,
                vec![continue_stream(which).into()],
            ));
        }
    }
    cases.extend(of_a_paused_stream());
    cases.extend(twice());
    cases.extend(shapes());
    cases.push(seen_by_its_own_filter());
    cases
}

/// A stream that waits in its request or response headers, and what a tick or a call's response does with it.
fn of_a_paused_stream() -> Vec<Case> {
    let actions: [(&str, Vec<Call>); 8] = [
        ("reply", vec![reply()]),
        ("reply, then continue", vec![reply(), continue_stream(0)]),
        ("continue, then reply", vec![continue_stream(0), reply()]),
        ("close request", vec![close_stream(0)]),
        ("close response", vec![close_stream(1)]),
        (
            "continue twice",
            vec![continue_stream(0), continue_stream(0)],
        ),
        (
            "continue the other way, then this",
            vec![continue_stream(1), continue_stream(0)],
        ),
        (
            "change, then continue",
            vec![
                replace(REQUEST_HEADERS, "x-p-one", "changed"),
                continue_stream(0),
                get(REQUEST_HEADERS, "x-p-one"),
                add(REQUEST_HEADERS, "x-p-late", "1"),
            ],
        ),
    ];
    let mut cases = Vec::new();
    for (name, calls) in actions {
        let steps = |first: Vec<Call>| {
            first
                .into_iter()
                .chain([effective_context(Argument::Stream)])
                .chain(calls.clone())
                .map(Step::from)
        };
        let tick = Program::new()
            .at(
                Phase::RequestHeaders,
                [tick_period(5).into(), Step::Return(1)],
            )
            .at(Phase::Tick, steps(vec![tick_period(0)]))
            .at(Phase::Log, outcome());
        cases.push(Case::new(
            format!("paused/{name}, by a tick"),
            Request::get("/echo"),
            tick,
        ));
        let response = Program::new()
            .at(
                Phase::RequestHeaders,
                [
                    http_get("alive", "/call/plain", 5000).into(),
                    Step::Return(1),
                ],
            )
            .at(Phase::CallResponse, steps(Vec::new()))
            .at(Phase::Log, outcome());
        cases.push(Case::new(
            format!("paused/{name}, by a call"),
            Request::post("/echo", "some body"),
            response,
        ));
    }
    for (name, calls) in [
        ("reply", vec![reply()]),
        ("close response", vec![close_stream(1)]),
        ("close request", vec![close_stream(0)]),
        (
            "continue",
            vec![
                replace(RESPONSE_HEADERS, "x-origin", "b"),
                continue_stream(1),
            ],
        ),
    ] {
        let steps = [tick_period(0), effective_context(Argument::Stream)]
            .into_iter()
            .chain(calls)
            .map(Step::from);
        let program = Program::new()
            .at(
                Phase::ResponseHeaders,
                [tick_period(5).into(), Step::Return(1)],
            )
            .at(Phase::Tick, steps)
            .at(Phase::Log, outcome());
        cases.push(Case::new(
            format!("paused response/{name}, by a tick"),
            Request::get("/plain"),
            program,
        ));
    }
    cases
}

/// Two in one callback, or in two.
fn twice() -> Vec<Case> {
    let second = || local_response(419, "second", "second", &[]);
    vec![
        told(
            "twice/in one callback".to_owned(),
            Phase::RequestHeaders,
            vec![reply().into(), second().into()],
        ),
        told(
            "twice/reply, then close".to_owned(),
            Phase::RequestHeaders,
            vec![reply().into(), close_stream(0).into()],
        ),
        told(
            "twice/close, then reply".to_owned(),
            Phase::RequestHeaders,
            vec![close_stream(0).into(), reply().into()],
        ),
        told(
            "twice/reply, then continue".to_owned(),
            Phase::RequestHeaders,
            vec![reply().into(), continue_stream(0).into()],
        ),
        Case::new(
            "twice/in both directions",
            Request::get("/plain"),
            Program::new()
                .at(Phase::RequestHeaders, [reply()])
                .at(Phase::ResponseHeaders, [second()])
                .at(Phase::Log, outcome()),
        ),
        Case::new(
            "twice/a pause of its own reply",
            Request::get("/plain"),
            Program::new()
                .at(Phase::RequestHeaders, [reply()])
                .at(
                    Phase::ResponseHeaders,
                    [tick_period(5).into(), Step::Return(1)],
                )
                .at(
                    Phase::Tick,
                    [
                        tick_period(0),
                        effective_context(Argument::Stream),
                        continue_stream(1),
                    ],
                )
                .at(Phase::Log, outcome()),
        ),
    ]
}

/// Bodies, headers and statuses of the odd kind.
fn shapes() -> Vec<Case> {
    let replies = [
        ("without a body", local_response(401, "", "", &[])),
        (
            "with a type and length",
            local_response(
                200,
                "",
                "{}",
                &[
                    ("content-type", "application/json"),
                    ("content-length", "100"),
                ],
            ),
        ),
        ("no content", local_response(204, "", "", &[])),
        (
            "not modified with a body",
            local_response(304, "", "body", &[]),
        ),
        (
            "redirect",
            local_response(302, "", "", &[("location", "http://other.test/")]),
        ),
        (
            "with a status of its own",
            local_response(418, "", "body", &[(":status", "500")]),
        ),
        (
            "details with spaces",
            local_response(418, "two words,\tor\nmore", "body", &[]),
        ),
        (
            "a long body",
            local_response(418, "", &"x".repeat(5000), &[]),
        ),
    ];
    let shown = |name: &str, request: Request, call: Call| {
        let at_the_end = [pairs(RESPONSE_HEADERS).into()].into_iter();
        let program = Program::new()
            .at(Phase::RequestHeaders, [call])
            .at(Phase::ResponseHeaders, [pairs(RESPONSE_HEADERS)])
            .at(Phase::Log, at_the_end.chain(outcome()));
        Case::new(format!("shape/{name}"), request, program)
    };
    let head = Request {
        method: "HEAD",
        ..Request::get("/plain")
    };
    let mut cases: Vec<Case> = replies
        .into_iter()
        .map(|(name, call)| shown(name, Request::with_trailers("/trailers"), call))
        .collect();
    cases.push(shown("of a head", head, reply()));
    cases.push(shown("of a get", Request::get("/plain"), reply()));
    cases
}

/// The response callbacks of a local reply see and change it.
fn seen_by_its_own_filter() -> Case {
    let program = Program::new()
        .at(Phase::RequestHeaders, [reply()])
        .at(
            Phase::ResponseHeaders,
            [
                pairs(RESPONSE_HEADERS),
                replace(RESPONSE_HEADERS, "x-p-reply", "changed"),
                property("response.code_details"),
                property("request.path"),
            ],
        )
        .at(
            Phase::Log,
            [pairs(RESPONSE_HEADERS), pairs(REQUEST_HEADERS)],
        );
    Case::new(
        "reply/seen by its own filter",
        Request::get("/plain"),
        program,
    )
}
