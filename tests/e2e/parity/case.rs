//! One row of the matrix: a request, the program it brings, and when its trace is complete.

use std::time::Duration;

use super::client::{Request, read_answer};
use super::hosts::Host;
use super::program::{Phase, Program};
use super::trace::{Line, render};

/// Longest wait for a trace to be complete.
const COMPLETE_MAX: Duration = Duration::from_secs(10);

/// How long a proxy takes to die of a bug, at most.
const DEATH_MAX: Duration = Duration::from_secs(2);

pub struct Case {
    pub name: String,
    pub request: Request,
    pub program: Program,
    /// Callbacks to wait for besides the stream's end, and how often.
    pub until: Vec<(Phase, usize)>,
    /// How much of a body arrives before it is cut off depends on the run.
    pub has_cut_body: bool,
}

impl Case {
    pub fn new(name: impl Into<String>, request: Request, program: Program) -> Self {
        Self { name: name.into(), request, program, until: Vec::new(), has_cut_body: false }
    }

    /// The trace is not complete before this callback came so often.
    pub fn until(mut self, phase: Phase, count: usize) -> Self {
        self.until.push((phase, count));
        self
    }

    pub fn with_cut_body(mut self) -> Self {
        self.has_cut_body = true;
        self
    }

    /// The trace of this case on a host: the probe's lines, then what the client saw.
    pub fn run(&self, host: &mut Host) -> Vec<String> {
        let mark = host.mark();
        let program = if self.program.is_empty() { String::new() } else { self.program.encode() };
        let client = match self.request.send(host.address, &program) {
            Err(error) => format!("client: {error}"),
            Ok(stream) => match self.request.abort_after {
                None => read_answer(stream),
                Some(phase) => {
                    host.lines_since(mark, COMPLETE_MAX, |lines| count(lines, phase) > 0);
                    drop(stream);
                    "client: went away".to_owned()
                }
            },
        };
        let (lines, is_complete) = host.lines_since(mark, COMPLETE_MAX, |lines| {
            count(lines, Phase::Delete) > 0 && self.until.iter().all(|(phase, least)| count(lines, *phase) >= *least) && is_settled(self, lines)
        });
        let mut trace = render(self, &lines);
        let is_suspect = !is_complete || client.starts_with("client: no answer");
        if host.revive(if is_suspect { DEATH_MAX } else { Duration::ZERO }) {
            trace.push("(the proxy died)".to_owned());
        } else if !is_complete {
            trace.push("(not complete: the callbacks waited for did not come)".to_owned());
        }
        trace.push(if self.has_cut_body { client.chars().take(40).collect() } else { client });
        trace
    }
}

fn count(lines: &[Line], wanted: Phase) -> usize {
    lines.iter().filter(|line| matches!(line, Line::Callback { phase, .. } if *phase == wanted as u32)).count()
}

/// Whether the block of the last callback has logged all its calls.
fn is_settled(case: &Case, lines: &[Line]) -> bool {
    match lines.last() {
        Some(Line::Callback { phase, .. }) => case.program.call(*phase, 0).is_none(),
        Some(Line::Operation { phase, index, .. }) => case.program.call(*phase, index + 1).is_none(),
        None => false,
    }
}
