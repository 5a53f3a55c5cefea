//! The weights of those who can be chosen, summed up by words of the mask, so that a point on the line of weights is found without going
//! through everybody.
//!
//! ```text
//!   words of the mask        0…63      64…127     128…191
//!   sums                     |--190--|  |--0--|   |---203---|
//!   a point at 200                                  ^ only these are gone through
//! ```
//!
//! Who can be chosen changes rarely, and then in few words: only those are summed up anew. Nothing is decided otherwise than by going
//! through all of them, and in the same order.

use super::weights::Weights;
use super::{Choices, Question, ServerMask};

/// What was summed up last.
#[derive(Debug, Default)]
pub(super) struct WeightSums {
    /// By word: who was in it, and their sum. The sum of 64 weights fits.
    words: Vec<(u64, u32)>,
}

impl WeightSums {
    /// Forgets everything, as when weights have changed.
    pub(super) fn forget(&mut self) {
        self.words.clear();
    }

    /// Makes the sums those of `eligible`; the sum of all. Every eligible server has a weight.
    pub(super) fn update(&mut self, eligible: &ServerMask, weights: &Weights) -> u64 {
        self.words.resize(eligible.words().len(), (0, 0));
        let mut all = 0;
        for ((place, word), (known, sum)) in (0..).zip(eligible.words()).zip(&mut self.words) {
            if known != word {
                *known = *word;
                *sum = ServerMask::servers_of(place, *word)
                    .filter_map(|server| weights.get(server))
                    .map(u32::from)
                    .sum();
            }
            all += u64::from(*sum);
        }
        all
    }

    /// On whom each point falls: the first server with whom the weights so far come to at least as much; `None` beyond the sum of all. Who
    /// was chosen is passed over. The sums must be those of the question.
    pub(super) fn find<const POINTS: usize>(
        &self,
        points: [u64; POINTS],
        question: &Question<'_>,
        (choices, weights): (&Choices, &Weights),
    ) -> [Option<usize>; POINTS] {
        let mut fallen = [None; POINTS];
        let mut passed = 0;
        for (place, (word, sum)) in self.words.iter().enumerate() {
            let chosen = choices.iter().filter(|chosen| {
                ServerMask::word_of(*chosen) == place && question.eligible.contains(*chosen)
            });
            let chosen: u32 = chosen
                .filter_map(|chosen| weights.get(chosen))
                .map(u32::from)
                .sum();
            let end = passed + u64::from(sum.saturating_sub(chosen));
            let is_here =
                |(fallen, point): (&Option<usize>, &u64)| fallen.is_none() && *point <= end;
            if fallen.iter().zip(&points).any(is_here) {
                let of_word = ServerMask::servers_of(place, *word);
                for server in of_word.filter(|server| !choices.contains(*server)) {
                    passed += weights.get(server).map_or(0, u64::from);
                    for (fallen, point) in fallen.iter_mut().zip(points) {
                        if fallen.is_none() && point <= passed {
                            *fallen = Some(server);
                        }
                    }
                }
                if fallen.iter().all(Option::is_some) {
                    break;
                }
            }
            passed = end;
        }
        fallen
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::laws::shares;
    use super::*;
    use crate::balance::{Advance, Facts};
    use crate::random::Sequence;

    #[test]
    fn points_fall_where_they_fall_when_everybody_is_gone_through() {
        proptest!(|(weights in proptest::collection::vec(1u16..400, 1..300), seed: u64)| {
            let mut random = Sequence::new(seed);
            let mut known = Weights::default();
            known.rebuild(&shares(&weights));
            let mut sums = WeightSums::default();
            let mut eligible = ServerMask::none(weights.len());
            for _ in 0..8 {
                for server in 0..weights.len() {
                    match random.below(6) {
                        0 => eligible.insert(server),
                        1 => eligible.remove(server),
                        _ => {}
                    }
                }
                let all = sums.update(&eligible, &known);
                let mut choices = Choices::with_limit(3);
                eligible.iter().filter(|server| server % 3 == 1).for_each(|server| choices.push(server));
                let question = Question {
                    eligible: &eligible,
                    in_flight: &[],
                    idle: &[],
                    latency: &[],
                    now_us: 0,
                    facts: &Facts::default(),
                    random: &mut random.clone(),
                    advance: Advance::First,
                };
                let left: Vec<usize> = question.left(&choices).collect();
                let point = |random: &mut Sequence| random.below(all + 2);
                let points = [0, point(&mut random), point(&mut random)];
                let expected = points.map(|point| {
                    let mut passed = 0;
                    left.iter().copied().find(|server| {
                        passed += u64::from(weights[*server]);
                        point <= passed
                    })
                });
                prop_assert_eq!(all, eligible.iter().map(|server| u64::from(weights[server])).sum::<u64>());
                prop_assert_eq!(sums.find(points, &question, (&choices, &known)), expected);
            }
        });
    }
}
