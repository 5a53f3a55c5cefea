//! A master, its replicas, and the Sentinels that watch them: real ones.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::child::Child;
use crate::cluster::Server;
use crate::databases::{self, Database};
use crate::{Resp, eventually, peers, ports};

const PATIENCE: Duration = Duration::from_secs(60);
/// What the Sentinels call the master.
pub const MASTER: &str = "mymaster";

/// One master, two replicas, three Sentinels.
pub struct Watched {
    pub servers: Vec<Database>,
    sentinels: Vec<(SocketAddr, Child)>,
    _directory: TempDir,
}

/// Starts them; a master counts as down after `down_after`. `None`, after a loud word, where there is no Redis.
#[track_caller]
pub fn watched(down_after: Duration) -> Option<Watched> {
    let master = databases::redis("master", &[])?;
    let (host, port) = (
        master.address().ip().to_string(),
        master.address().port().to_string(),
    );
    let replicas = ["replica1", "replica2"].map(|name| {
        databases::redis(
            name,
            &[
                "--replicaof",
                &host,
                &port,
                "--repl-diskless-sync-delay",
                "0",
            ],
        )
    });
    // A Sentinel syncs its state to the disk before it votes, and where that takes seconds it believes that the clock has jumped.
    let memory = Path::new("/dev/shm");
    let directory = if memory.is_dir() {
        TempDir::new_in(memory)
    } else {
        TempDir::new()
    };
    let directory = directory.unwrap();
    let mut sentinels = Vec::new();
    for number in 0..3 {
        let address = ports::free();
        let folder = directory.path().join(number.to_string());
        std::fs::create_dir(&folder).unwrap();
        let down_after = down_after.as_millis();
        let text = format!(
            "bind 127.0.0.1\nport {}\ndir {}\nsentinel monitor {MASTER} {host} {port} 2\nsentinel down-after-milliseconds {MASTER} {down_after}\nsentinel failover-timeout {MASTER} 5000\n",
            address.port(),
            folder.display()
        );
        std::fs::write(folder.join("sentinel.conf"), text).unwrap();
        let mut command = Command::new(peers::need("redis-server"));
        command.arg(folder.join("sentinel.conf")).arg("--sentinel");
        let child = Child::start(
            &format!("sentinel{number}"),
            &command,
            &folder.join("output.log"),
        );
        sentinels.push((address, child));
    }
    let mut servers = vec![master];
    servers.extend(replicas.into_iter().flatten());
    let watched = Watched {
        servers,
        sentinels,
        _directory: directory,
    };
    for (address, _) in &watched.sentinels {
        eventually("a Sentinel knows them all", PATIENCE, || {
            let told = Resp::open(*address)
                .and_then(|mut sentinel| {
                    sentinel.ask_words(&[b"SENTINEL", b"MASTER", MASTER.as_bytes()])
                })
                .map_err(|error| error.to_string())?;
            if told.contains("\"num-slaves\" \"2\"")
                && told.contains("\"num-other-sentinels\" \"2\"")
            {
                Ok(())
            } else {
                Err(told)
            }
        });
    }
    Some(watched)
}

impl Watched {
    /// As `session_store.backend` names them.
    pub fn address(&self) -> String {
        let sentinels: Vec<String> = self
            .sentinels
            .iter()
            .map(|(address, _)| address.to_string())
            .collect();
        format!("redis+sentinel://{}/{MASTER}", sentinels.join(","))
    }

    /// Waits until the replicas have everything that the master has.
    #[track_caller]
    pub fn caught_up(&self) {
        let mut master = Resp::open(self.servers[0].address()).unwrap();
        assert_eq!(master.ask("WAIT 2 10000"), ":2");
    }

    pub fn kill_master(&mut self) {
        self.servers[0].kill();
    }
}
