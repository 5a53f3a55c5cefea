//! The programs that tests run: where they are, and what happens when one is missing.
//!
//! A missing peer is a loud skip on a user's machine and a failure under `CI=true`: a test that silently does not run
//! is worse than no test.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

/// `target/debug` (or the profile the tests were built with): where this test binary lives.
fn profile_directory() -> PathBuf {
    let this = std::env::current_exe().unwrap();
    this.parent().and_then(Path::parent).unwrap().to_path_buf()
}

/// Where `deploy/install-peers.sh` puts what apt does not have.
fn peers_directories() -> Vec<PathBuf> {
    let mut directories = Vec::new();
    directories.extend(std::env::var_os("EVENKEEL_PEERS").map(PathBuf::from));
    directories.push(repository().join("target/peers"));
    directories.extend(
        profile_directory()
            .parent()
            .map(|target| target.join("peers")),
    );
    directories
}

/// The program's path, or `None` with a loud word; under `CI=true` a missing one is a failure.
pub fn find(program: &str) -> Option<PathBuf> {
    let system = std::env::var_os("PATH").unwrap_or_default();
    let found = peers_directories()
        .into_iter()
        .chain(std::env::split_paths(&system))
        .chain([PathBuf::from("/usr/sbin")])
        .map(|directory| directory.join(program))
        .find(|path| path.is_file());
    if found.is_none() {
        missing(&format!(
            "{program} is not installed (deploy/install-peers.sh installs it)"
        ));
    }
    found
}

/// Says loudly that a test does not run; under `CI=true` it fails.
#[track_caller]
pub fn missing(message: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{message}");
    // Straight to the stream: what a passing test prints by macro is not shown.
    writeln!(std::io::stderr(), "\n*** SKIPPED: {message} ***\n").ok();
}

/// Cargo's target folder, in which these tests were built.
pub fn target_directory() -> PathBuf {
    profile_directory().parent().unwrap().to_path_buf()
}

/// As [`find`], for a program without which nothing here can run.
#[track_caller]
pub fn need(program: &str) -> PathBuf {
    find(program).unwrap_or_else(|| panic!("{program} is needed for this test"))
}

/// The `evenkeel` binary under test: `EVENKEEL_BIN`, or built once by cargo, so that it is never a stale one.
pub fn evenkeel() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("EVENKEEL_BIN") {
            return PathBuf::from(path);
        }
        let directory = profile_directory();
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build
            .current_dir(repository())
            .args(["build", "--quiet", "-p", "evenkeel"]);
        build.arg("--target-dir").arg(directory.parent().unwrap());
        if directory.ends_with("release") {
            build.arg("--release");
        }
        let status = build.status().unwrap();
        assert!(status.success(), "cargo build -p evenkeel: {status}");
        directory.join("evenkeel")
    })
}
