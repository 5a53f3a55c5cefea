//! One row of the matrix: a request, the program it brings, and when its trace is complete.

use std::time::Duration;

use evenkeel_tests::eventually;

use super::client::{Request, read_answer};
use super::hosts::Host;
use super::program::{Phase, Program};
use super::trace::{Line, render};

/// Longest wait for a trace to be complete.
const COMPLETE_MAX: Duration = Duration::from_secs(10);

/// How long a proxy takes to die of a bug, at most.
const DEATH_MAX: Duration = Duration::from_secs(2);

pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) request: Request,
    pub(crate) program: Program,
    /// Callbacks to wait for besides the stream's end, and how often.
    pub(crate) until: Vec<(Phase, usize)>,
    /// How much of a body arrives before it is cut off depends on the run.
    pub(crate) has_cut_body: bool,
    /// The program ends in a trap: the VM is gone, and with it the rest of the trace.
    pub(crate) traps: bool,
}

impl Case {
    pub(crate) fn new(name: impl Into<String>, request: Request, program: Program) -> Self {
        Self {
            name: name.into(),
            request,
            program,
            until: Vec::new(),
            has_cut_body: false,
            traps: false,
        }
    }

    /// The trace is not complete before this callback came so often.
    pub(crate) fn until(mut self, phase: Phase, count: usize) -> Self {
        self.until.push((phase, count));
        self
    }

    pub(crate) fn with_cut_body(mut self) -> Self {
        self.has_cut_body = true;
        self
    }

    pub(crate) fn with_trap(mut self) -> Self {
        self.traps = true;
        self
    }

    /// The trace of this case on a host: the probe's lines, then what the client saw.
    pub(crate) fn run(&self, host: &mut Host) -> Vec<String> {
        let mark = host.mark();
        let program = if self.program.is_empty() {
            String::new()
        } else {
            self.program.encode()
        };
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
            (self.traps || count(lines, Phase::Delete) > 0)
                && self
                    .until
                    .iter()
                    .all(|(phase, least)| count(lines, *phase) >= *least)
                && is_settled(self, lines)
        });
        let mut trace = render(
            self,
            if self.traps {
                until_the_next_vm(&lines)
            } else {
                &lines
            },
        );
        let is_suspect = !is_complete || client.starts_with("client: no answer");
        if host.revive(if is_suspect {
            DEATH_MAX
        } else {
            Duration::ZERO
        }) {
            trace.push("(the proxy died)".to_owned());
        } else if !is_complete {
            trace.push("(not complete: the callbacks waited for did not come)".to_owned());
        }
        if self.traps {
            wait_for_a_vm(host);
        }
        trace.push(if self.has_cut_body {
            client.chars().take(40).collect()
        } else {
            client
        });
        trace
    }
}

/// When another VM starts is the proxy's matter.
fn until_the_next_vm(lines: &[Line]) -> &[Line] {
    let is_start = |line: &Line| matches!(line, Line::Callback { phase, arguments: [0, ..], .. } if *phase == Phase::ContextCreate as u32);
    let end = lines.iter().position(is_start).unwrap_or(lines.len());
    lines.get(..end).unwrap_or_default()
}

/// Until a request passes the probe: at first, and again after a trap.
pub(crate) fn wait_for_a_vm(host: &Host) {
    let passes = || {
        let mark = host.mark();
        let answer = Request::get("/plain")
            .send(host.address, "")
            .map(read_answer);
        let (lines, _) = host.lines_since(mark, Duration::from_millis(500), |lines| {
            count(lines, Phase::Delete) > 0
        });
        if answer.is_ok_and(|answer| answer.starts_with("client: 200"))
            && count(&lines, Phase::Delete) > 0
        {
            Ok(())
        } else {
            Err("no")
        }
    };
    eventually("the probe runs", COMPLETE_MAX, passes);
}

fn count(lines: &[Line], wanted: Phase) -> usize {
    lines
        .iter()
        .filter(|line| matches!(line, Line::Callback { phase, .. } if *phase == wanted as u32))
        .count()
}

/// Whether the block of the last callback has logged all its calls.
fn is_settled(case: &Case, lines: &[Line]) -> bool {
    match lines.last() {
        Some(Line::Callback { phase, .. }) => case.program.call(*phase, 0).is_none(),
        Some(Line::Operation { phase, index, .. }) => {
            case.program.call(*phase, index + 1).is_none()
        }
        None => false,
    }
}
