//! What checks found out, as whoever checks tells everybody else: the other VMs, the admin page, `ctl`.
//!
//! ```text
//!   evenkeel/<pool>/state     1  version of this layout (1)     8  version of the content     2  servers
//!   then per server: 8  hash of its id     1  health (0 checking, 1 up, 2 down)     8  since, milliseconds since 1970
//!                    4  transitions        1  length of the reason, at most 64, the reason             (little-endian)
//! ```
//!
//! Whether there is anything new is asked of a small key first: [`super::News`]. Servers that are not in a record are not checked
//! yet. A record outlives the VM that wrote it, and a reload: whoever checks next begins with it.

use super::health::{Check, Health, REASON_BYTES_MAX};
use super::server_record::{self, array};

const VERSION: u8 = 1;

/// The content of a record.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StateRecord {
    /// Changes with every change.
    pub version: u64,
    /// At most [`crate::config::SERVERS_MAX`].
    pub servers: Vec<ServerState>,
}

/// One server as checks have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerState {
    /// Of its id: [`super::id_hash`].
    pub id_hash: u64,
    pub health: Health,
    /// Milliseconds since 1970; 0: never checked.
    pub since_ms: u64,
    /// How often it went down or up again.
    pub transitions: u32,
    /// At most 64 bytes.
    pub reason: String,
}

impl StateRecord {
    /// The key of a pool's record.
    pub fn key(pool: &str) -> Vec<u8> {
        format!("evenkeel/{pool}/state").into_bytes()
    }

    /// The version in a record, without reading the rest.
    pub fn version_of(bytes: &[u8]) -> Option<u64> {
        server_record::version_of(VERSION, bytes)
    }

    /// The record as bytes.
    pub fn encode(&self) -> Vec<u8> {
        server_record::encode(VERSION, self.version, &self.servers, write)
    }

    /// Reads a record; `None` if it is none, to the last byte.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, servers) = server_record::decode(VERSION, bytes, server)?;
        Some(Self { version, servers })
    }
}

fn write(server: &ServerState, out: &mut Vec<u8>) {
    let reason = server
        .reason
        .get(..REASON_BYTES_MAX)
        .unwrap_or(&server.reason);
    let reason = if reason.len() > REASON_BYTES_MAX {
        ""
    } else {
        reason
    };
    out.extend(server.id_hash.to_le_bytes());
    out.push(match server.health {
        Health::Checking => 0,
        Health::Up => 1,
        Health::Down => 2,
    });
    out.extend(server.since_ms.to_le_bytes());
    out.extend(server.transitions.to_le_bytes());
    out.push(u8::try_from(reason.len()).unwrap_or(0));
    out.extend(reason.bytes());
}

fn server(rest: &mut &[u8]) -> Option<ServerState> {
    let id_hash = u64::from_le_bytes(array(rest)?);
    let health = match rest.split_off_first()? {
        0 => Health::Checking,
        1 => Health::Up,
        2 => Health::Down,
        _ => return None,
    };
    let since_ms = u64::from_le_bytes(array(rest)?);
    let transitions = u32::from_le_bytes(array(rest)?);
    let length = usize::from(*rest.split_off_first()?);
    if length > REASON_BYTES_MAX {
        return None;
    }
    let reason = std::str::from_utf8(rest.split_off(..length)?)
        .ok()?
        .to_owned();
    Some(ServerState {
        id_hash,
        health,
        since_ms,
        transitions,
        reason,
    })
}

impl ServerState {
    pub(super) fn of(id_hash: u64, check: &Check) -> Self {
        Self {
            id_hash,
            health: check.health,
            since_ms: check.since_ms,
            transitions: check.transitions,
            reason: check.reason.clone(),
        }
    }

    pub(super) fn check(&self) -> Check {
        Check::known(
            self.health,
            self.reason.clone(),
            self.since_ms,
            self.transitions,
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::SERVERS_MAX;

    #[test]
    fn records_are_read_as_written_and_junk_is_not() {
        let state = |id_hash, health, reason: &str| ServerState {
            id_hash,
            health,
            since_ms: 1_700_000_000_000,
            transitions: 3,
            reason: reason.to_owned(),
        };
        let record = StateRecord {
            version: 9,
            servers: vec![
                state(1, Health::Checking, ""),
                state(u64::MAX, Health::Up, "2 checks passed"),
                state(2, Health::Down, &"r".repeat(64)),
            ],
        };
        let bytes = record.encode();
        assert_eq!(StateRecord::decode(&bytes), Some(record));
        assert_eq!(StateRecord::version_of(&bytes), Some(9));
        for end in 0..bytes.len() {
            assert_eq!(StateRecord::decode(&bytes[..end]), None, "cut at {end}");
        }
        proptest!(|(junk in proptest::collection::vec(any::<u8>(), 0..80), version in any::<bool>())| {
            let mut junk = junk;
            if let Some(first) = junk.first_mut().filter(|_| version) {
                *first = VERSION;
            }
            if let Some(record) = StateRecord::decode(&junk) {
                prop_assert_eq!(record.encode(), junk);
            }
        });
    }

    #[test]
    fn the_largest_pool_with_the_longest_reasons_is_bounded() {
        let server = ServerState {
            id_hash: 1,
            health: Health::Down,
            since_ms: 1,
            transitions: 1,
            reason: "r".repeat(64),
        };
        let record = StateRecord {
            version: 1,
            servers: vec![server; SERVERS_MAX + 1],
        };
        let bytes = record.encode();
        assert!(bytes.len() < 1 << 20, "{}", bytes.len());
        assert_eq!(
            StateRecord::decode(&bytes).unwrap().servers.len(),
            SERVERS_MAX
        );
    }
}
