//! What other VMs told of their load, kept as read, so that only what has changed is read again.
//!
//! A pool of up to [`CHUNK_SERVERS`] servers is one record for each VM, and that is read each time. A larger one has an index beside
//! its records, which says what each of them holds; ten thousand servers would otherwise be 157 calls for each VM, 200 times a
//! second, nearly all of them for nothing.
//!
//! ```text
//!   evenkeel/<pool>/load/<slot>.index     8  owner of the slot     then per chunk: 4  stamp, 0: never written     (little-endian)
//! ```

use super::load_record::{CHUNK_SERVERS, LoadEntry, LoadRecord};
use super::{SharedData, Slots};
use crate::random::mixed;

/// Other VMs' load on the servers of a pool.
#[derive(Debug, Default)]
pub(super) struct OthersLoad {
    /// At most as many as there are slots.
    slots: Vec<SlotLoad>,
    key: Vec<u8>,
    value: Vec<u8>,
}

/// What the VM in one slot told.
#[derive(Debug)]
struct SlotLoad {
    slot: u32,
    owner: u64,
    chunks: Vec<Chunk>,
}

#[derive(Debug, Clone, Default)]
struct Chunk {
    stamp: u32,
    servers: Vec<(usize, LoadEntry)>,
}

/// Where a server of some hash stands in the pool.
pub(super) trait Places {
    /// How many servers there are.
    fn len(&self) -> usize;
    /// The hash of the server at a place.
    fn hash_at(&self, place: usize) -> Option<u64>;
    /// The place of a hash, by searching.
    fn place_of(&self, hash: u64) -> Option<usize>;
}

impl OthersLoad {
    /// Reads what those who are alive told since it was read last, and forgets those who are not.
    pub(super) fn read(
        &mut self,
        pool: &str,
        places: &impl Places,
        slots: &Slots,
        data: &mut impl SharedData,
    ) {
        let chunks = chunks_of(places.len());
        let mut kept = 0;
        for (slot, owner) in slots.others() {
            let mut known = self.slots.iter().skip(kept);
            let known = known.position(|known| (known.slot, known.owner) == (slot, owner));
            match known {
                Some(further) => self.slots.swap(kept, kept + further),
                None => {
                    self.slots.push(SlotLoad {
                        slot,
                        owner,
                        chunks: vec![Chunk::default(); chunks],
                    });
                    let last = self.slots.len() - 1;
                    self.slots.swap(kept, last);
                }
            }
            if let Some(known) = self.slots.get_mut(kept) {
                known.read(pool, places, (&mut self.key, &mut self.value), data);
            }
            kept += 1;
        }
        self.slots.truncate(kept);
    }

    /// What is known now, server by server, once for each VM.
    pub(super) fn each(&self, mut add: impl FnMut(usize, &LoadEntry)) {
        for chunk in self.slots.iter().flat_map(|slot| &slot.chunks) {
            for (server, entry) in &chunk.servers {
                add(*server, entry);
            }
        }
    }
}

impl SlotLoad {
    fn read(
        &mut self,
        pool: &str,
        places: &impl Places,
        (key, value): (&mut Vec<u8>, &mut Vec<u8>),
        data: &mut impl SharedData,
    ) {
        let mut stamps: &[u8] = &[];
        let mut index = Vec::new();
        if self.chunks.len() > 1 {
            index_key(pool, self.slot, key);
            data.get(key, &mut index);
            stamps = match index.split_first_chunk::<8>() {
                Some((owner, stamps)) if u64::from_le_bytes(*owner) == self.owner => stamps,
                _ => &[],
            };
        }
        let indexed = self.chunks.len() > 1;
        let mut stamps = stamps.chunks_exact(4);
        for (number, chunk) in self.chunks.iter_mut().enumerate() {
            let stamp = stamps.next().and_then(|stamp| stamp.first_chunk::<4>());
            let stamp = stamp.map_or(0, |stamp| u32::from_le_bytes(*stamp));
            if indexed && stamp == chunk.stamp {
                continue;
            }
            chunk.stamp = stamp;
            chunk.servers.clear();
            LoadRecord::key(pool, self.slot, number, key);
            if data.get(key, value).is_none() {
                continue;
            }
            let record = LoadRecord::decode(value).filter(|record| record.owner == self.owner);
            if let Some(record) = record {
                chunk.take(&record, number, places);
            }
        }
    }
}

impl Chunk {
    fn take(&mut self, record: &LoadRecord<'_>, number: usize, places: &impl Places) {
        // The writer's order is nearly always this pool's: then each server is found after the one before it.
        let mut expected = number * CHUNK_SERVERS;
        let end = expected + CHUNK_SERVERS;
        for entry in record.entries() {
            let ahead = (expected..end).find(|place| places.hash_at(*place) == Some(entry.hash));
            let Some(place) = ahead.or_else(|| places.place_of(entry.hash)) else {
                continue;
            };
            if ahead.is_some() {
                expected = place + 1;
            }
            self.servers.push((place, entry));
        }
    }
}

/// Records that a pool of so many servers needs.
pub(super) fn chunks_of(servers: usize) -> usize {
    servers.div_ceil(CHUNK_SERVERS).max(1)
}

/// Writes the key of an index into `key` (cleared before).
pub(super) fn index_key(pool: &str, slot: u32, key: &mut Vec<u8>) {
    LoadRecord::key(pool, slot, 0, key);
    key.extend_from_slice(b".index");
}

/// Writes an index into `out` (cleared before).
pub(super) fn encode_index(owner: u64, stamps: &[u32], out: &mut Vec<u8>) {
    out.clear();
    out.extend(owner.to_le_bytes());
    out.extend(stamps.iter().flat_map(|stamp| stamp.to_le_bytes()));
}

/// A number that differs when a record does, never 0. (Not a count: while a reload drains the old configuration, two pools write the
/// same records, and their counts would say nothing to each other.)
pub(super) fn stamp(entries: impl Iterator<Item = LoadEntry>) -> u32 {
    let stamp = entries.fold(1, |stamp, entry| {
        let latency = entry.latency.sampled_us ^ u64::from(entry.latency.average_us) << 32;
        mixed(stamp ^ entry.hash).wrapping_add(mixed(latency ^ u64::from(entry.in_flight)))
    });
    u32::try_from(stamp >> 32).unwrap_or(0).max(1)
}
