//! The server with the fewest requests in flight for its weight, exactly as nginx (`ngx_http_upstream_get_least_conn_peer`).
//!
//! Loads are compared by cross-multiplication, without division. Among equals (all idle servers, most of the time) it goes by
//! smooth weighted round robin of the equals alone, so that weights hold also when nobody is busy.

use std::cmp::Ordering;

use super::load_per_weight::LoadPerWeight;
use super::round_robin::Turns;
use super::{Advance, Balancer, Charge, Choices, Question, ServerMask, Share};

/// Ties are broken in turns.
#[derive(Debug, Default)]
pub(super) struct LeastConn {
    least: LeastLoad,
}

impl Balancer for LeastConn {
    fn rebuild(&mut self, servers: &[Share<'_>], eligible: &ServerMask, start: u32) {
        self.least.rebuild(servers, eligible, start);
    }

    fn reweigh(&mut self, servers: &[Share<'_>], _eligible: &ServerMask) {
        self.least.reweigh(servers);
    }

    fn pick(&mut self, question: &mut Question<'_>, choices: &mut Choices) {
        self.least.fill(question, choices, |server| {
            u64::from(question.active(server))
        });
    }

    fn charge(&mut self, charge: &Charge<'_>) {
        match charge {
            Charge::Failed { .. } => self.least.failed(charge),
            Charge::Used {
                server,
                tried,
                eligible,
                in_flight,
            } => self
                .least
                .used(*server, eligible.iter_without(tried), |server| {
                    u64::from(in_flight.get(server).copied().unwrap_or(0))
                }),
        }
    }
}

/// Those of the least load for their weight, equals in turns, as nginx has it for connections and for times.
#[derive(Debug, Default)]
pub(super) struct LeastLoad {
    turns: Turns,
    /// Those that are equal, while they are looked for: kept between requests to spare an allocation.
    equals: Vec<usize>,
}

impl LeastLoad {
    pub(super) fn rebuild(&mut self, servers: &[Share<'_>], eligible: &ServerMask, start: u32) {
        self.turns.rebuild(servers, eligible, start);
        self.equals = Vec::with_capacity(servers.len());
    }

    pub(super) fn reweigh(&mut self, servers: &[Share<'_>]) {
        self.turns.reweigh(servers);
    }

    /// Fills `choices`; turns move only among equals. A server's load is below 2⁴⁸.
    pub(super) fn fill(
        &mut self,
        question: &Question<'_>,
        choices: &mut Choices,
        load: impl Fn(usize) -> u64,
    ) {
        // Ends: each round appends at least one server.
        while !choices.is_full() {
            self.find_equals(question.left(choices), &load);
            let advance = match self.equals.as_slice() {
                [] => return,
                [_] => Advance::Nothing,
                _ => question.advance,
            };
            let equals = self.equals.iter().copied();
            self.turns.fill_among(equals, advance, choices);
        }
    }

    /// Finds those of the least load for their weight.
    fn find_equals(&mut self, left: impl Iterator<Item = usize>, load: impl Fn(usize) -> u64) {
        let mut least: Option<LoadPerWeight> = None;
        self.equals.clear();
        for server in left {
            let weight = self.turns.weight(server);
            if weight == 0 {
                break;
            }
            let load = load(server);
            let rank = LoadPerWeight { load, weight };
            match least.map_or(Ordering::Less, |least| rank.cmp(&least)) {
                Ordering::Less => {
                    least = Some(rank);
                    self.equals.clear();
                    self.equals.push(server);
                }
                Ordering::Equal => self.equals.push(server),
                Ordering::Greater => {}
            }
        }
    }

    /// One of `left` was used after others had failed: nginx would have picked it then, and moved the positions of those that were
    /// equal. Who was is not known any more, but who is now.
    fn used(
        &mut self,
        server: usize,
        left: impl Iterator<Item = usize>,
        load: impl Fn(usize) -> u64,
    ) {
        self.find_equals(left, load);
        if self.equals.len() > 1 && self.equals.contains(&server) {
            self.turns.used_among(server, self.equals.iter().copied());
        }
    }

    pub(super) fn failed(&mut self, charge: &Charge<'_>) {
        self.turns.charge(charge);
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::{Group, letters};
    use crate::balance::Algorithm;

    #[track_caller]
    fn check(weights: &[u16], in_flight: &[u32], expected: &str) {
        let mut group = Group::new(Algorithm::LeastConn, weights);
        group.in_flight = in_flight.to_vec();
        assert_eq!(
            letters(&group.choose(3)),
            expected,
            "weights {weights:?}, in flight {in_flight:?}"
        );
    }

    #[test]
    fn the_least_busy_for_its_weight_comes_first() {
        check(&[1, 1, 1], &[2, 1, 3], "BAC");
        check(&[5, 1], &[4, 1], "AB");
        check(&[5, 1], &[6, 1], "BA");
        check(&[1, 1, 1], &[0, 0, 0], "ABC");
        check(&[2, 3, 1], &[2, 3, 1], "BAC");
    }

    #[test]
    fn idle_servers_go_round_by_weight() {
        let mut group = Group::new(Algorithm::LeastConn, &[5, 1, 1]);
        assert_eq!(letters(&group.picks(7)), "AABACAA");
    }

    /// nginx after A failed: B and C are equal still, so that both move; and neither does where one is less busy.
    #[test]
    fn a_stand_by_that_was_used_moves_those_who_were_equal() {
        let mut group = Group::new(Algorithm::LeastConn, &[1, 1, 1]);
        let choices = group.choose(3);
        assert_eq!(letters(&choices), "ABC");
        group.charge_used(&choices, 1);
        // After A: -2 1 1. B with A left out: -2 0 2. Then as in turns.
        assert_eq!(letters(&group.picks(4)), "CBCA");
        group.in_flight = vec![1, 0, 1];
        group.charge_used(&[0, 1], 1);
        group.in_flight = vec![0; 3];
        assert_eq!(letters(&group.picks(3)), "BCA");
    }

    #[test]
    fn a_single_least_busy_server_moves_nobodys_position() {
        let mut group = Group::new(Algorithm::LeastConn, &[1, 1]);
        group.in_flight = vec![1, 0];
        assert_eq!(letters(&group.picks(3)), "BBB");
        group.in_flight = vec![0, 0];
        assert_eq!(letters(&group.picks(2)), "AB");
    }
}
