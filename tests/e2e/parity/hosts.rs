//! The two proxies as child processes, and the probe's lines from their logs.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::trace::{Line, parse};

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

pub struct Host {
    pub name: &'static str,
    pub address: SocketAddr,
    log: Arc<(Mutex<Log>, Condvar)>,
    command: Box<dyn Fn() -> Command>,
    child: Child,
}

impl Host {
    /// Starts a command, whose log goes to standard error, and waits until it listens on `address`.
    pub fn start(name: &'static str, address: SocketAddr, command: impl Fn() -> Command + 'static) -> Self {
        let (log, child) = spawn(command());
        let mut host = Self { name, address, log, command: Box::new(command), child };
        host.wait_until_it_listens();
        host
    }

    /// Starts it again if it died, or does so within `wait`; whether it had.
    pub fn revive(&mut self, wait: Duration) -> bool {
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
            assert!(exited.is_none() && begin.elapsed() < START_MAX, "{} does not start ({exited:?}):\n{}", self.name, self.last_log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// How many lines the probe has logged so far.
    pub fn mark(&self) -> usize {
        self.log.0.lock().unwrap().probe.len()
    }

    /// The probe's lines since `mark`, as soon as `enough` says so, or after `limit` (then `false`).
    pub fn lines_since(&self, mark: usize, limit: Duration, enough: impl Fn(&[Line]) -> bool) -> (Vec<Line>, bool) {
        let (log, changed) = &*self.log;
        let lines = |log: &Log| log.probe.get(mark..).unwrap_or_default().to_vec();
        let waiting = changed.wait_timeout_while(log.lock().unwrap(), limit, |log| !log.ended && !enough(&lines(log)));
        let (log, timeout) = waiting.unwrap();
        (lines(&log), !timeout.timed_out() && !log.ended)
    }

    pub fn last_log(&self) -> String {
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
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
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
    while reader.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
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

/// A port nobody uses now.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
