//! One server's bound, and what this VM has of it: places that are written in the shared value, and those that are needed.
//!
//! What is written is never less than what is needed; what it is more, other VMs cannot use.

use std::rc::Rc;

use super::in_flight::OwnLoad;
use super::vm_shares::{Change, Own, Part, VmShares};
use super::{SharedData, Slots};

/// All VMs together write at most the bound divided by this ahead.
const AHEAD_SHARE: u32 = 8;

/// A server that takes only so many requests.
#[derive(Debug)]
pub(super) struct ServerPlaces {
    /// 0: no bound.
    pub(super) max: u32,
    pub(super) key: Box<[u8]>,
    pub(super) own: Rc<OwnLoad>,
    /// Places that other VMs had when they were read last.
    pub(super) others: u32,
    /// On the list of those whose places others must be told.
    pub(super) is_pending: bool,
    /// On the list of those with places ahead.
    pub(super) is_ahead: bool,
}

/// What a change found, and what it did.
#[derive(Debug, Clone, Copy)]
pub(super) struct Changed {
    pub(super) change: Change,
    /// Places of all VMs before it.
    pub(super) before: u32,
    /// And after it, as far as it was written.
    pub(super) after: u32,
}

impl ServerPlaces {
    /// `hash` is that of the server's id.
    pub(super) fn new(pool: &str, max: u32, hash: u64, own: Rc<OwnLoad>) -> Self {
        let key = if max == 0 {
            String::new()
        } else {
            format!("evenkeel/{pool}/conns/{hash:016x}")
        };
        Self {
            max,
            key: key.into_bytes().into_boxed_slice(),
            own,
            others: 0,
            is_pending: false,
            is_ahead: false,
        }
    }

    /// Places of all VMs: others' as they were read last, this one's as it needs them.
    pub(super) fn total(&self) -> u32 {
        self.others.saturating_add(self.own.places())
    }

    /// Places that are written and not needed now.
    pub(super) fn left_over(&self) -> u32 {
        self.own.written.get().saturating_sub(self.own.places())
    }

    /// Whether no more than half of the places are taken, with those that are written ahead.
    pub(super) fn is_below_half(&self) -> bool {
        self.others.saturating_add(self.own.written.get()) <= self.max / 2
    }

    /// Whether a place is written already for one more request.
    pub(super) fn has_place_ahead(&self) -> bool {
        self.left_over() > 0 && self.others.saturating_add(self.own.written.get()) <= self.max
    }

    /// Most places that one of so many VMs (0: nobody knows) may have written ahead.
    pub(super) fn ahead_max(&self, vms: u32) -> u32 {
        match vms {
            0 => 0,
            vms => self.max / vms.saturating_mul(AHEAD_SHARE),
        }
    }

    /// Places to write: these, and some ahead where that leaves half of all for the others.
    pub(super) fn with_ahead(&self, places: u32, others: u32, vms: u32) -> u32 {
        let below_half = (self.max / 2).saturating_sub(others.saturating_add(places));
        places.saturating_add(below_half.min(self.ahead_max(vms) / 2))
    }

    /// Writes one place more than is needed now, and some ahead, if fewer than `bound` are taken.
    pub(super) fn take(
        &mut self,
        bound: u32,
        vms: u32,
        shares: &mut VmShares<4>,
        slots: &Slots,
        data: &mut impl SharedData,
    ) -> Change {
        let changed = self.write(shares, slots, data, |it, others| {
            let own = it.own.places();
            let has_room = others.saturating_add(own) < bound;
            has_room.then(|| it.with_ahead(own.saturating_add(1), others, vms))
        });
        changed.change
    }

    /// Writes what `decide` makes of others' places; `None`: all stays as it is.
    pub(super) fn write(
        &mut self,
        shares: &mut VmShares<4>,
        slots: &Slots,
        data: &mut impl SharedData,
        mut decide: impl FnMut(&Self, u32) -> Option<u32>,
    ) -> Changed {
        let me = slots.owner();
        let (mut others, mut recorded, mut wanted) = (0, 0, None);
        let change = shares.change(&self.key, slots, data, |parts| {
            others = others_of(parts, me);
            recorded = part_of(parts, me);
            wanted = decide(self, others);
            wanted.map_or(Own::Unchanged, part)
        });
        self.others = others;
        let before = others.saturating_add(recorded);
        let written = match change {
            Change::Written => wanted.unwrap_or(recorded),
            Change::Unchanged => recorded,
            Change::NotWritten => {
                let after = before;
                return Changed {
                    change,
                    before,
                    after,
                };
            }
        };
        self.own.written.set(written);
        let after = others.saturating_add(written);
        Changed {
            change,
            before,
            after,
        }
    }

    /// Reads others' places.
    pub(super) fn read(
        &mut self,
        shares: &mut VmShares<4>,
        slots: &Slots,
        data: &mut impl SharedData,
    ) {
        shares.read(&self.key, data);
        self.others = others_of(shares.parts(), slots.owner());
    }

    /// Writes exactly what is needed, and strikes out the parts of VMs that are gone.
    pub(super) fn sweep(
        &mut self,
        shares: &mut VmShares<4>,
        slots: &mut Slots,
        data: &mut impl SharedData,
    ) {
        let places = self.own.places();
        let change = shares.sweep(&self.key, slots, data, part(places));
        self.others = others_of(shares.parts(), slots.owner());
        if change != Change::NotWritten {
            self.own.written.set(places);
        }
    }
}

fn part(places: u32) -> Own<4> {
    if places == 0 {
        Own::Gone
    } else {
        Own::Set(places.to_le_bytes())
    }
}

fn others_of(parts: &[Part<4>], me: u64) -> u32 {
    parts
        .iter()
        .filter(|part| part.owner != me)
        .map(|part| u32::from_le_bytes(part.bytes))
        .fold(0, u32::saturating_add)
}

fn part_of(parts: &[Part<4>], me: u64) -> u32 {
    let own = parts.iter().find(|part| part.owner == me);
    own.map_or(0, |part| u32::from_le_bytes(part.bytes))
}
