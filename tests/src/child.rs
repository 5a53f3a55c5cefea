//! A child process: its output in a file, killed when dropped, its last words shown when the test fails.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::eventually;

/// How much of its output a failed test shows.
const LAST_LINES: usize = 60;

/// A running program.
pub struct Child {
    name: String,
    process: std::process::Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Child {
    /// Starts `command` with its output going to `log`. It dies with the thread that started it, even when that is
    /// killed: no test leaves a server behind.
    pub fn start(name: &str, command: &Command, log: &Path) -> Self {
        let output = File::create(log).unwrap();
        let mut tied = Command::new("setpriv");
        tied.args(["--pdeathsig", "KILL", "--"])
            .arg(command.get_program());
        tied.args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => tied.env(key, value),
                None => tied.env_remove(key),
            };
        }
        if let Some(directory) = command.get_current_dir() {
            tied.current_dir(directory);
        }
        let process = tied
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {command:?}: {error}"));
        Self {
            name: name.to_owned(),
            process,
            log: log.to_path_buf(),
            ended: None,
        }
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub fn signal(&self, signal: Signal) {
        if self.ended.is_none() {
            kill_process(Pid::from_child(&self.process), signal).unwrap();
        }
    }

    /// Ends it now, as `kill -9` does.
    pub fn kill(&mut self) {
        if self.ended.is_none() {
            self.process.kill().ok();
            self.ended = self.process.wait().ok();
        }
    }

    /// Its exit status, if it has ended.
    pub fn poll(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.process.try_wait().unwrap();
        }
        self.ended
    }

    #[track_caller]
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        let name = self.name.clone();
        eventually(&format!("{name} ends"), patience, || {
            self.poll().ok_or("still running")
        })
    }

    /// All it has printed, both streams.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let output = self.output();
            let lines: Vec<&str> = output.lines().collect();
            let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
            eprintln!(
                "--- {} (last {} lines)\n{}\n---",
                self.name,
                last.len(),
                last.join("\n")
            );
        }
    }
}
