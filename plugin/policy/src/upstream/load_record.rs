//! What one VM tells the others of its load, byte by byte.
//!
//! ```text
//!   evenkeel/<pool>/load/<slot>            the first 64 servers of the pool, in the writer's order
//!   evenkeel/<pool>/load/<slot>.<chunk>    the 64 after each, from chunk 1
//!   evenkeel/<pool>/load/<slot>.index      which of several chunks changed (others_load.rs)
//!
//!   1  layout (1, 2)     1  chunks of the pool     8  owner of the slot     2  entries
//!   then per server that has any: 8  hash of its id     4  requests in flight            (all little-endian)
//!   and in layout 2 after that:   4  average time to the first byte, µs      8  when the last answer was seen, µs
//! ```
//!
//! The owner is in every record: a record of somebody who does not own the slot any more counts nothing. Latencies are told only
//! where the method looks at them.

use super::server_record::array;
use crate::balance::Latency;

/// Servers of one record.
pub const CHUNK_SERVERS: usize = 64;
const HEADER_BYTES: usize = 12;

/// What a record tells of each server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    InFlight,
    Latency,
}

impl Layout {
    fn number(self) -> u8 {
        match self {
            Self::InFlight => 1,
            Self::Latency => 2,
        }
    }

    fn entry_bytes(self) -> usize {
        match self {
            Self::InFlight => 12,
            Self::Latency => 24,
        }
    }
}

/// One server in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadEntry {
    /// Of the server's id.
    pub hash: u64,
    pub in_flight: u32,
    /// Nothing where the layout has none.
    pub latency: Latency,
}

/// A record, as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadRecord<'a> {
    pub chunks: u8,
    pub owner: u64,
    layout: Layout,
    entries: &'a [u8],
}

impl<'a> LoadRecord<'a> {
    /// Writes the key of a record into `key` (cleared before).
    pub fn key(pool: &str, slot: u32, chunk: usize, key: &mut Vec<u8>) {
        key.clear();
        // By hand: formatting costs as much as the call that needs the key, and a large pool makes hundreds of keys at a time.
        for part in ["evenkeel/", pool, "/load/"] {
            key.extend_from_slice(part.as_bytes());
        }
        push_number(usize::try_from(slot).unwrap_or(usize::MAX), key);
        if chunk > 0 {
            key.push(b'.');
            push_number(chunk, key);
        }
    }

    /// Writes a record into `out` (cleared before): at most [`CHUNK_SERVERS`] of `entries`, those of which there is anything to tell.
    pub fn encode(
        chunks: u8,
        owner: u64,
        layout: Layout,
        entries: impl Iterator<Item = LoadEntry>,
        out: &mut Vec<u8>,
    ) {
        out.clear();
        out.extend([layout.number(), chunks]);
        out.extend(owner.to_le_bytes());
        let place = out.len();
        out.extend([0, 0]);
        let mut count: u16 = 0;
        let told = |entry: &LoadEntry| {
            entry.in_flight > 0 || layout == Layout::Latency && entry.latency.average_us > 0
        };
        for entry in entries.filter(told).take(CHUNK_SERVERS) {
            out.extend(entry.hash.to_le_bytes());
            out.extend(entry.in_flight.to_le_bytes());
            if layout == Layout::Latency {
                out.extend(entry.latency.average_us.to_le_bytes());
                out.extend(entry.latency.sampled_us.to_le_bytes());
            }
            count += 1;
        }
        out.iter_mut()
            .skip(place)
            .zip(count.to_le_bytes())
            .for_each(|(byte, value)| *byte = value);
    }

    /// Reads a record; `None` if it is none.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (header, entries) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let [number, chunks, owner @ .., low, high] = header;
        let layout = [Layout::InFlight, Layout::Latency]
            .into_iter()
            .find(|layout| layout.number() == *number)?;
        let count = usize::from(u16::from_le_bytes([*low, *high]));
        let owner = u64::from_le_bytes(*owner.first_chunk::<8>()?);
        (entries.len() == count * layout.entry_bytes() && count <= CHUNK_SERVERS).then_some(Self {
            chunks: *chunks,
            owner,
            layout,
            entries,
        })
    }

    /// What it tells, server by server.
    pub fn entries(&self) -> impl Iterator<Item = LoadEntry> + 'a {
        self.entries
            .chunks_exact(self.layout.entry_bytes())
            .filter_map(|mut entry| {
                let hash = u64::from_le_bytes(array(&mut entry)?);
                let in_flight = u32::from_le_bytes(array(&mut entry)?);
                let average_us = array(&mut entry).map_or(0, u32::from_le_bytes);
                let sampled_us = array(&mut entry).map_or(0, u64::from_le_bytes);
                Some(LoadEntry {
                    hash,
                    in_flight,
                    latency: Latency {
                        average_us,
                        sampled_us,
                    },
                })
            })
    }
}

/// Appends a number in decimal digits.
pub(super) fn push_number(number: usize, out: &mut Vec<u8>) {
    let start = out.len();
    let mut left = number;
    // Ends: each round takes a digit away.
    loop {
        out.push(b'0' + u8::try_from(left % 10).unwrap_or(0));
        left /= 10;
        if left == 0 {
            break;
        }
    }
    if let Some(digits) = out.get_mut(start..) {
        digits.reverse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_as_they_are_documented() {
        let mut key = Vec::new();
        for (slot, chunk, expected) in [
            (0, 0, "evenkeel/shop/load/0"),
            (127, 0, "evenkeel/shop/load/127"),
            (10, 1, "evenkeel/shop/load/10.1"),
            (9, 156, "evenkeel/shop/load/9.156"),
        ] {
            LoadRecord::key("shop", slot, chunk, &mut key);
            assert_eq!(String::from_utf8_lossy(&key), expected);
        }
    }
}
