//! What outlives a stream: shared data, queues, metrics.

use super::super::case::Case;
use super::super::client::Request;
use super::super::hostcalls::{
    call, define_metric, dequeue, enqueue, increment_metric, metric, number, record_metric,
    register_queue, resolve_queue, set_shared, shared, text,
};
use super::super::program::{Argument, Phase, Program, Step};

pub(crate) fn cases() -> Vec<Case> {
    let steps = |name: &str, steps: Vec<Step>| {
        Case::new(
            name,
            Request::get("/plain"),
            Program::new().at(Phase::RequestHeaders, steps),
        )
    };
    vec![
        steps("shared/compare and swap", compare_and_swap()),
        steps(
            "shared/seen by the next stream",
            vec![shared("swap").into(), shared("bytes").into()],
        ),
        steps("metrics/kinds", metrics()),
        steps(
            "metrics/seen by the next stream",
            vec![
                define_metric(0, "probe_counter").into(),
                Step::Save(0),
                metric(Argument::Register(0)).into(),
            ],
        ),
        queue(),
    ]
}

fn compare_and_swap() -> Vec<Step> {
    // Cell 0 of `shared` is the pointer: the number is read again into a cell of its own.
    let number_of = |key: &str| {
        call(
            17,
            format!("number of {key}"),
            [text(key), number(0x60000), number(0x60004), Argument::Cell],
        )
        .shown(super::super::program::Show::Id)
    };
    vec![
        shared("missing").into(),
        set_shared("swap", "one", number(0)).into(),
        shared("swap").into(),
        number_of("swap").into(),
        Step::Save(0),
        set_shared("swap", "two", Argument::Register(0)).into(),
        set_shared("swap", "three", Argument::Register(0)).into(),
        shared("swap").into(),
        set_shared("swap", "four", number(0)).into(),
        shared("swap").into(),
        set_shared("created by a number", "1", number(77)).into(),
        shared("created by a number").into(),
        set_shared("swap", "five", number(u32::MAX)).into(),
        set_shared("empty", "", number(0)).into(),
        shared("empty").into(),
        set_shared("", "nameless", number(0)).into(),
        shared("").into(),
        set_shared("bytes", "\0\u{1}", number(0)).into(),
        shared("bytes").into(),
    ]
}

fn metrics() -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (kind, name) in [
        (0, "probe_counter"),
        (1, "probe_gauge"),
        (2, "probe_histogram"),
    ] {
        let id = || Argument::Register(0);
        steps.extend([
            define_metric(kind, name).into(),
            Step::Save(0),
            metric(id()).into(),
            increment_metric(id(), 5).into(),
            metric(id()).into(),
            increment_metric(id(), -2).into(),
            metric(id()).into(),
            record_metric(id(), 40).into(),
            metric(id()).into(),
            record_metric(id(), 3).into(),
            metric(id()).into(),
            increment_metric(id(), 0).into(),
            metric(id()).into(),
        ]);
    }
    steps.extend([
        define_metric(0, "probe_counter").into(),
        Step::Save(1),
        metric(Argument::Register(1)).into(),
        define_metric(1, "probe_counter").into(),
        define_metric(3, "probe_unknown_kind").into(),
        define_metric(u32::MAX, "probe_unknown_kind").into(),
        define_metric(0, "").into(),
        define_metric(0, "probe odd/name\u{e9}").into(),
    ]);
    for id in [0, 1, 2, 3, 1000, 1001, 1002, 1003, u32::MAX] {
        steps.extend([metric(number(4_000_000 + id / 2)).into()]);
    }
    steps.extend([
        increment_metric(number(4_000_000), 1).into(),
        record_metric(number(4_000_001), 1).into(),
    ]);
    steps
}

/// The one who registered is told, and takes; then it is empty.
fn queue() -> Case {
    let id = || Argument::Register(0);
    let program = Program::new()
        .at(
            Phase::RequestHeaders,
            [
                resolve_queue("probe", "probe_queue").into(),
                register_queue("probe_queue").into(),
                Step::Save(0),
                register_queue("probe_queue").into(),
                register_queue("probe_other_queue").into(),
                resolve_queue("another vm", "probe_queue").into(),
                resolve_queue("", "probe_queue").into(),
                resolve_queue("probe", "probe_missing_queue").into(),
                dequeue(id()).into(),
                enqueue(id(), "first").into(),
                enqueue(id(), "").into(),
                enqueue(number(4_000_000), "lost").into(),
                dequeue(number(4_000_000)).into(),
            ],
        )
        .at(
            Phase::QueueReady,
            [dequeue(id()), dequeue(id()), dequeue(id())],
        );
    Case::new("queues/registered", Request::get("/plain"), program).until(Phase::QueueReady, 2)
}
