//! Child processes that end with their owner, on ports that were free a moment ago.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::cores::on_core;
use crate::cpu::family;

/// How long a process gets to answer after its start, and to end after it was asked to.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at something that is not there yet.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// A running child; dropping it ends it (SIGTERM, after [`PATIENCE`] SIGKILL).
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    output: PathBuf,
}

impl Running {
    /// Starts `command` on `core` (anywhere if `None`); what it prints goes to `<name>.out` and `<name>.err` in `folder`.
    pub fn start(
        name: &str,
        mut command: Command,
        core: Option<usize>,
        folder: &Path,
    ) -> Result<Self> {
        let output = folder.join(format!("{name}.err"));
        let append = |path: &Path| File::options().create(true).append(true).open(path);
        command
            .stdin(Stdio::null())
            .stdout(append(&folder.join(format!("{name}.out")))?)
            .stderr(append(&output)?);
        let mut spawn = || {
            command
                .spawn()
                .with_context(|| format!("starting {name}: {command:?}"))
        };
        let child = match core {
            Some(core) => on_core(core, spawn)?,
            None => spawn()?,
        };
        Ok(Self {
            name: name.to_owned(),
            child,
            output,
        })
    }

    /// The child and everything it started.
    pub fn pids(&self) -> Result<Vec<u32>> {
        family(self.child.id())
    }

    /// Waits until `address` accepts connections.
    ///
    /// # Errors
    /// When the process ends first, or [`PATIENCE`] is over; with the end of what it said.
    pub fn until_listening(&mut self, address: SocketAddr) -> Result<()> {
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "{} ended ({status}) before it listened: {}",
                    self.name,
                    self.last_words()
                );
            }
            if began.elapsed() > PATIENCE {
                bail!(
                    "{} does not listen on {address} after {PATIENCE:?}: {}",
                    self.name,
                    self.last_words()
                );
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Sends `signal` and waits for the end.
    pub fn stop(&mut self, signal: Signal) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .context("a process without an id")?;
        kill_process(pid, signal).with_context(|| format!("ending {}", self.name))?;
        let began = Instant::now();
        while self.child.try_wait()?.is_none() {
            if began.elapsed() > PATIENCE {
                self.child.kill()?;
                self.child.wait()?;
                bail!("{} had to be killed", self.name);
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.output).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.stop(Signal::TERM) {
            eprintln!("{error:#}");
        }
    }
}

/// `N` different addresses on the loopback interface that nobody listened on just now.
pub fn free_addresses<const N: usize>() -> Result<[SocketAddr; N]> {
    let mut held = Vec::with_capacity(N);
    for _ in 0..N {
        held.push(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a free port")?);
    }
    let addresses: Vec<SocketAddr> = held
        .iter()
        .map(TcpListener::local_addr)
        .collect::<Result<_, _>>()?;
    addresses
        .try_into()
        .ok()
        .context("as many addresses as were asked for")
}

/// Where a program is on the `PATH`.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    // Servers live there, and not every user has it on the path.
    folders.push("/usr/sbin".into());
    folders
        .into_iter()
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// The first line of what `program` says with `arguments`, on either output.
pub fn first_line(program: &Path, arguments: &[&str]) -> String {
    let Ok(output) = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
    else {
        return String::new();
    };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    text.lines()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_addresses_are_different() {
        let [one, two, three] = free_addresses::<3>().unwrap();
        assert!(one != two && two != three && one != three);
    }

    #[test]
    fn a_dropped_child_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sleep");
        command.arg("1000");
        let running = Running::start("sleeper", command, None, folder.path()).unwrap();
        let pid = running.child.id();
        assert!(running.pids().unwrap().contains(&pid));
        drop(running);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
