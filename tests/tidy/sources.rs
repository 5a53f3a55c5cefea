//! The repository's files, as git knows them: tracked, or new and not ignored.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A file's path from the root, and its text.
pub struct Source {
    pub path: String,
    pub text: String,
}

impl Source {
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(at, line)| (at + 1, line))
    }

    /// The text with its `//` comments taken out: what names in comments do not count for.
    pub fn code(&self) -> String {
        let lines = self
            .text
            .lines()
            .map(|line| line.split("//").next().unwrap_or_default());
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The text up to its unit tests.
    pub fn product(&self) -> &str {
        self.text
            .split("#[cfg(test)]\nmod ")
            .next()
            .unwrap_or_default()
    }

    /// The top-level folder: `host`, `plugin`, `tests`…
    pub fn area(&self) -> &str {
        if self.path.starts_with("plugin/policy/") {
            "plugin/policy"
        } else {
            self.path.split('/').next().unwrap()
        }
    }
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

/// Every text file of the repository.
pub fn all() -> Vec<Source> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output();
    let listed = String::from_utf8(listed.expect("git lists the files").stdout).unwrap();
    let sources: Vec<Source> = listed
        .lines()
        .filter_map(|path| {
            let text = std::fs::read_to_string(root().join(path)).ok()?;
            Some(Source {
                path: path.to_owned(),
                text,
            })
        })
        .collect();
    assert!(sources.len() > 20, "git lists only {} files", sources.len());
    sources
}

/// Every Rust file.
pub fn rust() -> Vec<Source> {
    all()
        .into_iter()
        .filter(|source| source.path.ends_with(".rs"))
        .collect()
}

/// Panics with all the faults, if there are any.
#[track_caller]
pub fn assert_none(rule: &str, faults: Vec<String>) {
    assert!(faults.is_empty(), "{rule}:\n  {}", faults.join("\n  "));
}
