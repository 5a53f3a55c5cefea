//! The proxies measured here, each set up for the same task.
//!
//! Each file knows one program: where it is, what its configuration looks like, and what is particular about its figures.

pub mod anywhere;
mod backends;
mod envoy;
mod evenkeel;
pub mod haproxy;
pub mod nginx;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::{Running, free_addresses, on_path};

pub use backends::Backends;
pub use evenkeel::{binary as evenkeel_binary, generate_for_envoy, is_optimised};

/// The path prefix of the second route; everything else takes the default one.
pub const SECOND_ROUTE: &str = "/static/";

/// A row of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// No proxy: what load generator and servers can do by themselves, the ceiling of every other row.
    Direct,
    Nginx,
    NginxBufferedLog,
    NginxLeastConn,
    Haproxy,
    Envoy,
    EnvoyWithEvenkeel,
    Evenkeel,
    EvenkeelLeastConn,
}

/// How a proxy chooses among the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    RoundRobin,
    /// Fewest requests in flight, each server with a bound of them that is never reached, and checked as far as the proxy can.
    LeastConn,
}

/// The bound of a server's requests in [`Balance::LeastConn`].
pub const MAX_CONNS: u32 = 1_000;

/// What to measure, from the command line.
#[derive(Debug, Clone)]
pub struct Choice {
    /// Names of rows; empty: all.
    pub only: Vec<String>,
    pub access_log: bool,
}

/// What a proxy is to do: the same for all.
#[derive(Debug, Clone)]
pub struct Task<'a> {
    pub backends: &'a Backends,
    pub listen: SocketAddr,
    /// A second address, for those that want an administration port.
    pub admin: SocketAddr,
    pub workers: usize,
    pub balance: Balance,
    pub access_log: Option<PathBuf>,
    /// For configuration and whatever else the proxy writes.
    pub folder: PathBuf,
}

/// A proxy ready to be loaded.
#[derive(Debug)]
pub struct Proxy {
    pub peer: Peer,
    pub address: SocketAddr,
    pub version: String,
    pub access_log: Option<PathBuf>,
    /// `None` for [`Peer::Direct`].
    pub running: Option<Running>,
}

impl Peer {
    pub const ALL: [Self; 9] = [
        Self::Direct,
        Self::Nginx,
        Self::NginxBufferedLog,
        Self::NginxLeastConn,
        Self::Haproxy,
        Self::Envoy,
        Self::EnvoyWithEvenkeel,
        Self::Evenkeel,
        Self::EvenkeelLeastConn,
    ];

    /// The name of the row, also for `--only`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Nginx => "nginx",
            Self::NginxBufferedLog => "nginx-buffered-log",
            Self::NginxLeastConn => "nginx-least-conn",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::EnvoyWithEvenkeel => "envoy+evenkeel.wasm",
            Self::Evenkeel => "evenkeel",
            Self::EvenkeelLeastConn => "evenkeel-least-conn",
        }
    }

    /// Whether this row was asked for and can be measured.
    pub fn is_chosen(self, choice: &Choice) -> Result<bool> {
        Ok(choice.peers()?.contains(&self))
    }

    /// What a reader of the row must know.
    pub fn remark(self) -> &'static str {
        match self {
            Self::Direct => {
                "no proxy: the load goes to one of the servers; what this set-up can do at most"
            }
            Self::Nginx => {
                "one worker; `access_log FILE combined`, as the default unbuffered: one write per request"
            }
            Self::NginxBufferedLog => "the same with `buffer=64k flush=1s`",
            Self::NginxLeastConn => {
                "as `nginx`, with `least_conn`, `zone` and `max_conns`; it has no active checks"
            }
            Self::Haproxy => {
                "one thread; HAProxy writes no log files itself: `log stdout`, redirected to a file, one write per request"
            }
            Self::Envoy => {
                "`--concurrency 1`, round robin and header mutation of its own; file access log, buffered, written by a thread of its own (counted)"
            }
            Self::EnvoyWithEvenkeel => "what `evenkeel envoy` writes, `--concurrency 1`",
            Self::Evenkeel => "`workers: 1`",
            Self::EvenkeelLeastConn => {
                "`workers: 1`, `balance: least_conn`, `max_conns` on every server, active checks every 2 s"
            }
        }
    }

    /// Whether the second of two proxies differs only in settings: where one is enough, this one is left out.
    pub fn is_variant(self) -> bool {
        self == Self::NginxBufferedLog || self.balance() == Balance::LeastConn
    }

    fn balance(self) -> Balance {
        match self {
            Self::NginxLeastConn | Self::EvenkeelLeastConn => Balance::LeastConn,
            _ => Balance::RoundRobin,
        }
    }

    /// The program of this row.
    ///
    /// # Errors
    /// Why this machine has none.
    fn program(self) -> Result<PathBuf> {
        match self {
            Self::Direct | Self::Nginx | Self::NginxBufferedLog | Self::NginxLeastConn => {
                nginx::program()
            }
            Self::Haproxy => haproxy::program(),
            Self::Envoy => envoy::program(),
            Self::EnvoyWithEvenkeel => evenkeel::binary().and(envoy::program()),
            Self::Evenkeel | Self::EvenkeelLeastConn => evenkeel::binary(),
        }
    }

    fn version(self, program: &Path) -> String {
        match self {
            Self::Direct | Self::Nginx | Self::NginxBufferedLog | Self::NginxLeastConn => {
                nginx::version(program)
            }
            Self::Haproxy => haproxy::version(program),
            Self::Envoy => envoy::version(program),
            Self::EnvoyWithEvenkeel => {
                let evenkeel = evenkeel::binary()
                    .map(|binary| evenkeel::version(&binary))
                    .unwrap_or_default();
                format!("{}, {evenkeel}", envoy::version(program))
            }
            Self::Evenkeel | Self::EvenkeelLeastConn => evenkeel::version(program),
        }
    }

    /// Writes the configuration and says how to start; in the foreground, one worker process or `task.workers` threads.
    pub fn command(self, task: &Task<'_>) -> Result<Command> {
        let program = self.program()?;
        match self {
            Self::Direct => anyhow::bail!("the servers are not started as a proxy"),
            Self::Nginx | Self::NginxLeastConn => {
                nginx::command(&program, task, nginx::Log::Unbuffered)
            }
            Self::NginxBufferedLog => nginx::command(&program, task, nginx::Log::Buffered),
            Self::Haproxy => haproxy::command(&program, task),
            Self::Envoy => envoy::command(&program, task),
            Self::EnvoyWithEvenkeel => {
                evenkeel::envoy_command(&evenkeel::binary()?, &program, task)
            }
            Self::Evenkeel | Self::EvenkeelLeastConn => evenkeel::command(&program, task),
        }
    }

    /// Where this row's log lines end up.
    fn access_log(self, folder: &Path) -> PathBuf {
        match self {
            // Its standard output is the log.
            Self::Haproxy => folder.join(format!("{}.out", self.name())),
            _ => folder.join("access.log"),
        }
    }

    /// A task for this row, with addresses and a folder of its own within `scratch`.
    pub fn task<'a>(
        self,
        backends: &'a Backends,
        workers: usize,
        access_log: bool,
        scratch: &Path,
    ) -> Result<Task<'a>> {
        let folder = scratch.join(self.name());
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("creating {}", folder.display()))?;
        let [listen, admin] = free_addresses()?;
        let access_log = access_log.then(|| self.access_log(&folder));
        Ok(Task {
            backends,
            listen,
            admin,
            workers,
            balance: self.balance(),
            access_log,
            folder,
        })
    }

    /// Starts the proxy on `core` and waits until it listens.
    pub fn start(
        self,
        backends: &Backends,
        workers: usize,
        access_log: bool,
        core: usize,
        scratch: &Path,
    ) -> Result<Proxy> {
        let version = self.version(&self.program()?);
        if self == Self::Direct {
            let [address, ..] = backends.shop;
            return Ok(Proxy {
                peer: self,
                address,
                version,
                access_log: None,
                running: None,
            });
        }
        let task = self.task(backends, workers, access_log, scratch)?;
        let mut running =
            Running::start(self.name(), self.command(&task)?, Some(core), &task.folder)?;
        running.until_listening(task.listen)?;
        Ok(Proxy {
            peer: self,
            address: task.listen,
            version,
            access_log: task.access_log,
            running: Some(running),
        })
    }
}

impl Choice {
    /// The rows to measure.
    ///
    /// A missing program is a loud skip on a user's machine, and a failure under `CI=true`.
    ///
    /// # Errors
    /// An unknown name; a row asked for by name that this machine cannot measure.
    pub fn peers(&self) -> Result<Vec<Peer>> {
        for name in &self.only {
            let known = Peer::ALL.map(Peer::name);
            anyhow::ensure!(
                known.contains(&name.as_str()),
                "there is no row {name:?}; there are: {}",
                known.join(", ")
            );
        }
        let required =
            !self.only.is_empty() || std::env::var("CI").is_ok_and(|value| value == "true");
        let mut peers = Vec::new();
        for peer in Peer::ALL {
            if !self.only.is_empty() && !self.only.iter().any(|name| name == peer.name()) {
                continue;
            }
            match peer.program() {
                Ok(_) => peers.push(peer),
                Err(error) if required => {
                    return Err(error.context(format!("{} cannot be measured", peer.name())));
                }
                Err(error) => eprintln!("SKIPPED: {}: {error:#}", peer.name()),
            }
        }
        Ok(peers)
    }
}

/// Prints every row and whether it can be measured.
pub fn list() -> Result<()> {
    for peer in Peer::ALL {
        match peer.program() {
            Ok(program) => println!(
                "{:20} {} ({})",
                peer.name(),
                peer.version(&program),
                program.display()
            ),
            Err(error) => println!("{:20} cannot be measured: {error:#}", peer.name()),
        }
    }
    Ok(())
}

/// `<target>`: where cargo put this program, two levels up from it.
pub fn target_folder() -> Result<PathBuf> {
    let program = std::env::current_exe().context("finding this program")?;
    let target = program
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").is_file());
    Ok(target
        .context("this program is not within a target folder")?
        .to_owned())
}

/// A program of the peers' folder, else one of the system.
///
/// That folder is `EVENKEEL_PEERS` or `target/peers` of the repository; `make peers` puts links to the programs there.
fn peer_program(name: &str) -> Result<PathBuf> {
    let peers = match std::env::var_os("EVENKEEL_PEERS") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers"),
    };
    let program = peers.join(name);
    let found = if program.is_file() {
        Some(program)
    } else {
        on_path(name)
    };
    found.with_context(|| {
        format!(
            "no {name}, neither in {} nor on the PATH; `make peers` installs it",
            peers.display()
        )
    })
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
