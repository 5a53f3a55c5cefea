//! An idle server if there is one, otherwise the shortest expected delay, exactly as IPVS `nq` (`net/netfilter/ipvs/ip_vs_nq.c`).
//!
//! The first idle server in the configuration is taken whatever its weight: a request that starts at once on a slow server is
//! better off than one that waits for a fast one.

use super::leaders::fill_lowest;
use super::load_per_weight::LoadPerWeight;
use super::weights::Weights;
use super::{Balancer, Charge, Choices, Question, ServerMask, Share};

/// Keeps nothing but weights.
#[derive(Debug, Default)]
pub(super) struct NeverQueue {
    weights: Weights,
}

impl Balancer for NeverQueue {
    fn rebuild(&mut self, servers: &[Share<'_>], _eligible: &ServerMask, _start: u32) {
        self.weights.rebuild(servers);
    }

    fn pick(&mut self, question: &mut Question<'_>, choices: &mut Choices) {
        fill_lowest(question, choices, |server| {
            let active = u64::from(question.active(server));
            // Nothing for its weight is the same for every weight, and less than any delay.
            let load = if active == 0 { 0 } else { active + 1 };
            let weight = self.weights.get(server)?;
            Some(LoadPerWeight { load, weight })
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
        let mut group = Group::new(Algorithm::NeverQueue, &[1, 2, 3]);
        group.in_flight = in_flight.to_vec();
        assert_eq!(
            letters(&group.choose(3)),
            expected,
            "in flight {in_flight:?}"
        );
    }

    #[test]
    fn the_first_idle_server_goes_before_every_busy_one() {
        check(&[0, 0, 0], "ABC");
        check(&[1, 0, 0], "BCA");
        check(&[1, 2, 0], "CBA");
        // Delays 2, 1.5 and 1.33 when nobody is idle.
        check(&[1, 2, 3], "CBA");
    }
}
