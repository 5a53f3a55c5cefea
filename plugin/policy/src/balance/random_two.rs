//! Two servers drawn by weight, the less busy of the two (nginx `random two least_conn`, `ngx_http_upstream_get_random2_peer`).
//!
//! Two draws are enough to stay clear of the busiest server, and, unlike looking for the least busy of all, many balancers that
//! look at the same old figures do not all run to the same server. Between equals the second draw wins.

use super::round_robin::Turns;
use super::{Advance, Balancer, Charge, Choices, Question, ServerMask, Share};
use crate::random::Sequence;

/// Draws by weight over all servers that find none that may be chosen, after which turns decide (nginx's figure).
const TRIES_MAX: usize = 20;

/// Ranges of the weights, to draw from.
#[derive(Debug, Default)]
pub(super) struct RandomTwo {
    /// Where each server's range ends: the sum of the weights up to it.
    ends: Vec<u64>,
    turns: Turns,
}

impl Balancer for RandomTwo {
    fn rebuild(&mut self, servers: &[Share], eligible: &ServerMask, start: u32) {
        let mut sum = 0;
        let ends = servers.iter().take(ServerMask::SERVERS_MAX).map(|share| {
            sum += u64::from(share.weight);
            sum
        });
        self.ends = ends.collect();
        self.turns.rebuild(servers, eligible, start);
    }

    fn pick(&mut self, question: &mut Question<'_>, choices: &mut Choices) {
        let mut left = question.eligible;
        choices.iter().for_each(|server| left.remove(server));
        // Each round takes one server out of `left`.
        while !choices.is_full() && !left.is_empty() {
            let Some(chosen) = self.better_of_two(&left, question.in_flight, question.random)
            else {
                if question.advance == Advance::First && choices.is_empty() {
                    self.turns.fill(&left, Advance::First, choices);
                } else {
                    self.turns.look_ahead(left, choices);
                }
                return;
            };
            left.remove(chosen);
            choices.push(chosen);
        }
    }

    fn charge(&mut self, charge: &Charge) {
        if let Charge::Failed { .. } = charge {
            self.turns.charge(charge);
        }
    }
}

impl RandomTwo {
    /// `None` if the draws found nobody.
    fn better_of_two(
        &self,
        left: &ServerMask,
        in_flight: &[u32],
        random: &mut Sequence,
    ) -> Option<usize> {
        let mut first: Option<usize> = None;
        for _ in 0..TRIES_MAX {
            let Some(drawn) = self.draw(random) else {
                break;
            };
            if !left.contains(drawn) {
                continue;
            }
            let Some(previous) = first else {
                first = Some(drawn);
                if left.count() == 1 {
                    break;
                }
                continue;
            };
            if previous == drawn {
                continue;
            }
            let busy = |server: usize| in_flight.get(server).map_or(0, |count| i64::from(*count));
            let second_is_busier = busy(drawn) * self.turns.weight(previous)
                > busy(previous) * self.turns.weight(drawn);
            return Some(if second_is_busier { previous } else { drawn });
        }
        first
    }

    /// A server with the probability of its share of the weights.
    fn draw(&self, random: &mut Sequence) -> Option<usize> {
        let sum = *self.ends.last()?;
        let point = random.below(sum);
        Some(self.ends.partition_point(|end| *end <= point))
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
        let mut group = Group::new(Algorithm::RandomTwo, &[10, 1]);
        group.in_flight = vec![9, 1];
        assert!(
            group.picks(200).into_iter().all(|server| server == 0),
            "9/10 is less than 1/1"
        );
    }
}
