//! What `evenkeel envoy` writes: Envoy takes it, whatever the configuration holds, and nobody else can read it.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use evenkeel_tests::tls::Certificate;
use evenkeel_tests::{Cluster, guests, peers};
use tempfile::TempDir;

struct Generated {
    directory: TempDir,
}

#[track_caller]
fn generate(cluster: Cluster) -> Generated {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("evenkeel.yaml");
    let log = directory.path().join("access.log");
    std::fs::write(&path, cluster.yaml("127.0.0.1:9", log.to_str().unwrap())).unwrap();
    let output = run(&path, directory.path());
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Generated { directory }
}

fn run(path: &std::path::Path, directory: &std::path::Path) -> Output {
    let mut command = Command::new(peers::evenkeel());
    command
        .arg("envoy")
        .arg("-c")
        .arg(path)
        .arg("-o")
        .arg(directory.join("out"));
    command.output().unwrap()
}

impl Generated {
    fn file(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join("out").join(name)
    }

    /// `envoy --mode validate` takes it.
    #[track_caller]
    fn validate(&self) {
        let Some(envoy) = peers::find("envoy") else {
            return;
        };
        let output = Command::new(envoy)
            .args(["--mode", "validate", "-l", "warning", "-c"])
            .arg(self.file("envoy.yaml"))
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        let text = std::fs::read_to_string(self.file("envoy.yaml")).unwrap();
        assert!(output.status.success(), "{message}\n{text}");
        assert!(!message.contains("deprecated"), "{message}");
    }
}

fn small() -> Cluster {
    Cluster::new()
        .name("a", "127.0.0.1:1")
        .name("b", "[::1]:2")
        .name("c", "127.0.0.1:3")
}

#[test]
fn envoy_takes_every_configuration() {
    let certificate = Certificate::new();
    let guest = guests::poison();
    let servers = [
        ("a", "weight: 3"),
        ("b", "backup: true"),
        ("c", "down: true"),
    ];
    let awkward = "request_headers: {set: {X-Odd: 'a \"quoted\" \\\\ value: {yes} # $host', X-Percent: '100%'}}\n";
    for cluster in [
        small().pool("", &servers),
        small().pool(
            "balance: least_conn; retries: 7; timeouts: {connect: 250ms, response: 5m}",
            &servers,
        ),
        small().listener(&certificate.listener()).pool("", &servers),
        small()
            .listener("accept: balanced")
            .top(&guest.filters())
            .pool("", &servers),
        small()
            .top("timeouts: {client_header: 1s, response: 90s, idle: 3m, tunnel: 1h}")
            .pool("", &servers),
        small()
            .top("limits: {body_bytes: 1MiB, header_bytes: 16KiB, headers: 40}")
            .pool("", &servers),
        small()
            .top("access_log: {path: stdout, format: combined}")
            .pool("", &servers),
        small().policy(awkward).pool("", &servers),
        small()
            .more_listeners("  - {name: second, bind: '[::1]:9'}")
            .pool("", &servers),
    ] {
        generate(cluster).validate();
    }
}

/// It holds the policy, and later secrets.
#[test]
fn only_the_owner_can_read_it() {
    let generated = generate(small().pool("", &[("a", "")]));
    let mode = std::fs::metadata(generated.file("envoy.yaml"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
    let wasm = std::fs::read(generated.file("evenkeel.wasm")).unwrap();
    assert!(wasm.starts_with(b"\0asm"));
}

#[test]
fn writing_twice_replaces_what_was_there() {
    let generated = generate(small().pool("", &[("a", "")]));
    let path = generated.directory.path().join("evenkeel.yaml");
    let first = std::fs::read_to_string(generated.file("envoy.yaml")).unwrap();
    assert_eq!(
        run(&path, generated.directory.path()).status.code(),
        Some(0)
    );
    assert_eq!(
        std::fs::read_to_string(generated.file("envoy.yaml")).unwrap(),
        first
    );
}
