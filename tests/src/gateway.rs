//! `evenkeel store`: the session gateway alone.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::child::Child;
use crate::resp::Resp;
use crate::{eventually, peers, ports};

const PATIENCE: Duration = Duration::from_secs(60);

/// A running gateway.
pub struct Gateway {
    pub address: SocketAddr,
    pub directory: TempDir,
    pub child: Child,
}

/// Starts one with these further keys of `session_store`, as they stand in a flow mapping: `backend: embedded, path: data`. Relative paths are
/// in its directory.
#[track_caller]
pub fn gateway(keys: &str) -> Gateway {
    gateway_in(TempDir::new().unwrap(), keys)
}

/// The same in a directory that may have sessions already.
#[track_caller]
pub fn gateway_in(directory: TempDir, keys: &str) -> Gateway {
    let address = ports::free();
    let comma = if keys.is_empty() { "" } else { ", " };
    let text = format!(
        "session_store: {{resp: ['{address}', 'unix:resp.sock?mode=0600']{comma}{keys}}}\n"
    );
    let path = directory.path().join("store.yaml");
    std::fs::write(&path, text).unwrap();
    started(directory, address)
}

/// Starts one again, at the address and with the configuration that it had.
#[track_caller]
pub fn restarted(directory: TempDir, address: SocketAddr) -> Gateway {
    started(directory, address)
}

#[track_caller]
fn started(directory: TempDir, address: SocketAddr) -> Gateway {
    let path = directory.path().join("store.yaml");
    let mut command = Command::new(peers::evenkeel());
    command.arg("store").arg("-c").arg(&path);
    let child = Child::start("gateway", &command, &directory.path().join("output.log"));
    let mut gateway = Gateway {
        address,
        directory,
        child,
    };
    eventually("the gateway listens", PATIENCE, || {
        if let Some(status) = gateway.child.poll() {
            panic!("it ended: {status}\n{}", gateway.child.output());
        }
        Resp::open(address).map(drop)
    });
    gateway
}

impl Gateway {
    #[track_caller]
    pub fn connect(&self) -> Resp {
        Resp::open(self.address).unwrap()
    }

    /// Kills it as `kill -9` does, and starts another on the same directory.
    #[track_caller]
    pub fn killed_and_back(mut self, keys: &str) -> Self {
        self.child.kill();
        gateway_in(self.directory, keys)
    }
}
