//! The server with the greatest weight until it has more requests in flight than its weight, then the next, exactly as IPVS
//! `ovf` (`net/netfilter/ipvs/ip_vs_ovf.c`).
//!
//! A weight is both a place in the order and a number of requests. A server overflows when it has *more* in flight than its weight,
//! so it holds one more than that. Of equal weights the first wins.
//!
//! # Why something is chosen when all have overflowed
//! The kernel then drops the connection. A proxy that answered 503 with every server alive would be worse than a pool without
//! limits (`max_conns` is the limit), so those that have overflowed come after all others, the least busy for its weight first.

use std::cmp::Reverse;

use super::leaders::fill_lowest;
use super::load_per_weight::LoadPerWeight;
use super::weights::Weights;
use super::{Balancer, Charge, Choices, Question, ServerMask, Share};

/// Keeps nothing but weights.
#[derive(Debug, Default)]
pub(super) struct WeightedOverflow {
    weights: Weights,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Room(Reverse<u16>),
    Overflowed(LoadPerWeight),
}

impl Default for Rank {
    fn default() -> Self {
        Self::Room(Reverse(0))
    }
}

impl Balancer for WeightedOverflow {
    fn rebuild(&mut self, servers: &[Share<'_>], _eligible: &ServerMask, _start: u32) {
        self.weights.rebuild(servers);
    }

    fn pick(&mut self, question: &mut Question<'_>, choices: &mut Choices) {
        fill_lowest(question, choices, |server| {
            let weight = self.weights.get(server)?;
            let active = question.active(server);
            Some(if active > u32::from(weight) {
                let load = u64::from(active);
                Rank::Overflowed(LoadPerWeight { load, weight })
            } else {
                Rank::Room(Reverse(weight))
            })
        });
    }

    fn charge(&mut self, _charge: &Charge<'_>) {}
}

#[cfg(test)]
mod tests {
    use super::super::laws::{Group, letters};
    use crate::balance::Algorithm;

    #[track_caller]
    fn check(in_flight: &[u32], expected: &str) {
        let mut group = Group::new(Algorithm::WeightedOverflow, &[2, 3, 1]);
        group.in_flight = in_flight.to_vec();
        assert_eq!(
            letters(&group.choose(3)),
            expected,
            "in flight {in_flight:?}"
        );
    }

    #[test]
    fn a_server_holds_one_more_than_its_weight() {
        check(&[0, 0, 0], "BAC");
        check(&[0, 3, 0], "BAC");
        check(&[0, 4, 0], "ACB");
        check(&[3, 4, 1], "CBA");
        check(&[2, 4, 2], "ABC");
    }

    #[test]
    fn when_all_have_overflowed_the_least_busy_for_its_weight_comes_first() {
        check(&[4, 5, 2], "BAC");
    }
}
