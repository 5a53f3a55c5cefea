//! Two servers drawn by weight, the less busy of the two, exactly as IPVS `twos` (`net/netfilter/ipvs/ip_vs_twos.c`).
//!
//! Not nginx's `random two`: draws are made among those that can be chosen only, both may hit the same server, of equals the
//! first draw wins, and the points drawn from include the sum of the weights itself, so that the first server has one more.

use super::ipvs_least_conn::overhead;
use super::load_per_weight::LoadPerWeight;
use super::weight_sums::WeightSums;
use super::weights::Weights;
use super::{Balancer, Charge, Choices, Question, ServerMask, Share};

/// Keeps nothing but weights.
#[derive(Debug, Default)]
pub(super) struct IpvsTwoChoices {
    weights: Weights,
    sums: WeightSums,
}

impl Balancer for IpvsTwoChoices {
    fn rebuild(&mut self, servers: &[Share<'_>], _eligible: &ServerMask, _start: u32) {
        self.weights.rebuild(servers);
        self.sums.forget();
    }

    fn pick(&mut self, question: &mut Question<'_>, choices: &mut Choices) {
        let mut sum = self.sums.update(question.eligible, &self.weights);
        for chosen in choices
            .iter()
            .filter(|chosen| question.eligible.contains(*chosen))
        {
            sum = sum.saturating_sub(self.weights.get(chosen).map_or(0, u64::from));
        }
        // Ends: each round takes a server's weight out of the sum.
        while !choices.is_full() && sum > 0 {
            let points = [(); 2].map(|()| question.random.below(sum + 1));
            let Some(chosen) = self.better_of(points, question, choices) else {
                return;
            };
            sum = sum.saturating_sub(self.weights.get(chosen).map_or(0, u64::from));
            choices.push(chosen);
        }
    }

    fn charge(&mut self, _charge: &Charge<'_>) {}
}

impl IpvsTwoChoices {
    /// The better of those on whom the points fall.
    fn better_of(
        &self,
        points: [u64; 2],
        question: &Question<'_>,
        choices: &Choices,
    ) -> Option<usize> {
        let fallen = self.sums.find(points, question, (choices, &self.weights));
        let [Some(first), Some(second)] = fallen else {
            return None;
        };
        let load = |server| {
            let (load, weight) = (overhead(question, server), self.weights.get(server)?);
            Some(LoadPerWeight { load, weight })
        };
        Some(if load(first)? > load(second)? {
            second
        } else {
            first
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::Group;
    use crate::balance::Algorithm;

    #[test]
    fn the_busiest_is_chosen_only_when_both_draws_hit_it() {
        let mut group = Group::new(Algorithm::IpvsTwoChoices, &[1, 1, 1]);
        group.in_flight = vec![1, 9, 1];
        let picks = group.picks(16_000);
        let busiest = picks.iter().filter(|server| **server == 1).count();
        // One point of 0, 1, 2, 3 is the second server's: one draw of two in sixteen hits it twice.
        assert!((850..=1_150).contains(&busiest), "{busiest} of 16000");
    }

    #[test]
    fn the_first_server_has_one_point_more() {
        let mut group = Group::new(Algorithm::IpvsTwoChoices, &[1, 1]);
        let picks = group.picks(9_000);
        let first = picks.iter().filter(|server| **server == 0).count();
        assert!(
            (5_800..=6_200).contains(&first),
            "{first} of 9000: two points of three"
        );
    }
}
