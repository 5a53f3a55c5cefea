//! Everything to the server with the greatest weight, exactly as IPVS `fo` (`net/netfilter/ipvs/ip_vs_fo.c`).
//!
//! Weights are not shares here but the order of succession: the next one takes over when those before it cannot be chosen. The
//! first of equals wins.

use std::cmp::Reverse;

use super::leaders::fill_lowest;
use super::weights::Weights;
use super::{Balancer, Charge, Choices, Question, ServerMask, Share};

/// Keeps nothing but weights.
#[derive(Debug, Default)]
pub(super) struct WeightedFailover {
    weights: Weights,
}

impl Balancer for WeightedFailover {
    fn rebuild(&mut self, servers: &[Share<'_>], _eligible: &ServerMask, _start: u32) {
        self.weights.rebuild(servers);
    }

    fn pick(&mut self, question: &mut Question<'_>, choices: &mut Choices) {
        fill_lowest(question, choices, |server| {
            self.weights.get(server).map(Reverse)
        });
    }

    fn charge(&mut self, _charge: &Charge<'_>) {}
}

#[cfg(test)]
mod tests {
    use super::super::laws::{Group, letters};
    use crate::balance::Algorithm;

    #[test]
    fn weights_are_the_order_of_succession() {
        let mut group = Group::new(Algorithm::WeightedFailover, &[1, 3, 2, 3]);
        group.in_flight = vec![0, 100, 0, 0];
        assert_eq!(letters(&group.choose(4)), "BDCA");
        assert_eq!(letters(&group.picks(3)), "BBB");
        group.eligible.remove(1);
        group.eligible.remove(3);
        assert_eq!(letters(&group.picks(3)), "CCC");
    }
}
