//! The server on which one more request waits the least, exactly as IPVS `sed` (`net/netfilter/ipvs/ip_vs_sed.c`).
//!
//! The expected delay is (requests in flight + 1) / weight: the request to be placed counts already, so an idle fast server is
//! better than an idle slow one. Idle connections do not count. The first of equals wins.

use super::leaders::fill_lowest;
use super::load_per_weight::LoadPerWeight;
use super::weights::Weights;
use super::{Balancer, Charge, Choices, Question, ServerMask, Share};

/// Keeps nothing but weights.
#[derive(Debug, Default)]
pub(super) struct ShortestExpectedDelay {
    weights: Weights,
}

impl Balancer for ShortestExpectedDelay {
    fn rebuild(&mut self, servers: &[Share<'_>], _eligible: &ServerMask, _start: u32) {
        self.weights.rebuild(servers);
    }

    fn pick(&mut self, question: &mut Question<'_>, choices: &mut Choices) {
        fill_lowest(question, choices, |server| {
            Some(LoadPerWeight {
                weight: self.weights.get(server)?,
                load: u64::from(question.active(server)) + 1,
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
    fn check(weights: &[u16], in_flight: &[u32], expected: &str) {
        let mut group = Group::new(Algorithm::ShortestExpectedDelay, weights);
        group.in_flight = in_flight.to_vec();
        assert_eq!(
            letters(&group.choose(3)),
            expected,
            "weights {weights:?}, in flight {in_flight:?}"
        );
    }

    #[test]
    fn the_request_to_be_placed_counts() {
        // Delays 2, 1.5 and 1.33.
        check(&[1, 2, 3], &[1, 2, 3], "CBA");
        // Delays 1, 0.5 and 0.33: the fast one first even when nobody is busy.
        check(&[1, 2, 3], &[0, 0, 0], "CBA");
        // 1, 1, 1.
        check(&[1, 2, 3], &[0, 1, 2], "ABC");
        check(&[1, 2, 3], &[0, 2, 9], "ABC");
    }
}
