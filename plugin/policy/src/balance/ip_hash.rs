//! A client's network always goes to the same server, exactly as nginx (`ngx_http_upstream_ip_hash_module`).
//!
//! The first three octets of an IPv4 address (a whole /24 is one client) or all of an IPv6 address are hashed; the remainder by
//! the sum of all weights falls into a server's range. Servers that are down keep their ranges, so that nobody else's clients
//! move. If the server cannot be chosen, the hash goes on over the same bytes; after more than 20 such tries turns decide.

use std::net::IpAddr;

use super::ranges::Ranges;
use super::round_robin::Turns;
use super::{Balancer, Charge, Choices, Question, ServerMask, Share};

/// Hashes of one request that find nobody who may be chosen, more than which let turns decide.
const TRIES_MAX: usize = 20;
/// Where the hash begins.
const HASH_START: u32 = 89;

/// Ranges of the weights.
#[derive(Debug, Default)]
pub(super) struct IpHash {
    ranges: Ranges,
    turns: Turns,
}

impl Balancer for IpHash {
    fn rebuild(&mut self, servers: &[Share<'_>], eligible: &ServerMask, start: u32) {
        self.ranges.rebuild(servers);
        self.turns.rebuild(servers, eligible, start);
    }

    fn reweigh(&mut self, servers: &[Share<'_>], _eligible: &ServerMask) {
        self.ranges.rebuild(servers);
        self.turns.reweigh(servers);
    }

    fn pick(&mut self, question: &mut Question<'_>, choices: &mut Choices) {
        let Some(client) = question.facts.client.filter(|_| self.ranges.len() > 1) else {
            return self
                .turns
                .fill(question.eligible, question.advance, choices);
        };
        let mut hash = HASH_START;
        let mut tries = 0;
        // Each round either hashes once more, after which `tries` may have no room, or ends.
        while !choices.is_full() && question.eligible.count() > choices.len() {
            if let Some(last) = question.only_left(choices) {
                return choices.push(last);
            }
            if tries > TRIES_MAX {
                return self
                    .turns
                    .fill(question.eligible, question.advance, choices);
            }
            hash = hash_on(hash, client);
            let whose = hash
                .checked_rem(self.ranges.sum())
                .and_then(|point| self.ranges.at(point));
            match whose {
                Some(server) if question.eligible.contains(server) && !choices.contains(server) => {
                    choices.push(server);
                }
                _ => tries += 1,
            }
        }
    }

    fn charge(&mut self, charge: &Charge<'_>) {
        if let Charge::Failed { .. } = charge {
            self.turns.charge(charge);
        }
    }
}

/// The hash carried on over the bytes of the address that count.
fn hash_on(hash: u32, client: IpAddr) -> u32 {
    // Below 6271 before each step: (6270 × 113 + 255) fits by far.
    let step = |hash: u32, byte: &u8| (hash * 113 + u32::from(*byte)) % 6_271;
    match client {
        IpAddr::V4(v4) => v4.octets().iter().take(3).fold(hash, step),
        IpAddr::V6(v6) => v6.octets().iter().fold(hash, step),
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::{Group, letters};
    use super::*;
    use crate::balance::Algorithm;

    /// Real nginx 1.22.1 with A weight 1, B weight 2, C weight 1.
    #[test]
    fn hashes_as_nginx_does() {
        let rows = [
            ("192.168.139.1", 292, "A"),
            ("192.168.139.200", 292, "A"),
            ("192.168.1.102", 154, "B"),
            ("10.10.10.2", 3_705, "B"),
            ("203.0.113.7", 2_592, "A"),
            ("8.8.8.8", 3_023, "C"),
            ("2001:db8::1", 2_600, "A"),
            ("2001:db8::2", 2_601, "B"),
            ("fe80::1", 5_163, "C"),
        ];
        for (client, hash, expected) in rows {
            let client: IpAddr = client.parse().unwrap();
            assert_eq!(hash_on(HASH_START, client), hash, "{client}");
            let mut group = Group::new(Algorithm::IpHash, &[1, 2, 1]);
            group.client = Some(client);
            assert_eq!(letters(&group.choose(1)), expected, "{client}");
        }
    }

    #[test]
    fn a_server_that_is_down_keeps_its_range() {
        for client in (0..=255).map(|third| IpAddr::from([10, 0, third, 1])) {
            let mut group = Group::new(Algorithm::IpHash, &[1, 2, 1]);
            group.client = Some(client);
            let before = group.choose(1);
            group.eligible.remove(1);
            let after = group.choose(1);
            assert!(
                before == after || before == [1],
                "{client}: {before:?} then {after:?}"
            );
        }
    }

    /// A and B have two points of 102; the rest is C's, who is down. nginx gives up when its count of tries is *over* 20.
    #[test]
    fn the_twenty_first_hash_still_counts() {
        let mut hits_by_hash = [0; 2];
        for client in 0..=u16::MAX {
            let [second, third] = client.to_be_bytes();
            let client = IpAddr::from([10, second, third, 1]);
            let mut hash = HASH_START;
            let mut points = (0..22).map(|_| {
                hash = hash_on(hash, client);
                hash % 102
            });
            let hit = points.position(|point| point < 2);
            let (Some(place @ (20 | 21)), true) = (hit, hash % 102 == 1) else {
                continue;
            };
            // B by hash; by turns it would be A.
            let mut group = Group::new(Algorithm::IpHash, &[1, 1, 100]);
            group.client = Some(client);
            group.eligible.remove(2);
            let expected = if place == 20 { "B" } else { "A" };
            assert_eq!(
                letters(&group.choose(1)),
                expected,
                "{client}, hash {place}"
            );
            hits_by_hash[place - 20] += 1;
        }
        assert!(
            hits_by_hash.iter().all(|hits| *hits > 0),
            "{hits_by_hash:?}"
        );
    }

    #[test]
    fn without_an_address_it_goes_round() {
        let mut group = Group::new(Algorithm::IpHash, &[1, 1]);
        group.client = None;
        assert_eq!(letters(&group.picks(4)), "ABAB");
    }
}
