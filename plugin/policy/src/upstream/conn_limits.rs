//! Servers that take only so many requests at a time, whichever VM sends them: `max_conns`.
//!
//! ```text
//!   evenkeel/<pool>/conns/<hash of the server's id>      per VM: 4  its requests in flight there, and places it keeps     ([`VmShares`])
//! ```
//!
//! A request is sent only after its place is written, and the write fails if anybody else changed the value since it was read: so
//! the sum is never above the bound, whatever happens at the same time. Eight lost races, a host that takes no more, a VM without a
//! slot: all of that is "full", never "let it pass".
//!
//! What a VM writes is never a difference but how many requests it has in flight, so every write puts right whatever went wrong before.
//! A release that could not be written is kept and tried again at each tick; and some servers are looked at each tick anyway. A VM
//! that has died holds places until its slot is free (five ticks of those who see it stand still); who notices strikes them out.
//!
//! # Why stand-by servers need a place of their own
//! The list of a request is fixed before it is sent, and the filter learns of attempts only when the last one has answered. So who is
//! to try a server with a bound must hold a place there from the beginning: one server of the list at most, and only where no
//! more than half of the places are taken with it ([`ConnLimits::keep`]); it is free again at the response's head. nginx counts at each
//! attempt and needs no such place. While servers are more than half full, a request whose server fails goes on to servers without
//! a bound, or to none: requests that might be needed are not worth turning away those that are there.

use std::io::Write as _;
use std::rc::Rc;

use super::in_flight::OwnLoad;
use super::tier_masks::TierMasks;
use super::vm_shares::{Change, Own, VmShares};
use super::{SharedData, Slots};

/// Servers that are looked at each tick, whatever has happened.
const SWEPT_EACH_TICK: usize = 16;
/// Servers that are looked at in one tick, when a VM has died.
const SWEPT_AT_ONCE_MAX: usize = 2_048;
/// Full servers that are looked at before each choice.
const LOOKED_AT_EACH: usize = 8;
/// Full servers that are looked at before a request is told that all are.
const LOOKED_AT_MAX: usize = 1_024;

/// The bounds of a pool's servers.
#[derive(Debug)]
pub(super) struct ConnLimits {
    servers: Vec<Limited>,
    /// Those that were full when they were seen last.
    full: TierMasks,
    /// Those without a bound.
    unlimited: TierMasks,
    /// Where to look next.
    next_looked_at: usize,
    next_swept: usize,
    sweep_left: usize,
    deaths_seen: u32,
    claims_seen: u32,
    key: Vec<u8>,
    shares: VmShares<4>,
    pending: Vec<usize>,
}

#[derive(Debug)]
struct Limited {
    /// 0: no bound.
    max: u32,
    hash: u64,
    own: Rc<OwnLoad>,
    told: Told,
}

/// Whether others know how many requests this VM has there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Yes,
    NotYet,
}

/// Whether there is room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Taken,
    Full,
}

/// Whether a server that somebody may wait for has room again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freed {
    Some,
    Nothing,
}

impl ConnLimits {
    /// `servers` in the pool's order: bound (0: none), hash of the id, load. `None`: none of them has a bound, and nothing is to be done.
    pub(super) fn new(
        servers: impl Iterator<Item = (u32, u64, Rc<OwnLoad>)>,
        primaries: usize,
    ) -> Option<Self> {
        let servers: Vec<Limited> = servers
            .map(|(max, hash, own)| Limited {
                max,
                hash,
                own,
                told: Told::Yes,
            })
            .collect();
        if servers.iter().all(|server| server.max == 0) {
            return None;
        }
        let none = || TierMasks::none(primaries, servers.len().saturating_sub(primaries));
        let mut unlimited = none();
        for (index, server) in servers.iter().enumerate() {
            if server.max == 0 {
                unlimited.insert(index);
            }
        }
        Some(Self {
            full: none(),
            unlimited,
            next_looked_at: 0,
            next_swept: 0,
            sweep_left: 0,
            deaths_seen: 0,
            claims_seen: 0,
            key: Vec::new(),
            shares: VmShares::default(),
            pending: Vec::new(),
            servers,
        })
    }

    /// Servers without a bound.
    pub(super) fn unlimited(&self) -> &TierMasks {
        &self.unlimited
    }

    /// Servers that were full when they were seen last.
    pub(super) fn full(&self) -> &TierMasks {
        &self.full
    }

    /// Takes a place for a request that is sent next. The caller then counts it as in flight.
    pub(super) fn acquire(
        &mut self,
        pool: &str,
        server: usize,
        slots: &Slots,
        data: &mut impl SharedData,
    ) -> Place {
        let Some(limited) = self.servers.get(server).filter(|server| server.max > 0) else {
            return Place::Taken;
        };
        let (max, own) = (limited.max, limited.own.places());
        write_key(pool, limited.hash, &mut self.key);
        let mut total = 0;
        let change = self.shares.change(&self.key, slots, data, |parts| {
            total = others(parts, slots.owner()).saturating_add(own);
            if total < max {
                Own::Set(own.saturating_add(1).to_le_bytes())
            } else {
                Own::Unchanged
            }
        });
        let taken = change == Change::Written;
        // Who lost eight races looks again before his next choice, like who saw it full.
        self.note(server, !taken || total.saturating_add(1) >= max);
        if taken { Place::Taken } else { Place::Full }
    }

    /// Keeps a place for a request that goes elsewhere first, if no more than half of all places are taken then. It is counted as kept
    /// at once; [`ConnLimits::let_go`] undoes it.
    pub(super) fn keep(
        &mut self,
        pool: &str,
        server: usize,
        slots: &Slots,
        data: &mut impl SharedData,
    ) -> Place {
        let Some(limited) = self.servers.get(server).filter(|server| server.max > 0) else {
            return Place::Full;
        };
        let (max, own) = (limited.max, limited.own.places());
        write_key(pool, limited.hash, &mut self.key);
        let change = self.shares.change(&self.key, slots, data, |parts| {
            let total = others(parts, slots.owner()).saturating_add(own);
            if total < max / 2 {
                Own::Set(own.saturating_add(1).to_le_bytes())
            } else {
                Own::Unchanged
            }
        });
        if change != Change::Written {
            return Place::Full;
        }
        let kept = &limited.own.kept;
        kept.set(kept.get().saturating_add(1));
        Place::Taken
    }

    /// A place is not kept any more: the request is answered, by whomever, or over. [`ConnLimits::settle`] tells.
    pub(super) fn let_go(&mut self, server: usize) {
        if let Some(limited) = self.servers.get(server).filter(|server| server.max > 0) {
            let kept = &limited.own.kept;
            kept.set(kept.get().saturating_sub(1));
            self.ended(server);
        }
    }

    /// A request on a server has ended, and is not counted as in flight any more: [`ConnLimits::settle`] tells.
    pub(super) fn ended(&mut self, server: usize) {
        if let Some(limited) = self.servers.get_mut(server)
            && limited.max > 0
            && limited.told == Told::Yes
        {
            limited.told = Told::NotYet;
            self.pending.push(server);
        }
    }

    /// Tells others of requests that have ended. What cannot be written stays, and is tried again.
    pub(super) fn settle(
        &mut self,
        pool: &str,
        slots: &Slots,
        data: &mut impl SharedData,
    ) -> Freed {
        let mut freed = Freed::Nothing;
        let pending = std::mem::take(&mut self.pending);
        for server in pending.iter().copied() {
            let Some(limited) = self.servers.get_mut(server) else {
                continue;
            };
            let (max, own) = (limited.max, limited.own.places());
            limited.told = Told::Yes;
            write_key(pool, limited.hash, &mut self.key);
            let (mut before, mut after) = (0, 0);
            let change = self.shares.change(&self.key, slots, data, |parts| {
                let others = others(parts, slots.owner());
                before = others.saturating_add(part_of(parts, slots.owner()));
                after = others.saturating_add(own);
                part(own)
            });
            self.note(server, after >= max);
            if before >= max && after < max {
                freed = Freed::Some;
            }
            if change == Change::NotWritten {
                self.ended(server);
            }
        }
        // Keeps the allocation where nothing had to be kept.
        if self.pending.is_empty() {
            self.pending = pending;
            self.pending.clear();
        }
        freed
    }

    /// Each tick, after that of `slots`: tries again what could not be told, and strikes out the dead.
    pub(super) fn tick(
        &mut self,
        pool: &str,
        slots: &mut Slots,
        data: &mut impl SharedData,
    ) -> Freed {
        // Others strike out a VM that stood still for too long, and it claims a slot anew.
        let seen = (slots.claims(), slots.deaths());
        if seen != (self.claims_seen, self.deaths_seen) {
            (self.claims_seen, self.deaths_seen) = seen;
            self.sweep_left = self.servers.len();
        }
        let freed = self.settle(pool, slots, data);
        let now = self.sweep_left.clamp(SWEPT_EACH_TICK, SWEPT_AT_ONCE_MAX);
        self.sweep_left = self.sweep_left.saturating_sub(now);
        (0..now.min(self.servers.len())).fold(freed, |freed, _| {
            let server = self.next_swept % self.servers.len();
            self.next_swept = (server + 1) % self.servers.len();
            match self.sweep(pool, server, slots, data) {
                Freed::Some => Freed::Some,
                Freed::Nothing => freed,
            }
        })
    }

    /// Looks whether some of those that were full still are.
    pub(super) fn look_again(&mut self, pool: &str, slots: &Slots, data: &mut impl SharedData) {
        self.look(pool, slots, data, LOOKED_AT_EACH);
    }

    /// Looks at all that were full, as far as that can be done within one request. Whether one of them has room.
    pub(super) fn look_at_all(
        &mut self,
        pool: &str,
        slots: &Slots,
        data: &mut impl SharedData,
    ) -> Freed {
        let before = self.full.count();
        self.look(pool, slots, data, LOOKED_AT_MAX);
        if self.full.count() < before {
            Freed::Some
        } else {
            Freed::Nothing
        }
    }

    fn look(&mut self, pool: &str, slots: &Slots, data: &mut impl SharedData, most: usize) {
        let most = most.min(self.full.count());
        let mut next = self.next_looked_at;
        for _ in 0..most {
            let Some(server) = self.full.next(next) else {
                return;
            };
            next = server + 1;
            let Some(limited) = self.servers.get(server) else {
                return;
            };
            let (max, own) = (limited.max, limited.own.places());
            write_key(pool, limited.hash, &mut self.key);
            self.shares.read(&self.key, data);
            let total = others(self.shares.parts(), slots.owner()).saturating_add(own);
            self.note(server, total >= max);
        }
        self.next_looked_at = next;
    }

    fn sweep(
        &mut self,
        pool: &str,
        server: usize,
        slots: &mut Slots,
        data: &mut impl SharedData,
    ) -> Freed {
        let Some(limited) = self.servers.get(server).filter(|server| server.max > 0) else {
            return Freed::Nothing;
        };
        let (max, own) = (limited.max, limited.own.places());
        let was_full = self.full.contains(server);
        write_key(pool, limited.hash, &mut self.key);
        self.shares.sweep(&self.key, slots, data, part(own));
        let total = others(self.shares.parts(), slots.owner()).saturating_add(own);
        self.note(server, total >= max);
        if was_full && total < max {
            Freed::Some
        } else {
            Freed::Nothing
        }
    }

    fn note(&mut self, server: usize, is_full: bool) {
        if is_full {
            self.full.insert(server);
        } else {
            self.full.remove(server);
        }
    }
}

fn part(in_flight: u32) -> Own<4> {
    if in_flight == 0 {
        Own::Gone
    } else {
        Own::Set(in_flight.to_le_bytes())
    }
}

fn others(parts: &[super::vm_shares::Part<4>], me: u64) -> u32 {
    parts
        .iter()
        .filter(|part| part.owner != me)
        .map(|part| u32::from_le_bytes(part.bytes))
        .fold(0, u32::saturating_add)
}

fn part_of(parts: &[super::vm_shares::Part<4>], me: u64) -> u32 {
    let own = parts.iter().find(|part| part.owner == me);
    own.map_or(0, |part| u32::from_le_bytes(part.bytes))
}

fn write_key(pool: &str, hash: u64, key: &mut Vec<u8>) {
    key.clear();
    // Writing to a Vec does not fail.
    drop(write!(key, "evenkeel/{pool}/conns/{hash:016x}"));
}
