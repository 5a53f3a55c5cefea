//! The same key always goes to the same server, exactly as nginx's `hash` (`ngx_http_upstream_get_hash_peer`).
//!
//! Fifteen bits of the key's CRC-32, taken modulo the sum of all weights, fall into a server's range. Servers that are down keep
//! their ranges, so that nobody else's keys move; but a server that comes or goes moves nearly every key: that is what
//! `hash_consistent` is for. If the server cannot be chosen, the CRC of the number of the try, in decimal digits, and the key is
//! added and falls anew; after 20 tries turns decide. A key that is empty goes by turns.

use crc32fast::Hasher;

use super::ranges::Ranges;
use super::round_robin::Turns;
use super::{Balancer, Charge, Choices, Question, ServerMask, Share};

/// Tries of one pick that may fail before turns decide.
const TRIES_MAX: u32 = 20;

/// Ranges of the weights.
#[derive(Debug, Default)]
pub(super) struct Hash {
    ranges: Ranges,
    turns: Turns,
}

impl Balancer for Hash {
    fn rebuild(&mut self, servers: &[Share<'_>], eligible: &ServerMask, start: u32) {
        self.ranges.rebuild(servers);
        self.turns.rebuild(servers, eligible, start);
    }

    fn pick(&mut self, question: &mut Question<'_>, choices: &mut Choices) {
        let key = question.facts.hash_key;
        let (mut sum, mut tries) = (0_u32, 0);
        let rounds = if key.is_empty() || self.ranges.len() <= 1 {
            0
        } else {
            u8::MAX
        };
        // Ends long before: each round appends a server, or is one of the tries.
        for round in 0..rounds {
            if choices.is_full() || choices.len() >= question.eligible.count() {
                return;
            }
            sum = sum.wrapping_add(hash(round, key));
            let point = sum.checked_rem(self.ranges.sum());
            match point.and_then(|point| self.ranges.at(point)) {
                Some(server) if question.eligible.contains(server) && !choices.contains(server) => {
                    choices.push(server)
                }
                _ => tries += 1,
            }
            if tries > TRIES_MAX {
                break;
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

/// What a round adds: bits 16 to 30 of the CRC of its number, none in round 0, and the key.
fn hash(round: u8, key: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    let digits = [round / 100, round / 10 % 10, round % 10].map(|digit| b'0' + digit);
    let leading = digits.iter().take_while(|digit| **digit == b'0').count();
    hasher.update(digits.get(leading..).unwrap_or_default());
    hasher.update(key);
    hasher.finalize() >> 16 & 0x7fff
}

#[cfg(test)]
mod tests {
    use super::super::laws::{Group, letters};
    use super::*;
    use crate::balance::Algorithm;

    /// Real nginx 1.22.1 with A weight 1, B weight 2, C weight 1.
    #[test]
    fn hashes_as_nginx_does() {
        for (key, crc, expected) in [
            ("/index.php", 28_450, "B"),
            ("/a", 26_992, "A"),
            ("/b?x=1", 27_990, "B"),
            ("session123", 3_894, "B"),
            ("m5nh62mo90nlkl56t876uf4pl9", 17_578, "B"),
        ] {
            assert_eq!(hash(0, key.as_bytes()), crc, "{key}");
            let mut group = Group::new(Algorithm::Hash, &[1, 2, 1]);
            group.hash_key = key.into();
            assert_eq!(letters(&group.choose(1)), expected, "{key}");
        }
        assert_eq!(hash(17, b"/a"), crc32fast::hash(b"17/a") >> 16 & 0x7fff);
        assert_eq!(hash(105, b"/a"), crc32fast::hash(b"105/a") >> 16 & 0x7fff);
    }

    #[test]
    fn a_server_that_is_down_keeps_its_range() {
        for key in 0..500 {
            let mut group = Group::new(Algorithm::Hash, &[1, 2, 1]);
            group.hash_key = format!("/{key}").into();
            let before = group.choose(1);
            group.eligible.remove(1);
            let after = group.choose(1);
            assert!(
                before == after || before == [1],
                "{key}: {before:?} then {after:?}"
            );
        }
    }

    #[test]
    fn without_a_key_it_goes_round() {
        let mut group = Group::new(Algorithm::Hash, &[1, 1]);
        group.hash_key.clear();
        assert_eq!(letters(&group.picks(4)), "ABAB");
    }
}
