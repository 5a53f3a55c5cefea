//! The server with the fewest connections for its weight, exactly as IPVS `wlc` (`net/netfilter/ipvs/ip_vs_wlc.c`).
//!
//! IPVS's own default. Unlike nginx's `least_conn` the first of equals wins, always: 1, 2 and 3 connections on weights 1, 2 and
//! 3 are equal, and the server of weight 1 is chosen.

use super::ipvs_least_conn::overhead;
use super::leaders::fill_lowest;
use super::load_per_weight::LoadPerWeight;
use super::weights::Weights;
use super::{Balancer, Charge, Choices, Question, ServerMask, Share};

/// Keeps nothing but weights.
#[derive(Debug, Default)]
pub(super) struct WeightedLeastConn {
    weights: Weights,
}

impl Balancer for WeightedLeastConn {
    fn rebuild(&mut self, servers: &[Share<'_>], _eligible: &ServerMask, _start: u32) {
        self.weights.rebuild(servers);
    }

    fn pick(&mut self, question: &mut Question<'_>, choices: &mut Choices) {
        fill_lowest(question, choices, |server| {
            Some(LoadPerWeight {
                weight: self.weights.get(server)?,
                load: overhead(question, server),
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
    fn check(weights: &[u16], in_flight: &[u32], idle: &[u32], expected: &str) {
        let mut group = Group::new(Algorithm::WeightedLeastConn, weights);
        group.in_flight = in_flight.to_vec();
        group.idle = idle.to_vec();
        assert_eq!(
            letters(&group.choose(3)),
            expected,
            "weights {weights:?}, in flight {in_flight:?}, idle {idle:?}"
        );
    }

    #[test]
    fn the_first_of_equals_wins_always() {
        check(&[1, 2, 3], &[1, 2, 3], &[], "ABC");
        check(&[1, 2, 3], &[0, 0, 0], &[], "ABC");
        check(&[1, 2, 3], &[1, 2, 2], &[], "CAB");
        check(&[1, 2, 3], &[1, 1, 2], &[], "BCA");
        check(&[1, 2, 3], &[1, 2, 3], &[1, 1, 1], "CBA");
    }
}
