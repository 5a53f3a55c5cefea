//! The same key always goes to the same server, and a server that comes or goes moves only its own keys, exactly as nginx's
//! `hash … consistent` (`ngx_http_upstream_get_chash_peer`): the ketama ring.
//!
//! A key belongs to the first point of the [`KetamaRing`] that is not before its CRC-32. The points of a server that cannot
//! be chosen are passed over one by one; after 20 of them turns decide. A key that is empty goes by turns. Points hang on
//! the address of a server, not on its place in the file.

use super::ketama_ring::{KetamaRing, chain_start};
use super::round_robin::Turns;
use super::{Balancer, Charge, Choices, Question, ServerMask, Share};

/// Points of one pick that may be passed over before turns decide.
const TRIES_MAX: usize = 20;

/// The ring.
#[derive(Debug, Default)]
pub(super) struct HashConsistent {
    /// None for a group of one, which needs none.
    ring: Option<KetamaRing>,
    /// What it was made of: where each server's chain starts, and its weight.
    made_of: Vec<(u32, u16)>,
    turns: Turns,
}

impl Balancer for HashConsistent {
    fn rebuild(&mut self, servers: &[Share<'_>], eligible: &ServerMask, start: u32) {
        let servers = servers.get(..ServerMask::SERVERS_MAX).unwrap_or(servers);
        let chains: Vec<(u32, u16)> = servers
            .iter()
            .map(|share| (chain_start(share.endpoint), share.weight))
            .collect();
        if chains != self.made_of {
            // The old ring goes before the new one comes: two of the largest would be half of a VM's memory.
            self.ring = None;
            self.ring = (chains.len() > 1).then(|| KetamaRing::build(&chains));
            self.made_of = chains;
        }
        self.turns.rebuild(servers, eligible, start);
    }

    fn pick(&mut self, question: &mut Question<'_>, choices: &mut Choices) {
        let key = question.facts.hash_key;
        if let Some(ring) = self.ring.as_ref().filter(|_| !key.is_empty()) {
            let mut place = ring.find(crc32fast::hash(key));
            let mut tries = 0;
            // Ends: each round appends a server, or passes over one of the points that may be.
            while tries <= TRIES_MAX
                && !choices.is_full()
                && choices.len() < question.eligible.count()
            {
                match ring.server(place) {
                    Some(server)
                        if question.eligible.contains(server) && !choices.contains(server) =>
                    {
                        choices.push(server)
                    }
                    _ => {
                        place += 1;
                        tries += 1;
                    }
                }
            }
        }
        if choices.len() < question.eligible.count() && !choices.is_full() {
            self.turns
                .fill(question.eligible, question.advance, choices);
        }
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
    use super::*;
    use crate::balance::{Algorithm, Parameters};

    fn group(shares: &[Share<'_>]) -> Group {
        Group::of(
            Algorithm::HashConsistent.build(&Parameters::default()),
            shares,
            0,
        )
    }

    fn share(endpoint: &str, weight: u16) -> Share<'_> {
        Share {
            weight,
            max_fails: 0,
            id: endpoint,
            endpoint,
        }
    }

    /// Real nginx 1.22.1 with these three servers.
    #[test]
    fn keys_go_to_the_servers_that_nginx_chooses() {
        let shares = [
            share("127.0.0.1:21821", 1),
            share("127.0.0.1:21822", 2),
            share("127.0.0.1:21823", 1),
        ];
        for (key, server) in [
            ("/index.php", 1),
            ("/a", 1),
            ("session123", 1),
            ("m5nh62mo90nlkl56t876uf4pl9", 2),
        ] {
            let mut group = group(&shares);
            group.hash_key = key.into();
            assert_eq!(group.choose(1), [server], "{key}");
        }
    }

    #[test]
    fn the_ring_is_made_anew_only_for_other_servers_or_weights() {
        let mut method = HashConsistent::default();
        let mut rebuilt = |shares: &[Share<'_>]| {
            method.rebuild(shares, &ServerMask::first(shares.len()), 1);
            method.ring.as_ref().unwrap().identity()
        };
        let [a, b, heavy] = [
            share("10.0.0.1:80", 1),
            share("10.0.0.2:80", 1),
            share("10.0.0.2:80", 2),
        ];
        let first = rebuilt(&[a, b]);
        assert_eq!(rebuilt(&[a, b]), first);
        assert_ne!(rebuilt(&[a, heavy]), first);
        assert_ne!(rebuilt(&[a, b, share("10.0.0.3:80", 1)]), first);
    }

    #[test]
    fn those_of_a_server_that_is_down_are_spread_over_the_others() {
        let endpoints: Vec<String> = (1..=5).map(|host| format!("10.0.0.{host}:80")).collect();
        let shares: Vec<Share<'_>> = endpoints
            .iter()
            .map(|endpoint| share(endpoint, 1))
            .collect();
        let mut group = group(&shares);
        let mut heirs = [0; 5];
        for key in 0..5_000 {
            group.hash_key = format!("/{key}").into();
            group.eligible = ServerMask::first(5);
            let before = group.choose(1);
            group.eligible.remove(2);
            let after = group.choose(1);
            assert!(
                before == after || before == [2],
                "{key}: {before:?} then {after:?}"
            );
            if before == [2] {
                heirs[after[0]] += 1;
            }
        }
        assert!(
            [0, 1, 3, 4].iter().all(|heir| heirs[*heir] > 100) && heirs[2] == 0,
            "{heirs:?}"
        );
    }
}
