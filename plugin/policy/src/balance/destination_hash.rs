//! A destination always goes to the same server, as IPVS's `dh` (`ip_vs_dh.c`), made for clusters of caches.
//!
//! In the kernel the destination is the address that the client asked for; behind a proxy that is the `hash_key`, the Host
//! unless stated otherwise. A key that is an address is hashed as the kernel hashes it, any other counts as the address that
//! its CRC-32 would be. There are no weights: every server has one bucket in turn. Where the kernel refuses, because the
//! bucket's server is down, the next buckets are looked into, in the order of `sh-fallback`. A key that is empty goes by
//! turns.

use std::net::IpAddr;

use super::ipvs_buckets::{BucketsThenTurns, Filling, folded};
use super::{Balancer, Charge, Choices, Question, ServerMask, Share};

/// The longest text of an address; what is longer is none.
const ADDRESS_TEXT_MAX: usize = 45;

/// The buckets.
#[derive(Debug, Default)]
pub(super) struct DestinationHash(BucketsThenTurns);

impl Balancer for DestinationHash {
    fn rebuild(&mut self, servers: &[Share<'_>], eligible: &ServerMask, start: u32) {
        self.0.rebuild(servers, eligible, start, Filling::OneEach);
    }

    fn pick(&mut self, question: &mut Question<'_>, choices: &mut Choices) {
        let key = question.facts.hash_key;
        self.0.fill(
            (!key.is_empty()).then(|| destination(key)),
            question,
            choices,
        );
    }

    fn charge(&mut self, charge: &Charge<'_>) {
        self.0.charge(charge);
    }
}

/// The folded address of a key.
fn destination(key: &[u8]) -> u32 {
    let text = std::str::from_utf8(key)
        .ok()
        .filter(|text| text.len() <= ADDRESS_TEXT_MAX);
    let address = text.and_then(|text| {
        text.trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>()
            .ok()
    });
    address.map_or_else(|| crc32fast::hash(key), folded)
}

#[cfg(test)]
mod tests {
    use super::super::laws::{Group, letters};
    use super::*;
    use crate::balance::Algorithm;

    #[test]
    fn a_key_that_is_an_address_counts_as_one() {
        for (key, expected) in [
            ("192.0.2.7", 0xc000_0207),
            ("::1", 1),
            ("[::1]", 1),
            ("www.example.org", crc32fast::hash(b"www.example.org")),
        ] {
            assert_eq!(destination(key.as_bytes()), expected, "{key}");
        }
    }

    #[test]
    fn weights_do_not_count() {
        let mut group = Group::new(Algorithm::DestinationHash, &[100, 1]);
        let mut counts = [0; 2];
        for host in 0..1_000 {
            group.hash_key = format!("www{host}.example.org").into();
            counts[group.choose(1)[0]] += 1;
        }
        assert!(counts[0] > 430 && counts[1] > 430, "{counts:?}");
    }

    #[test]
    fn without_a_key_it_goes_round() {
        let mut group = Group::new(Algorithm::DestinationHash, &[1, 1]);
        group.hash_key.clear();
        assert_eq!(letters(&group.picks(4)), "ABAB");
    }
}
