//! The corpus of the fuzz target, replayed: what once was found stays mended.

use std::path::Path;

// What the laws are about, by the names they have there.
use super::header;
use crate::upstream::proxy_header as written;

#[path = "../../../fuzz/laws.rs"]
mod laws;

/// Of a long input only so many bytes are left out in turn.
const LEFT_OUT_MAX: usize = 512;

#[test]
fn the_corpus_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/proxy_protocol");
    let mut replayed = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let input = std::fs::read(entry.unwrap().path()).unwrap();
        laws::proxy_protocol(&input);
        // And what is nearly it: each byte missing, and each cut.
        for at in 0..input.len().min(LEFT_OUT_MAX) {
            laws::proxy_protocol(&input[..at]);
            laws::proxy_protocol(&[&input[..at], &input[at + 1..]].concat());
        }
        replayed += 1;
    }
    assert!(replayed >= 10, "{}: {replayed} inputs", folder.display());
}
