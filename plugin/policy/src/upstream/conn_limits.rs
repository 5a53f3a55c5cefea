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
//! # Places ahead
//! Reading and writing the value costs more than all the rest of a choice. While no more than half of a server's places are taken, a
//! VM therefore writes a few more than it needs, and keeps some of those that become free: its next requests find their places
//! written. All VMs together have at most an eighth of the bound ahead, each tick gives back what is left over, and above half every
//! place is taken and given back one by one. What is written is never less than what is in flight, so the bound holds as before; but
//! where a server is filled from below half to the bound between two ticks, some places may be missing until the second.
//!
//! # Why stand-by servers need a place of their own
//! The list of a request is fixed before it is sent, and the filter learns of attempts only when the last one has answered. So who is
//! to try a server with a bound must hold a place there from the beginning: one server of the list at most, and only where no
//! more than half of the places are taken with it ([`ConnLimits::keep`]); it is free again at the response's head. nginx counts at each
//! attempt and needs no such place. While servers are more than half full, a request whose server fails goes on to servers without
//! a bound, or to none: requests that might be needed are not worth turning away those that are there.

use std::rc::Rc;

use super::in_flight::OwnLoad;
use super::server_places::ServerPlaces;
use super::tier_masks::TierMasks;
use super::vm_shares::{Change, VmShares};
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
    servers: Vec<ServerPlaces>,
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
    /// VMs that share the places; 0: not known before the first tick.
    vms: u32,
    shares: VmShares<4>,
    /// Servers whose places others must be told.
    pending: Vec<usize>,
    /// Servers that may have places ahead.
    ahead: Vec<usize>,
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
        pool: &str,
        servers: impl Iterator<Item = (u32, u64, Rc<OwnLoad>)>,
        primaries: usize,
    ) -> Option<Self> {
        let servers: Vec<ServerPlaces> = servers
            .map(|(max, hash, own)| ServerPlaces::new(pool, max, hash, own))
            .collect();
        if servers.iter().all(|server| server.max == 0) {
            return None;
        }
        let none = || TierMasks::none(primaries, servers.len().saturating_sub(primaries));
        let mut limits = Self {
            full: none(),
            unlimited: none(),
            next_looked_at: 0,
            next_swept: 0,
            sweep_left: 0,
            deaths_seen: 0,
            claims_seen: 0,
            vms: 0,
            shares: VmShares::default(),
            pending: Vec::new(),
            ahead: Vec::new(),
            servers,
        };
        for server in 0..limits.servers.len() {
            if limits.servers.get(server).is_some_and(|it| it.max == 0) {
                limits.unlimited.insert(server);
            }
            // What an earlier configuration wrote ahead is given back.
            limits.note_ahead(server);
        }
        Some(limits)
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
        server: usize,
        slots: &Slots,
        data: &mut impl SharedData,
    ) -> Place {
        let (vms, is_written_known) = (self.vms, self.is_written_known(slots));
        let Some(places) = self.servers.get_mut(server).filter(|it| it.max > 0) else {
            return Place::Taken;
        };
        if is_written_known && places.has_place_ahead() {
            return Place::Taken;
        }
        let change = places.take(places.max, vms, &mut self.shares, slots, data);
        let taken = change == Change::Written;
        // Who lost eight races looks again before his next choice, like who saw it full.
        let is_full = !taken || places.total().saturating_add(1) >= places.max;
        self.note(server, is_full);
        self.note_ahead(server);
        if taken { Place::Taken } else { Place::Full }
    }

    /// Keeps a place for a request that goes elsewhere first, if no more than half of all places are taken then. It is counted as kept
    /// at once; [`ConnLimits::let_go`] undoes it.
    pub(super) fn keep(
        &mut self,
        server: usize,
        slots: &Slots,
        data: &mut impl SharedData,
    ) -> Place {
        let (vms, is_written_known) = (self.vms, self.is_written_known(slots));
        let Some(places) = self.servers.get_mut(server).filter(|it| it.max > 0) else {
            return Place::Full;
        };
        if !(is_written_known && places.has_place_ahead() && places.is_below_half()) {
            let change = places.take(places.max / 2, vms, &mut self.shares, slots, data);
            if change != Change::Written {
                return Place::Full;
            }
        }
        let kept = &places.own.kept;
        kept.set(kept.get().saturating_add(1));
        self.note_ahead(server);
        Place::Taken
    }

    /// A place is not kept any more: the request is answered, by whomever, or over. [`ConnLimits::settle`] tells.
    pub(super) fn let_go(&mut self, server: usize) {
        if let Some(places) = self.servers.get(server).filter(|server| server.max > 0) {
            let kept = &places.own.kept;
            kept.set(kept.get().saturating_sub(1));
            self.ended(server);
        }
    }

    /// A request on a server has ended, and is not counted as in flight any more: [`ConnLimits::settle`] tells, unless the place may
    /// stay with this VM until the next tick.
    pub(super) fn ended(&mut self, server: usize) {
        let vms = self.vms;
        let Some(places) = self.servers.get_mut(server).filter(|it| it.max > 0) else {
            return;
        };
        if places.left_over() <= places.ahead_max(vms) && places.is_below_half() {
            self.note_ahead(server);
        } else {
            self.note_pending(server);
        }
    }

    /// Tells others of requests that have ended. What cannot be written stays, and is tried again.
    pub(super) fn settle(&mut self, slots: &Slots, data: &mut impl SharedData) -> Freed {
        self.settle_as(self.vms, slots, data)
    }

    /// `vms` as [`ServerPlaces::ahead_max`] has it: 0 writes nothing ahead.
    fn settle_as(&mut self, vms: u32, slots: &Slots, data: &mut impl SharedData) -> Freed {
        let mut freed = Freed::Nothing;
        let pending = std::mem::take(&mut self.pending);
        for server in pending.iter().copied() {
            let Some(places) = self.servers.get_mut(server) else {
                continue;
            };
            places.is_pending = false;
            let max = places.max;
            let changed = places.write(&mut self.shares, slots, data, |it, others| {
                Some(it.with_ahead(it.own.places(), others, vms))
            });
            let is_full = places.total() >= max;
            self.note(server, is_full);
            self.note_ahead(server);
            if changed.before >= max && changed.after < max {
                freed = Freed::Some;
            }
            if changed.change == Change::NotWritten {
                self.note_pending(server);
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
    pub(super) fn tick(&mut self, slots: &mut Slots, data: &mut impl SharedData) -> Freed {
        // Others strike out a VM that stood still for too long, and it claims a slot anew.
        let seen = (slots.claims(), slots.deaths());
        if seen != (self.claims_seen, self.deaths_seen) {
            (self.claims_seen, self.deaths_seen) = seen;
            self.sweep_left = self.servers.len();
        }
        self.vms = u32::try_from(slots.others().count()).map_or(0, |others| others + 1);
        let given_back = self.ahead.len().min(SWEPT_AT_ONCE_MAX);
        for server in self.ahead.split_off(self.ahead.len() - given_back) {
            if let Some(places) = self.servers.get_mut(server) {
                places.is_ahead = false;
            }
            self.note_pending(server);
        }
        let freed = self.settle_as(0, slots, data);
        let now = self.sweep_left.clamp(SWEPT_EACH_TICK, SWEPT_AT_ONCE_MAX);
        self.sweep_left = self.sweep_left.saturating_sub(now);
        (0..now.min(self.servers.len())).fold(freed, |freed, _| {
            let server = self.next_swept % self.servers.len();
            self.next_swept = (server + 1) % self.servers.len();
            match self.sweep(server, slots, data) {
                Freed::Some => Freed::Some,
                Freed::Nothing => freed,
            }
        })
    }

    /// Looks whether some of those that were full still are.
    pub(super) fn look_again(&mut self, slots: &Slots, data: &mut impl SharedData) {
        self.look(slots, data, LOOKED_AT_EACH);
    }

    /// Looks at all that were full, as far as that can be done within one request. Whether one of them has room.
    pub(super) fn look_at_all(&mut self, slots: &Slots, data: &mut impl SharedData) -> Freed {
        let before = self.full.count();
        self.look(slots, data, LOOKED_AT_MAX);
        if self.full.count() < before {
            Freed::Some
        } else {
            Freed::Nothing
        }
    }

    fn look(&mut self, slots: &Slots, data: &mut impl SharedData, most: usize) {
        let most = most.min(self.full.count());
        let mut next = self.next_looked_at;
        for _ in 0..most {
            let Some(server) = self.full.next(next) else {
                return;
            };
            next = server + 1;
            let Some(places) = self.servers.get_mut(server) else {
                return;
            };
            places.read(&mut self.shares, slots, data);
            let is_full = places.total() >= places.max;
            self.note(server, is_full);
        }
        self.next_looked_at = next;
    }

    fn sweep(&mut self, server: usize, slots: &mut Slots, data: &mut impl SharedData) -> Freed {
        let was_full = self.full.contains(server);
        let Some(places) = self.servers.get_mut(server).filter(|it| it.max > 0) else {
            return Freed::Nothing;
        };
        places.sweep(&mut self.shares, slots, data);
        let is_full = places.total() >= places.max;
        self.note(server, is_full);
        if was_full && !is_full {
            Freed::Some
        } else {
            Freed::Nothing
        }
    }

    /// Whether what was written last still stands: not between losing a slot and the first tick with the next.
    fn is_written_known(&self, slots: &Slots) -> bool {
        slots.index().is_some() && slots.claims() == self.claims_seen
    }

    fn note(&mut self, server: usize, is_full: bool) {
        if is_full {
            self.full.insert(server);
        } else {
            self.full.remove(server);
        }
    }

    fn note_ahead(&mut self, server: usize) {
        if let Some(places) = self.servers.get_mut(server)
            && !places.is_ahead
            && places.left_over() > 0
        {
            places.is_ahead = true;
            self.ahead.push(server);
        }
    }

    fn note_pending(&mut self, server: usize) {
        if let Some(places) = self.servers.get_mut(server)
            && !places.is_pending
        {
            places.is_pending = true;
            self.pending.push(server);
        }
    }
}
