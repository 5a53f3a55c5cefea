//! The place of a VM among those of its process: who counts, and who is gone.
//!
//! ```text
//!   evenkeel//slot/<n>      1  version (1)     8  owner (0: free)     8  beat            (little-endian)
//! ```
//!
//! A VM claims the lowest free slot at its first stream. (Not earlier: a VM that is only configured, or the main thread's in Envoy,
//! would take places it never uses, and the first worker's turns would not begin where nginx's do.) The owner raises the beat each
//! tick. Whoever sees the same beat on [`STILL_TICKS_MAX`] of its own ticks frees the slot: times are not compared, only ticks
//! counted, so clocks do not matter. Records of load name their owner, so that whatever a dead VM left counts nothing from
//! then on. A VM that only stood still finds its slot lost at its next tick, and claims another.
//! The empty pool name in the key is nobody's: no pool's keys can collide with these.

use std::io::Write as _;

use super::beat_record::{decode, encode};
use super::shared_data::{ABSENT, SharedData, Written};

/// Most VMs of a process that count.
pub const SLOTS_MAX: u32 = 128;
/// Ticks without a beat after which a VM is taken for dead.
pub const STILL_TICKS_MAX: u8 = 5;

/// One VM's view of all slots.
#[derive(Debug)]
pub struct Slots {
    /// This VM among all others, never 0.
    owner: u64,
    mine: Option<Mine>,
    seen: Vec<Seen>,
    /// How often a slot was seen to lose its owner.
    deaths: u32,
    /// How often this VM claimed a slot.
    claims: u32,
    key: Vec<u8>,
    value: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Mine {
    slot: u32,
    beat: u64,
}

/// What was read of a slot last.
#[derive(Debug, Clone, Copy)]
struct Seen {
    owner: u64,
    beat: u64,
    still_ticks: u8,
}

impl Slots {
    /// `identity` must differ between the VMs of a process: a random number.
    pub fn new(identity: u64) -> Self {
        Self {
            owner: identity.max(1),
            mine: None,
            seen: Vec::new(),
            deaths: 0,
            claims: 0,
            key: Vec::new(),
            value: Vec::new(),
        }
    }

    /// The slot of this VM, if it has one.
    pub fn index(&self) -> Option<u32> {
        self.mine.map(|mine| mine.slot)
    }

    /// Who this VM is in records of load.
    pub fn owner(&self) -> u64 {
        self.owner
    }

    /// Takes the lowest free slot, unless one is owned already. `None`: all are taken; [`Slots::tick`] frees those of the dead.
    pub fn claim(&mut self, data: &mut impl SharedData) -> Option<u32> {
        if self.mine.is_some() {
            return self.index();
        }
        for slot in 0..SLOTS_MAX {
            self.write_key(slot);
            let cas = match data.get(&self.key, &mut self.value) {
                None => ABSENT,
                Some(cas) => match decode(&self.value) {
                    Some((owner, _)) if owner != 0 => continue,
                    _ => cas,
                },
            };
            match data.set(&self.key, &encode(self.owner, 1), cas) {
                Written::Done => {
                    self.mine = Some(Mine { slot, beat: 1 });
                    self.claims = self.claims.wrapping_add(1);
                    return Some(slot);
                }
                Written::Mismatch => {}
                // A slot behind one that was never written would be seen by nobody.
                Written::Failed => return None,
            }
        }
        None
    }

    /// Beats, notes the others' beats, and frees slots whose owners are gone.
    pub fn tick(&mut self, data: &mut impl SharedData) {
        let mut known = 0;
        for slot in 0..SLOTS_MAX {
            self.write_key(slot);
            // Slots are claimed from the lowest: behind a missing one there is none.
            let Some(cas) = data.get(&self.key, &mut self.value) else {
                break;
            };
            let (owner, beat) = decode(&self.value).unwrap_or((0, 0));
            if let Some(mine) = self.mine
                && mine.slot == slot
            {
                self.beat(data, mine, owner, cas);
            }
            self.note(known, owner, beat);
            self.free_if_still(data, known, cas);
            known += 1;
        }
        self.seen.truncate(known);
    }

    /// The slots of other VMs that are alive, and their owners, as of the last tick.
    pub fn others(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        let alive = |seen: &Seen| {
            seen.owner != 0 && seen.owner != self.owner && seen.still_ticks < STILL_TICKS_MAX
        };
        (0..)
            .zip(&self.seen)
            .filter(move |(_, seen)| alive(seen))
            .map(|(slot, seen)| (slot, seen.owner))
    }

    /// Changes whenever a VM is gone from its slot.
    pub(super) fn deaths(&self) -> u32 {
        self.deaths
    }

    /// Changes whenever this VM claims a slot: what others struck out of records meanwhile must be written again.
    pub(super) fn claims(&self) -> u32 {
        self.claims
    }

    /// Whether the slot is not this owner's any more. Certain: what an owner wrote, it wrote while it held its slot, so where a record
    /// names it and the slot does not, it has lost it since.
    pub(super) fn is_gone(&mut self, slot: u8, owner: u64, data: &mut impl SharedData) -> bool {
        let seen = self.seen.get(usize::from(slot));
        if seen.is_some_and(|seen| seen.owner == owner && seen.still_ticks < STILL_TICKS_MAX) {
            return false;
        }
        self.write_key(u32::from(slot));
        data.get(&self.key, &mut self.value).is_some()
            && decode(&self.value).is_none_or(|(holder, _)| holder != owner)
    }

    fn beat(&mut self, data: &mut impl SharedData, mine: Mine, owner: u64, cas: u32) {
        let beat = mine.beat.wrapping_add(1);
        let kept = owner == self.owner
            && data.set(&self.key, &encode(self.owner, beat), cas) != Written::Mismatch;
        self.mine = kept.then_some(Mine {
            slot: mine.slot,
            beat,
        });
    }

    fn note(&mut self, place: usize, owner: u64, beat: u64) {
        match self.seen.get_mut(place) {
            Some(seen) if (seen.owner, seen.beat) == (owner, beat) => {
                seen.still_ticks = seen.still_ticks.saturating_add(1);
            }
            Some(seen) => {
                self.deaths = self
                    .deaths
                    .wrapping_add(u32::from(seen.owner != 0 && seen.owner != owner));
                *seen = Seen {
                    owner,
                    beat,
                    still_ticks: 0,
                }
            }
            None => self.seen.push(Seen {
                owner,
                beat,
                still_ticks: 0,
            }),
        }
    }

    fn free_if_still(&mut self, data: &mut impl SharedData, place: usize, cas: u32) {
        let Some(seen) = self.seen.get_mut(place) else {
            return;
        };
        let gone =
            seen.owner != 0 && seen.owner != self.owner && seen.still_ticks >= STILL_TICKS_MAX;
        if gone && data.set(&self.key, &encode(0, 0), cas) == Written::Done {
            self.deaths = self.deaths.wrapping_add(1);
            *seen = Seen {
                owner: 0,
                beat: 0,
                still_ticks: 0,
            };
        }
    }

    fn write_key(&mut self, slot: u32) {
        self.key.clear();
        // Writing to a Vec does not fail.
        drop(write!(self.key, "evenkeel//slot/{slot}"));
    }
}
