//! Requests in flight by key and VM in a bucket of shared data.
//!
//! An entry is one VM's requests of one key, written by that VM only. Entries of VMs that are gone do not count, and are struck out by whoever
//! writes the bucket next: so nothing leaks when a VM dies. A VM is alive while it is among the slots; one that has just begun may not
//! be there yet for others, so an entry that was touched lately counts whoever wrote it.

use crate::upstream::Slots;

const ENTRY_BYTES: usize = 28;
/// Most entries of a bucket; more could only be in flight at a time if the table were far too small.
const ENTRIES_MAX: usize = 128;
/// For how long an entry counts whose VM is not known, milliseconds: longer than a VM takes to notice another.
const UNKNOWN_MS: u64 = 2_000;

/// Requests of a key in other VMs than this one.
pub(super) fn others(bucket: &[u8], hash: u64, now_ms: u64, slots: &Slots) -> u32 {
    let (entries, _) = bucket.as_chunks::<ENTRY_BYTES>();
    let entries = entries.iter().map(decoded);
    entries
        .filter(|entry| entry.hash == hash && entry.owner != slots.owner())
        .filter(|entry| entry.counts(now_ms, slots))
        .fold(0, |sum: u32, entry| sum.saturating_add(entry.requests))
}

/// Writes this VM's requests of a key, and strikes out what does not count; `false`: the bucket is full.
pub(super) fn write(
    bucket: &mut Vec<u8>,
    hash: u64,
    requests: u32,
    now_ms: u64,
    slots: &Slots,
) -> bool {
    let (entries, _) = bucket.as_chunks::<ENTRY_BYTES>();
    let stays = |entry: &Entry| {
        let is_own = entry.owner == slots.owner();
        entry.requests > 0
            && (!is_own || entry.hash != hash)
            && (is_own || entry.counts(now_ms, slots))
    };
    let mut kept: Vec<Entry> = entries.iter().map(decoded).filter(stays).collect();
    if requests > 0 {
        kept.push(Entry {
            hash,
            owner: slots.owner(),
            touched_ms: now_ms,
            requests,
        });
    }
    bucket.clear();
    for entry in &kept {
        bucket.extend(entry.hash.to_le_bytes());
        bucket.extend(entry.owner.to_le_bytes());
        bucket.extend(entry.touched_ms.to_le_bytes());
        bucket.extend(entry.requests.to_le_bytes());
    }
    kept.len() <= ENTRIES_MAX
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    hash: u64,
    owner: u64,
    touched_ms: u64,
    requests: u32,
}

impl Entry {
    fn counts(&self, now_ms: u64, slots: &Slots) -> bool {
        self.owner == slots.owner()
            || slots.others().any(|(_, owner)| owner == self.owner)
            || now_ms.abs_diff(self.touched_ms) < UNKNOWN_MS
    }
}

fn decoded(entry: &[u8; ENTRY_BYTES]) -> Entry {
    let number = |at: usize| {
        let bytes = entry.get(at..).and_then(|rest| rest.first_chunk::<8>());
        bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    };
    let requests = entry.last_chunk::<4>();
    Entry {
        hash: number(0),
        owner: number(8),
        touched_ms: number(16),
        requests: requests.map_or(0, |bytes| u32::from_le_bytes(*bytes)),
    }
}
