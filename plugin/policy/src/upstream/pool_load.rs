//! The load of a pool's servers: this VM's own, live, and what other VMs told of theirs.
//!
//! Own requests are counted as they come and go. Other VMs' are read at most every [`LOAD_READ_INTERVAL_MS`] and added; then what an
//! older configuration's streams of this VM did in the same cells is seen, too. A pool whose method looks at no load counts its
//! own requests and nothing else.

use std::rc::Rc;

use super::in_flight::OwnLoad;
use super::load_record::{CHUNK_SERVERS, Layout, LoadEntry, LoadRecord};
use super::others_load::{self, OthersLoad, Places};
use super::{LOAD_READ_INTERVAL_MS, SharedData, Slots};
use crate::balance::{Latency, LatencyRule, LoadNeed, MergedLatency};

/// Loads by server, in the pool's order.
#[derive(Debug)]
pub(super) struct PoolLoad {
    need: LoadNeed,
    servers: Servers,
    told_by_others: OthersLoad,
    /// What the records hold that were written last; empty if there is only one.
    stamps: Vec<u32>,
    /// Requests of other VMs in flight. This and what follows is empty as far as the method does not look at it.
    others: Vec<u32>,
    /// Requests in flight, own and others'.
    in_flight: Vec<u32>,
    others_latency: Vec<MergedLatency>,
    /// Own and others' latencies together.
    latency: Vec<Latency>,
    /// When others' load was read last.
    read_us: Option<u64>,
    now_us: u64,
    key: Vec<u8>,
    value: Vec<u8>,
}

/// The servers as records know them.
#[derive(Debug)]
struct Servers {
    own: Vec<(u64, Rc<OwnLoad>)>,
    /// Hash of a server's id and its index, sorted.
    by_hash: Vec<(u64, u16)>,
}

impl Places for Servers {
    fn len(&self) -> usize {
        self.own.len()
    }

    fn hash_at(&self, place: usize) -> Option<u64> {
        self.own.get(place).map(|(hash, _)| *hash)
    }

    fn place_of(&self, hash: u64) -> Option<usize> {
        let place = self
            .by_hash
            .binary_search_by_key(&hash, |(hash, _)| *hash)
            .ok()?;
        self.by_hash
            .get(place)
            .map(|(_, index)| usize::from(*index))
    }
}

impl PoolLoad {
    pub(super) fn new(need: LoadNeed, servers: impl Iterator<Item = (u64, Rc<OwnLoad>)>) -> Self {
        let own: Vec<(u64, Rc<OwnLoad>)> = servers.collect();
        let mut by_hash: Vec<(u64, u16)> = own
            .iter()
            .zip(0..)
            .map(|((hash, _), index)| (*hash, index))
            .collect();
        by_hash.sort_unstable();
        let servers = Servers { own, by_hash };
        let chunks = others_load::chunks_of(servers.len());
        let counted = if need == LoadNeed::None {
            0
        } else {
            servers.len()
        };
        let timed = match need {
            LoadNeed::Latency(_) => servers.len(),
            LoadNeed::None | LoadNeed::InFlight => 0,
        };
        let mut load = Self {
            need,
            servers,
            told_by_others: OthersLoad::default(),
            stamps: vec![0; if counted > 0 && chunks > 1 { chunks } else { 0 }],
            others: vec![0; counted],
            in_flight: vec![0; counted],
            others_latency: vec![MergedLatency::default(); timed],
            latency: vec![Latency::default(); timed],
            read_us: None,
            now_us: 0,
            key: Vec::new(),
            value: Vec::new(),
        };
        load.sum_up();
        load
    }

    /// Requests in flight by server from `first` on, own and others'; none where the method does not look at them.
    pub(super) fn in_flight_from(&self, first: usize) -> &[u32] {
        self.in_flight.get(first..).unwrap_or_default()
    }

    /// Latencies by server from `first` on; none where the method does not look at them.
    pub(super) fn latency_from(&self, first: usize) -> &[Latency] {
        self.latency.get(first..).unwrap_or_default()
    }

    /// The rule of latencies, if the method looks at them.
    pub(super) fn latency_rule(&self) -> Option<LatencyRule> {
        match self.need {
            LoadNeed::Latency(rule) => Some(rule),
            LoadNeed::None | LoadNeed::InFlight => None,
        }
    }

    /// Takes note of the time.
    pub(super) fn note_time(&mut self, now_us: u64) {
        self.now_us = now_us;
    }

    /// The time that was told last.
    pub(super) fn now_us(&self) -> u64 {
        self.now_us
    }

    /// The server of a hash.
    pub(super) fn by_hash(&self, hash: u64) -> Option<usize> {
        self.servers.place_of(hash)
    }

    /// Requests of this VM in flight on a server.
    pub(super) fn own_in_flight(&self, server: usize) -> u32 {
        let own = self.servers.own.get(server);
        own.map_or(0, |(_, own)| own.in_flight.get())
    }

    /// Changes how many are in flight on a server.
    pub(super) fn count(&mut self, server: usize, change: impl Fn(u32) -> u32) {
        if let Some((_, own)) = self.servers.own.get(server) {
            own.in_flight.set(change(own.in_flight.get()));
        }
        if let Some(in_flight) = self.in_flight.get_mut(server) {
            *in_flight = change(*in_flight);
        }
    }

    /// A server's answer began after this time.
    pub(super) fn answered(&mut self, server: usize, first_byte_us: u64, now_us: u64) {
        let (Some(rule), Some((_, cell))) = (self.latency_rule(), self.servers.own.get(server))
        else {
            return;
        };
        let own = rule.sampled(cell.latency.get(), first_byte_us, now_us);
        cell.latency.set(own);
        let others = self.others_latency.get(server).copied();
        if let (Some(latency), Some(others)) = (self.latency.get_mut(server), others) {
            *latency = others.with(rule, own).latency();
        }
    }

    /// Tells other VMs this VM's load on `server` and its neighbours. Without a slot nothing is told.
    pub(super) fn publish(
        &mut self,
        pool: &str,
        server: usize,
        slots: &Slots,
        data: &mut impl SharedData,
    ) {
        let Some(slot) = slots.index() else { return };
        let chunk = server / CHUNK_SERVERS;
        let chunks = u8::try_from(others_load::chunks_of(self.servers.len())).unwrap_or(u8::MAX);
        let layout = match self.need {
            LoadNeed::Latency(_) => Layout::Latency,
            LoadNeed::None | LoadNeed::InFlight => Layout::InFlight,
        };
        let servers = self.servers.own.iter().skip(chunk * CHUNK_SERVERS);
        let entries = servers.take(CHUNK_SERVERS).map(|(hash, own)| LoadEntry {
            hash: *hash,
            in_flight: own.in_flight.get(),
            latency: own.latency.get(),
        });
        let value = &mut self.value;
        LoadRecord::encode(chunks, slots.owner(), layout, entries.clone(), value);
        LoadRecord::key(pool, slot, chunk, &mut self.key);
        data.set(&self.key, value, 0);
        if let Some(stamp) = self.stamps.get_mut(chunk) {
            *stamp = others_load::stamp(entries);
            others_load::encode_index(slots.owner(), &self.stamps, value);
            others_load::index_key(pool, slot, &mut self.key);
            data.set(&self.key, value, 0);
        }
    }

    /// Tells other VMs all of this VM's load, as after claiming a slot.
    pub(super) fn publish_all(&mut self, pool: &str, slots: &Slots, data: &mut impl SharedData) {
        for first in (0..self.servers.len()).step_by(CHUNK_SERVERS) {
            self.publish(pool, first, slots, data);
        }
    }

    /// Tells all again if somebody wrote over it: a VM that stood still for so long that its slot was given away, and this VM got it, goes
    /// on writing there until its next tick.
    pub(super) fn mend(&mut self, pool: &str, slots: &Slots, data: &mut impl SharedData) {
        let Some(slot) = slots.index() else { return };
        let owner = if self.stamps.is_empty() {
            LoadRecord::key(pool, slot, 0, &mut self.key);
            let record = data.get(&self.key, &mut self.value);
            record.and_then(|_| LoadRecord::decode(&self.value).map(|record| record.owner))
        } else {
            others_load::index_key(pool, slot, &mut self.key);
            let index = data.get(&self.key, &mut self.value);
            index.and_then(|_| others_load::index_owner(&self.value))
        };
        if owner.is_some_and(|owner| owner != slots.owner()) {
            self.publish_all(pool, slots, data);
        }
    }

    /// Takes note of the time, and reads other VMs' load, unless that was done within [`LOAD_READ_INTERVAL_MS`].
    pub(super) fn read_others(
        &mut self,
        pool: &str,
        now_us: u64,
        slots: &Slots,
        data: &mut impl SharedData,
    ) {
        self.now_us = now_us;
        // A clock that went back reads again at once.
        let elapsed_us = self.read_us.and_then(|read_us| now_us.checked_sub(read_us));
        if elapsed_us.is_some_and(|elapsed_us| elapsed_us < LOAD_READ_INTERVAL_MS * 1_000) {
            return;
        }
        self.read_us = Some(now_us);
        self.told_by_others.read(pool, &self.servers, slots, data);
        self.others.fill(0);
        self.others_latency.fill(MergedLatency::default());
        let rule = self.latency_rule();
        let (others, others_latency) = (&mut self.others, &mut self.others_latency);
        self.told_by_others.each(|server, entry| {
            if let Some(others) = others.get_mut(server) {
                *others = others.saturating_add(entry.in_flight);
            }
            if let (Some(rule), Some(latency)) = (rule, others_latency.get_mut(server)) {
                *latency = latency.with(rule, entry.latency);
            }
        });
        self.sum_up();
    }

    fn sum_up(&mut self) {
        let sums = self.servers.own.iter().zip(&self.others);
        for (in_flight, ((_, own), others)) in self.in_flight.iter_mut().zip(sums) {
            *in_flight = own.in_flight.get().saturating_add(*others);
        }
        let Some(rule) = self.latency_rule() else {
            return;
        };
        let parts = self.servers.own.iter().zip(&self.others_latency);
        for (latency, ((_, own), others)) in self.latency.iter_mut().zip(parts) {
            *latency = others.with(rule, own.latency.get()).latency();
        }
    }
}
