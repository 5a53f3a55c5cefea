//! Requests outstanding, as nginx-upstream-fair meant it (`ngx_http_upstream_fair_module.c`, its default weight mode).
//!
//! Idle servers are taken in turns, beginning after the one taken last. When nobody is idle, everybody has a score: requests in
//! flight above all, and below them, the longer ago the server's last request was, the less; divided by a weight that goes down
//! by one with each request and starts over after 0. The lowest score wins, of equals the last one looked at.
//!
//! The original never measured time, whatever is said of it. It is followed as intended: in its last version counting was left
//! out of builds without debugging, and a sign extension drowned the requests in flight; neither is copied. Whoever failed
//! lately is not chosen because it is not eligible, so failures do not cut weights here.

use std::cmp::Reverse;

use super::leaders::fill_lowest;
use super::{Advance, Balancer, Charge, Choices, Question, ServerMask, Share};

/// Bits of a score below the requests in flight.
const AGE_BITS: u32 = 20;
const AGE_MAX: u64 = (1 << AGE_BITS) - 1;

/// What was given to whom, and when.
#[derive(Debug, Default)]
pub(super) struct Fair {
    servers: Vec<Given>,
    /// Requests so far: the clock of this method.
    requests: u64,
    /// Where looking begins: after the server that was taken last.
    next: usize,
}

#[derive(Debug, Clone, Copy)]
struct Given {
    /// When it was given a request last.
    last_request: u64,
    weight: u16,
    weight_left: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// By distance from where looking begins.
    Idle(usize),
    Busy(u64, Reverse<usize>),
}

impl Default for Rank {
    fn default() -> Self {
        Self::Idle(0)
    }
}

impl Balancer for Fair {
    fn rebuild(&mut self, servers: &[Share<'_>], _eligible: &ServerMask, start: u32) {
        let given = |share: &Share<'_>| Given {
            last_request: 0,
            weight: share.weight,
            weight_left: share.weight,
        };
        let servers = servers.iter().take(ServerMask::SERVERS_MAX);
        self.servers = servers.map(given).collect();
        self.requests = 0;
        let start = usize::try_from(start).unwrap_or(0);
        self.next = start.checked_rem(self.servers.len()).unwrap_or(0);
    }

    fn reweigh(&mut self, servers: &[Share<'_>], _eligible: &ServerMask) {
        for (given, share) in self.servers.iter_mut().zip(servers) {
            given.weight = share.weight;
            given.weight_left = given.weight_left.min(share.weight);
        }
    }

    fn pick(&mut self, question: &mut Question<'_>, choices: &mut Choices) {
        let picks = question.advance == Advance::First && choices.is_empty();
        if picks {
            self.requests += 1;
        }
        fill_lowest(question, choices, |server| self.rank(question, server));
        if picks && let Some(picked) = choices.get(0) {
            self.give(picked);
        }
    }

    fn charge(&mut self, charge: &Charge<'_>) {
        if let Charge::Used { server, .. } = charge {
            self.give(*server);
        }
    }
}

impl Fair {
    fn rank(&self, question: &Question<'_>, server: usize) -> Option<Rank> {
        let given = self.servers.get(server)?;
        let distance = match server.checked_sub(self.next) {
            Some(distance) => distance,
            None => server + self.servers.len().saturating_sub(self.next),
        };
        let active = u64::from(question.active(server));
        if active == 0 {
            return Some(Rank::Idle(distance));
        }
        let age = self
            .requests
            .saturating_sub(given.last_request)
            .min(AGE_MAX);
        let score = (active << AGE_BITS) | (AGE_MAX - age);
        let score = score
            .checked_div(u64::from(given.weight_left))
            .unwrap_or(score);
        Some(Rank::Busy(score, Reverse(distance)))
    }

    fn give(&mut self, server: usize) {
        let Some(given) = self.servers.get_mut(server) else {
            return;
        };
        given.last_request = self.requests;
        given.weight_left = given.weight_left.checked_sub(1).unwrap_or(given.weight);
        self.next = (server + 1).checked_rem(self.servers.len()).unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::{Group, letters};
    use crate::balance::Algorithm;

    #[test]
    fn idle_servers_take_turns_whatever_their_weight() {
        let mut group = Group::new(Algorithm::Fair, &[5, 1, 1]);
        assert_eq!(letters(&group.picks(5)), "ABCAB");
        group.in_flight = vec![0, 0, 1];
        assert_eq!(letters(&group.picks(4)), "ABAB");
        let choices = group.choose(3);
        assert_eq!(letters(&choices), "ABC");
        group.charge_used(&choices, 1);
        assert_eq!(letters(&group.choose(3)), "ABC");
    }

    #[test]
    fn of_busy_servers_the_one_with_fewer_in_flight_for_its_weight_comes_first() {
        let mut group = Group::new(Algorithm::Fair, &[4, 4, 1]);
        group.in_flight = vec![2, 1, 1];
        // 2/4, 1/4, 1/1.
        assert_eq!(letters(&group.choose(3)), "BAC");
    }

    /// Scores with nobody idle, one in flight each, weights 2 and 1: A 1/2, B 1/1. Then A has weight 1 left and was used just now.
    #[test]
    fn weights_wear_off_with_requests_and_start_over() {
        let mut group = Group::new(Algorithm::Fair, &[2, 1]);
        group.in_flight = vec![1, 1];
        // A (2 left → 1); the older of the two is B; (1 → 0 left, so 1/1 undivided); A; …
        assert_eq!(letters(&group.picks(6)), "ABABAA");
    }
}
