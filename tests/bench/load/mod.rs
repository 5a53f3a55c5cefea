//! The load generator: keep-alive connections on one epoll, one thread, and a clock.
//!
//! *Closed*: every connection sends its next request when the response of the last has come. That saturates the proxy; its
//! latency is mostly the queue the load itself makes.
//!
//! *Open*: requests are due at fixed times, whatever the proxy does, and latency counts from the time a request was
//! **due**. A proxy that stalls is charged for everything that should have been sent meanwhile (a closed loop would politely
//! stop asking, which is called coordinated omission).

mod connection;
mod request;
mod response;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

pub use connection::Connection;
pub use request::{get, mix};

/// Requests that may be due and not sent before an open loop gives up: the proxy cannot keep up at all.
const BACKLOG_MAX: usize = 100_000;
/// Failures after which a run ends: it is invalid at the first.
const ERRORS_MAX: u64 = 100;
/// Events taken at once.
const EVENTS: usize = 128;
/// Longest latency told apart, in nanoseconds.
const LATENCY_MAX_NS: u64 = 60_000_000_000;
/// How long nothing at all may happen.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// When requests are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Closed,
    Open { per_second: u32 },
}

/// One run.
#[derive(Debug, Clone)]
pub struct Load<'a> {
    pub address: SocketAddr,
    pub connections: usize,
    pub shape: Shape,
    /// Sent in turn; each must be answered with 200 and a length.
    pub requests: &'a [Vec<u8>],
    pub warm_up: Duration,
    pub measured: Duration,
}

/// What came back in the measured time.
#[derive(Debug)]
pub struct Outcome {
    pub answered: u64,
    pub elapsed: Duration,
    /// Nanoseconds.
    pub latency: Histogram<u64>,
    /// Of the whole run, warm-up too. Anything but 0 makes the run invalid.
    pub errors: u64,
    pub first_error: Option<String>,
}

impl Outcome {
    pub fn per_second(&self) -> f64 {
        self.answered as f64 / self.elapsed.as_secs_f64()
    }

    /// In microseconds; `share` from 0 to 1.
    pub fn latency_us(&self, share: f64) -> f64 {
        self.latency.value_at_quantile(share) as f64 / 1000.0
    }
}

/// The borders of the measured time: where a caller reads the proxy's clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Border {
    Begin,
    End,
}

impl Load<'_> {
    /// Runs the load; calls `at` at both borders of the measured time.
    pub fn run(&self, mut at: impl FnMut(Border) -> Result<()>) -> Result<Outcome> {
        // The default slack of 50 µs would be a quarter of the time between two requests of an open loop.
        rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))
            .context("setting the timer slack")?;
        let mut generator = Generator::open(self)?;
        let begin = generator.drive(Instant::now() + self.warm_up)?;
        at(Border::Begin)?;
        generator.answered = 0;
        generator.latency.reset();
        let end = generator.drive(begin + self.measured)?;
        at(Border::End)?;
        Ok(Outcome {
            answered: generator.answered,
            elapsed: end - begin,
            latency: generator.latency,
            errors: generator.errors,
            first_error: generator.first_error,
        })
    }
}

struct Generator<'a> {
    load: &'a Load<'a>,
    epoll: rustix::fd::OwnedFd,
    connections: Vec<Connection>,
    /// Indices of connections without a request under way.
    free: Vec<usize>,
    /// Due times of requests that found no free connection.
    backlog: VecDeque<Instant>,
    next_due: Instant,
    next_request: usize,
    answered: u64,
    latency: Histogram<u64>,
    errors: u64,
    first_error: Option<String>,
}

impl<'a> Generator<'a> {
    fn open(load: &'a Load<'a>) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut connections = Vec::with_capacity(load.connections);
        for index in 0..load.connections {
            let connection = Connection::open(load.address)?;
            connection.stream().set_nonblocking(true)?;
            epoll::add(
                &epoll,
                connection.stream(),
                event_data(index)?,
                epoll::EventFlags::IN,
            )?;
            connections.push(connection);
        }
        Ok(Self {
            load,
            epoll,
            free: (0..connections.len()).rev().collect(),
            connections,
            backlog: VecDeque::new(),
            next_due: Instant::now(),
            next_request: 0,
            answered: 0,
            latency: Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).context("a histogram")?,
            errors: 0,
            first_error: None,
        })
    }

    /// Sends and receives until `end`; returns when it really ended.
    fn drive(&mut self, end: Instant) -> Result<Instant> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS);
        let mut last_event = Instant::now();
        // Ends at `end`, after ERRORS_MAX failures or SILENCE_MAX of nothing.
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(now);
            }
            anyhow::ensure!(
                self.errors <= ERRORS_MAX,
                "{}",
                self.first_error.clone().unwrap_or_default()
            );
            anyhow::ensure!(
                now - last_event < SILENCE_MAX,
                "nothing happened for {SILENCE_MAX:?}"
            );
            self.send_what_is_due(now)?;
            let until = match self.load.shape {
                Shape::Closed => end,
                Shape::Open { .. } => end.min(self.next_due),
            };
            let timeout = Timespec::try_from(until.saturating_duration_since(Instant::now()))
                .context("a timeout")?;
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("waiting for responses"),
            }
            if !events.is_empty() {
                last_event = Instant::now();
            }
            for event in &events {
                self.receive(usize::try_from(event.data.u64())?)?;
            }
        }
    }

    fn send_what_is_due(&mut self, now: Instant) -> Result<()> {
        match self.load.shape {
            Shape::Closed => {
                // Each is sent once at the start, and again after it was replaced.
                while let Some(index) = self.free.pop() {
                    self.send(index, now)?;
                }
            }
            Shape::Open { per_second } => {
                let apart = Duration::from_secs(1) / per_second;
                while self.next_due <= now {
                    self.backlog.push_back(self.next_due);
                    self.next_due += apart;
                }
                anyhow::ensure!(
                    self.backlog.len() <= BACKLOG_MAX,
                    "the proxy cannot keep up with {per_second} requests/s"
                );
                self.send_backlog()?;
            }
        }
        Ok(())
    }

    fn send_backlog(&mut self) -> Result<()> {
        while !self.backlog.is_empty() {
            let Some(index) = self.free.pop() else { break };
            let Some(due) = self.backlog.pop_front() else {
                break;
            };
            self.send(index, due)?;
        }
        Ok(())
    }

    fn send(&mut self, index: usize, due: Instant) -> Result<()> {
        let request = self
            .load
            .requests
            .get(self.next_request % self.load.requests.len())
            .context("no request to send")?;
        self.next_request = self.next_request.wrapping_add(1);
        let connection = self
            .connections
            .get_mut(index)
            .context("an unknown connection")?;
        match connection.send(request, due) {
            Ok(()) => Ok(()),
            Err(error) => self.replace(index, &error),
        }
    }

    fn receive(&mut self, index: usize) -> Result<()> {
        let connection = self
            .connections
            .get_mut(index)
            .context("an unknown connection")?;
        let due = match connection.receive() {
            Ok(None) => return Ok(()),
            Ok(Some((due, _))) => due,
            Err(error) => return self.replace(index, &error),
        };
        let now = Instant::now();
        let nanoseconds = u64::try_from((now - due).as_nanos()).unwrap_or(LATENCY_MAX_NS);
        self.latency.saturating_record(nanoseconds);
        self.answered += 1;
        match self.load.shape {
            Shape::Closed => self.send(index, now),
            Shape::Open { .. } => {
                self.free.push(index);
                self.send_backlog()
            }
        }
    }

    /// Counts a failure and opens the connection anew.
    fn replace(&mut self, index: usize, error: &anyhow::Error) -> Result<()> {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| format!("{error:#}"));
        let fresh = Connection::open(self.load.address)?;
        fresh.stream().set_nonblocking(true)?;
        epoll::add(
            &self.epoll,
            fresh.stream(),
            event_data(index)?,
            epoll::EventFlags::IN,
        )?;
        *self
            .connections
            .get_mut(index)
            .context("an unknown connection")? = fresh;
        self.free.push(index);
        Ok(())
    }
}

fn event_data(index: usize) -> Result<epoll::EventData> {
    Ok(epoll::EventData::new_u64(u64::try_from(index)?))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// A server that answers every request of every connection with `response`, after `pause` for the first of all.
    fn serve(response: &'static str, pause: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                std::thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    let mut reader = BufReader::new(stream.try_clone().unwrap()).lines();
                    let mut first = number == 0;
                    while let Some(Ok(line)) = reader.next() {
                        if line.is_empty() {
                            if std::mem::take(&mut first) {
                                std::thread::sleep(pause);
                            }
                            stream.write_all(response.as_bytes()).unwrap_or_default();
                        }
                    }
                });
            }
        });
        address
    }

    fn run(address: SocketAddr, connections: usize, shape: Shape) -> Result<Outcome> {
        let requests = [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()];
        let (warm_up, measured) = (Duration::ZERO, Duration::from_millis(400));
        Load {
            address,
            connections,
            shape,
            requests: &requests,
            warm_up,
            measured,
        }
        .run(|_| Ok(()))
    }

    #[test]
    fn an_open_loop_sends_what_is_due_and_no_more() {
        let address = serve(
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            Duration::ZERO,
        );
        let outcome = run(address, 4, Shape::Open { per_second: 500 }).unwrap();
        assert_eq!(outcome.errors, 0);
        assert!(
            (150..=201).contains(&outcome.answered),
            "{}",
            outcome.answered
        );
    }

    #[test]
    fn an_open_loop_charges_a_stall_to_everything_that_was_due_meanwhile() {
        let address = serve(
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            Duration::from_millis(200),
        );
        let outcome = run(address, 1, Shape::Open { per_second: 100 }).unwrap();
        // 40 requests; those due in the first 200 ms waited 100 ms on average. A closed loop would show one slow request.
        assert!(
            outcome.latency_us(0.75) > 50_000.0,
            "p75 = {} µs",
            outcome.latency_us(0.75)
        );
    }

    #[test]
    fn a_closed_loop_keeps_every_connection_busy() {
        let address = serve(
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            Duration::ZERO,
        );
        let outcome = run(address, 2, Shape::Closed).unwrap();
        assert_eq!(outcome.errors, 0);
        assert!(outcome.answered > 100, "{}", outcome.answered);
    }

    #[test]
    fn a_wrong_answer_is_an_error_and_too_many_end_the_run() {
        let address = serve(
            "HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nno",
            Duration::ZERO,
        );
        let outcome = run(address, 1, Shape::Open { per_second: 20 }).unwrap();
        assert!(outcome.errors > 0 && outcome.answered == 0);
        assert!(outcome.first_error.unwrap().contains("503"));
        assert!(run(address, 1, Shape::Closed).is_err());
    }
}
