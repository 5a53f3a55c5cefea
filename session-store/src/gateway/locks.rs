//! Session locks: who asks for one that is held stands in a queue, first come first served, instead of asking again and again.
//!
//! phpredis asks for a lock by `SET k_LOCK host|pid NX [PX n]`, and when that answers nil it sleeps and asks again, up to 100 times: whoever
//! happens to ask first gets it, and everybody's worker is busy meanwhile. Here the first attempt waits, and is answered when the lock is
//! free. Key and value in the store stay phpredis's own, so a node that does not come through a gateway is excluded too.
//!
//! Within one gateway a release wakes the first in the queue. A lock that ends elsewhere (its time is over, another gateway released it) is
//! noticed by the first in the queue, who looks every [`LOOK`].

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::LockSettings;
use super::counters::Counters;
use crate::backend::{Backend, Failure};
use crate::command::{Command, RENEW, Request, find, scripts};
use crate::resp::Reply;

/// How often the first in a queue looks whether the lock has ended without a word.
const LOOK: Duration = Duration::from_millis(50);
/// How phpredis names a session's lock.
const ENDING: &[u8] = b"_LOCK";

/// A lock, and in which database.
type Place = (u8, Bytes);

/// An attempt in phpredis's form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) database: u8,
    pub(super) key: Bytes,
    pub(super) value: Bytes,
    /// As sent: `PX` and milliseconds. Without it the lock gets a lease.
    pub(super) time: Option<Bytes>,
}

/// How an attempt ended.
#[derive(Debug, PartialEq)]
pub(super) enum Ended {
    Taken,
    /// Somebody else has it, and goes on having it.
    Held,
    /// As many wait as may.
    Crowded,
    Failed(Failure),
    /// The store said something else.
    Answered(Reply),
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(u64, Arc<Notify>)>,
}

pub(super) struct Locks {
    settings: LockSettings,
    parked_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queues: HashMap<Place, Queue>,
    parked: usize,
    next_ticket: u64,
}

impl Attempt {
    /// The attempt that this request is; `None`: it is another `SET`, and is nobody's to wait for.
    pub(super) fn of(database: u8, request: &Request) -> Option<Self> {
        if request.rule.command != Command::Set {
            return None;
        }
        let (key, value, options) = match request.arguments.as_slice() {
            [_, key, value, options @ ..] => (key, value, options),
            _ => return None,
        };
        let time = match options {
            [nx] if nx.eq_ignore_ascii_case(b"NX") => None,
            [nx, px, time] if nx.eq_ignore_ascii_case(b"NX") && px.eq_ignore_ascii_case(b"PX") => {
                Some(time.clone())
            }
            _ => return None,
        };
        let is_named = key.ends_with(ENDING);
        let pid = value
            .rsplit(|byte| *byte == b'|')
            .next()
            .filter(|pid| pid.len() < value.len());
        let is_owned = pid.is_some_and(|pid| !pid.is_empty() && pid.iter().all(u8::is_ascii_digit));
        (is_named && is_owned).then(|| Self {
            database,
            key: key.clone(),
            value: value.clone(),
            time,
        })
    }

    fn place(&self) -> Place {
        (self.database, self.key.clone())
    }
}

impl Locks {
    pub(super) fn new(settings: LockSettings, parked_max: usize) -> Self {
        Self {
            settings,
            parked_max,
            state: Mutex::default(),
        }
    }

    pub(super) fn lease(&self) -> Duration {
        self.settings.lease
    }

    /// Takes a lock, waiting for it if `may_wait`. Dropped while it waits, it leaves the queue; dropped while `is_asking`, it may have been
    /// given the lock.
    pub(super) async fn acquire<B: Backend>(
        &self,
        backend: &B,
        attempt: &Attempt,
        may_wait: bool,
        is_asking: &AtomicBool,
        counters: &Counters,
    ) -> Ended {
        let place = attempt.place();
        if !self.is_queued(&place) {
            match self.attempt(backend, attempt, is_asking).await {
                Ended::Held => {}
                ended => return ended,
            }
        }
        if !may_wait || self.settings.wait.is_zero() {
            return Ended::Held;
        }
        let Some(turn) = self.enqueue(&place, counters) else {
            return Ended::Crowded;
        };
        let start = Instant::now();
        let deadline = start + self.settings.wait;
        // Ends: at its deadline at the latest.
        let ended = loop {
            let now = Instant::now();
            if now >= deadline {
                counters.lock_timeouts.add();
                break Ended::Held;
            }
            if turn.is_first() {
                match self.attempt(backend, attempt, is_asking).await {
                    Ended::Held => {}
                    ended => break ended,
                }
            }
            let look = if turn.is_first() {
                now + LOOK
            } else {
                deadline
            };
            // Woken or not, the next turn of the loop looks.
            let _ = timeout_at(look.min(deadline), turn.bell.notified()).await;
        };
        let waited = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        counters.lock_waits.add();
        counters
            .lock_wait_microseconds
            .fetch_add(waited, Ordering::Relaxed);
        ended
    }

    /// One try at the store.
    async fn attempt<B: Backend>(
        &self,
        backend: &B,
        attempt: &Attempt,
        is_asking: &AtomicBool,
    ) -> Ended {
        let Some(set) = find(b"SET") else {
            return Ended::Held;
        };
        let lease = self.settings.lease.as_millis().to_string();
        let time = attempt.time.as_deref().unwrap_or(lease.as_bytes());
        let request = Request::own(set, &[&attempt.key, &attempt.value, b"NX", b"PX", time]);
        is_asking.store(true, Ordering::Relaxed);
        let answer = backend.submit(attempt.database, request).await;
        is_asking.store(false, Ordering::Relaxed);
        match answer {
            Ok(Reply::Nil) => Ended::Held,
            Ok(Reply::Simple(_)) => Ended::Taken,
            Ok(reply) => Ended::Answered(reply),
            Err(failure) => Ended::Failed(failure),
        }
    }

    /// Somebody has deleted this key, or may have.
    pub(super) fn released(&self, database: u8, key: &Bytes) {
        let state = self.lock();
        if state.parked > 0
            && let Some(queue) = state.queues.get(&(database, key.clone()))
        {
            queue.ring();
        }
    }

    fn is_queued(&self, place: &Place) -> bool {
        let state = self.lock();
        state.parked > 0 && state.queues.contains_key(place)
    }

    /// A place at the end of the queue; `None`: too many wait.
    fn enqueue<'l>(&'l self, place: &Place, counters: &'l Counters) -> Option<Turn<'l>> {
        let mut state = self.lock();
        if state.parked >= self.parked_max {
            return None;
        }
        state.parked += 1;
        state.next_ticket += 1;
        let (ticket, bell) = (state.next_ticket, Arc::new(Notify::new()));
        let queue = state.queues.entry(place.clone()).or_default();
        queue.waiting.push_back((ticket, Arc::clone(&bell)));
        counters.parked.fetch_add(1, Ordering::Relaxed);
        Some(Turn {
            locks: self,
            counters,
            place: place.clone(),
            ticket,
            bell,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn ring(&self) {
        if let Some((_, bell)) = self.waiting.front() {
            bell.notify_one();
        }
    }
}

/// A place in a queue, given up when dropped.
struct Turn<'l> {
    locks: &'l Locks,
    counters: &'l Counters,
    place: Place,
    ticket: u64,
    bell: Arc<Notify>,
}

impl Turn<'_> {
    fn is_first(&self) -> bool {
        let state = self.locks.lock();
        let first = state
            .queues
            .get(&self.place)
            .and_then(|queue| queue.waiting.front());
        first.is_some_and(|(ticket, _)| *ticket == self.ticket)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.counters.parked.fetch_sub(1, Ordering::Relaxed);
        let mut state = self.locks.lock();
        state.parked -= 1;
        let Some(queue) = state.queues.get_mut(&self.place) else {
            return;
        };
        queue.waiting.retain(|(ticket, _)| *ticket != self.ticket);
        if queue.waiting.is_empty() {
            state.queues.remove(&self.place);
        } else {
            // Who is first now looks at once: the lock may have been released between two.
            queue.ring();
        }
    }
}

/// Deletes a lock if it is still the one that was taken.
pub(super) fn release(attempt: &Attempt) -> Option<Request> {
    let rule = find(b"EVAL")?;
    Some(Request::own(
        rule,
        &[
            scripts::RELEASE.as_bytes(),
            b"1",
            &attempt.key,
            &attempt.value,
        ],
    ))
}

/// Lets a lock live for another lease if it is still the one that was taken.
pub(super) fn renew(attempt: &Attempt, lease: Duration) -> Request {
    let lease = lease.as_millis().to_string();
    Request::own(
        &RENEW,
        &[
            scripts::RENEW.as_bytes(),
            b"1",
            &attempt.key,
            &attempt.value,
            lease.as_bytes(),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: bool) {
        let words = line
            .split(' ')
            .map(|word| Bytes::copy_from_slice(word.as_bytes()));
        let request = Request::new(words.collect(), b"").unwrap();
        assert_eq!(Attempt::of(0, &request).is_some(), expected, "{line}");
    }

    #[test]
    fn only_the_form_of_phpredis_is_waited_for() {
        check("SET PHPREDIS_SESSION:a_LOCK web1|821 NX", true);
        check("set k_LOCK a|b|1 nx px 60000", true);
        check("SET k_LOCK web1|821", false);
        check("SET k_LOCK web1|821 NX EX 60", false);
        check("SET k_LOCK web1|821 PX 60000 NX", false);
        check("SET k_LOCK web1|821 XX", false);
        check("SET k_LOCK web1| NX", false);
        check("SET k_LOCK 821 NX", false);
        check("SET k_LOCK web1|x NX", false);
        check("SET k web1|821 NX", false);
        check("SETNX k_LOCK web1|821", false);
    }
}
