//! States of rates in a bucket of shared data: the one used last comes first, and the last one makes room.
//!
//! A request that is refused changes nothing, and so writes nothing: who is kept out costs a look only. (nginx notes that its state was used.)

use super::BUCKET_STATES;
use super::leaky_bucket::{Elapsed, Rate, State, Verdict};

const ENTRY_BYTES: usize = 20;

/// Whether a request is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Charge {
    No,
    IfPasses,
    Always,
}

/// Whether the bucket is another one now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Changed {
    Yes,
    No,
}

/// Judges a request by the bucket, which may hold anything, and changes it if the request is counted.
pub(super) fn judge(
    bucket: &mut Vec<u8>,
    hash: u64,
    rate: Rate,
    now_ms: u64,
    charge: Charge,
) -> (Verdict, Changed) {
    bucket.truncate(bucket.len() / ENTRY_BYTES * ENTRY_BYTES);
    let (entries, _) = bucket.as_chunks::<ENTRY_BYTES>();
    let place = entries.iter().position(|entry| hash_of(entry) == hash);
    let known = place.and_then(|place| entries.get(place)).map(state_of);
    let (excess, last_ms) = match known {
        None => (0, now_ms),
        Some(state) => match rate.excess(state, now_ms) {
            (excess, Elapsed::Some) => (excess, now_ms),
            (excess, Elapsed::Nothing) => (excess, state.last_ms),
        },
    };
    let verdict = rate.verdict(excess);
    let counts = match charge {
        Charge::No => false,
        Charge::IfPasses => !matches!(verdict, Verdict::Refused { .. }),
        Charge::Always => true,
    };
    if !counts {
        return (verdict, Changed::No);
    }
    // To the front: what stands before it moves back by one; of a full bucket the last entry goes.
    let full = usize::try_from(BUCKET_STATES).unwrap_or(0) * ENTRY_BYTES;
    if let Some(place) = place {
        bucket.drain(place * ENTRY_BYTES..(place + 1) * ENTRY_BYTES);
    } else {
        bucket.truncate(full.saturating_sub(ENTRY_BYTES));
    }
    let entry = encoded(hash, State { last_ms, excess });
    bucket.splice(0..0, entry);
    (verdict, Changed::Yes)
}

fn hash_of(entry: &[u8; ENTRY_BYTES]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *entry;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

fn state_of(entry: &[u8; ENTRY_BYTES]) -> State {
    let [_, _, _, _, _, _, _, _, a, b, c, d, e, f, g, h, i, j, k, l] = *entry;
    State {
        last_ms: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        excess: u32::from_le_bytes([i, j, k, l]),
    }
}

fn encoded(hash: u64, state: State) -> impl Iterator<Item = u8> {
    let (hash, last) = (hash.to_le_bytes(), state.last_ms.to_le_bytes());
    hash.into_iter()
        .chain(last)
        .chain(state.excess.to_le_bytes())
}
