//! The binary is the whole product: copied elsewhere, it runs; nothing beside it is needed.

use std::process::Command;

use evenkeel_tests::{Cluster, Host, both_hosts, nginx, peers};

both_hosts!(a_copy_of_the_binary_serves);

fn a_copy_of_the_binary_serves(host: Host) {
    let directory = tempfile::TempDir::new().unwrap();
    let copy = directory.path().join("elsewhere");
    std::fs::copy(peers::evenkeel(), &copy).unwrap();
    let web = nginx("web");
    let proxy = Cluster::new()
        .server(&web)
        .binary(&copy)
        .pool("", &[("web", "")])
        .on(host);
    assert_eq!(proxy.sequence(5), ["web"; 5]);
}

#[test]
fn help_and_version_exit_with_0() {
    for argument in ["--help", "--version"] {
        let output = Command::new(peers::evenkeel())
            .arg(argument)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{argument}");
        assert!(!output.stdout.is_empty());
    }
}
