//! Weighted round robin as IPVS does it: `wrr` (`net/netfilter/ipvs/ip_vs_wrr.c`), interleaved and not smooth.
//!
//! A required weight goes down from the greatest weight to 1 in steps of the weights' greatest common divisor, and in each pass
//! everybody who has at least that weight gets one turn. Heavy servers therefore come in a row at the beginning of a round:
//! weights 5 and 3 give AAABABAB, where nginx gives ABAABABA.
//!
//! Who cannot be chosen is passed over, as IPVS passes over those that are overloaded; the steps stay the same.

use super::weights::Weights;
use super::{Advance, Balancer, Charge, Choices, Question, ServerMask, Share};

/// Where the round is.
#[derive(Debug, Default)]
pub(super) struct WeightedRoundRobinIpvs {
    weights: Weights,
    /// The required weight of a round's first pass.
    greatest: u32,
    step: u32,
    place: Place,
}

/// A place in the round.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// Who is looked at next in this pass.
    next: usize,
    required: u32,
}

impl Balancer for WeightedRoundRobinIpvs {
    fn rebuild(&mut self, servers: &[Share<'_>], eligible: &ServerMask, start: u32) {
        self.weigh(servers);
        self.place = Place {
            next: 0,
            required: self.greatest,
        };
        let sum: u32 = eligible
            .iter()
            .filter_map(|server| self.weights.get(server))
            .map(u32::from)
            .sum();
        // Bounded by the number of VMs: `start` is a VM's slot.
        for _ in 0..start.checked_rem(sum).unwrap_or(0) {
            self.advance(eligible, &Choices::with_limit(1));
        }
    }

    fn reweigh(&mut self, servers: &[Share<'_>], _eligible: &ServerMask) {
        self.weigh(servers);
        let required = self.place.required;
        let required = if required == 0 || required > self.greatest {
            self.greatest
        } else if self.step > 1 {
            // One of the new steps: they all are one more than a multiple.
            (required / self.step * self.step + 1).min(self.greatest)
        } else {
            required
        };
        self.place = Place { next: 0, required };
    }

    fn pick(&mut self, question: &mut Question<'_>, choices: &mut Choices) {
        if question.advance == Advance::First
            && choices.is_empty()
            && let Some(server) = self.advance(question.eligible, choices)
        {
            choices.push(server);
        }
        let mut place = self.place;
        // Ends: each round appends one server.
        while !choices.is_full() {
            let Some((server, next)) = self.next(place, question.eligible, choices) else {
                return;
            };
            place = next;
            choices.push(server);
        }
    }

    fn charge(&mut self, charge: &Charge<'_>) {
        if let Charge::Used {
            tried, eligible, ..
        } = charge
        {
            self.advance(eligible, tried);
        }
    }
}

impl WeightedRoundRobinIpvs {
    fn weigh(&mut self, servers: &[Share<'_>]) {
        self.weights.rebuild(servers);
        let weights = || self.weights.iter().map(u32::from);
        self.step = weights().fold(0, greatest_common_divisor).max(1);
        self.greatest = weights().max().unwrap_or(0).saturating_sub(self.step - 1);
    }

    fn advance(&mut self, eligible: &ServerMask, tried: &Choices) -> Option<usize> {
        let (server, place) = self.next(self.place, eligible, tried)?;
        self.place = place;
        Some(server)
    }

    /// The next turn after a place, and the place after it. At most two passes over the group: one with the required weight as it
    /// is, and one with a weight that somebody has.
    fn next(&self, place: Place, eligible: &ServerMask, tried: &Choices) -> Option<(usize, Place)> {
        let find = |from: usize, required: u32| {
            let mut rest = eligible.iter_from(from);
            let found = rest.find(|server| {
                let weight = self.weights.get(*server).map_or(0, u32::from);
                weight >= required.max(1) && !tried.contains(*server)
            })?;
            let next = found + 1;
            Some((found, Place { next, required }))
        };
        find(place.next, place.required).or_else(|| {
            let left = eligible.iter().filter(|server| !tried.contains(*server));
            let heaviest = left.filter_map(|server| self.weights.get(server)).max()?;
            let lower = match place.required.checked_sub(self.step) {
                None | Some(0) => self.greatest,
                Some(lower) => lower,
            };
            // Passes in which nobody has the required weight are gone through at once.
            let empty_passes = lower
                .saturating_sub(u32::from(heaviest))
                .div_ceil(self.step);
            find(0, lower.saturating_sub(empty_passes * self.step))
        })
    }
}

/// Euclid's; at most 24 steps for weights.
fn greatest_common_divisor(mut one: u32, mut other: u32) -> u32 {
    while other > 0 {
        (one, other) = (other, one % other);
    }
    one
}

#[cfg(test)]
mod tests {
    use super::super::laws::{Group, letters};
    use crate::balance::Algorithm;

    #[test]
    fn heavy_servers_come_in_a_row() {
        for (weights, expected) in [
            (&[5, 3][..], "AAABABAB"),
            (&[5, 1, 1], "AAAAABC"),
            (&[4, 3, 2], "AABABCABC"),
            (&[4, 2], "AAB"),
            (&[7], "AAA"),
        ] {
            let mut group = Group::new(Algorithm::WeightedRoundRobinIpvs, weights);
            assert_eq!(
                letters(&group.picks(expected.len())),
                expected,
                "{weights:?}"
            );
            assert_eq!(letters(&group.picks(expected.len())), expected, "again");
        }
    }

    #[test]
    fn a_stand_by_that_was_used_has_had_its_turn() {
        let mut group = Group::new(Algorithm::WeightedRoundRobinIpvs, &[1, 1, 1]);
        let choices = group.choose(3);
        assert_eq!(letters(&choices), "ABC");
        group.charge_used(&choices, 1);
        assert_eq!(letters(&group.picks(2)), "CA");
    }

    #[test]
    fn begins_later_in_the_round_in_another_slot() {
        let mut group = Group::starting(Algorithm::WeightedRoundRobinIpvs, &[5, 3], 8 + 3);
        assert_eq!(letters(&group.picks(8)), "BABABAAA");
    }

    #[test]
    fn a_far_heavier_server_that_is_gone_costs_no_passes() {
        let mut group = Group::new(Algorithm::WeightedRoundRobinIpvs, &[65_535, 2, 1]);
        group.eligible.remove(0);
        assert_eq!(letters(&group.picks(30_000)), "BBC".repeat(10_000));
    }
}
