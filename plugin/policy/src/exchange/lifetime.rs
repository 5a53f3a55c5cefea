//! A steered request from its decision to its end.
//!
//! It is in flight on the first server of its list until the response head, because nobody tells the filter of attempts in between;
//! then on the server that answered. Whatever ends it, and however many callbacks tell so, it ends once.

use super::Policy;
use crate::balance::Choices;
use crate::upstream::Quality;

/// Where a request is.
#[derive(Debug, Default)]
pub enum Exchange {
    /// Not steered: nothing to account for.
    #[default]
    Unsteered,
    /// Sent to the servers of a list.
    Steered {
        pool: usize,
        choices: Choices,
        counted_on: usize,
        /// When it was sent, microseconds, if the pool's method looks at latencies.
        sent_us: u64,
        /// The pool's tick at which it was sent.
        began: u32,
        head: HeadSeen,
    },
    Finished,
}

/// Whether the response head was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadSeen {
    Yes,
    NotYet,
}

/// What the host tells of the attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Servers tried, the last of which answered (or failed too); 0: none.
    pub attempts: u64,
    /// Whether the last one failed as well: the answer is the host's own.
    pub last: LastAttempt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastAttempt {
    Answered,
    /// By a status that counts as a failure of the server.
    AnsweredBadly,
    Failed,
}

impl Answer {
    /// Whether it tells of a failure of any server.
    pub fn has_failed(self) -> bool {
        self.attempts > 1 || self.last != LastAttempt::Answered
    }
}

impl Exchange {
    /// A request was just sent to a list that is not empty.
    pub fn begun(policy: &mut Policy, pool: usize, choices: Choices) -> Self {
        let counted_on = choices.get(0).unwrap_or(0);
        let (mut sent_us, mut began) = (0, 0);
        if let Some(pool) = policy.pools_mut().get_mut(pool) {
            pool.began(counted_on);
            sent_us = pool.now_us();
            began = pool.ticks();
        }
        Self::Steered {
            pool,
            choices,
            counted_on,
            sent_us,
            began,
            head: HeadSeen::NotYet,
        }
    }

    /// The pool, the list and the first tick of a request whose response head was not seen yet.
    pub fn awaiting(&self) -> Option<(usize, Choices, u32)> {
        match self {
            Self::Steered {
                pool,
                choices,
                began,
                head: HeadSeen::NotYet,
                ..
            } => Some((*pool, *choices, *began)),
            _ => None,
        }
    }

    /// The pool, and the server on which it is in flight.
    pub fn in_flight_on(&self) -> Option<(usize, usize)> {
        match self {
            Self::Steered {
                pool, counted_on, ..
            } => Some((*pool, *counted_on)),
            _ => None,
        }
    }

    /// The response head is there. `answer` is `None` if the host was not asked. `now_us` is 0 where it does not matter: it does if an attempt
    /// failed, and if the pool's method looks at latencies: the answer of the first server is timed; the time of a later one is not known, because it began with the others'.
    /// Only the first call counts. Returns the pool and the servers between which the request moved, if it did.
    pub fn answered(
        &mut self,
        policy: &mut Policy,
        answer: Option<Answer>,
        now_us: u64,
    ) -> Option<(usize, [usize; 2])> {
        let Self::Steered {
            pool: pool_index,
            choices,
            counted_on,
            sent_us,
            began: _,
            head: head @ HeadSeen::NotYet,
        } = self
        else {
            return None;
        };
        *head = HeadSeen::Yes;
        let pool = policy.pools_mut().get_mut(*pool_index)?;
        // Nothing is tried any more. Who stood by and answered counts as in flight below, before others are told.
        pool.let_go(choices);
        let answer = answer.filter(|answer| answer.attempts > 0)?;
        if answer.attempts == 1 && answer.last == LastAttempt::Answered {
            pool.answered(*counted_on, now_us.saturating_sub(*sent_us), now_us);
        }
        let used = usize::try_from(answer.attempts)
            .unwrap_or(usize::MAX)
            .min(choices.len());
        let failed = match answer.last {
            LastAttempt::Answered | LastAttempt::AnsweredBadly => used.saturating_sub(1),
            LastAttempt::Failed => used,
        };
        let quality = match answer.last {
            LastAttempt::AnsweredBadly => Quality::Bad,
            LastAttempt::Answered | LastAttempt::Failed => Quality::Good,
        };
        if now_us > 0 {
            pool.note_time(now_us);
        }
        pool.charge(choices, used, failed, quality);
        let answered_by = choices.get(used.saturating_sub(1))?;
        if answered_by == *counted_on {
            return None;
        }
        pool.ended(*counted_on);
        pool.began(answered_by);
        let moved = [*counted_on, answered_by];
        *counted_on = answered_by;
        Some((*pool_index, moved))
    }

    /// It is over; every further call does nothing. Returns the pool and the server on which it was in flight.
    pub fn finish(&mut self, policy: &mut Policy) -> Option<(usize, usize)> {
        let was = std::mem::replace(self, Self::Finished);
        let (index, server) = was.in_flight_on()?;
        if let Some(pool) = policy.pools_mut().get_mut(index) {
            if let Some((_, choices, _)) = was.awaiting() {
                pool.let_go(&choices);
            }
            pool.ended(server);
        }
        Some((index, server))
    }
}
