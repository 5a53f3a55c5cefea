//! One pipelined connection for one database: everything that is asked of it goes through here, in order.
//!
//! Commands wait in one queue. Those in its front were sent; the rest is sent as soon as there is a verified connection. When a connection
//! breaks, each command that was sent is either put back in its place, in a form that does no harm the second time ([`super::again`]), or
//! answered as ambiguous; what was not sent stays. So the order of commands for a key is kept through any number of connections.
//! Each command waits for `failover_wait` at most, connected or not.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::Shared;
use super::again::{again, is_refusal};
use super::backoff::Backoff;
use super::dial::{Connection, dial};
use super::sentinel::moved;
use crate::backend::{Failure, Why};
use crate::command::Request;
use crate::resp::Reply;
use crate::resp::decode::{Decoded, decode};
use crate::resp::reply::encode_request;

/// How long a sent command may be unanswered before its connection counts as broken.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Commands that are sent and not answered at a time.
const SENT_MAX: usize = 4096;
const BUFFER: usize = 64 * 1024;
/// Commands that are taken from the channel before anything is written.
const TAKEN_AT_ONCE: usize = 256;

/// A command, or a transaction, and who waits for it.
pub(super) struct Job {
    pub(super) requests: Vec<Request>,
    pub(super) is_transaction: bool,
    pub(super) answer: oneshot::Sender<Result<Reply, Failure>>,
    pub(super) deadline: Instant,
    pub(super) nil_is_ok: bool,
}

/// Answers of one job that came so far.
#[derive(Default)]
struct Partial {
    count: usize,
    error: Option<Reply>,
}

struct Lane {
    shared: Arc<Shared>,
    jobs: mpsc::UnboundedReceiver<Job>,
    queue: VecDeque<Job>,
    /// How many of the queue's front were sent on this connection.
    sent: usize,
    /// Jobs that this connection refused without executing them; they go before the queue, on the next one.
    refused: VecDeque<Job>,
    partial: Partial,
    /// When the first of those that were sent counts as lost.
    silence: Option<Instant>,
}

/// Serves one database until nobody can ask any more.
pub(super) async fn run(shared: Arc<Shared>, database: u8, jobs: mpsc::UnboundedReceiver<Job>) {
    let mut lane = Lane {
        shared,
        jobs,
        queue: VecDeque::new(),
        sent: 0,
        refused: VecDeque::new(),
        partial: Partial::default(),
        silence: None,
    };
    let mut backoff = Backoff::default();
    // Ends when the last sender is gone.
    loop {
        if lane.queue.is_empty() {
            match lane.jobs.recv().await {
                Some(job) => lane.queue.push_back(job),
                None => return,
            }
        }
        let login = lane.shared.login.clone();
        let Some(dialled) = lane.waiting(dial(&login, database)).await else {
            return;
        };
        let why = match dialled {
            Ok(mut connection) => {
                lane.shared.connected(database);
                let (why, has_answered) = lane.serve(&mut connection).await;
                lane.shared.broken();
                if has_answered && lane.refused.is_empty() {
                    backoff = Backoff::default();
                }
                lane.put_back();
                match why {
                    Some(why) => why,
                    None => return,
                }
            }
            Err(why) => why,
        };
        // An idle connection that ends is nobody's trouble.
        if lane.queue.is_empty() {
            continue;
        }
        lane.shared.unreachable(database, &why);
        let pause = tokio::time::sleep(backoff.next());
        if lane.waiting(pause).await.is_none() {
            return;
        }
    }
}

impl Lane {
    /// Waits for something while jobs come in, and go when their time is over or nobody waits for them; `None`: nobody can ask any more.
    async fn waiting<T>(&mut self, something: impl Future<Output = T>) -> Option<T> {
        let mut something = std::pin::pin!(something);
        loop {
            self.tidy();
            let first = self.queue.iter().map(|job| job.deadline).min();
            let overdue = first.unwrap_or_else(|| Instant::now() + SILENCE_MAX);
            tokio::select! {
                done = &mut something => return Some(done),
                job = self.jobs.recv() => self.queue.push_back(job?),
                () = sleep_until(overdue) => {}
            }
        }
    }

    /// Drops what is not sent and nobody waits for, and answers what has waited for too long.
    fn tidy(&mut self) {
        let now = Instant::now();
        let unsent = self.queue.split_off(self.sent.min(self.queue.len()));
        for job in unsent {
            if job.answer.is_closed() {
                self.shared.gone(1);
            } else if job.deadline <= now {
                self.answer(job, Err(Failure::Refused(Why::Unreachable)));
            } else {
                self.queue.push_back(job);
            }
        }
    }

    fn answer(&self, job: Job, outcome: Result<Reply, Failure>) {
        self.shared.gone(1);
        // Who has gone needs no answer.
        let _ = job.answer.send(outcome);
    }

    /// Sends and receives until the connection is of no more use; why it is not (`None`: nobody can ask any more), and whether anything
    /// was ever answered on it.
    async fn serve(&mut self, connection: &mut Connection) -> (Option<String>, bool) {
        let Connection {
            stream,
            inbound,
            host,
        } = connection;
        let login = self.shared.login.clone();
        let mut moved = std::pin::pin!(moved(&login, host.as_ref()));
        let (mut reader, writer) = tokio::io::split(stream);
        let mut outbound = Outbound {
            writer,
            waiting: BytesMut::with_capacity(BUFFER),
            is_flushed: true,
        };
        let (mut needs, mut has_answered) = (1, false);
        loop {
            if self.refused.is_empty() {
                self.send_more(&mut outbound.waiting);
            } else if self.sent == 0 {
                return (Some("it refuses commands".to_owned()), has_answered);
            }
            let silence = self.silence.unwrap_or_else(|| Instant::now() + SILENCE_MAX);
            let broken = tokio::select! {
                biased;
                read = reader.read_buf(inbound) => match read {
                    Ok(0) => Some("it has closed the connection".to_owned()),
                    Err(error) => Some(error.to_string()),
                    Ok(_) => None,
                },
                written = outbound.go_on(), if outbound.is_needed() => match written {
                    Err(error) => Some(error.to_string()),
                    Ok(()) => continue,
                },
                job = self.jobs.recv() => match job {
                    None => return (None, has_answered),
                    Some(job) => {
                        self.queue.push_back(job);
                        self.take_more();
                        continue;
                    }
                },
                why = &mut moved => Some(why),
                () = sleep_until(silence), if self.sent > 0 => Some(format!("it was silent for {SILENCE_MAX:?}")),
            };
            if broken.is_some() {
                return (broken, has_answered);
            }
            while inbound.len() >= needs {
                match decode(inbound) {
                    Ok(Decoded::Needs(more)) => needs = more,
                    Ok(Decoded::Reply(reply)) => {
                        needs = 1;
                        has_answered = true;
                        if !self.received(reply) {
                            return (
                                Some("it answers what nobody asked".to_owned()),
                                has_answered,
                            );
                        }
                    }
                    Err(garbled) => return (Some(garbled.to_string()), has_answered),
                }
            }
        }
    }

    /// What else has come by now goes out with it.
    fn take_more(&mut self) {
        for _ in 0..TAKEN_AT_ONCE {
            match self.jobs.try_recv() {
                Ok(job) => self.queue.push_back(job),
                Err(_) => return,
            }
        }
    }

    /// Encodes what was not sent yet.
    fn send_more(&mut self, out: &mut BytesMut) {
        if self.sent < self.queue.len() && self.sent < SENT_MAX {
            self.tidy();
        }
        while self.sent < SENT_MAX
            && out.len() < BUFFER
            && let Some(job) = self.queue.get(self.sent)
        {
            encode(job, out);
            self.sent += 1;
            self.silence.get_or_insert(Instant::now() + SILENCE_MAX);
        }
    }

    /// Takes an answer; `false`: nobody asked.
    fn received(&mut self, reply: Reply) -> bool {
        if self.sent == 0 {
            return false;
        }
        let Some(job) = self.queue.front() else {
            return false;
        };
        let is_last = !job.is_transaction || self.partial.count + 1 == job.requests.len() + 2;
        self.partial.count += 1;
        if !is_last {
            if matches!(reply, Reply::Error(_)) {
                self.partial.error.get_or_insert(reply);
            }
            return true;
        }
        // The reason of an EXECABORT is the error that came before it.
        let reply = std::mem::take(&mut self.partial).error.unwrap_or(reply);
        self.sent -= 1;
        self.silence = (self.sent > 0).then(|| Instant::now() + SILENCE_MAX);
        let Some(job) = self.queue.pop_front() else {
            return false;
        };
        if is_refusal(&reply) {
            self.refused.push_back(job);
        } else if job.nil_is_ok && reply == Reply::Nil {
            self.answer(job, Ok(Reply::OK));
        } else {
            self.answer(job, Ok(reply));
        }
        true
    }

    /// Puts everything that may be sent again back into its place, and answers the rest.
    fn put_back(&mut self) {
        self.partial = Partial::default();
        self.silence = None;
        let sent = std::mem::take(&mut self.sent);
        let mut unknown: VecDeque<Job> = self.queue.drain(..sent).collect();
        let mut front = std::mem::take(&mut self.refused);
        // Ends: each turn takes a job.
        while let Some(mut job) = unknown.pop_front() {
            let request = if job.is_transaction {
                None
            } else {
                job.requests.pop()
            };
            let others = unknown.iter().flat_map(|job| &job.requests);
            let is_alone = |request: &Request| {
                let keys = request.keys();
                !others
                    .clone()
                    .flat_map(Request::keys)
                    .any(|key| keys.contains(key))
            };
            let repeated = request.and_then(|request| {
                let is_alone = is_alone(&request);
                again(request, is_alone)
            });
            match repeated {
                Some(repeated) => {
                    self.shared.replayed();
                    job.nil_is_ok |= repeated.nil_is_ok;
                    job.requests.push(repeated.request);
                    front.push_back(job);
                }
                None => {
                    self.shared.ambiguous();
                    self.answer(job, Err(Failure::Ambiguous));
                }
            }
        }
        front.append(&mut self.queue);
        self.queue = front;
    }
}

/// What is on its way to the server.
struct Outbound<W> {
    writer: W,
    waiting: BytesMut,
    is_flushed: bool,
}

impl<W: AsyncWrite + Unpin> Outbound<W> {
    fn is_needed(&self) -> bool {
        !self.waiting.is_empty() || !self.is_flushed
    }

    /// Writes some of it; a TLS stream may keep what it took until it is flushed.
    async fn go_on(&mut self) -> std::io::Result<()> {
        if self.waiting.is_empty() {
            self.writer.flush().await?;
            self.is_flushed = true;
        } else {
            self.is_flushed = false;
            self.writer.write_buf(&mut self.waiting).await?;
        }
        Ok(())
    }
}

fn encode(job: &Job, out: &mut BytesMut) {
    if job.is_transaction {
        out.extend_from_slice(b"*1\r\n$5\r\nMULTI\r\n");
    }
    for request in &job.requests {
        encode_request(&request.arguments, out);
    }
    if job.is_transaction {
        out.extend_from_slice(b"*1\r\n$4\r\nEXEC\r\n");
    }
}
