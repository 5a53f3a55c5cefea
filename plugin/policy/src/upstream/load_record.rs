//! What one VM tells the others of its load, byte by byte.
//!
//! ```text
//!   evenkeel/<pool>/load/<slot>            the first 64 servers of the pool, in the writer's order
//!   evenkeel/<pool>/load/<slot>.<chunk>    the 64 after each, from chunk 1
//!
//!   1  version (1)     1  chunks of the pool     8  owner of the slot     2  entries
//!   then per server that has any: 8  hash of its id     4  requests in flight            (all little-endian)
//! ```
//!
//! The owner is in every record: a record of somebody who does not own the slot any more counts nothing.

/// Servers of one record.
pub const CHUNK_SERVERS: usize = 64;
const VERSION: u8 = 1;

/// A record, as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadRecord<'a> {
    pub chunks: u8,
    pub owner: u64,
    entries: &'a [u8],
}

impl<'a> LoadRecord<'a> {
    /// Writes the key of a record into `key` (cleared before).
    pub fn key(pool: &str, slot: u32, chunk: usize, key: &mut Vec<u8>) {
        use std::io::Write as _;
        key.clear();
        // Writing to a Vec does not fail.
        drop(write!(key, "evenkeel/{pool}/load/{slot}"));
        if chunk > 0 {
            drop(write!(key, ".{chunk}"));
        }
    }

    /// Writes a record into `out` (cleared before): at most [`CHUNK_SERVERS`] of `counts`, pairs of id hash and requests in flight.
    pub fn encode(
        chunks: u8,
        owner: u64,
        counts: impl Iterator<Item = (u64, u32)>,
        out: &mut Vec<u8>,
    ) {
        out.clear();
        out.extend([VERSION, chunks]);
        out.extend(owner.to_le_bytes());
        let place = out.len();
        out.extend([0, 0]);
        let mut entries: u16 = 0;
        for (hash, count) in counts.filter(|(_, count)| *count > 0).take(CHUNK_SERVERS) {
            out.extend(hash.to_le_bytes());
            out.extend(count.to_le_bytes());
            entries += 1;
        }
        out.iter_mut()
            .skip(place)
            .zip(entries.to_le_bytes())
            .for_each(|(byte, value)| *byte = value);
    }

    /// Reads a record; `None` if it is none.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (header, entries) = bytes.split_first_chunk::<12>()?;
        let [VERSION, chunks, owner @ .., low, high] = header else {
            return None;
        };
        let count = usize::from(u16::from_le_bytes([*low, *high]));
        let owner = u64::from_le_bytes(*owner.first_chunk::<8>()?);
        (entries.len() == count * 12 && count <= CHUNK_SERVERS).then_some(Self {
            chunks: *chunks,
            owner,
            entries,
        })
    }

    /// Hash of a server's id, and its requests in flight.
    pub fn counts(&self) -> impl Iterator<Item = (u64, u32)> + 'a {
        self.entries.chunks_exact(12).filter_map(|entry| {
            let (hash, count) = entry.split_first_chunk::<8>()?;
            Some((
                u64::from_le_bytes(*hash),
                u32::from_le_bytes(*count.first_chunk::<4>()?),
            ))
        })
    }
}
