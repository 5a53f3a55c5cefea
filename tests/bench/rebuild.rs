//! What a one-line change costs a developer: seconds until the development build of `evenkeel` is there again.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::report::{Section, Target, figure, table};

/// Files that get one line more; relative to the workspace.
const CHANGED: [&str; 3] = [
    "plugin/policy/src/lib.rs",
    "host/src/lib.rs",
    "sidecar/src/lib.rs",
];

/// Puts a file back as it was.
struct Restored {
    path: PathBuf,
    before: Vec<u8>,
}

impl Drop for Restored {
    fn drop(&mut self) {
        if let Err(error) = std::fs::write(&self.path, &self.before) {
            eprintln!("{} could not be restored: {error}", self.path.display());
        }
    }
}

pub fn run() -> Result<Section> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = manifest
        .parent()
        .context("the tests are within the workspace")?;
    build(workspace)?;
    let mut lines = Vec::new();
    let mut targets = Vec::new();
    let mut json = serde_json::Map::new();
    for changed in CHANGED {
        let path = workspace.join(changed);
        let before = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let line = b"\n#[doc(hidden)]\npub const ONE_LINE_MORE: u32 = 1;\n";
        let after = [before.as_slice(), line].concat();
        let restored = Restored {
            path: path.clone(),
            before,
        };
        std::fs::write(&path, after).with_context(|| format!("changing {}", path.display()))?;
        let took = build(workspace);
        drop(restored);
        let seconds = took?.as_secs_f64();
        // So that the next one does not pay for the restored file.
        build(workspace)?;
        lines.push(vec![changed.to_owned(), figure(Some(seconds), 1)]);
        json.insert(changed.to_owned(), json!(seconds));
        let what = format!("rebuild after a line in {changed}, s");
        targets.push(Target {
            what,
            measured: Some(seconds),
            at_most: 60.0,
            digits: 1,
        });
    }
    let markdown = format!(
        "**Rebuild** of the development build after a one-line change\n\n{}",
        table(&["changed", "s"], &lines)
    );
    Ok(Section {
        key: "rebuild_s",
        markdown,
        json: Value::Object(json),
        invalid: Vec::new(),
        targets,
    })
}

fn build(workspace: &Path) -> Result<Duration> {
    let mut command = Command::new("cargo");
    command
        .args(["build", "--quiet", "--package", "evenkeel"])
        .current_dir(workspace)
        .stdin(Stdio::null());
    let began = Instant::now();
    let status = command.status().context("running cargo")?;
    anyhow::ensure!(status.success(), "the build failed");
    Ok(began.elapsed())
}
