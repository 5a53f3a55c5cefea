//! Highest random weight: every server draws a number for the key, and the best draw for its weight has it (Thaler and
//! Ravishankar 1998; [`super::weighted_score`] has the weights). A server that comes or goes moves only its own keys, those
//! of one that is down are spread over all others by their weights, and there is no table: the price is to ask everybody, in
//! one pass.
//!
//! Draws hang on the ids of servers, not on their places or addresses. A key that is empty goes by turns.

use xxhash_rust::xxh64::xxh64;

use super::round_robin::Turns;
use super::weighted_score::Score;
use super::{Balancer, Charge, Choices, Question, ServerMask, Share};
use crate::contract::ENDPOINTS_MAX;

/// Those that draw.
#[derive(Debug, Default)]
pub(super) struct Rendezvous {
    draws: Draws,
    turns: Turns,
}

impl Balancer for Rendezvous {
    fn rebuild(&mut self, servers: &[Share<'_>], eligible: &ServerMask, start: u32) {
        self.draws.rebuild(servers);
        self.turns.rebuild(servers, eligible, start);
    }

    fn pick(&mut self, question: &mut Question<'_>, choices: &mut Choices) {
        let key = question.facts.hash_key;
        if key.is_empty() {
            return self
                .turns
                .fill(question.eligible, question.advance, choices);
        }
        self.draws.fill(xxh64(key, 0), question, choices);
    }

    fn charge(&mut self, charge: &Charge<'_>) {
        if let Charge::Failed { .. } = charge {
            self.turns.charge(charge);
        }
    }
}

/// What each server draws with: a hash of its id, and its weight.
#[derive(Debug, Default)]
pub(super) struct Draws {
    servers: Vec<(u64, u16)>,
}

/// Whether servers are others than before, or have other weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Changed {
    Yes,
    No,
}

impl Draws {
    pub(super) fn rebuild(&mut self, servers: &[Share<'_>]) -> Changed {
        let draw = |share: &Share<'_>| (xxh64(share.id.as_bytes(), 0), share.weight);
        let draws = servers.iter().take(ServerMask::SERVERS_MAX).map(draw);
        if draws.clone().eq(self.servers.iter().copied()) {
            return Changed::No;
        }
        self.servers = draws.collect();
        Changed::Yes
    }

    /// Appends those with the best draws for a key, the best first.
    pub(super) fn fill(&self, key: u64, question: &Question<'_>, choices: &mut Choices) {
        let mut best: [Option<(Score, usize)>; ENDPOINTS_MAX] = [None; ENDPOINTS_MAX];
        let Some(best) = best.get_mut(..choices.room()) else {
            return;
        };
        for server in question.left(choices) {
            let Some(draw) = self.servers.get(server) else {
                break;
            };
            let last = best.last().and_then(|last| last.as_ref());
            let Some(score) = Score::beating(last.map(|(score, _)| score), *draw, key) else {
                continue;
            };
            let mut carried = Some((score, server));
            for place in best.iter_mut() {
                let beaten = match (&carried, &*place) {
                    (Some((score, _)), Some((other, _))) => score.beats(other),
                    (carried, None) => carried.is_some(),
                    (None, Some(_)) => false,
                };
                if beaten {
                    std::mem::swap(place, &mut carried);
                }
            }
        }
        best.iter()
            .flatten()
            .for_each(|(_, server)| choices.push(*server));
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::Group;
    use super::*;
    use crate::balance::{Algorithm, Parameters};

    /// Ten servers, their weights 1 to 10.
    fn group(eligible: impl Fn(usize) -> bool) -> Group {
        let ids: Vec<String> = (0..10).map(|server| format!("web{server}")).collect();
        let shares: Vec<Share<'_>> = ids
            .iter()
            .zip(1..)
            .map(|(id, weight)| Share {
                weight,
                max_fails: 0,
                id,
                endpoint: "192.0.2.1:80",
            })
            .collect();
        let mut group = Group::of(
            Algorithm::Rendezvous.build(&Parameters::default()),
            &shares,
            0,
        );
        (0..10)
            .filter(|server| !eligible(*server))
            .for_each(|server| group.eligible.remove(server));
        group
    }

    fn list(group: &mut Group, key: u32, limit: usize) -> Vec<usize> {
        group.hash_key = format!("/{key}").into();
        group.choose(limit)
    }

    #[test]
    fn weights_are_shares_of_the_keys() {
        let mut group = group(|_| true);
        let mut counts = [0_i32; 10];
        (0..55_000).for_each(|key| counts[list(&mut group, key, 1)[0]] += 1);
        for (count, weight) in counts.iter().zip(1..) {
            assert!((count - weight * 1_000).abs() < 250, "{counts:?}");
        }
    }

    #[test]
    fn who_stands_by_is_who_wins_without_those_before() {
        for key in 0..200 {
            let order = list(&mut group(|_| true), key, 8);
            for place in 1..8 {
                let gone = &order[..place];
                assert_eq!(
                    list(&mut group(|server| !gone.contains(&server)), key, 1),
                    order[place..=place],
                    "{key}: {order:?}"
                );
            }
        }
    }

    /// The same on every machine: worked out apart, with the logarithm itself, for the ids web0 to web9.
    #[test]
    fn keys_stay_where_they_are() {
        let found: Vec<usize> = (0..12)
            .map(|key| list(&mut group(|_| true), key, 1)[0])
            .collect();
        assert_eq!(found, [6, 9, 4, 8, 4, 2, 7, 4, 9, 8, 3, 8]);
    }
}
