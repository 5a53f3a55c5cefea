//! Two servers drawn by weight, the less busy of the two, exactly as IPVS `twos` (`net/netfilter/ipvs/ip_vs_twos.c`).
//!
//! Not nginx's `random two`: draws are made among those that can be chosen only, both may hit the same server, of equals the
//! first draw wins, and the points drawn from include the sum of the weights itself, so that the first server has one more.

use super::ipvs_least_conn::overhead;
use super::load_per_weight::LoadPerWeight;
use super::weights::Weights;
use super::{Balancer, Charge, Choices, Question, ServerMask, Share};

/// Keeps nothing but weights.
#[derive(Debug, Default)]
pub(super) struct IpvsTwoChoices {
    weights: Weights,
}

impl Balancer for IpvsTwoChoices {
    fn rebuild(&mut self, servers: &[Share<'_>], _eligible: &ServerMask, _start: u32) {
        self.weights.rebuild(servers);
    }

    fn pick(&mut self, question: &mut Question<'_>, choices: &mut Choices) {
        let of_group = question.left(choices);
        let mut sum: u64 = of_group
            .filter_map(|server| self.weights.get(server))
            .map(u64::from)
            .sum();
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
        let mut fallen: [Option<(usize, LoadPerWeight)>; 2] = [None; 2];
        let mut passed = 0;
        for server in question.left(choices) {
            let weight = self.weights.get(server)?;
            passed += u64::from(weight);
            for (place, point) in fallen.iter_mut().zip(points) {
                if place.is_none() && point <= passed {
                    let load = overhead(question, server);
                    *place = Some((server, LoadPerWeight { load, weight }));
                }
            }
            if fallen.iter().all(Option::is_some) {
                break;
            }
        }
        let [(first, first_load), (second, second_load)] = match fallen {
            [Some(first), Some(second)] => [first, second],
            _ => return None,
        };
        Some(if first_load > second_load {
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
