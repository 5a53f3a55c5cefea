//! Who may depend on whom, and who may name what.

use std::collections::BTreeSet;

use crate::sources::{all, assert_none, rust};

/// The arrows between our crates: each may depend on these, and on no other of ours.
const ARROWS: &[(&str, &[&str])] = &[
    ("plugin/policy", &[]),
    ("plugin", &["evenkeel-policy"]),
    ("host", &[]),
    ("session-store", &[]),
    (
        "sidecar",
        &["evenkeel-policy", "evenkeel-host", "evenkeel-session-store"],
    ),
    (
        "tests",
        &[
            "evenkeel",
            "evenkeel-policy",
            "evenkeel-host",
            "evenkeel-session-store",
        ],
    ),
];

/// A library that one crate alone may name, and where.
const OWNED: &[(&str, &[&str])] = &[
    ("proxy_wasm", &["plugin"]),
    ("wasmtime", &["host"]),
    ("redis", &["session-store"]),
];

/// The names of the dependencies that a manifest states, in any of its dependency tables.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut inside = false;
    let mut names = BTreeSet::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line.trim_matches(['[', ']']).ends_with("dependencies");
        } else if inside && !line.starts_with('#') {
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
            if !name.is_empty() {
                names.insert(name.to_owned());
            }
        }
    }
    names
}

#[test]
fn crates_depend_on_each_other_along_the_arrows_only() {
    let mut faults = Vec::new();
    for source in all() {
        let Some(folder) = source.path.strip_suffix("/Cargo.toml") else {
            continue;
        };
        // Workspaces of their own (guests for tests) are no part of the product.
        if source.text.contains("[workspace]") {
            continue;
        }
        let Some((_, allowed)) = ARROWS.iter().find(|(area, _)| *area == folder) else {
            if !folder.starts_with("tests/") {
                faults.push(format!("{folder}: a crate that the design does not name"));
            }
            continue;
        };
        let ours = dependencies(&source.text)
            .into_iter()
            .filter(|name| name.starts_with("evenkeel"));
        for name in ours.filter(|name| !allowed.contains(&name.as_str())) {
            faults.push(format!("{folder} depends on {name}"));
        }
    }
    assert_none("an arrow that the design does not have", faults);
}

#[test]
fn only_its_owner_depends_on_a_library() {
    let mut faults = Vec::new();
    for source in all() {
        let Some(folder) = source.path.strip_suffix("/Cargo.toml") else {
            continue;
        };
        for (library, owners) in OWNED {
            let name = library.replace('_', "-");
            if dependencies(&source.text).contains(&name) && !owners.contains(&folder) {
                faults.push(format!("{folder} depends on {name}"));
            }
        }
    }
    assert_none("a library in somebody else's hands", faults);
}

#[test]
fn only_its_owner_names_a_library() {
    let mut faults = Vec::new();
    for source in rust()
        .iter()
        .filter(|source| !source.path.starts_with("tests/"))
    {
        let code = source.code();
        for (library, owners) in OWNED {
            let path = format!("{library}::");
            if code.contains(&path) && !owners.contains(&source.area()) {
                faults.push(format!("{} names {library}", source.path));
            }
        }
    }
    assert_none("a library in somebody else's hands", faults);
}

#[test]
fn only_the_sidecar_and_the_session_store_listen() {
    let mut faults = Vec::new();
    for source in rust() {
        let may = ["sidecar", "session-store", "tests"].contains(&source.area());
        let product = source.product();
        if !may && (product.contains("TcpListener") || product.contains("UnixListener")) {
            faults.push(source.path.clone());
        }
    }
    assert_none("opens a listening socket", faults);
}

/// Pure: the same answers on every machine, at every time.
#[test]
fn policy_is_pure() {
    let impure = [
        "std::time::Instant",
        "SystemTime",
        "Instant::now",
        "std::fs",
        "std::net::Tcp",
        "std::net::Udp",
        "std::env",
        "std::thread",
        "std::process",
        "RandomState",
        "DefaultHasher",
        "std::hash",
        "thread_local!",
        "println!",
    ];
    let mut faults = Vec::new();
    for source in rust()
        .iter()
        .filter(|source| source.path.starts_with("plugin/policy/src/"))
    {
        let product = source
            .product()
            .lines()
            .map(|line| line.split("//").next().unwrap_or_default());
        let product = product.collect::<Vec<_>>().join("\n");
        for word in impure.iter().filter(|word| product.contains(*word)) {
            faults.push(format!("{}: {word}", source.path));
        }
    }
    assert_none("the policy is not pure", faults);
}

/// Guest memory is reached in one file; the rest of the host asks it.
#[test]
fn guest_pointers_are_resolved_in_one_file() {
    let mut faults = Vec::new();
    for source in rust()
        .iter()
        .filter(|source| source.path.starts_with("host/src/"))
    {
        if source.path.ends_with("guest_memory.rs") {
            continue;
        }
        for word in [".data_mut(&mut ", ".data_and_store_mut(", "data_ptr("] {
            let of_memory = source
                .product()
                .lines()
                .any(|line| line.contains(word) && line.contains("memory"));
            if of_memory {
                faults.push(format!("{}: {word}", source.path));
            }
        }
    }
    assert_none("guest memory is touched outside guest_memory.rs", faults);
}

#[test]
fn the_manifests_name_dependencies_once() {
    let root = all()
        .into_iter()
        .find(|source| source.path == "Cargo.toml")
        .unwrap();
    let shared = dependencies(&root.text);
    let mut faults = Vec::new();
    for source in all()
        .iter()
        .filter(|source| source.path.ends_with("/Cargo.toml"))
    {
        if source.text.contains("[workspace]") {
            continue;
        }
        for (number, line) in source.lines() {
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
            let local =
                line.contains('=') && !line.contains("workspace = true") && !line.starts_with(' ');
            if shared.contains(name) && local && line.contains('"') && line.starts_with(name) {
                faults.push(format!("{}:{number}: {line}", source.path));
            }
        }
    }
    assert_none(
        "a version that does not come from the root manifest",
        faults,
    );
}
