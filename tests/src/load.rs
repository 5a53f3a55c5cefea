//! Load on keep-alive connections: how many requests were answered, by whom, and what went wrong.
//!
//! A connection is only opened anew after a response that said `Connection: close`; everything else that stops one is a
//! failed request. One thread per connection, blocking: simple to read, and fast enough for what is asked here.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::{Connection, Request, Response};

/// Reasons of failures that are kept.
const REASONS_MAX: usize = 20;
const STACK_BYTES: usize = 512 << 10;

/// A load to be put on an address.
#[derive(Clone)]
pub struct Load {
    pub connections: usize,
    /// Stop after this many requests, all connections together.
    pub requests_max: u64,
    /// Requests a second, all connections together; as fast as it goes without.
    pub rate: Option<u32>,
    pub request: Request,
}

/// What came of it.
#[derive(Debug, Default, Clone)]
pub struct Report {
    pub answered: u64,
    pub failed: u64,
    /// The first failures, in words.
    pub reasons: Vec<String>,
    /// Answers by body: the names of the servers.
    pub by_server: BTreeMap<String, u64>,
    /// The longest that a request took, answered or not.
    pub slowest: Duration,
}

impl Load {
    pub fn new(connections: usize) -> Self {
        Self {
            connections,
            requests_max: u64::MAX,
            rate: None,
            request: Request::get("/name"),
        }
    }

    pub fn requests(mut self, count: u64) -> Self {
        self.requests_max = count;
        self
    }

    pub fn per_second(mut self, rate: u32) -> Self {
        self.rate = Some(rate);
        self
    }

    pub fn request(mut self, request: Request) -> Self {
        self.request = request;
        self
    }

    /// Starts it; every connection is open when this returns.
    pub fn start(self, address: SocketAddr) -> Running {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            report: Mutex::new(Report::default()),
            started: Instant::now(),
            load: self,
            address,
        });
        let count = shared.load.connections;
        let threads = (0..count).map(|_| {
            let connection = Connection::open(address).unwrap();
            let shared = shared.clone();
            let builder = std::thread::Builder::new().stack_size(STACK_BYTES);
            builder.spawn(move || shared.run(connection)).unwrap()
        });
        Running {
            threads: threads.collect(),
            shared,
        }
    }

    /// Runs it to its last request.
    pub fn run(self, address: SocketAddr) -> Report {
        self.start(address).join()
    }
}

struct Shared {
    stop: AtomicBool,
    sent: AtomicU64,
    answered: AtomicU64,
    report: Mutex<Report>,
    started: Instant,
    load: Load,
    address: SocketAddr,
}

/// A load that is being put on.
pub struct Running {
    threads: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
}

impl Running {
    /// Requests answered so far.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Lets it run for so long.
    pub fn during(&self, time: Duration) {
        std::thread::sleep(time);
    }

    /// Ends it after the requests that are under way.
    pub fn stop(self) -> Report {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.join()
    }

    fn join(self) -> Report {
        for thread in self.threads {
            thread.join().unwrap();
        }
        let report = self.shared.report.lock().unwrap();
        report.clone()
    }
}

impl Shared {
    fn run(&self, connection: Connection) {
        let mut connection = Some(connection);
        let mut local = Report::default();
        while !self.stop.load(Ordering::Relaxed) {
            let number = self.sent.fetch_add(1, Ordering::Relaxed);
            if number >= self.load.requests_max {
                break;
            }
            if !self.wait_for_turn(number) {
                break;
            }
            let sent = Instant::now();
            let answer = self.one(&mut connection);
            local.slowest = local.slowest.max(sent.elapsed());
            match answer {
                Ok(response) if response.status == 200 => {
                    local.answered += 1;
                    self.answered.fetch_add(1, Ordering::Relaxed);
                    if response.body.len() <= 64 {
                        *local.by_server.entry(response.text()).or_default() += 1;
                    }
                }
                Ok(response) => local.fail(format!("{}: {}", response.status, response.text())),
                Err(error) => {
                    let at = self.started.elapsed().as_millis();
                    local.fail(format!("{error} (request {number}, after {at} ms)"));
                }
            }
        }
        self.report.lock().unwrap().add(local);
    }

    /// With a rate, request `n` is sent at `n / rate`; false when told to stop meanwhile.
    fn wait_for_turn(&self, number: u64) -> bool {
        let Some(rate) = self.load.rate else {
            return true;
        };
        let due = Duration::from_micros(number.saturating_mul(1_000_000) / u64::from(rate));
        while let Some(left) = due.checked_sub(self.started.elapsed()) {
            if self.stop.load(Ordering::Relaxed) {
                return false;
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
        true
    }

    fn one(&self, slot: &mut Option<Connection>) -> std::io::Result<Response> {
        let (mut connection, kind) = match slot.take() {
            Some(connection) => (connection, "a kept connection"),
            None => (Connection::open(self.address)?, "a new connection"),
        };
        let answer = connection.exchange(&self.load.request);
        let response =
            answer.map_err(|error| std::io::Error::other(format!("{error} on {kind}")))?;
        if !response.closes() {
            *slot = Some(connection);
        }
        Ok(response)
    }
}

impl Report {
    fn fail(&mut self, reason: String) {
        self.failed += 1;
        if self.reasons.len() < REASONS_MAX {
            self.reasons.push(reason);
        }
    }

    fn add(&mut self, other: Report) {
        self.answered += other.answered;
        self.failed += other.failed;
        self.slowest = self.slowest.max(other.slowest);
        for (server, count) in other.by_server {
            *self.by_server.entry(server).or_default() += count;
        }
        self.reasons.extend(other.reasons);
        self.reasons.truncate(REASONS_MAX);
    }

    #[track_caller]
    pub fn assert_no_failure(&self) {
        assert_eq!(
            self.failed,
            0,
            "of {}: {:#?}",
            self.answered + self.failed,
            self.reasons
        );
    }
}
