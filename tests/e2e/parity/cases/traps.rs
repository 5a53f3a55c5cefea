//! Traps: what becomes of the stream whose callback trapped. They come last: each costs a VM.

use super::super::case::Case;
use super::super::client::Request;
use super::super::program::{Phase, Program, Step};

pub(crate) fn cases() -> Vec<Case> {
    [
        Phase::RequestHeaders,
        Phase::RequestBody,
        Phase::RequestTrailers,
        Phase::ResponseHeaders,
        Phase::ResponseTrailers,
        Phase::Log,
    ]
    .into_iter()
    .map(|phase| {
        let program = Program::new().at(phase, [Step::Trap]);
        Case::new(
            format!("trap/{}", phase.name()),
            Request::with_trailers("/trailers"),
            program,
        )
        .until(phase, 1)
        .with_trap()
    })
    .collect()
}
