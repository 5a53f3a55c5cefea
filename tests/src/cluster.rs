//! Servers, a policy and a host: what a scenario is played on.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::child::Child;
use crate::{Connection, Host, Request, Response, eventually, peers, ports};

/// How long a proxy may take to be ready: generous, because these machines are busy.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// Something a pool can have as a server.
pub trait Server {
    fn name(&self) -> &str;
    fn address(&self) -> SocketAddr;
}

/// The configuration of a scenario. In its texts `@name` is the address of the server of that name.
#[derive(Clone)]
pub struct Cluster {
    names: Vec<(String, String)>,
    workers: usize,
    bind: String,
    listener: String,
    more_listeners: String,
    top: String,
    policy: String,
    binary: Option<PathBuf>,
    in_envoy: Option<(String, String)>,
}

impl Default for Cluster {
    fn default() -> Self {
        Self::new()
    }
}

impl Cluster {
    pub fn new() -> Self {
        Self {
            names: Vec::new(),
            workers: 1,
            bind: ports::free().to_string(),
            listener: String::new(),
            more_listeners: String::new(),
            top: String::new(),
            policy: String::new(),
            binary: None,
            in_envoy: None,
        }
    }

    /// Adds a server under its own name.
    pub fn server(self, server: &dyn Server) -> Self {
        let (name, address) = (server.name().to_owned(), server.address());
        self.name(&name, &address.to_string())
    }

    /// Makes `@name` stand for `text`.
    pub fn name(mut self, name: &str, text: &str) -> Self {
        self.names.push((name.to_owned(), text.to_owned()));
        // The longest name first: `@web10` is not `@web1` and a nought.
        self.names
            .sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        self
    }

    /// Worker threads; 1 unless stated, because then sequences are exact.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Further keys of the listener: `accept: balanced`.
    pub fn listener(mut self, keys: &str) -> Self {
        self.listener = format!(", {keys}");
        self
    }

    /// Listens there, and not at a free port of 127.0.0.1.
    pub fn bind(mut self, address: SocketAddr) -> Self {
        self.bind = address.to_string();
        self
    }

    /// Further listeners, as lines of the list.
    pub fn more_listeners(mut self, lines: &str) -> Self {
        self.more_listeners = format!("{lines}\n");
        self
    }

    /// Further top-level keys, as YAML lines.
    pub fn top(mut self, yaml: &str) -> Self {
        self.top.push_str(yaml);
        self.top.push('\n');
        self
    }

    /// The `policy` subtree.
    pub fn policy(mut self, yaml: &str) -> Self {
        self.policy = yaml.to_owned();
        self
    }

    /// One pool `web` for every request: its servers with their keys (`weight: 5`), and further keys of the pool.
    pub fn pool(self, keys: &str, servers: &[(&str, &str)]) -> Self {
        let mut yaml = String::from("routes: [{pool: web}]\npools:\n  web:\n");
        for key in keys.split(';').map(str::trim).filter(|key| !key.is_empty()) {
            yaml.push_str(&format!("    {key}\n"));
        }
        yaml.push_str("    servers:\n");
        for (name, more) in servers {
            let comma = if more.is_empty() { "" } else { ", " };
            yaml.push_str(&format!(
                "      - {{address: '@{name}', id: {name}{comma}{more}}}\n"
            ));
        }
        let policy = format!("{}{yaml}", self.policy);
        self.policy(&policy)
    }

    /// Another binary than the one that was built.
    pub fn binary(mut self, path: &Path) -> Self {
        self.binary = Some(path.to_path_buf());
        self
    }

    /// In the `envoy.yaml` that is made of it, `with` stands in place of `what`, which must be there.
    pub fn in_envoy(mut self, what: &str, with: &str) -> Self {
        self.in_envoy = Some((what.to_owned(), with.to_owned()));
        self
    }

    /// The configuration file's text.
    pub fn yaml(&self, admin: &str, access_log: &str) -> String {
        let mut text = format!(
            "listeners:\n  - {{name: web, bind: '{}'{}}}\n{}admin: {{bind: '{admin}'}}\nworkers: {}\n",
            self.bind, self.listener, self.more_listeners, self.workers
        );
        if !self.top.contains("access_log:") {
            text.push_str(&format!(
                "access_log: {{path: '{access_log}', format: json}}\n"
            ));
        }
        text.push_str(&self.top);
        text.push_str("policy:\n");
        for line in self.policy.lines() {
            text.push_str(&format!("  {line}\n"));
        }
        for (name, address) in &self.names {
            text = text.replace(&format!("@{name}"), address);
        }
        text
    }

    /// Starts the proxy and waits until it serves.
    #[track_caller]
    pub fn on(self, host: Host) -> Proxy {
        let mut proxy = self.start(host);
        let (admin, ready) = match host {
            Host::Sidecar => (proxy.admin, "/readyz"),
            Host::Envoy => (proxy.admin, "/ready"),
        };
        eventually(&format!("{host:?} is ready"), START_PATIENCE, || {
            if let Some(status) = proxy.child.poll() {
                panic!("{host:?} ended: {status}\n{}", proxy.child.output());
            }
            match Connection::open(admin).and_then(|mut admin| admin.get(ready)) {
                Ok(response) if response.status == 200 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        proxy
    }

    /// Starts the proxy without waiting for anything.
    pub fn start(self, host: Host) -> Proxy {
        let directory = TempDir::new().unwrap();
        let admin = ports::free();
        let path = directory.path().join("evenkeel.yaml");
        let access_log = directory.path().join("access.log");
        std::fs::write(
            &path,
            self.yaml(&admin.to_string(), access_log.to_str().unwrap()),
        )
        .unwrap();
        let binary = self
            .binary
            .clone()
            .unwrap_or_else(|| peers::evenkeel().to_path_buf());
        let mut command = match host {
            Host::Sidecar => {
                let mut command = Command::new(&binary);
                command.arg("run").arg("-c").arg(&path);
                command
            }
            Host::Envoy => {
                let command = envoy(&binary, &path, directory.path(), self.workers);
                if let Some((what, with)) = &self.in_envoy {
                    let made = directory.path().join("envoy/envoy.yaml");
                    let text = std::fs::read_to_string(&made).unwrap();
                    assert!(text.contains(what), "no {what} in\n{text}");
                    std::fs::write(&made, text.replace(what, with)).unwrap();
                }
                command
            }
        };
        command.env("EVENKEEL_LOG", "info");
        let child = Child::start(
            &format!("{host:?}"),
            &command,
            &directory.path().join("output.log"),
        );
        let address = self.bind.parse().unwrap();
        Proxy {
            host,
            cluster: self,
            address,
            admin,
            directory,
            child,
        }
    }
}

/// Envoy, with what `evenkeel envoy` makes of the same file.
fn envoy(binary: &Path, configuration: &Path, directory: &Path, workers: usize) -> Command {
    let generated = directory.join("envoy");
    let made = Command::new(binary)
        .arg("envoy")
        .arg("-c")
        .arg(configuration)
        .arg("-o")
        .arg(&generated)
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&made.stderr);
    assert!(
        made.status.success(),
        "evenkeel envoy: {}: {message}",
        made.status
    );
    let mut command = Command::new(peers::need("envoy"));
    command.arg("-c").arg(generated.join("envoy.yaml"));
    command.args(["--disable-hot-restart", "-l", "info"]);
    command.args(["--concurrency", &workers.to_string()]);
    command
}

/// A running proxy.
pub struct Proxy {
    pub host: Host,
    pub cluster: Cluster,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub directory: TempDir,
    pub child: Child,
}

impl Proxy {
    #[track_caller]
    pub fn connect(&self) -> Connection {
        Connection::open(self.address).unwrap()
    }

    /// One request on a connection of its own.
    #[track_caller]
    pub fn exchange(&self, request: &Request) -> Response {
        let answer = self.connect().exchange(request);
        answer.unwrap_or_else(|error| panic!("{} {}: {error}", request.method, request.target))
    }

    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        self.exchange(&Request::get(target))
    }

    /// `count` requests one after the other on one connection: the names of the servers that answered.
    #[track_caller]
    pub fn sequence(&self, count: usize) -> Vec<String> {
        sequence(self.address, count)
    }

    #[track_caller]
    pub fn admin_get(&self, target: &str) -> Response {
        Connection::open(self.admin)
            .and_then(|mut admin| admin.get(target))
            .unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        self.child.signal(signal);
    }

    #[track_caller]
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        self.child.wait(patience)
    }

    /// Replaces the configuration file by what `change` makes of the scenario.
    pub fn rewrite(&mut self, change: impl FnOnce(Cluster) -> Cluster) {
        self.cluster = change(self.cluster.clone());
        let log = self.access_log_path();
        let text = self
            .cluster
            .yaml(&self.admin.to_string(), log.to_str().unwrap());
        std::fs::write(self.directory.path().join("evenkeel.yaml"), text).unwrap();
    }

    /// Reloads with a policy that differs, in a header that servers get: a filter whose configuration is the same is not started anew.
    pub fn reload_changed(&self) {
        const HEADER: &str = "X-Reloaded";
        let path = self.directory.path().join("evenkeel.yaml");
        let before = std::fs::read_to_string(&path).unwrap();
        let count = before.split(HEADER).nth(1).map_or(0, |rest| {
            let digits = rest.chars().filter(char::is_ascii_digit).take(3);
            digits.collect::<String>().parse().unwrap_or(0)
        });
        let mut text = String::new();
        for line in before.lines().filter(|line| !line.contains(HEADER)) {
            text.push_str(line);
            text.push('\n');
            if line == "policy:" {
                text.push_str(&format!(
                    "  request_headers: {{set: {{{HEADER}: '{:03}'}}}}\n",
                    (count + 1) % 1_000
                ));
            }
        }
        std::fs::write(path, text).unwrap();
        self.signal(Signal::HUP);
    }

    pub fn access_log_path(&self) -> PathBuf {
        self.directory.path().join("access.log")
    }

    pub fn access_log(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.access_log_path()).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

/// `count` requests one after the other on one connection: the names of the servers that answered.
#[track_caller]
pub fn sequence(address: SocketAddr, count: usize) -> Vec<String> {
    let mut connection = Connection::open(address).unwrap();
    let answers = (0..count).map(|at| {
        let response = connection
            .get("/name")
            .unwrap_or_else(|error| panic!("request {at}: {error}"));
        assert_eq!(response.status, 200, "request {at}: {}", response.text());
        response.text()
    });
    answers.collect()
}
