//! The frame of a shared record that has a version and one entry for each server; what an entry holds is its owner's business.
//!
//! ```text
//!   1  version of the layout     8  version of the content     2  servers     then the servers                 (little-endian)
//! ```

use crate::config::SERVERS_MAX;

/// Bytes before the first server.
const HEAD_BYTES: usize = 11;

/// The version of the content, without reading the rest; `None` in another layout.
pub(super) fn version_of(layout: u8, bytes: &[u8]) -> Option<u64> {
    let (found, rest) = bytes.split_first()?;
    (*found == layout).then_some(u64::from_le_bytes(*rest.first_chunk::<8>()?))
}

/// The record as bytes, with at most [`SERVERS_MAX`] of the servers.
pub(super) fn encode<T>(
    layout: u8,
    version: u64,
    servers: &[T],
    write: impl Fn(&T, &mut Vec<u8>),
) -> Vec<u8> {
    let servers = servers.get(..SERVERS_MAX).unwrap_or(servers);
    let mut out = vec![layout];
    out.extend(version.to_le_bytes());
    out.extend(u16::try_from(servers.len()).unwrap_or(0).to_le_bytes());
    servers.iter().for_each(|server| write(server, &mut out));
    out
}

/// The version of the content and the servers; `None` if it is no such record, to the last byte. `read` takes one server off the
/// front.
pub(super) fn decode<T>(
    layout: u8,
    bytes: &[u8],
    read: impl Fn(&mut &[u8]) -> Option<T>,
) -> Option<(u64, Vec<T>)> {
    let version = version_of(layout, bytes)?;
    let (head, mut rest) = bytes.split_at_checked(HEAD_BYTES)?;
    let count = usize::from(u16::from_le_bytes(*head.last_chunk::<2>()?));
    if count > SERVERS_MAX {
        return None;
    }
    let mut servers = Vec::with_capacity(count);
    for _ in 0..count {
        servers.push(read(&mut rest)?);
    }
    rest.is_empty().then_some((version, servers))
}

/// Takes the next `N` bytes.
pub(super) fn array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    rest.split_off(..N)?.try_into().ok()
}
