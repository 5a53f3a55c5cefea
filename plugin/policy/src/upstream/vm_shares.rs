//! A shared value to which every VM of the process contributes a part of its own, changed by compare-and-swap.
//!
//! ```text
//!   1  version (1)      then per VM: 1  slot     8  owner     N  its part      (little-endian)
//! ```
//!
//! The parts stand in one value, because what is decided by them is decided about all of them at once: whoever writes wrote nothing
//! that somebody else's change makes wrong. A part is found by its owner, not by its slot, so that nobody takes over what a dead VM
//! left; the slot is where to look whether the owner still lives. Parts of the dead are struck out ([`VmShares::sweep`]).

use super::shared_data::{ABSENT, SharedData, Written};
use super::slots::{SLOTS_MAX, Slots};

/// How often a change is tried while others write in between.
pub(super) const TRIES_MAX: usize = 8;
const VERSION: u8 = 1;

/// The parts of one shared value as they were read last; a buffer for many such values.
#[derive(Debug, Default)]
pub(super) struct VmShares<const N: usize> {
    parts: Vec<Part<N>>,
    value: Vec<u8>,
}

/// What one VM contributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part<const N: usize> {
    pub(super) slot: u8,
    pub(super) owner: u64,
    pub(super) bytes: [u8; N],
}

/// What becomes of one's own part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own<const N: usize> {
    /// As it stands in the value.
    Unchanged,
    Set([u8; N]),
    /// Nothing is contributed.
    Gone,
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Written,
    /// There was nothing to write.
    Unchanged,
    /// Others always wrote first, the host takes no more, or this VM has no slot.
    NotWritten,
}

impl<const N: usize> VmShares<N> {
    /// The parts as they were read or written last.
    pub(super) fn parts(&self) -> &[Part<N>] {
        &self.parts
    }

    /// Reads the value; the compare-and-swap number to write it with. A value that is none is read as one without parts.
    pub(super) fn read(&mut self, key: &[u8], data: &mut impl SharedData) -> u32 {
        self.parts.clear();
        let Some(cas) = data.get(key, &mut self.value) else {
            return ABSENT;
        };
        if let Some((&VERSION, parts)) = self.value.split_first() {
            let parts = parts.chunks_exact(1 + 8 + N).map_while(decode);
            self.parts.extend(parts.take(slots_max()));
        }
        cas
    }

    /// Changes one's own part to what `own` makes of all of them, at most [`TRIES_MAX`] times.
    pub(super) fn change(
        &mut self,
        key: &[u8],
        slots: &Slots,
        data: &mut impl SharedData,
        mut own: impl FnMut(&[Part<N>]) -> Own<N>,
    ) -> Change {
        for _ in 0..TRIES_MAX {
            let cas = self.read(key, data);
            let own = own(&self.parts);
            if let Some(change) = self.write(key, slots, data, cas, own) {
                return change;
            }
        }
        Change::NotWritten
    }

    /// Makes one's own part what it should be, and strikes out those of the dead.
    pub(super) fn sweep(
        &mut self,
        key: &[u8],
        slots: &mut Slots,
        data: &mut impl SharedData,
        own: Own<N>,
    ) -> Change {
        for _ in 0..TRIES_MAX {
            let cas = self.read(key, data);
            let before = self.parts.len();
            let me = slots.owner();
            self.parts
                .retain(|part| part.owner == me || !slots.is_gone(part.slot, part.owner, data));
            let mine = self.parts.iter().find(|part| part.owner == me);
            let slot = slots.index().and_then(|slot| u8::try_from(slot).ok());
            let is_right = match (own, mine) {
                (Own::Unchanged, _) | (Own::Gone, None) => true,
                (Own::Set(bytes), Some(mine)) => mine.bytes == bytes && Some(mine.slot) == slot,
                (Own::Set(_), None) | (Own::Gone, Some(_)) => false,
            };
            if is_right && self.parts.len() == before {
                return Change::Unchanged;
            }
            // Without a slot one contributes nothing, but strikes out all the same.
            let own = if is_right { Own::Unchanged } else { own };
            let written = match (own, slot) {
                (Own::Unchanged, _) | (Own::Gone, _) | (Own::Set(_), Some(_)) => {
                    self.write_parts(key, slots, data, cas, own)
                }
                (Own::Set(_), None) => return Change::NotWritten,
            };
            if let Some(change) = written {
                return change;
            }
        }
        Change::NotWritten
    }

    /// `None`: somebody wrote in between.
    fn write(
        &mut self,
        key: &[u8],
        slots: &Slots,
        data: &mut impl SharedData,
        cas: u32,
        own: Own<N>,
    ) -> Option<Change> {
        let me = slots.owner();
        match own {
            Own::Unchanged => Some(Change::Unchanged),
            Own::Gone if self.parts.iter().all(|part| part.owner != me) => Some(Change::Unchanged),
            Own::Set(_) if slots.index().is_none() => Some(Change::NotWritten),
            Own::Set(_) | Own::Gone => self.write_parts(key, slots, data, cas, own),
        }
    }

    fn write_parts(
        &mut self,
        key: &[u8],
        slots: &Slots,
        data: &mut impl SharedData,
        cas: u32,
        own: Own<N>,
    ) -> Option<Change> {
        let me = slots.owner();
        if own != Own::Unchanged {
            self.parts.retain(|part| part.owner != me);
        }
        if let (Own::Set(bytes), Some(slot)) = (own, slots.index()) {
            self.parts.push(Part {
                slot: u8::try_from(slot).unwrap_or(u8::MAX),
                owner: me,
                bytes,
            });
        }
        self.value.clear();
        self.value.push(VERSION);
        for part in &self.parts {
            self.value.push(part.slot);
            self.value.extend(part.owner.to_le_bytes());
            self.value.extend(part.bytes);
        }
        match data.set(key, &self.value, cas) {
            Written::Done => Some(Change::Written),
            Written::Mismatch => None,
            Written::Failed => Some(Change::NotWritten),
        }
    }
}

fn decode<const N: usize>(bytes: &[u8]) -> Option<Part<N>> {
    let (slot, rest) = bytes.split_first()?;
    let (owner, rest) = rest.split_first_chunk::<8>()?;
    Some(Part {
        slot: *slot,
        owner: u64::from_le_bytes(*owner),
        bytes: *rest.first_chunk::<N>()?,
    })
}

fn slots_max() -> usize {
    usize::try_from(SLOTS_MAX).unwrap_or(usize::MAX)
}
