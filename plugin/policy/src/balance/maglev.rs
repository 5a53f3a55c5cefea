//! Maglev: a key's place in a table says its server, at the same price however many servers there are, and each has nearly
//! exactly its share of the places (Eisenbud et al., NSDI 2016). See [`super::maglev_table`] for the table.
//!
//! Keys are hashed with XXH64, as Envoy does. A server that is down keeps its places, so that nobody else's keys move; a key
//! that finds it there is hashed again, and if that does not help, as when nearly all are down, the best draw has it
//! ([`super::rendezvous`]). When a server comes or goes, one or two keys in a hundred move besides its own; where that
//! matters, `rendezvous` and `hash_consistent` move none. A key that is empty goes by turns.

use xxhash_rust::xxh64::xxh64;

use super::maglev_table::{self, Candidate};
use super::rendezvous::{Changed, Draws};
use super::round_robin::Turns;
use super::{Balancer, Charge, Choices, Question, ServerMask, Share};
use crate::random::mixed;

/// Places of one pick that may not do before draws decide.
const TRIES_MAX: usize = 20;

/// The table.
#[derive(Debug, Default)]
pub(super) struct Maglev {
    /// The server of each place.
    table: Vec<u16>,
    draws: Draws,
    turns: Turns,
}

impl Balancer for Maglev {
    fn rebuild(&mut self, servers: &[Share<'_>], eligible: &ServerMask, start: u32) {
        let servers = servers.get(..ServerMask::SERVERS_MAX).unwrap_or(servers);
        if self.draws.rebuild(servers) == Changed::Yes || self.table.is_empty() {
            self.table = table(servers);
        }
        self.turns.rebuild(servers, eligible, start);
    }

    fn pick(&mut self, question: &mut Question<'_>, choices: &mut Choices) {
        let key = question.facts.hash_key;
        if key.is_empty() {
            return self
                .turns
                .fill(question.eligible, question.advance, choices);
        }
        let start = xxh64(key, 0);
        let (mut hash, mut tries) = (start, 0);
        // Ends: each round appends a server, or is one of the tries.
        while tries < TRIES_MAX && !choices.is_full() && choices.len() < question.eligible.count() {
            match self.at(hash) {
                Some(server) if question.eligible.contains(server) && !choices.contains(server) => {
                    choices.push(server)
                }
                _ => tries += 1,
            }
            hash = mixed(hash.wrapping_add(1));
        }
        if tries == TRIES_MAX {
            self.draws.fill(start, question, choices);
        }
    }

    fn charge(&mut self, charge: &Charge<'_>) {
        if let Charge::Failed { .. } = charge {
            self.turns.charge(charge);
        }
    }
}

/// The table of servers, made in the order of their ids: what the file's order is must not move keys.
fn table(servers: &[Share<'_>]) -> Vec<u16> {
    let mut by_id: Vec<(u16, &Share<'_>)> = (0..).zip(servers).collect();
    by_id.sort_unstable_by_key(|(_, share)| share.id);
    let candidates: Vec<Candidate> = by_id
        .iter()
        .map(|(_, share)| Candidate::new(share.id, share.weight))
        .collect();
    let mut table = maglev_table::build(&candidates);
    for place in &mut table {
        *place = by_id
            .get(usize::from(*place))
            .map_or(*place, |(server, _)| *server);
    }
    table
}

impl Maglev {
    fn at(&self, hash: u64) -> Option<usize> {
        let place = hash.checked_rem(u64::try_from(self.table.len()).unwrap_or(0))?;
        let place = usize::try_from(place).ok()?;
        self.table.get(place).map(|server| usize::from(*server))
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::Group;
    use super::*;
    use crate::balance::{Algorithm, Parameters};

    fn group(ids: &[String]) -> Group {
        let shares: Vec<Share<'_>> = ids
            .iter()
            .map(|id| Share {
                weight: 1,
                max_fails: 0,
                id,
                endpoint: "192.0.2.1:80",
            })
            .collect();
        Group::of(Algorithm::Maglev.build(&Parameters::default()), &shares, 0)
    }

    fn ids(servers: std::ops::Range<u32>) -> Vec<String> {
        servers
            .map(|server| format!("10.0.0.{server}:80"))
            .collect()
    }

    fn server_of<'a>(group: &mut Group, ids: &'a [String], key: u32) -> &'a str {
        group.hash_key = format!("/{key}").into();
        &ids[group.choose(1)[0]]
    }

    #[test]
    fn the_order_in_the_file_moves_no_key() {
        let (forwards, mut backwards) = (ids(0..7), ids(0..7));
        backwards.reverse();
        let (mut one, mut other) = (group(&forwards), group(&backwards));
        for key in 0..1_000 {
            assert_eq!(
                server_of(&mut one, &forwards, key),
                server_of(&mut other, &backwards, key)
            );
        }
    }

    #[test]
    fn those_of_a_server_that_is_down_go_to_all_others_and_nobody_else_moves() {
        let ids = ids(0..5);
        let mut group = group(&ids);
        let mut heirs = [0; 5];
        for key in 0..5_000 {
            group.eligible = ServerMask::first(5);
            let before = server_of(&mut group, &ids, key).to_owned();
            group.eligible.remove(2);
            let after = server_of(&mut group, &ids, key);
            assert!(
                before == after || before == ids[2],
                "{key}: {before} then {after}"
            );
            if before == ids[2] {
                heirs[ids.iter().position(|id| id == after).unwrap()] += 1;
            }
        }
        assert!(
            [0, 1, 3, 4].iter().all(|heir| heirs[*heir] > 180) && heirs[2] == 0,
            "{heirs:?}"
        );
    }

    #[test]
    fn one_of_very_many_is_found() {
        let ids: Vec<String> = (0..3_000).map(|server| format!("web{server}")).collect();
        let mut group = group(&ids);
        group.eligible = ServerMask::none(3_000);
        group.eligible.insert(2_999);
        assert!((0..100).all(|key| server_of(&mut group, &ids, key) == "web2999"));
    }
}
