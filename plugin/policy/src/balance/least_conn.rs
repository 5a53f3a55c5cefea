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
        self.least.charge(charge);
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
            let mut least: Option<LoadPerWeight> = None;
            self.equals.clear();
            for server in question.left(choices) {
                let weight = self.turns.weight(server);
                if weight == 0 {
                    break;
                }
                let load = load(server);
                let rank = LoadPerWeight { load, weight };
                // Nobody is less busy than who is idle, whatever the weights: no products then.
                if least.is_some_and(|least| least.load == 0) {
                    if load == 0 {
                        self.equals.push(server);
                    }
                    continue;
                }
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
            let advance = match self.equals.as_slice() {
                [] => return,
                [_] => Advance::Nothing,
                _ => question.advance,
            };
            let equals = self.equals.iter().copied();
            self.turns.fill_among(equals, advance, choices);
        }
    }

    pub(super) fn charge(&mut self, charge: &Charge<'_>) {
        // nginx moves positions only among equals, and who was equal then is not known any more: only failures count.
        if let Charge::Failed { .. } = charge {
            self.turns.charge(charge);
        }
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

    #[test]
    fn a_single_least_busy_server_moves_nobodys_position() {
        let mut group = Group::new(Algorithm::LeastConn, &[1, 1]);
        group.in_flight = vec![1, 0];
        assert_eq!(letters(&group.picks(3)), "BBB");
        group.in_flight = vec![0, 0];
        assert_eq!(letters(&group.picks(2)), "AB");
    }
}
