//! Files: how long, how named, and that each begins with what it is for.

use crate::sources::{all, assert_none, rust};

const LINES_MAX: usize = 600;
const FORBIDDEN_NAMES: &[&str] = &[
    "utils", "util", "common", "helpers", "helper", "misc", "types", "manager",
];
/// What the top level of the repository may hold, dotfiles apart.
const TOP_LEVEL: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "Makefile",
    "LICENSE",
    "clippy.toml",
    "plugin",
    "host",
    "sidecar",
    "session-store",
    "tests",
    "deploy",
    "docs",
];

#[test]
fn no_file_is_too_long() {
    let long = rust().into_iter().filter_map(|source| {
        let lines = source.text.lines().count();
        (lines > LINES_MAX).then(|| format!("{}: {lines} lines", source.path))
    });
    assert_none(&format!("more than {LINES_MAX} lines"), long.collect());
}

#[test]
fn every_module_begins_with_its_idea() {
    let silent = rust()
        .into_iter()
        .filter(|source| !source.text.starts_with("//! "));
    assert_none(
        "does not begin with `//!`",
        silent.map(|source| source.path).collect(),
    );
}

#[test]
fn files_are_named_after_ideas() {
    let mut faults = Vec::new();
    for source in rust() {
        for part in source.path.trim_end_matches(".rs").split('/') {
            if FORBIDDEN_NAMES.contains(&part) {
                faults.push(source.path.clone());
            }
        }
    }
    assert_none("a name that says nothing", faults);
}

#[test]
fn the_top_level_stays_small() {
    let mut faults: Vec<String> = Vec::new();
    for source in all() {
        let top = source.path.split('/').next().unwrap().to_owned();
        // A note that somebody keeps beside the repository is not of it.
        let kept =
            top.starts_with('.') || top.starts_with("NOTE") || TOP_LEVEL.contains(&top.as_str());
        if !kept && !faults.contains(&top) {
            faults.push(top);
        }
    }
    assert_none("not a place of the design", faults);
}

#[test]
fn scripts_can_be_run_and_stop_at_the_first_fault() {
    use std::os::unix::fs::PermissionsExt;
    let mut faults = Vec::new();
    for source in all().iter().filter(|source| source.text.starts_with("#!")) {
        let path = crate::sources::root().join(&source.path);
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        if mode & 0o111 == 0 {
            faults.push(format!("{}: not executable", source.path));
        }
        let shell = source
            .text
            .lines()
            .next()
            .is_some_and(|line| line.contains("sh"));
        if shell && !source.text.contains("set -e") {
            faults.push(format!("{}: no `set -e`", source.path));
        }
    }
    assert_none("a script", faults);
}
