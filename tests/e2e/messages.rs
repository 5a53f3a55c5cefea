//! What an operator reads on standard error: colours for a terminal only, and the culprit's name in every message.

use std::process::{Command, Output};

use evenkeel_tests::{Cluster, peers, ports};
use tempfile::TempDir;

const ESCAPE: u8 = 0x1b;

/// A valid configuration in a file, with further top-level keys.
fn file(folder: &TempDir, top: &str) -> String {
    let cluster = Cluster::new().name("web", "127.0.0.1:1").top(top);
    let cluster = cluster.pool("", &[("web", "")]);
    let path = folder.path().join("evenkeel.yaml");
    let log = folder.path().join("access.log");
    let text = cluster.yaml(&ports::free().to_string(), log.to_str().unwrap());
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// `evenkeel check`, with something to say: its `EVENKEEL_LOG` is not understood.
fn check(terminal: bool, no_colour: Option<&str>) -> Output {
    let folder = TempDir::new().unwrap();
    let line = format!(
        "{} check -c {}",
        peers::evenkeel().display(),
        file(&folder, "")
    );
    let mut command = if terminal {
        // A terminal of its own, whose other end is our pipe.
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        script
    } else {
        let mut shell = Command::new("sh");
        shell.args(["-c", &line]);
        shell
    };
    command.env("EVENKEEL_LOG", "[[[").env_remove("NO_COLOR");
    if let Some(value) = no_colour {
        command.env("NO_COLOR", value);
    }
    command.output().unwrap()
}

#[test]
fn messages_have_colours_on_a_terminal_that_wants_them_only() {
    let rows = [
        (false, None, false),
        (false, Some(""), false),
        (true, None, true),
        (true, Some(""), true),
        (true, Some("1"), false),
    ];
    if peers::find("script").is_none() {
        return;
    }
    for (terminal, no_colour, coloured) in rows {
        let output = check(terminal, no_colour);
        let said = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&said);
        let what = format!("terminal {terminal}, NO_COLOR {no_colour:?}: {text}");
        assert_eq!(output.status.code(), Some(0), "{what}");
        assert!(text.contains("EVENKEEL_LOG"), "{what}");
        assert_eq!(said.contains(&ESCAPE), coloured, "{what}");
    }
}

#[test]
fn an_access_log_that_cannot_be_opened_is_named() {
    let folder = TempDir::new().unwrap();
    let file = file(&folder, "access_log: {path: /nowhere/access.log}");
    let output = Command::new(peers::evenkeel())
        .args(["run", "-c", &file])
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("/nowhere/access.log"), "{message}");
    assert_eq!(message.trim().lines().count(), 1, "{message}");
}
