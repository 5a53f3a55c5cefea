//! The corpus of the fuzz targets, replayed: what once was found stays mended.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../fuzz/laws.rs"]
mod laws;

use std::path::Path;

#[track_caller]
fn check(target: &str, law: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut replayed = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let input = std::fs::read(entry.unwrap().path()).unwrap();
        law(&input);
        // And what is nearly it: each byte missing, and each cut.
        for at in 0..input.len().min(512) {
            law(&input[..at]);
            law(&[&input[..at], &input[at + 1..]].concat());
        }
        replayed += 1;
    }
    assert!(replayed >= 5, "{}: {replayed} inputs", folder.display());
}

#[test]
fn the_header_walk_holds() {
    check("header_walk", laws::header_walk);
}

#[test]
fn forwarded_holds() {
    check("forwarded", laws::forwarded);
}

#[test]
fn paths_hold() {
    check("path", laws::path);
}
