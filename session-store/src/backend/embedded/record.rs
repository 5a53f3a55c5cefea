//! What the log consists of: one record for each effect, never for the command that had it.
//!
//! `[checksum u32][length u32][payload]`, little endian; the checksum (CRC-32) is over length and payload, so a record that was torn by
//! the end of a process or of the power is known for what it is. Payload: `[kind u8][database u8][deadline u64][key length u32][key]`, and of
//! `Put` `[read u8][form u8]` with the value. Deadlines are absolute: what expired while nobody ran is gone.

use bytes::{Buf, BufMut, Bytes};
use std::collections::BTreeMap;

use super::table::{Deadline, Value};
use crate::backend::DATABASES;

/// Checksum and length.
pub(super) const HEAD: usize = 8;
/// No record is longer; what says so is no record.
pub(super) const RECORD_MAX: usize = 1024 * 1024 * 1024;

/// An effect.
#[derive(Debug, PartialEq)]
pub(super) enum Record<'a> {
    Put {
        database: u8,
        key: &'a [u8],
        value: &'a Value,
        deadline: Deadline,
        is_read: bool,
    },
    Delete {
        database: u8,
        key: &'a [u8],
    },
    Deadline {
        database: u8,
        key: &'a [u8],
        deadline: Deadline,
    },
    Seen {
        database: u8,
        key: &'a [u8],
    },
}

/// The same, read back.
#[derive(Debug, PartialEq)]
pub(super) enum Restored {
    Put {
        database: u8,
        key: Bytes,
        value: Value,
        deadline: Deadline,
        is_read: bool,
    },
    Delete {
        database: u8,
        key: Bytes,
    },
    Deadline {
        database: u8,
        key: Bytes,
        deadline: Deadline,
    },
    Seen {
        database: u8,
        key: Bytes,
    },
}

/// Records that wait to be written; a store without a path keeps none.
#[derive(Debug, Default)]
pub(super) struct Journal {
    is_kept: bool,
    waiting: Vec<u8>,
    /// Bytes ever appended: the place in the log after the last record.
    end: u64,
}

impl Journal {
    pub(super) fn kept() -> Self {
        Self {
            is_kept: true,
            ..Self::default()
        }
    }

    pub(super) fn append(&mut self, record: &Record<'_>) {
        if self.is_kept {
            let before = self.waiting.len();
            record.encode(&mut self.waiting);
            self.end += (self.waiting.len() - before) as u64;
        }
    }

    /// The place in the log behind which a command's effects are written.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn waiting(&mut self) -> &mut Vec<u8> {
        &mut self.waiting
    }
}

const PUT: u8 = 1;
const DELETE: u8 = 2;
const DEADLINE: u8 = 3;
const SEEN: u8 = 4;
const TEXT: u8 = 0;
const HASH: u8 = 1;

impl Record<'_> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_bytes(0, HEAD);
        match self {
            Self::Put {
                database,
                key,
                value,
                deadline,
                is_read,
            } => {
                head(out, PUT, *database, *deadline, key);
                out.put_u8(u8::from(*is_read));
                match value {
                    Value::Text(text) => {
                        out.put_u8(TEXT);
                        out.put_slice(text);
                    }
                    Value::Hash(fields) => {
                        out.put_u8(HASH);
                        for part in fields.iter().flat_map(|(name, value)| [name, value]) {
                            sized(out, part);
                        }
                    }
                }
            }
            Self::Delete { database, key } => head(out, DELETE, *database, 0, key),
            Self::Deadline {
                database,
                key,
                deadline,
            } => head(out, DEADLINE, *database, *deadline, key),
            Self::Seen { database, key } => head(out, SEEN, *database, 0, key),
        }
        let length = u32::try_from(out.len() - start - HEAD).unwrap_or(u32::MAX);
        let Some(bytes) = out.get_mut(start + 4..) else {
            return;
        };
        if let Some(place) = bytes.get_mut(..4) {
            place.copy_from_slice(&length.to_le_bytes());
        }
        let checksum = crc32fast::hash(bytes).to_le_bytes();
        if let Some(place) = out.get_mut(start..start + 4) {
            place.copy_from_slice(&checksum);
        }
    }
}

fn head(out: &mut Vec<u8>, kind: u8, database: u8, deadline: Deadline, key: &[u8]) {
    out.put_u8(kind);
    out.put_u8(database);
    out.put_u64_le(deadline);
    sized(out, key);
}

fn sized(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u32_le(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    out.put_slice(bytes);
}

/// The length of the payload that a head announces.
pub(super) fn length(head: [u8; HEAD]) -> Option<usize> {
    let [_, _, _, _, length @ ..] = head;
    usize::try_from(u32::from_le_bytes(length))
        .ok()
        .filter(|length| *length <= RECORD_MAX)
}

/// The record of a head and its payload; `None`: it is damaged.
pub(super) fn decode(head: [u8; HEAD], payload: Vec<u8>) -> Option<Restored> {
    let [a, b, c, d, length @ ..] = head;
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&length);
    checksum.update(&payload);
    if checksum.finalize() != u32::from_le_bytes([a, b, c, d]) {
        return None;
    }
    let mut rest = Bytes::from(payload);
    let kind = rest.try_get_u8().ok()?;
    let database = rest
        .try_get_u8()
        .ok()
        .filter(|database| *database < DATABASES)?;
    let deadline = rest.try_get_u64_le().ok()?;
    let key = unsized_part(&mut rest)?;
    Some(match kind {
        PUT => {
            let is_read = rest.try_get_u8().ok()? != 0;
            let value = match rest.try_get_u8().ok()? {
                TEXT => Value::Text(rest),
                HASH => {
                    let mut fields = BTreeMap::new();
                    // Ends: each turn takes bytes.
                    while !rest.is_empty() {
                        let name = unsized_part(&mut rest)?;
                        fields.insert(name, unsized_part(&mut rest)?);
                    }
                    Value::Hash(fields)
                }
                _ => return None,
            };
            Restored::Put {
                database,
                key,
                value,
                deadline,
                is_read,
            }
        }
        DELETE => Restored::Delete { database, key },
        DEADLINE => Restored::Deadline {
            database,
            key,
            deadline,
        },
        SEEN => Restored::Seen { database, key },
        _ => return None,
    })
}

fn unsized_part(rest: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(rest.try_get_u32_le().ok()?).ok()?;
    (length <= rest.len()).then(|| rest.split_to(length))
}
