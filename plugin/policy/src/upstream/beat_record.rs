//! A record of whoever owns something as long as it beats.
//!
//! ```text
//!   1  version (1)     8  owner (0: nobody)     8  beat            (little-endian)
//! ```

const VERSION: u8 = 1;
const RECORD_BYTES: usize = 17;

pub(super) fn encode(owner: u64, beat: u64) -> [u8; RECORD_BYTES] {
    let mut record = [VERSION; RECORD_BYTES];
    let bytes = owner.to_le_bytes().into_iter().chain(beat.to_le_bytes());
    record
        .iter_mut()
        .skip(1)
        .zip(bytes)
        .for_each(|(place, byte)| *place = byte);
    record
}

/// `None` if it is none.
pub(super) fn decode(record: &[u8]) -> Option<(u64, u64)> {
    let record: &[u8; RECORD_BYTES] = record.try_into().ok()?;
    let (version, rest) = record.split_first()?;
    let (owner, beat) = rest.split_first_chunk::<8>()?;
    (*version == VERSION).then_some((
        u64::from_le_bytes(*owner),
        u64::from_le_bytes(*beat.first_chunk::<8>()?),
    ))
}
