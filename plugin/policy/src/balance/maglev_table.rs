//! Maglev's table (Eisenbud et al., NSDI 2016, section 3.4), filled with weights as Envoy fills it.
//!
//! Every server has its own order of all places: `offset = xxh64(id) mod M`, then on by `skip = xxh64(id, 1) mod (M − 1) +
//! 1`. In turns each takes the next place of its order that is still free, until none is. With weights a server has its turn
//! in as many rounds as its weight is to the greatest: its k-th turn (from 0) comes in the first round r ≥ 1 with r × weight
//! ≥ k × greatest (`OriginalMaglevTable::constructImplementationInternals`).
//!
//! # Why a queue of turns
//! Asking everybody in every round costs rounds × servers, and one server of weight 65535 among thousands of weight 1 makes that
//! billions. A queue of each server's next round costs places × log servers whatever the weights, and has the same answer.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use xxhash_rust::xxh64::xxh64;

/// A place that nobody has yet. No server has this index: [`super::ServerMask::SERVERS_MAX`] is less.
const FREE: u16 = u16::MAX;

/// How large the table of so many servers is: a prime. The steps are few, because stepping over one moves nearly every key,
/// and low, because a thousand pools of ten servers have a table each.
fn size(servers: usize) -> u32 {
    match servers {
        0..=128 => 4_093,
        129..=2_048 => 65_537,
        _ => 262_147,
    }
}

/// One server's order of places, and its turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Two hashes of the server's id.
    hashes: [u64; 2],
    weight: u16,
}

impl Candidate {
    pub(super) fn new(id: &str, weight: u16) -> Self {
        Self {
            hashes: [xxh64(id.as_bytes(), 0), xxh64(id.as_bytes(), 1)],
            weight,
        }
    }
}

/// The server of each place: indexes into the candidates in the order given.
pub(super) fn build(candidates: &[Candidate]) -> Vec<u16> {
    build_of_size(candidates, size(candidates.len()))
}

fn build_of_size(candidates: &[Candidate], size: u32) -> Vec<u16> {
    let greatest = candidates
        .iter()
        .map(|candidate| u64::from(candidate.weight))
        .max()
        .unwrap_or(0);
    let mut orders: Vec<Order> = candidates
        .iter()
        .map(|candidate| Order::new(candidate, size))
        .collect();
    let mut table = vec![FREE; size as usize];
    if candidates
        .iter()
        .all(|candidate| u64::from(candidate.weight) == greatest)
    {
        let in_turns = (0_u16..).zip(candidates).map(|(server, _)| server);
        for server in in_turns.cycle().take(table.len()) {
            take_next(&mut table, &mut orders, server);
        }
        return table;
    }
    // The next turn of each: its round, the server, how many it had.
    let mut turns: BinaryHeap<Reverse<(u64, u16, u64)>> = (0_u16..)
        .take(candidates.len())
        .map(|server| Reverse((1, server, 0)))
        .collect();
    for _ in 0..table.len() {
        let Some(mut first) = turns.peek_mut() else {
            break;
        };
        let Reverse((round, server, had)) = *first;
        take_next(&mut table, &mut orders, server);
        let weight = candidates
            .get(usize::from(server))
            .map_or(1, |candidate| u64::from(candidate.weight).max(1));
        let due = ((had + 1) * greatest).div_ceil(weight);
        *first = Reverse((due.max(round + 1), server, had + 1));
    }
    table
}

/// Where a server looks next.
#[derive(Debug, Clone, Copy)]
struct Order {
    place: u32,
    skip: u32,
}

impl Order {
    fn new(candidate: &Candidate, size: u32) -> Self {
        let [offset, skip] = candidate.hashes;
        let below = |hash: u64, bound: u32| {
            u32::try_from(hash.checked_rem(u64::from(bound)).unwrap_or(0)).unwrap_or(0)
        };
        Self {
            place: below(offset, size),
            skip: below(skip, size.saturating_sub(1)) + 1,
        }
    }
}

/// Gives `server` the next free place of its order. Ends: the size is prime, so an order comes by every place, and one is free.
fn take_next(table: &mut [u16], orders: &mut [Order], server: u16) {
    let Some(order) = orders.get_mut(usize::from(server)) else {
        return;
    };
    let size = table.len();
    for _ in 0..size {
        let Some(place) = table.get_mut(order.place as usize) else {
            return;
        };
        order.place += order.skip;
        if order.place as usize >= size {
            order.place -= u32::try_from(size).unwrap_or(0);
        }
        if *place == FREE {
            *place = server;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidates(weights: &[u16]) -> Vec<Candidate> {
        (90..)
            .zip(weights)
            .map(|(port, weight)| Candidate::new(&format!("127.0.0.1:{port}"), *weight))
            .collect()
    }

    /// Envoy's way, word for word: everybody is asked in every round.
    fn by_rounds(candidates: &[Candidate], size: u32) -> Vec<u16> {
        let greatest = candidates
            .iter()
            .map(|candidate| candidate.weight)
            .max()
            .unwrap();
        let mut table = vec![FREE; size as usize];
        let mut next = vec![0_u64; candidates.len()];
        let mut target = vec![0_u64; candidates.len()];
        for round in 1_u64.. {
            for (server, candidate) in candidates.iter().enumerate() {
                if !table.contains(&FREE) {
                    return table;
                }
                if round * u64::from(candidate.weight) < target[server] {
                    continue;
                }
                target[server] += u64::from(greatest);
                let [offset, skip] = candidate.hashes;
                let size = u64::from(size);
                loop {
                    let place = (offset % size + (skip % (size - 1) + 1) * next[server]) % size;
                    next[server] += 1;
                    let place = usize::try_from(place).unwrap();
                    if table[place] == FREE {
                        table[place] = u16::try_from(server).unwrap();
                        break;
                    }
                }
            }
        }
        unreachable!()
    }

    /// The tables of Envoy's own test (`maglev_lb_test.cc`): hosts 127.0.0.1:90 and following.
    #[test]
    fn small_tables_are_those_of_envoy() {
        // place            0  1  2  3  4  5  6
        assert_eq!(
            build_of_size(&candidates(&[1; 6]), 7),
            [2, 4, 0, 1, 5, 0, 3]
        );
        assert_eq!(
            build_of_size(&candidates(&[1, 1]), 17),
            [1, 0, 0, 1, 0, 1, 1, 0, 0, 1, 0, 1, 0, 0, 1, 0, 1]
        );
        assert_eq!(
            build_of_size(&candidates(&[1, 2]), 17),
            [1, 0, 0, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 0, 1, 0, 1]
        );
    }

    #[test]
    fn is_what_asking_everybody_in_every_round_gives() {
        proptest!(ProptestConfig::with_cases(64), |(weights in proptest::collection::vec(1u16..40, 1..12))| {
            let candidates = candidates(&weights);
            prop_assert_eq!(build_of_size(&candidates, 251), by_rounds(&candidates, 251));
        });
    }

    #[test]
    fn places_are_shared_by_weight_and_nobody_goes_without() {
        for weights in [&[5, 3, 2][..], &[1; 128], &[65_535, 1, 1]] {
            let (table, sum) = (
                build(&candidates(weights)),
                weights
                    .iter()
                    .map(|weight| usize::from(*weight))
                    .sum::<usize>(),
            );
            for (server, weight) in (0_u16..).zip(weights) {
                let places = table.iter().filter(|owner| **owner == server).count();
                let share = table.len() * usize::from(*weight) / sum;
                assert!(
                    places >= 1 && places.abs_diff(share) <= 2,
                    "{weights:?}: {server} has {places} of {share}"
                );
            }
        }
        assert!(build(&[]).iter().all(|owner| *owner == FREE));
    }
}
