//! Host parity: one probe filter does the same in stock Envoy and in evenkeel, and its traces are equal line by line.
//!
//! The probe (tests/probe/probe.wat) is a machine that a request programs: which host functions to call in which phase, with which
//! arguments. It logs each callback and each call with its results. Here is what to program ([`cases`]), how both proxies are run
//! from one configuration ([`hosts`]), and how traces are made comparable ([`trace`]). What may differ is a list with reasons
//! ([`differences`]); an entry of it that no longer differs fails the test too.
//!
//! After a run the traces lie in `<target>/tmp/parity/`. `EVENKEEL_PARITY=<beginning of a name>` runs some cases only.

mod case;
mod cases;
mod client;
mod differences;
mod hostcalls;
mod hosts;
mod origin;
mod program;
mod start;
mod trace;

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::thread;

use evenkeel_tests::Host as Which;

use case::Case;
use differences::{DIFFERENCES, ENVOY_DIES, unexpected};
use hosts::{Host, Setting};

#[test]
fn the_probe_sees_the_same_in_both_hosts() {
    if !Which::Envoy.available() {
        return;
    }
    let only = std::env::var("EVENKEEL_PARITY").unwrap_or_default();
    let cases: Vec<Case> = cases::all()
        .into_iter()
        .filter(|case| case.name.starts_with(&only))
        .collect();
    let setting = Setting::new();
    let (envoy, evenkeel) = thread::scope(|scope| {
        let envoy = scope.spawn(|| traces(&mut setting.start(Which::Envoy), &cases));
        let evenkeel = scope.spawn(|| traces(&mut setting.start(Which::Sidecar), &cases));
        (envoy.join().unwrap(), evenkeel.join().unwrap())
    });

    let mut used = vec![false; DIFFERENCES.len()];
    let mut report = String::new();
    let mut failed = 0;
    for ((name, envoy), (_, evenkeel)) in envoy.iter().zip(&evenkeel) {
        let text = if kills_envoy(name) {
            unfinished(evenkeel)
        } else {
            unexpected(name, envoy, evenkeel, &mut used)
        };
        if !text.is_empty() {
            failed += 1;
            let _ = write!(report, "{name}\n{text}");
        }
    }
    if only.is_empty() {
        let unused = DIFFERENCES.iter().zip(used).filter(|(_, used)| !used);
        unused.for_each(|(entry, _)| {
            let _ = writeln!(report, "no longer differs: {entry:?}");
        });
    }
    assert!(
        report.is_empty(),
        "{failed} of {} cases differ\n{report}",
        cases.len()
    );
}

fn kills_envoy(case: &str) -> bool {
    ENVOY_DIES.iter().any(|name| case.starts_with(name))
}

/// The trace of each case, with its name; also written to a file, as it goes, where one can read it.
fn traces(host: &mut Host, cases: &[Case]) -> Vec<(String, Vec<String>)> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("parity");
    std::fs::create_dir_all(&directory).unwrap();
    let mut file = File::create(directory.join(format!("{:?}.trace", host.which))).unwrap();
    let mut traces = vec![("start".to_owned(), start::trace(host))];
    for case in cases {
        let is_skipped = host.which == Which::Envoy && kills_envoy(&case.name);
        traces.push((
            case.name.clone(),
            if is_skipped {
                Vec::new()
            } else {
                case.run(host)
            },
        ));
        if let Some((name, trace)) = traces.last() {
            writeln!(file, "== {name}\n{}", trace.join("\n")).unwrap();
        }
    }
    traces
}

/// What a case without a counterpart must not show.
fn unfinished(trace: &[String]) -> String {
    trace
        .iter()
        .filter(|line| line.starts_with('('))
        .map(|line| format!("  evenkeel {line}\n"))
        .collect()
}
