//! The table of buckets behind IPVS's source and destination hashing (`ip_vs_sh.c`, `ip_vs_dh.c`).
//!
//! The servers fill the buckets in their order, again and again until all are full: source hashing gives each as many in a
//! row as its weight says, destination hashing one. A table has 256 buckets (`CONFIG_IP_VS_SH_TAB_BITS`,
//! `CONFIG_IP_VS_DH_TAB_BITS`: 8 unless the kernel is built otherwise); a pool of more servers has what a kernel built for
//! it would have.

use std::net::IpAddr;

use super::round_robin::Turns;
use super::{Charge, Choices, Question, ServerMask, Share};

/// Buckets of one pick that are looked into before turns decide: all of a table of up to 256 servers.
const BUCKETS_MAX: usize = 1_024;
/// Bits of a bucket's number unless there are too many servers.
const BITS_MIN: u32 = 8;
/// Bits of the largest table: 4 buckets for each server of the largest pool, 128 KiB.
const BITS_MAX: u32 = 16;

/// How many buckets in a row a server gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filling {
    /// As many as its weight.
    ByWeight,
    OneEach,
}

/// A pick by the bucket of an address; by turns where there is none, or nobody in the buckets can be chosen.
#[derive(Debug, Default)]
pub(super) struct BucketsThenTurns {
    buckets: Option<Buckets>,
    turns: Turns,
}

impl BucketsThenTurns {
    pub(super) fn rebuild(
        &mut self,
        servers: &[Share<'_>],
        eligible: &ServerMask,
        start: u32,
        filling: Filling,
    ) {
        let weights: Vec<u16> = servers
            .iter()
            .take(ServerMask::SERVERS_MAX)
            .map(|share| share.weight)
            .collect();
        self.buckets = Some(Buckets::fill(&weights, filling));
        self.turns.rebuild(servers, eligible, start);
    }

    /// `folded`: the address, if there is one.
    pub(super) fn fill(
        &mut self,
        folded: Option<u32>,
        question: &Question<'_>,
        choices: &mut Choices,
    ) {
        let is_done =
            |choices: &Choices| choices.is_full() || choices.len() >= question.eligible.count();
        if let (Some(buckets), Some(folded)) = (&self.buckets, folded) {
            for server in buckets.servers(folded).take(BUCKETS_MAX) {
                if is_done(choices) {
                    return;
                }
                if question.eligible.contains(server) {
                    choices.push(server);
                }
            }
        }
        if !is_done(choices) {
            self.turns
                .fill(question.eligible, question.advance, choices);
        }
    }

    pub(super) fn charge(&mut self, charge: &Charge<'_>) {
        if let Charge::Failed { .. } = charge {
            self.turns.charge(charge);
        }
    }
}

/// The server of each bucket.
#[derive(Debug)]
pub(super) struct Buckets {
    servers: Vec<u16>,
    bits: u32,
}

impl Buckets {
    /// A table for servers of these weights.
    pub(super) fn fill(weights: &[u16], filling: Filling) -> Self {
        let enough = weights.len().next_power_of_two().ilog2();
        let bits = if enough <= BITS_MIN {
            BITS_MIN
        } else {
            (enough + 2).min(BITS_MAX)
        };
        let row = |(server, weight): (u16, &u16)| {
            let count = match filling {
                Filling::ByWeight => usize::from(*weight).max(1),
                Filling::OneEach => 1,
            };
            std::iter::repeat_n(server, count)
        };
        let servers = (0_u16..)
            .zip(weights)
            .flat_map(row)
            .cycle()
            .take(1 << bits)
            .collect();
        Self { servers, bits }
    }

    /// The servers of a folded address's buckets: its own first, then, where the kernel would be told to fall back
    /// (`sh-fallback`), those at all other distances from it. Every bucket once.
    pub(super) fn servers(&self, folded: u32) -> impl Iterator<Item = usize> {
        let (mask, hash) = ((1_u32 << self.bits) - 1, hash_32(folded, self.bits));
        // The kernel asks the bucket itself, then offset (i + hash) mod size from the hash for i = 0 and on.
        let offsets = std::iter::once(0)
            .chain((0..=mask).map(move |offset| offset.wrapping_add(hash) & mask));
        offsets.filter_map(move |offset| {
            let bucket = offset.wrapping_add(hash) & mask;
            self.servers
                .get(bucket as usize)
                .map(|server| usize::from(*server))
        })
    }
}

/// The kernel's multiplicative hash of 32 bits (`include/linux/hash.h`).
fn hash_32(number: u32, bits: u32) -> u32 {
    number.wrapping_mul(0x61c8_8647) >> (u32::BITS - bits)
}

/// An address as IPVS hashes it: IPv4 as a number, the four words of IPv6 folded into one by exclusive or.
pub(super) fn folded(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(v4) => v4.to_bits(),
        IpAddr::V6(v6) => v6
            .octets()
            .as_chunks::<4>()
            .0
            .iter()
            .fold(0, |sum, word| sum ^ u32::from_be_bytes(*word)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `ip_vs_sh_reassign` and `ip_vs_dh_reassign`, walking a list as they do.
    fn as_the_kernel_fills(weights: &[u16], filling: Filling) -> Vec<u16> {
        let (mut buckets, mut at, mut had) = (Vec::new(), 0_usize, 0);
        for _ in 0..256 {
            if at == weights.len() {
                at = 0;
            }
            buckets.push(u16::try_from(at).unwrap());
            had += 1;
            if filling == Filling::OneEach || had >= weights[at] {
                at += 1;
                had = 0;
            }
        }
        buckets
    }

    #[test]
    fn buckets_are_filled_as_the_kernel_fills_them() {
        proptest!(|(weights in proptest::collection::vec(1u16..400, 1..256))| {
            for filling in [Filling::ByWeight, Filling::OneEach] {
                prop_assert_eq!(Buckets::fill(&weights, filling).servers, as_the_kernel_fills(&weights, filling));
            }
        });
    }

    /// `ip_vs_sh_get_fallback`.
    #[test]
    fn the_way_from_a_bucket_is_that_of_the_kernel() {
        let buckets = Buckets::fill(&[3, 1, 2], Filling::ByWeight);
        for address in ["192.0.2.7", "10.1.2.3", "2001:db8::1"] {
            let folded = folded(address.parse().unwrap());
            let hash = hash_32(folded, 8);
            let mut expected = vec![buckets.servers[hash as usize]];
            for offset in 0..256 {
                let from = (offset + hash) % 256;
                expected.push(buckets.servers[((from + hash) & 255) as usize]);
            }
            let found: Vec<u16> = buckets
                .servers(folded)
                .map(|server| u16::try_from(server).unwrap())
                .collect();
            assert_eq!(found, expected, "{address}");
        }
    }

    #[test]
    fn addresses_are_folded_as_the_kernel_folds_them() {
        for (address, expected) in [
            ("1.2.3.4", 0x0102_0304),
            ("2001:db8::1", 0x2001_0db9),
            ("::", 0),
            ("1:2:3:4:5:6:7:8", 8),
        ] {
            assert_eq!(folded(address.parse().unwrap()), expected, "{address}");
        }
        assert_eq!(hash_32(1, 8), 0x61);
    }

    #[test]
    fn a_pool_of_many_servers_has_a_bucket_for_each() {
        for count in [257_usize, 1_000, 10_000] {
            let buckets = Buckets::fill(&vec![1; count], Filling::OneEach);
            assert!(
                (0..count).all(|server| buckets.servers.contains(&u16::try_from(server).unwrap())),
                "{count}"
            );
            assert!(buckets.servers.len() <= 1 << BITS_MAX);
        }
    }
}
