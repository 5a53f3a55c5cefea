//! How much a server wants a key: highest random weight (Thaler and Ravishankar 1998), with weights after Schindelhauer and
//! Schomaker (2005): of all servers the one with the least `−log₂(u) / weight` has the key, `u` being a number in (0, 1]
//! hashed from both. A server's part is then its weight's, and one that comes or goes moves only keys of its own.
//!
//! # Why not the logarithm of the machine
//! Its last bits differ between machines, and between wasm and x86-64. A table of 256 steps with straight lines between them
//! is the same everywhere, falls with every greater `u` as the logarithm does, and is exact where it matters: near 1, where
//! winners are.

use crate::random::mixed;

/// Bits behind the point of a logarithm.
const FRACTION_BITS: u32 = 40;
const STEP_BITS: u32 = 8;
const STEPS: usize = 1 << STEP_BITS;

/// `log₂(1 + i/256)` for i = 0 … 256, in units of 2⁻⁴⁰.
const LOGARITHMS: [u64; STEPS + 1] = logarithms();

#[expect(
    clippy::indexing_slicing,
    reason = "the compiler runs it, and says when an index is wrong"
)]
const fn logarithms() -> [u64; STEPS + 1] {
    let mut table = [0; STEPS + 1];
    let mut step = 0;
    // Ends: 257 rounds of 40.
    while step <= STEPS {
        table[step] = logarithm_of_step(step as u64);
        step += 1;
    }
    table
}

/// One bit of the logarithm for each squaring: if the square passes 2 the bit is set and the square halved.
const fn logarithm_of_step(step: u64) -> u64 {
    if step == STEPS as u64 {
        return 1 << FRACTION_BITS;
    }
    // 1 + step/256 with 31 bits behind the point, then 62 of its square.
    let mut number = (1 << 31) + (step << (31 - STEP_BITS));
    let (mut logarithm, mut bit) = (0, 0);
    while bit < FRACTION_BITS {
        let square = number * number;
        let passes = square >> 63;
        logarithm = logarithm << 1 | passes;
        number = square >> (31 + passes);
        bit += 1;
    }
    logarithm
}

/// `−log₂((hash + 1) / 2⁶⁴)` in units of 2⁻⁴⁰: at most 64 of them, never less for a lesser hash.
fn distance(hash: u64) -> u64 {
    let Some(number) = hash.checked_add(1) else {
        return 0;
    };
    let zeros = number.leading_zeros();
    // 1.x: the first bit is the one before the point, which drops out.
    let behind_point = (number << zeros) << 1;
    let step = (behind_point >> (u64::BITS - STEP_BITS)) as usize;
    let [low, high] =
        [step, step + 1].map(|step| LOGARITHMS.get(step).copied().unwrap_or_default());
    // 30 bits of the way between two steps, which are less than 2³³ apart: the product fits.
    let way = (behind_point << STEP_BITS) >> 34;
    let logarithm = low + (((high - low) * way) >> 30);
    (u64::from(zeros) + 1) * (1 << FRACTION_BITS) - logarithm
}

/// What is compared: the key goes to the server whose score beats everybody's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Score {
    distance: u64,
    weight: u64,
    /// Between equals, of which there are practically none.
    server: u64,
}

/// The number that a server and a key have together.
pub(super) fn hash_together(server: u64, key: u64) -> u64 {
    mixed(server ^ key)
}

impl Score {
    /// The score of a server, if it beats `best`. Nearly all servers of a large pool lose without the logarithm being looked up.
    pub(super) fn beating(
        best: Option<&Self>,
        (server, weight): (u64, u16),
        key: u64,
    ) -> Option<Self> {
        let (hash, weight) = (hash_together(server, key), u64::from(weight.max(1)));
        if let Some(best) = best {
            // −log₂(u) is at least (1 − u) × 1.4375.
            let rest = !hash >> (u64::BITS - FRACTION_BITS);
            let at_least = rest + (rest >> 2) + (rest >> 3) + (rest >> 4);
            if at_least.saturating_sub(4) * best.weight > best.distance * weight {
                return None;
            }
        }
        let score = Self {
            distance: distance(hash),
            weight,
            server,
        };
        best.is_none_or(|best| score.beats(best)).then_some(score)
    }

    /// Distances have at most 47 bits and weights 16: the products fit.
    pub(super) fn beats(&self, other: &Self) -> bool {
        let (own, others) = (self.distance * other.weight, other.distance * self.weight);
        own < others || (own == others && self.server < other.server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Sequence;

    #[test]
    fn distances_are_logarithms() {
        let mut sequence = Sequence::new(5);
        let unit = (1_u64 << FRACTION_BITS) as f64;
        for hash in (0..20_000)
            .map(|round| sequence.next_u64() >> (round % 50))
            .chain([0, 1, u64::MAX - 1, u64::MAX, u64::MAX >> 1])
        {
            let (found, exact) = (
                distance(hash) as f64 / unit,
                64.0 - (hash as f64 + 1.0).log2(),
            );
            assert!((found - exact).abs() <= 4e-6, "{hash}: {found} for {exact}");
        }
        assert_eq!(
            (distance(u64::MAX), distance(0), distance(u64::MAX >> 1)),
            (0, 64 << FRACTION_BITS, 1 << FRACTION_BITS)
        );
    }

    #[test]
    fn a_greater_hash_is_never_further() {
        let mut sequence = Sequence::new(6);
        for round in 0..20_000 {
            let hash = sequence.next_u64() >> (round % 60);
            assert!(distance(hash + 1) <= distance(hash), "{hash}");
        }
    }

    #[test]
    fn looking_no_further_at_those_that_must_lose_changes_nothing() {
        let mut sequence = Sequence::new(7);
        for _ in 0..2_000 {
            let servers: Vec<(u64, u16)> = (0..40)
                .map(|_| {
                    (
                        sequence.next_u64(),
                        u16::try_from(sequence.below(300) + 1).unwrap(),
                    )
                })
                .collect();
            let key = sequence.next_u64();
            let (mut best, mut plain): (Option<Score>, Option<Score>) = (None, None);
            for server in servers {
                best = Score::beating(best.as_ref(), server, key).or(best);
                let score = Score::beating(None, server, key).unwrap();
                plain = plain.filter(|plain| !score.beats(plain)).or(Some(score));
            }
            assert_eq!(best.unwrap().server, plain.unwrap().server);
        }
    }
}
