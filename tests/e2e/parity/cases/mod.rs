//! The matrix, by theme.

mod bodies;
mod calls;
mod contexts;
mod foreign;
mod maps;
mod order;
mod pointers;
mod properties;
mod replies;
mod shared;
mod system;
mod traps;

use super::case::Case;
use super::client::Request;
use super::hostcalls::{continue_stream, effective_context, http_get, tick_period};
use super::program::{Argument, Phase, Program, Step};

pub(crate) fn all() -> Vec<Case> {
    [
        order::cases(),
        maps::cases(),
        properties::cases(),
        bodies::cases(),
        replies::cases(),
        calls::cases(),
        contexts::cases(),
        shared::cases(),
        foreign::cases(),
        system::cases(),
        pointers::cases(),
        traps::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The same steps in each phase in which a program can run: those of a stream with trailers both ways, and those of the root
/// context with a stream that waits (first on the root context, then on the stream's).
fn in_every_phase(name: &str, steps: &[Step]) -> Vec<Case> {
    let once = || [Step::OnlyOnce].into_iter().chain(steps.iter().cloned());
    let mut cases: Vec<Case> = Phase::OF_A_STREAM
        .into_iter()
        .map(|phase| {
            Case::new(
                format!("{name}/{}", phase.name()),
                Request::with_trailers("/trailers"),
                Program::new().at(phase, once()),
            )
        })
        .collect();
    let on_root = || {
        once()
            .chain([effective_context(Argument::Stream).into()])
            .chain(steps.iter().cloned())
    };
    let resumed = || on_root().chain([continue_stream(0).into()]);
    let tick = Program::new()
        .at(
            Phase::RequestHeaders,
            [tick_period(5).into(), Step::Return(1)],
        )
        .at(
            Phase::Tick,
            [Step::from(tick_period(0))].into_iter().chain(resumed()),
        );
    cases.push(Case::new(
        format!("{name}/tick"),
        Request::get("/trailers"),
        tick,
    ));
    let response = Program::new()
        .at(
            Phase::RequestHeaders,
            [
                http_get("alive", "/call/trailers", 5000).into(),
                Step::Return(1),
            ],
        )
        .at(Phase::CallResponse, resumed());
    cases.push(Case::new(
        format!("{name}/call_response"),
        Request::get("/trailers"),
        response,
    ));
    cases
}
