//! A client's address always goes to the same server, exactly as IPVS's `sh` with `sh-fallback` (`ip_vs_sh.c`).
//!
//! The address, hashed to a bucket, has that bucket's server. The kernel refuses a connection whose server is down unless it
//! is told to fall back; here it always does, because a request that another server can answer is not refused: the buckets
//! at all other distances are looked into, in the kernel's order. A server whose predecessors' weights fill all buckets has
//! none, as in the kernel, and gets what nobody else can take.

use super::ipvs_buckets::{BucketsThenTurns, Filling, folded};
use super::{Balancer, Charge, Choices, Question, ServerMask, Share};

/// The buckets.
#[derive(Debug, Default)]
pub(super) struct SourceHash(BucketsThenTurns);

impl Balancer for SourceHash {
    fn rebuild(&mut self, servers: &[Share<'_>], eligible: &ServerMask, start: u32) {
        self.0.rebuild(servers, eligible, start, Filling::ByWeight);
    }

    fn pick(&mut self, question: &mut Question<'_>, choices: &mut Choices) {
        self.0
            .fill(question.facts.client.map(folded), question, choices);
    }

    fn charge(&mut self, charge: &Charge<'_>) {
        self.0.charge(charge);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::super::laws::{Group, letters};
    use super::*;
    use crate::balance::Algorithm;

    /// The buckets of weights 1, 2, 1 are ABBC again and again; an address's is the highest 8 bits of its product with
    /// 0x61c88647.
    #[test]
    fn an_address_has_the_server_of_its_bucket() {
        for (client, bucket) in [
            ("192.0.2.1", 50),
            ("192.0.2.2", 148),
            ("10.0.0.1", 39),
            ("2001:db8::1", 63),
        ] {
            let client: IpAddr = client.parse().unwrap();
            assert_eq!(
                folded(client).wrapping_mul(0x61c8_8647) >> 24,
                bucket,
                "{client}"
            );
            let mut group = Group::new(Algorithm::SourceHash, &[1, 2, 1]);
            group.client = Some(client);
            let expected = b"ABBC"[usize::try_from(bucket % 4).unwrap()];
            assert_eq!(letters(&group.choose(1)).as_bytes(), [expected], "{client}");
        }
    }

    #[test]
    fn a_server_without_a_bucket_has_what_nobody_else_can_take() {
        let mut group = Group::new(Algorithm::SourceHash, &[1_000, 1]);
        for client in 0..=255 {
            group.client = Some(IpAddr::from([10, 0, 0, client]));
            assert_eq!(letters(&group.choose(2)), "AB");
        }
        group.eligible.remove(0);
        assert_eq!(letters(&group.choose(2)), "B");
    }

    #[test]
    fn without_an_address_it_goes_round() {
        let mut group = Group::new(Algorithm::SourceHash, &[1, 1]);
        group.client = None;
        assert_eq!(letters(&group.picks(4)), "ABAB");
    }
}
