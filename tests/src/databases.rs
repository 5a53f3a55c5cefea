//! MariaDB and Redis, for checks that a filter cannot make itself.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::child::Child;
use crate::cluster::Server;
use crate::{eventually, peers, ports};

/// How long one may take to be there: making a database takes seconds on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Users of the database: one with a password, one without, one that nobody can log in as from here.
const USERS: &str = "CREATE USER evenkeel@'%' IDENTIFIED BY 'secret';
CREATE USER nobody@'%';
CREATE USER local@'%' IDENTIFIED VIA unix_socket;
";

/// A running database.
pub struct Database {
    name: String,
    address: SocketAddr,
    pub directory: TempDir,
    child: Child,
}

impl Database {
    pub fn kill(&mut self) {
        self.child.kill();
    }
}

impl Server for Database {
    fn name(&self) -> &str {
        &self.name
    }
    fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A MariaDB with the users `evenkeel` (password `secret`) and `nobody` (none); `None`, after a loud word, where there is none.
pub fn mariadb(name: &str) -> Option<Database> {
    let (install, server) = (peers::find("mariadb-install-db")?, peers::find("mariadbd")?);
    let (directory, address) = (TempDir::new().unwrap(), ports::free());
    let at = |file: &str| directory.path().join(file);
    std::fs::write(at("users.sql"), USERS).unwrap();
    let datadir = format!("--datadir={}", at("data").display());
    // Servers that share a folder for temporary files remove each other's at their start.
    let tmpdir = format!("--tmpdir={}", directory.path().display());
    let common = [
        "--no-defaults",
        "--user=root",
        &datadir,
        &tmpdir,
        "--skip-name-resolve",
    ];
    let made = Command::new(install)
        .args(common)
        .args(["--auth-root-authentication-method=normal", "--skip-test-db"])
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let mut command = Command::new(server);
    command.args(common);
    command.arg(format!("--socket={}", at("socket").display()));
    command.arg(format!("--pid-file={}", at("pid").display()));
    command.arg(format!("--init-file={}", at("users.sql").display()));
    command.arg(format!("--port={}", address.port()));
    command.args(["--bind-address=127.0.0.1", "--innodb-buffer-pool-size=8M"]);
    Some(started(name, address, directory, &command))
}

/// A Redis with these options.
pub fn redis(name: &str, options: &[&str]) -> Option<Database> {
    let (directory, address) = (TempDir::new().unwrap(), ports::free());
    let command = redis_command(address, directory.path(), options)?;
    Some(started(name, address, directory, &command))
}

/// A Redis at an address that one had before, over what that one left in its folder.
pub fn redis_at(address: SocketAddr, data: &Path, options: &[&str]) -> Option<Database> {
    let command = redis_command(address, data, options)?;
    Some(started(
        "redis again",
        address,
        TempDir::new().unwrap(),
        &command,
    ))
}

fn redis_command(address: SocketAddr, data: &Path, options: &[&str]) -> Option<Command> {
    let mut command = Command::new(peers::find("redis-server")?);
    command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string()]);
    command.args(["--save", "", "--appendonly", "no", "--dir"]);
    command.arg(data).args(options);
    Some(command)
}

fn started(name: &str, address: SocketAddr, directory: TempDir, command: &Command) -> Database {
    let mut child = Child::start(name, command, &directory.path().join("output.log"));
    eventually(&format!("{name} takes connections"), PATIENCE, || {
        if let Some(status) = child.poll() {
            panic!("{name} ended: {status}\n{}", child.output());
        }
        std::net::TcpStream::connect(address).map(drop)
    });
    Database {
        name: name.to_owned(),
        address,
        directory,
        child,
    }
}
