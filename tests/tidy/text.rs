//! Words that must not be in the files, and words that must.

use crate::sources::{Source, all, assert_none, rust};

/// Where `unsafe` is, and has been reviewed; each place says why it is sound.
const UNSAFE_REVIEWED: &[&str] = &[
    // Deserialising an ahead-of-time compiled module that this machine compiled.
    "host/src/precompiled.rs",
    "host/src/engine.rs",
    // The imports of the filter.
    "plugin/src/hostcalls.rs",
];

/// The words are put together here, so that this file does not hold them.
fn forbidden_everywhere() -> Vec<String> {
    let places = [
        ["/work", "/"],
        ["/tmp", "/wt"],
        ["/tmp", "/plan"],
        ["registry", ".npmjs"],
        ["files.pythonhosted", ".org"],
    ];
    let makers = [["Cla", "ude"], ["GP", "T-"], ["Co-Authored", "-By"]];
    places
        .iter()
        .chain(&makers)
        .map(|parts| parts.concat())
        .collect()
}

fn find(sources: &[Source], words: &[String]) -> Vec<String> {
    let mut faults = Vec::new();
    for source in sources {
        for (number, line) in source.lines() {
            for word in words.iter().filter(|word| line.contains(word.as_str())) {
                faults.push(format!("{}:{number}: {word}", source.path));
            }
        }
    }
    faults
}

#[test]
fn nothing_of_one_workplace_is_in_the_files() {
    let sources: Vec<Source> = all()
        .into_iter()
        .filter(|source| !source.path.starts_with("NOTE"))
        .collect();
    assert_none(
        "belongs to one workplace",
        find(&sources, &forbidden_everywhere()),
    );
}

#[test]
fn nothing_is_left_to_do_and_no_test_is_switched_off() {
    let words = [
        ["todo", "!("],
        ["unimplemented", "!("],
        ["#[ign", "ore"],
        ["FIX", "ME"],
        ["XX", "X:"],
        ["dbg", "!("],
    ];
    let words: Vec<String> = words.iter().map(|parts| parts.concat()).collect();
    assert_none("unfinished", find(&rust(), &words));
}

#[test]
fn unsafe_is_where_it_was_reviewed_and_says_why() {
    let mut faults = Vec::new();
    let word = ["allow(unsafe", "_code)"].concat();
    for source in rust() {
        let reviewed = UNSAFE_REVIEWED.contains(&source.path.as_str());
        let code = source.code();
        let blocks = code
            .split_whitespace()
            .collect::<Vec<_>>()
            .windows(2)
            .filter(|two| two == &["unsafe", "{"])
            .count();
        if (code.contains(&word) || blocks > 0) && !reviewed {
            faults.push(source.path.clone());
        }
        if blocks > source.text.matches("SAFETY").count() {
            faults.push(format!(
                "{}: {blocks} blocks, not each with its SAFETY",
                source.path
            ));
        }
    }
    assert_none("unsafe outside the reviewed places", faults);
}

/// The lints hold for every crate, and nobody switches them off for more than a test.
#[test]
fn the_lints_hold_everywhere() {
    let mut faults = Vec::new();
    for source in all()
        .iter()
        .filter(|source| source.path.ends_with("/Cargo.toml"))
    {
        if !source.text.contains("[workspace]")
            && !source.text.contains("[lints]\nworkspace = true")
        {
            faults.push(format!("{}: no [lints] workspace = true", source.path));
        }
    }
    for source in rust()
        .iter()
        .filter(|source| !source.path.starts_with("tests/") && !source.path.contains("/tests/"))
    {
        for lint in [
            "unwrap_used",
            "expect_used",
            "clippy::panic",
            "indexing_slicing",
            "cast_possible_truncation",
        ] {
            let allowed = source
                .product()
                .lines()
                .any(|line| line.contains("allow(") && line.contains(lint));
            if allowed {
                faults.push(format!("{}: allows {lint}", source.path));
            }
        }
    }
    assert_none("a lint is off", faults);
}

/// The README names what the Makefile can do, and points at files that are there.
#[test]
fn the_readme_names_every_target_and_no_file_that_is_not_there() {
    let sources = all();
    let text = |path: &str| {
        sources
            .iter()
            .find(|source| source.path == path)
            .map(|source| source.text.clone())
    };
    let Some(makefile) = text("Makefile") else {
        return;
    };
    let readme = text("README.md").expect("a README");
    let mut faults = Vec::new();
    for line in makefile
        .lines()
        .filter_map(|line| line.strip_prefix(".PHONY:"))
    {
        for target in line
            .split_whitespace()
            .filter(|target| !readme.contains(&format!("make {target}")))
        {
            faults.push(format!("README.md does not name `make {target}`"));
        }
    }
    for link in readme
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
    {
        let file = link.split('#').next().unwrap_or_default();
        let outside = file.is_empty() || file.contains("://");
        if !outside && !crate::sources::root().join(file).exists() {
            faults.push(format!("README.md points at {file}"));
        }
    }
    assert_none("README", faults);
}

/// The README's first screen: the two commands.
#[test]
fn the_readme_opens_with_the_two_commands() {
    let Some(readme) = all().into_iter().find(|source| source.path == "README.md") else {
        return;
    };
    let first: String = readme.text.lines().take(60).collect::<Vec<_>>().join("\n");
    for command in ["make run", "make test"] {
        assert!(
            first.contains(command),
            "`{command}` is not on the README's first screen"
        );
    }
}

/// A balancing algorithm is named in its file, in `build()` and in the configuration's enum, and nowhere else.
#[test]
fn an_algorithm_is_named_in_three_places() {
    let mut faults = Vec::new();
    let sources = rust();
    let balance = sources
        .iter()
        .filter(|source| source.path.starts_with("plugin/policy/src/balance/"));
    let algorithms = ["LeastConn", "RandomTwo", "IpHash"];
    let places: Vec<&str> = balance.map(|source| source.path.as_str()).collect();
    if places.is_empty() {
        return;
    }
    for source in sources
        .iter()
        .filter(|source| source.path.starts_with("plugin/") || source.path.starts_with("sidecar/"))
    {
        let place = source.path.starts_with("plugin/policy/src/balance/")
            || source.path.starts_with("plugin/policy/src/config/");
        for name in algorithms
            .iter()
            .filter(|name| !place && source.product().contains(&format!("Algorithm::{name}")))
        {
            faults.push(format!("{} names {name}", source.path));
        }
    }
    assert_none("an algorithm is named elsewhere", faults);
}
