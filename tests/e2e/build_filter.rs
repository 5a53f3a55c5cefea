//! The ways to build the filter: each can be forced, says in one sentence what it needs, and Debian's makes a filter that works.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use evenkeel_policy::config::{ListenerIdentity, Mode, filter_configuration};
use evenkeel_tests::{Cluster, Host, both_hosts, doubles, peers};
use serde_json::json;
use tempfile::TempDir;

both_hosts!(the_debian_way_builds_a_filter_that_works);

const COMMAND: &str = "rustup target add wasm32-wasip1";

/// `deploy/build-filter.sh`, as a build of the user's would run it, not one of this test's cargo.
fn script(way: &str) -> Command {
    let mut command = Command::new(peers::repository().join("deploy/build-filter.sh"));
    // cargo sets it for tests, so that they find the toolchain's libraries; Debian's compiler has its own.
    command.env_remove("LD_LIBRARY_PATH");
    command.env("EVENKEEL_WASM_TOOLCHAIN", way);
    command
}

/// A folder with programs, for the front of `PATH`.
struct Programs(TempDir);

impl Programs {
    fn new(programs: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        for (name, text) in programs {
            let path = folder.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        Self(folder)
    }

    fn path(&self) -> String {
        let path = std::env::var("PATH").unwrap_or_default();
        format!("{}:{path}", self.0.path().display())
    }
}

/// What `--way` answers where the toolchain has its libraries in `libraries`, and rustup does `rustup`.
fn way(forced: &str, libraries: &Path, rustup: &str) -> Output {
    let rustc = format!("echo {}", libraries.display());
    let programs = Programs::new(&[("rustc", &rustc), ("rustup", rustup)]);
    let mut command = script(forced);
    command.arg("--way").env("PATH", programs.path());
    command.output().unwrap()
}

/// One error that names the command to run, and nothing that could be taken for a path.
#[track_caller]
fn check_refused(output: &Output, words: &str) {
    let told = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<&str> = told
        .lines()
        .filter(|line| line.starts_with("build-filter: error: "))
        .collect();
    assert!(!output.status.success(), "{told}");
    assert_eq!(errors.len(), 1, "{told}");
    assert!(errors[0].contains(words), "{words:?} is not in {told}");
    assert!(output.stdout.is_empty(), "{output:?}");
}

#[track_caller]
fn check_way(output: &Output, expected: &str) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), expected);
}

#[test]
fn each_way_can_be_forced_and_says_what_it_needs() {
    let (without, with) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    std::fs::write(with.path().join("libstd-0123.rlib"), "").unwrap();
    let (without, with) = (without.path(), with.path());
    let offline = "echo 'error: could not download: no route to host' >&2; exit 1";

    check_way(&way("installed", with, offline), "installed");
    check_refused(&way("installed", without, offline), COMMAND);
    // What is there is not asked for.
    check_way(&way("rustup", with, offline), "installed");
    let output = way("rustup", without, offline);
    check_refused(&output, COMMAND);
    check_refused(&output, "rustup could not add");
    let adds = format!("touch {}/libstd-1.rlib", without.display());
    check_way(&way("rustup", without, &adds), "installed");
    check_refused(&way("cobol", with, offline), "installed, rustup or debian");
}

/// The filter as Debian's compiler makes it. It has a folder of its own below the target folder, so only the first run takes
/// its minute. `None`, with a loud word, where Debian's packages are neither there nor can be installed.
fn debian_filter() -> Option<PathBuf> {
    let asked = script("debian").arg("--way").output().unwrap();
    if !asked.status.success() {
        let told = String::from_utf8_lossy(&asked.stderr);
        peers::missing(&format!("Debian's wasm toolchain is not there: {told}"));
        return None;
    }
    let output = script("debian")
        .env("CARGO_TARGET_DIR", peers::target_directory())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let printed = String::from_utf8_lossy(&output.stdout);
    let path = PathBuf::from(printed.lines().last().unwrap().trim());
    assert!(path.components().any(|part| part.as_os_str() == "debian"));
    Some(path)
}

/// It runs as one more filter before the built-in one, and says so in a header: the server sees that it decided.
fn the_debian_way_builds_a_filter_that_works(host: Host) {
    let Some(filter) = debian_filter() else {
        return;
    };
    let web = doubles::recorder("web");
    let identity = ListenerIdentity {
        name: "web".to_owned(),
        mode: Mode::Http,
        pool: None,
    };
    let policy = json!({
        "routes": [{"pool": "web"}],
        "request_headers": {"set": {"X-Built-By": "debian"}},
        "pools": {"web": {"servers": [{"address": evenkeel_tests::Server::address(&web).to_string()}]}},
    });
    let configuration = filter_configuration(&identity, &policy).replace('\'', "''");
    let top = format!(
        "filters: [{{path: '{}', configuration: '{configuration}'}}]",
        filter.display()
    );
    let proxy = Cluster::new()
        .server(&web)
        .top(&top)
        .pool("", &[("web", "")])
        .on(host);
    assert_eq!(proxy.get("/").status, 200);
    let seen = web.requests_text()[0].to_ascii_lowercase();
    assert!(seen.contains("\r\nx-built-by: debian\r\n"), "{seen}");
}
