//! A server drawn by weight (nginx `random`, `ngx_http_upstream_get_random_peer`).
//!
//! Draws that find somebody who cannot be chosen are repeated; after more than 20 such draws in one request turns decide.

use super::ranges::Ranges;
use super::round_robin::Turns;
use super::{Balancer, Charge, Choices, Question, ServerMask, Share};

/// Draws of one request that find nobody who may be chosen, more than which let turns decide (nginx's figure).
const TRIES_MAX: usize = 20;

/// Ranges of the weights, to draw from.
#[derive(Debug, Default)]
pub(super) struct Random {
    ranges: Ranges,
    turns: Turns,
}

impl Balancer for Random {
    fn rebuild(&mut self, servers: &[Share<'_>], eligible: &ServerMask, start: u32) {
        self.ranges.rebuild(servers);
        self.turns.rebuild(servers, eligible, start);
    }

    fn reweigh(&mut self, servers: &[Share<'_>], _eligible: &ServerMask) {
        self.ranges.rebuild(servers);
        self.turns.reweigh(servers);
    }

    fn pick(&mut self, question: &mut Question<'_>, choices: &mut Choices) {
        let sum = u64::from(self.ranges.sum());
        let mut tries = 0;
        // Ends: each round appends a server or is one of `TRIES_MAX`.
        while tries <= TRIES_MAX && !choices.is_full() && question.eligible.count() > choices.len()
        {
            if let Some(last) = question
                .only_left(choices)
                .filter(|last| *last < self.ranges.len())
            {
                return choices.push(last);
            }
            let point = u32::try_from(question.random.below(sum)).unwrap_or(0);
            match self.ranges.at(point) {
                Some(server) if question.eligible.contains(server) && !choices.contains(server) => {
                    choices.push(server);
                }
                _ => tries += 1,
            }
        }
        self.turns
            .fill(question.eligible, question.advance, choices);
    }

    fn charge(&mut self, charge: &Charge<'_>) {
        if let Charge::Failed { .. } = charge {
            self.turns.charge(charge);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::Group;
    use crate::balance::Algorithm;

    #[test]
    fn the_share_of_a_server_that_is_down_goes_to_the_others_by_weight() {
        let mut group = Group::new(Algorithm::Random, &[3, 1, 4]);
        group.eligible.remove(2);
        let picks = group.picks(4_000);
        let first = picks.iter().filter(|server| **server == 0).count();
        // Three quarters, give or take four standard deviations.
        assert!((2_890..=3_110).contains(&first), "{first} of 4000");
    }

    #[test]
    fn when_draws_find_nobody_turns_decide() {
        let mut group = Group::new(Algorithm::Random, &[65_535, 1, 1]);
        group.eligible.remove(0);
        let picks = group.picks(1_000);
        let first = picks.iter().filter(|server| **server == 1).count();
        assert!((490..=510).contains(&first), "{first} of 1000 by turns");
    }
}
