//! The two proxies as child processes, and the probe's lines from their logs.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use evenkeel_tests::guests::Guest;
use evenkeel_tests::{Cluster, Host as Which, peers, ports};
use tempfile::TempDir;

use super::trace::{Line, parse};
use super::{origin, start};

/// Longest wait for a proxy to listen, on a machine that does other things too.
const START_MAX: Duration = Duration::from_secs(60);
/// Lines of ordinary log that are kept for a failure's report.
const LOG_LINES_KEPT: usize = 60;

#[derive(Default)]
struct Log {
    probe: Vec<Line>,
    last: Vec<String>,
    ended: bool,
}

/// What both proxies run: the same file, the same probe, the same server behind.
pub(crate) struct Setting {
    probe: Guest,
    directory: TempDir,
}

/// Pools: `alive` answers, `dead` refuses, `mixed` refuses first. No server is ever counted out (`max_fails: 0`), and no connection is
/// used twice: what one case breaks, the next shall not see. A PUT has no route.
const POLICY: &str = "\
routes:
  - {match: {path_prefix: [/dead]}, pool: dead}
  - {match: {path_prefix: [/mixed]}, pool: mixed}
  - {match: {method: [GET, HEAD, POST]}, pool: alive}
pools:
  alive:
    keepalive: {requests: 1}
    retries: 0
    servers: [{address: '@origin', max_fails: 0}]
  dead:
    keepalive: {requests: 1}
    retries: 0
    servers: [{address: '@dead', max_fails: 0}]
  mixed:
    keepalive: {requests: 1}
    retries: 1
    servers: [{address: '@dead', max_fails: 0, weight: 1000}, {address: '@origin', max_fails: 0, weight: 1}]
";

impl Setting {
    pub(crate) fn new() -> Self {
        let probe = include_str!("../../probe/probe.wat");
        Self {
            probe: Guest::from_text(probe),
            directory: TempDir::new().unwrap(),
        }
    }

    pub(crate) fn start(&self, which: Which) -> Host {
        let (address, admin) = (ports::free(), ports::free());
        let cluster = Cluster::new()
            .bind(address)
            .name("origin", &origin::ALIVE.to_string())
            .name("dead", &origin::DEAD.to_string())
            .top(&format!(
                "filters: [{{path: '{}', configuration: '{}'}}]",
                self.probe.path().display(),
                start::program().encode()
            ))
            .policy(POLICY);
        let file = self.directory.path().join(format!("{which:?}.yaml"));
        let access_log = self.directory.path().join(format!("{which:?}.log"));
        std::fs::write(
            &file,
            cluster.yaml(&admin.to_string(), &access_log.display().to_string()),
        )
        .unwrap();
        let command = match which {
            Which::Sidecar => [
                peers::evenkeel().to_path_buf(),
                "run".into(),
                "-c".into(),
                file,
            ]
            .to_vec(),
            Which::Envoy => self.envoy(&file),
        };
        Host::start(which, address, move || {
            // Dies with this test, even when that is killed.
            let mut started = Command::new("setpriv");
            started
                .args(["--pdeathsig", "KILL", "--"])
                .args(&command)
                .env("EVENKEEL_LOG", "info");
            started
        })
    }

    /// Envoy with what `evenkeel envoy` makes of the file.
    fn envoy(&self, file: &PathBuf) -> Vec<PathBuf> {
        let generated = self.directory.path().join("envoy");
        let made = Command::new(peers::evenkeel())
            .arg("envoy")
            .arg("-c")
            .arg(file)
            .arg("-o")
            .arg(&generated)
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "evenkeel envoy: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let options = [
            "--disable-hot-restart",
            "--concurrency",
            "1",
            "--log-level",
            "warn",
            "--component-log-level",
            "wasm:info",
        ];
        let configuration = generated.join("envoy.yaml");
        let arguments = options
            .into_iter()
            .map(PathBuf::from)
            .chain(["-c".into(), configuration]);
        [peers::need("envoy")]
            .into_iter()
            .chain(arguments)
            .collect()
    }
}

pub(crate) struct Host {
    pub(crate) which: Which,
    pub(crate) address: SocketAddr,
    log: Arc<(Mutex<Log>, Condvar)>,
    command: Box<dyn Fn() -> Command>,
    child: Child,
}

impl Host {
    /// Starts a command, whose log goes to standard error, and waits until it listens on `address`.
    fn start(which: Which, address: SocketAddr, command: impl Fn() -> Command + 'static) -> Self {
        let (log, child) = spawn(command());
        let mut host = Self {
            which,
            address,
            log,
            command: Box::new(command),
            child,
        };
        host.wait_until_it_listens();
        host
    }

    /// Starts it again if it died, or does so within `wait`; whether it had.
    pub(crate) fn revive(&mut self, wait: Duration) -> bool {
        let (log, changed) = &*self.log;
        drop(changed.wait_timeout_while(log.lock().unwrap(), wait, |log| !log.ended));
        let is_dead = self.log.0.lock().unwrap().ended;
        if is_dead {
            (self.log, self.child) = spawn((self.command)());
            self.wait_until_it_listens();
        }
        is_dead
    }

    fn wait_until_it_listens(&mut self) {
        let begin = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            let exited = self.child.try_wait().unwrap();
            assert!(
                exited.is_none() && begin.elapsed() < START_MAX,
                "{:?} does not start ({exited:?}):\n{}",
                self.which,
                self.last_log()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// How many lines the probe has logged so far.
    pub(crate) fn mark(&self) -> usize {
        self.log.0.lock().unwrap().probe.len()
    }

    /// The probe's lines since `mark`, as soon as `enough` says so, or after `limit` (then `false`).
    pub(crate) fn lines_since(
        &self,
        mark: usize,
        limit: Duration,
        enough: impl Fn(&[Line]) -> bool,
    ) -> (Vec<Line>, bool) {
        let (log, changed) = &*self.log;
        let lines = |log: &Log| log.probe.get(mark..).unwrap_or_default().to_vec();
        let waiting = changed.wait_timeout_while(log.lock().unwrap(), limit, |log| {
            !log.ended && !enough(&lines(log))
        });
        let (log, timeout) = waiting.unwrap();
        (lines(&log), !timeout.timed_out() && !log.ended)
    }

    fn last_log(&self) -> String {
        self.log.0.lock().unwrap().last.join("\n")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(mut command: Command) -> (Arc<(Mutex<Log>, Condvar)>, Child) {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = Arc::new((Mutex::new(Log::default()), Condvar::new()));
    let stderr = child.stderr.take().unwrap();
    thread::spawn({
        let log = log.clone();
        move || read_log(BufReader::new(stderr), &log)
    });
    (log, child)
}

fn read_log(mut reader: impl BufRead, log: &(Mutex<Log>, Condvar)) {
    let mut bytes = Vec::new();
    // Ends when the process closes its log.
    while reader
        .read_until(b'\n', &mut bytes)
        .is_ok_and(|count| count > 0)
    {
        let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        let mut log_now = log.0.lock().unwrap();
        match parse(&text) {
            Some(line) => log_now.probe.push(line),
            None => {
                log_now.last.push(text);
                let excess = log_now.last.len().saturating_sub(LOG_LINES_KEPT);
                log_now.last.drain(..excess);
            }
        }
        drop(log_now);
        log.1.notify_all();
        bytes.clear();
    }
    log.0.lock().unwrap().ended = true;
    log.1.notify_all();
}
