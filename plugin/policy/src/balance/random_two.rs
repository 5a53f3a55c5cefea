//! Two servers drawn by weight, the less busy of the two (nginx `random two least_conn`, `ngx_http_upstream_get_random2_peer`).
//!
//! Two draws are enough to stay clear of the busiest server, and, unlike looking for the least busy of all, many balancers that
//! look at the same old figures do not all run to the same server. Between equals the second draw wins.

use super::load_per_weight::LoadPerWeight;
use super::ranges::Ranges;
use super::round_robin::Turns;
use super::{Balancer, Charge, Choices, Question, ServerMask, Share};

/// Draws of one request that settle nothing, more than which let turns decide (nginx's figure). The first of two draws is one.
const TRIES_MAX: u32 = 20;

/// Ranges of the weights, to draw from.
#[derive(Debug, Default)]
pub(super) struct RandomTwo {
    draws: TwoDraws,
}

impl Balancer for RandomTwo {
    fn rebuild(&mut self, servers: &[Share<'_>], eligible: &ServerMask, start: u32) {
        self.draws.rebuild(servers, eligible, start);
    }

    fn reweigh(&mut self, servers: &[Share<'_>], _eligible: &ServerMask) {
        self.draws.reweigh(servers);
    }

    fn pick(&mut self, question: &mut Question<'_>, choices: &mut Choices) {
        self.draws.fill(question, choices, |question, server| {
            u64::from(question.active(server))
        });
    }

    fn charge(&mut self, charge: &Charge<'_>) {
        self.draws.charge(charge);
    }
}

/// Two servers drawn by weight, of which the one with the lesser load for its weight is taken.
#[derive(Debug, Default)]
pub(super) struct TwoDraws {
    ranges: Ranges,
    turns: Turns,
}

impl TwoDraws {
    pub(super) fn rebuild(&mut self, servers: &[Share<'_>], eligible: &ServerMask, start: u32) {
        self.ranges.rebuild(servers);
        self.turns.rebuild(servers, eligible, start);
    }

    pub(super) fn reweigh(&mut self, servers: &[Share<'_>]) {
        self.ranges.rebuild(servers);
        self.turns.reweigh(servers);
    }

    /// Fills `choices`; a server's load is below 2⁴⁸.
    pub(super) fn fill(
        &mut self,
        question: &mut Question<'_>,
        choices: &mut Choices,
        load: impl Fn(&Question<'_>, usize) -> u64,
    ) {
        let mut tries = 0;
        // Ends: each round appends a server, or leaves the rest to turns.
        while !choices.is_full() && question.eligible.count() > choices.len() {
            if let Some(last) = question
                .only_left(choices)
                .filter(|last| *last < self.ranges.len())
            {
                return choices.push(last);
            }
            match self.better_of_two(question, choices, &mut tries, &load) {
                Some(chosen) => choices.push(chosen),
                None => {
                    return self
                        .turns
                        .fill(question.eligible, question.advance, choices);
                }
            }
        }
    }

    pub(super) fn charge(&mut self, charge: &Charge<'_>) {
        if let Charge::Failed { .. } = charge {
            self.turns.charge(charge);
        }
    }

    /// `None` if the draws came to an end before they found two.
    fn better_of_two(
        &self,
        question: &mut Question<'_>,
        choices: &Choices,
        tries: &mut u32,
        load: impl Fn(&Question<'_>, usize) -> u64,
    ) -> Option<usize> {
        let mut first: Option<usize> = None;
        // Ends: each round settles it or is one of `TRIES_MAX`.
        while *tries <= TRIES_MAX {
            *tries += 1;
            let point = question.random.below(u64::from(self.ranges.sum()));
            let drawn = self.ranges.at(u32::try_from(point).unwrap_or(0))?;
            if !question.eligible.contains(drawn) || choices.contains(drawn) {
                continue;
            }
            let Some(previous) = first else {
                first = Some(drawn);
                continue;
            };
            if previous == drawn {
                continue;
            }
            let rank = |server| LoadPerWeight {
                load: load(question, server),
                weight: self.turns.weight(server),
            };
            let second_is_busier = rank(drawn) > rank(previous);
            *tries -= 1;
            return Some(if second_is_busier { previous } else { drawn });
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::Group;
    use crate::balance::Algorithm;

    #[test]
    fn the_busiest_is_never_chosen_while_there_are_others() {
        let mut group = Group::new(Algorithm::RandomTwo, &[1, 1, 1]);
        group.in_flight = vec![9, 1, 1];
        let busiest = group
            .picks(1_000)
            .into_iter()
            .filter(|server| *server == 0)
            .count();
        // Only when twenty draws in a row were A.
        assert_eq!(busiest, 0);
    }

    #[test]
    fn weight_counts_in_comparing_loads() {
        let mut group = Group::new(Algorithm::RandomTwo, &[2, 1]);
        group.in_flight = vec![3, 2];
        let picks = group.picks(1_000);
        // Two thirds to the power of 20: draws that hit nobody else, so that turns decide.
        let heavier = picks.iter().filter(|server| **server == 0).count();
        assert!(heavier >= 995, "3/2 is less than 2/1: {heavier} of 1000");
    }
}
