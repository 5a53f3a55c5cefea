//! One client's bytes: commands in, answers out, in order.
//!
//! Everything that came in one piece is executed before anything is answered, [`PIPELINE_MAX`] commands at most: then nothing more is read
//! until the answers are written. So a client that sends and never reads holds one buffer's worth, and meets [`WRITE_MAX`].

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};

use super::Shared;
use super::counters::Outcome;
use super::listen::Stream;
use super::locks::{self, Attempt, Ended};
use super::session::{Asked, Session, Step};
use crate::backend::{Backend, Failure};
use crate::resp::{Parsed, Parser, Protocol, Refusal, Reply};

/// Commands that are executed before their answers are written.
const PIPELINE_MAX: usize = 256;
/// Answers are written when there are so many bytes of them.
const OUTPUT_FULL: usize = 256 * 1024;
/// No single answer is larger.
const ANSWER_MAX: usize = 64 * 1024 * 1024;
/// How long a client may leave its answers unread.
const WRITE_MAX: Duration = Duration::from_secs(30);
/// What is read while a client waits for a lock: enough to notice that it has gone.
const PARKED_INBOUND_MAX: usize = 64 * 1024;
/// A client that has said all it will say may still wait so long for an answer that takes time.
const CLOSING_GRACE: Duration = Duration::from_millis(200);
const BUFFER: usize = 8 * 1024;
/// A buffer that has grown past this is not kept by an idle client.
const BUFFER_KEPT: usize = 64 * 1024;
/// Locks that one connection holds at a time and that are released when it closes. PHP holds one.
const HELD_MAX: usize = 16;

/// The client has gone, or must go.
struct Gone;

enum Pending<B: Backend> {
    Answered(Reply),
    Asked(B::Answer, Asked),
}

struct Held {
    attempt: Attempt,
    /// When its lease must be renewed; `None`: it has the time to live that the client gave it.
    renewal: Option<Instant>,
}

struct Connection<'s, B: Backend> {
    shared: &'s Shared<B>,
    stream: Stream,
    inbound: BytesMut,
    outbound: BytesMut,
    session: Session<B>,
    pending: VecDeque<Pending<B>>,
    held: Vec<Held>,
    /// The lock that this client has waited for in vain: its further tries are answered at once.
    in_vain: Option<Attempt>,
    is_closing: bool,
}

/// Tells a client that there are too many.
pub(super) async fn turn_away(mut stream: Stream) {
    let mut out = BytesMut::new();
    Reply::refused("too many clients (session_store.limits.clients)")
        .encode(Protocol::Resp2, &mut out);
    let _ = timeout(WRITE_MAX, stream.write_all(&out)).await;
}

/// Serves a client until one of both closes.
pub(super) async fn serve<B: Backend>(
    stream: Stream,
    peer: Option<IpAddr>,
    number: u64,
    shared: &Shared<B>,
) {
    let mut connection = Connection {
        shared,
        stream,
        inbound: BytesMut::with_capacity(BUFFER),
        outbound: BytesMut::with_capacity(BUFFER),
        session: Session::new(shared, peer, number),
        pending: VecDeque::new(),
        held: Vec::new(),
        in_vain: None,
        is_closing: false,
    };
    // Why it ended was counted where it did.
    let _ = connection.run().await;
    connection.release_all().await;
}

impl<B: Backend> Connection<'_, B> {
    async fn run(&mut self) -> Result<(), Gone> {
        let mut parser = Parser::default();
        // Ends with the connection.
        loop {
            if self.pending.len() >= PIPELINE_MAX {
                self.answer().await?;
            }
            match parser.next(&mut self.inbound, &self.shared.bounds) {
                Ok(Some(Parsed::Request(arguments))) => self.take(arguments).await?,
                Ok(Some(Parsed::Refused(refusal))) => {
                    let reply = self.refused(refusal);
                    self.pending.push_back(Pending::Answered(reply));
                }
                Ok(None) => {
                    self.answer().await?;
                    self.write().await?;
                    self.read().await?;
                }
                Err(malformed) => {
                    self.shared.counters.malformed.add();
                    self.answer().await?;
                    self.put(&Reply::refused(malformed));
                    return self.write().await;
                }
            }
        }
    }

    fn refused(&self, refusal: Refusal) -> Reply {
        let counters = &self.shared.counters;
        Reply::refused(match refusal {
            Refusal::Arguments => {
                counters.refused_arguments.add();
                "too many arguments"
            }
            Refusal::Value | Refusal::Request => {
                counters.refused_values.add();
                "the value is too large (session_store.limits.value)"
            }
        })
    }

    async fn take(&mut self, arguments: Vec<Bytes>) -> Result<(), Gone> {
        match self.session.take(self.shared, arguments) {
            Step::Answer(reply) => {
                self.count(None, &reply);
                self.pending.push_back(Pending::Answered(reply));
            }
            Step::Ask(answer, asked) => {
                self.in_vain = None;
                self.pending.push_back(Pending::Asked(answer, asked));
            }
            Step::Lock(attempt) => {
                self.answer().await?;
                self.acquire(attempt).await?;
            }
            Step::Watch(keys) => {
                self.answer().await?;
                let before = self.session.watch.take();
                let watched = self
                    .shared
                    .backend
                    .watch(self.session.database, &keys, before)
                    .await;
                let reply = match watched {
                    Ok(watch) => {
                        self.session.watch = Some(watch);
                        self.session.watched += keys.len();
                        Reply::OK
                    }
                    Err(failure) => Reply::refused(failure),
                };
                self.pending.push_back(Pending::Answered(reply));
            }
            Step::Quit => {
                self.answer().await?;
                self.put(&Reply::OK);
                self.write().await?;
                return Err(Gone);
            }
        }
        Ok(())
    }

    /// Waits for every answer that is due, in order.
    async fn answer(&mut self) -> Result<(), Gone> {
        // Ends: each turn takes one.
        while let Some(pending) = self.pending.pop_front() {
            let reply = match pending {
                Pending::Answered(reply) => reply,
                Pending::Asked(answer, asked) => {
                    let outcome = self.while_connected(answer).await?;
                    self.learn(&asked, &outcome);
                    let reply = voiced(outcome);
                    self.count(asked.rule, &reply);
                    reply
                }
            };
            self.put(&reply);
            if self.outbound.len() >= OUTPUT_FULL {
                self.write().await?;
            }
        }
        Ok(())
    }

    fn count(&self, rule: Option<usize>, reply: &Reply) {
        let outcome = match reply {
            Reply::Error(_) => Outcome::Failed,
            _ => Outcome::Answered,
        };
        self.shared.counters.command(rule, outcome);
    }

    /// What an answer says beyond itself.
    fn learn(&mut self, asked: &Asked, outcome: &Result<Reply, Failure>) {
        if let Some(key) = &asked.reads {
            self.session.seen = match outcome {
                Ok(Reply::Bulk(_)) => Some((asked.database, key.clone())),
                Ok(Reply::Map(items) | Reply::Array(items)) if !items.is_empty() => {
                    Some((asked.database, key.clone()))
                }
                _ => None,
            };
        }
        // A release that was not known by its SHA-1 comes again, by its text.
        let is_done = !matches!(outcome, Err(_) | Ok(Reply::Error(_) | Reply::Integer(0)));
        for key in asked.removes.iter().filter(|_| is_done) {
            self.held
                .retain(|held| held.attempt.key != *key || held.attempt.database != asked.database);
            self.shared.locks.released(asked.database, key);
        }
    }

    fn put(&mut self, reply: &Reply) {
        if reply.size() > ANSWER_MAX {
            self.shared.counters.refused_answers.add();
            Reply::refused("the answer is too large")
                .encode(self.session.protocol, &mut self.outbound);
        } else {
            reply.encode(self.session.protocol, &mut self.outbound);
        }
    }

    async fn acquire(&mut self, attempt: Attempt) -> Result<(), Gone> {
        // What was answered before must not wait with this.
        self.write().await?;
        let shared = self.shared;
        let may_wait = self.in_vain.as_ref() != Some(&attempt);
        let is_asking = AtomicBool::new(false);
        let acquiring = shared.locks.acquire(
            &shared.backend,
            &attempt,
            may_wait,
            &is_asking,
            &shared.counters,
        );
        let ended = {
            let acquiring = std::pin::pin!(acquiring);
            self.while_connected(acquiring).await
        };
        let Ok(ended) = ended else {
            // It may have got the lock in the moment it went.
            if is_asking.load(Ordering::Relaxed) {
                self.held.push(Held {
                    attempt,
                    renewal: None,
                });
            }
            return Err(Gone);
        };
        let reply = match ended {
            Ended::Taken => {
                self.in_vain = None;
                let renewal = attempt
                    .time
                    .is_none()
                    .then(|| Instant::now() + shared.locks.lease() / 3);
                if self.held.len() < HELD_MAX {
                    self.held.push(Held { attempt, renewal });
                }
                Reply::OK
            }
            Ended::Held => {
                self.in_vain = Some(attempt);
                Reply::Nil
            }
            Ended::Crowded => {
                Reply::refused("too many wait for locks (session_store.limits.parked)")
            }
            Ended::Failed(failure) => Reply::refused(failure),
            Ended::Answered(reply) => voiced(Ok(reply)),
        };
        let set = crate::command::RULES
            .iter()
            .position(|rule| rule.name == "SET");
        self.count(set, &reply);
        self.pending.push_back(Pending::Answered(reply));
        Ok(())
    }

    /// Waits for something as long as the client is there.
    async fn while_connected<T>(&mut self, something: impl Future<Output = T>) -> Result<T, Gone> {
        let mut something = std::pin::pin!(something);
        loop {
            if self.is_closing {
                return timeout(CLOSING_GRACE, something).await.map_err(|_| Gone);
            }
            let has_room = self.inbound.len() < PARKED_INBOUND_MAX;
            tokio::select! {
                biased;
                done = &mut something => return Ok(done),
                read = self.stream.read_buf(&mut self.inbound), if has_room => match read {
                    Ok(0) => self.is_closing = true,
                    Ok(_) => {}
                    Err(_) => return Err(Gone),
                },
            }
        }
    }

    async fn write(&mut self) -> Result<(), Gone> {
        if self.outbound.is_empty() {
            return Ok(());
        }
        match timeout(WRITE_MAX, self.stream.write_all(&self.outbound)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Gone),
            Err(_) => {
                self.shared.counters.slow_closed.add();
                return Err(Gone);
            }
        }
        if self.outbound.capacity() > BUFFER_KEPT {
            self.outbound = BytesMut::with_capacity(BUFFER);
        } else {
            self.outbound.clear();
        }
        Ok(())
    }

    /// Reads some bytes, and keeps leases alive meanwhile.
    async fn read(&mut self) -> Result<(), Gone> {
        if self.is_closing {
            return Err(Gone);
        }
        let idle = Instant::now() + self.shared.settings.limits.idle;
        self.inbound.reserve(BUFFER);
        // Ends: at the latest when the client was idle for too long.
        loop {
            let renewal = self.held.iter().filter_map(|held| held.renewal).min();
            let next = renewal.map_or(idle, |renewal| renewal.min(idle));
            tokio::select! {
                biased;
                read = self.stream.read_buf(&mut self.inbound) => return match read {
                    Ok(0) | Err(_) => Err(Gone),
                    Ok(_) => Ok(()),
                },
                () = sleep_until(next) => {
                    if next == idle {
                        self.shared.counters.idle_closed.add();
                        return Err(Gone);
                    }
                    self.renew().await;
                }
            }
        }
    }

    async fn renew(&mut self) {
        let (now, lease) = (Instant::now(), self.shared.locks.lease());
        for held in &mut self.held {
            if held.renewal.is_some_and(|renewal| renewal <= now) {
                held.renewal = Some(now + lease / 3);
                let request = locks::renew(&held.attempt, lease);
                // One that fails is tried again in time.
                let _ = self
                    .shared
                    .backend
                    .submit(held.attempt.database, request)
                    .await;
            }
        }
    }

    /// Frees what this client held: its process is gone. When the gateway itself ends, nothing is freed.
    async fn release_all(&mut self) {
        for held in std::mem::take(&mut self.held) {
            if self.shared.is_ending.load(Ordering::Relaxed) {
                return;
            }
            let Held { attempt, .. } = held;
            if let Some(request) = locks::release(&attempt) {
                let released = self.shared.backend.submit(attempt.database, request).await;
                if released == Ok(Reply::Integer(1)) {
                    self.shared.counters.locks_orphaned.add();
                }
            }
            self.shared.locks.released(attempt.database, &attempt.key);
        }
    }
}

/// An outcome in words that PHP takes for a warning and not for an exception: phpredis throws for an error that does not begin with `ERR`, and for
/// `ERR AUTH` (`redis_error_throw` in its `library.c`).
fn voiced(outcome: Result<Reply, Failure>) -> Reply {
    const PLAIN: [&str; 3] = ["ERR", "WRONGTYPE", "NOSCRIPT"];
    match outcome {
        Err(failure) => Reply::refused(failure),
        Ok(Reply::Error(text)) => {
            let code = text.split(' ').next().unwrap_or_default();
            if PLAIN.contains(&code) && !text.starts_with("ERR AUTH") {
                Reply::Error(text)
            } else {
                Reply::refused(format!("Redis says: {text}"))
            }
        }
        Ok(reply) => reply,
    }
}
