//! Contexts: which one a call speaks for, and the end of each.

use super::super::case::Case;
use super::super::client::Request;
use super::super::hostcalls::{
    REQUEST_HEADERS, continue_stream, done, effective_context, get, number, property, set_property,
    tick_period,
};
use super::super::program::{Argument, Phase, Program, Step};
use super::in_every_phase;

pub(crate) fn cases() -> Vec<Case> {
    let good_and_bad = [
        effective_context(Argument::Context),
        get(REQUEST_HEADERS, "x-p-one"),
        effective_context(number(0)),
        get(REQUEST_HEADERS, "x-p-one"),
        effective_context(number(987_654_321)),
        get(REQUEST_HEADERS, "x-p-one"),
        effective_context(number(u32::MAX)),
        effective_context(Argument::Stream),
        get(REQUEST_HEADERS, "x-p-one"),
    ];
    let mut cases = in_every_phase("contexts/effective", &good_and_bad.map(Step::from));
    cases.extend(in_every_phase("contexts/done", &[done().into()]));
    cases.push(root_properties());
    cases
}

/// What a root context sets is its own: a stream does not see it.
fn root_properties() -> Case {
    let program = Program::new()
        .at(
            Phase::RequestHeaders,
            [
                set_property("whose", "stream").into(),
                tick_period(5).into(),
                Step::Return(1),
            ],
        )
        .at(
            Phase::Tick,
            [
                tick_period(0),
                property("whose"),
                set_property("whose", "root"),
                property("whose"),
                effective_context(Argument::Stream),
                property("whose"),
                continue_stream(0),
            ],
        )
        .at(Phase::ResponseHeaders, [property("whose")]);
    Case::new(
        "contexts/properties of the root",
        Request::get("/plain"),
        program,
    )
}
