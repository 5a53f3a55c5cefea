//! Where the two hosts may differ, each with its reason; and the comparison that allows nothing else.

use std::fmt::Write as _;

/// A difference that is meant: in cases whose name begins with `cases`, lines that hold `line`.
pub(crate) struct Difference {
    cases: &'static str,
    line: &'static str,
    pub(crate) reason: &'static str,
}

const fn differs(cases: &'static str, line: &'static str, reason: &'static str) -> Difference {
    Difference { cases, line, reason }
}

pub(crate) const DIFFERENCES: &[Difference] = &[
    differs("", "never", "placeholder"),
];

/// Cases that kill Envoy 1.40 (a segmentation fault): there is nothing to be equal to. Here they run on evenkeel only, which must
/// survive them and end the stream.
pub(crate) const ENVOY_DIES: &[&str] = &[
    "continue 1/request_headers",
    "continue 1/request_body",
    "continue 1/request_trailers",
    "continue 1/response_trailers",
    "close 0/response_trailers",
    "close 1/response_trailers",
    "close 0/log",
    "close 1/log",
    "close 0/done",
    "close 1/done",
    "reply/log",
    "reply/done",
    "twice/reply, then close",
    "twice/close, then reply",
    "paused/continue the other way, then this",
];

/// Statuses of Envoy's that the Rust SDK's enumeration does not have: a guest built with it must never see them. Ours for theirs.
const STATUSES: [(&str, &str); 2] = [("-> 6", "-> 2"), ("-> 12", "-> 10")];

/// The differences of one case that no entry allows, as text; marks the entries that allowed one.
pub(crate) fn unexpected(case: &str, envoy: &[String], evenkeel: &[String], used: &mut [bool]) -> String {
    let envoy: Vec<String> = envoy.iter().map(|line| translate_status(line)).collect();
    let mut text = String::new();
    for (side, line) in unmatched(&envoy, evenkeel) {
        let allowed = DIFFERENCES.iter().position(|entry| case.starts_with(entry.cases) && line.contains(entry.line));
        match allowed.and_then(|place| used.get_mut(place)) {
            Some(used) => *used = true,
            None => {
                let _ = writeln!(text, "  {side} {line}");
            }
        }
    }
    text
}

fn translate_status(line: &str) -> String {
    for (theirs, ours) in STATUSES {
        let is_whole = |rest: &str| rest.is_empty() || rest.starts_with(' ');
        if let Some((before, after)) = line.split_once(theirs)
            && is_whole(after)
        {
            return format!("{before}{ours}{after}");
        }
    }
    line.to_owned()
}

/// The lines that are not in a longest common subsequence of both.
fn unmatched<'a>(envoy: &'a [String], evenkeel: &'a [String]) -> Vec<(&'static str, &'a str)> {
    let (rows, columns) = (envoy.len(), evenkeel.len());
    // common[i][j]: the length of the longest common subsequence of what is left from i and from j on.
    let mut common = vec![vec![0_usize; columns + 1]; rows + 1];
    for i in (0..rows).rev() {
        for j in (0..columns).rev() {
            common[i][j] = if envoy[i] == evenkeel[j] { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut lines = Vec::new();
    while i < rows || j < columns {
        if i < rows && j < columns && envoy[i] == evenkeel[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == columns || (i < rows && common[i + 1][j] >= common[i][j + 1]) {
            lines.push(("envoy   ", envoy[i].as_str()));
            i += 1;
        } else {
            lines.push(("evenkeel", evenkeel[j].as_str()));
            j += 1;
        }
    }
    lines
}
