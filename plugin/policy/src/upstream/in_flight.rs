//! What one VM has to do with each server: requests in flight, how fast they were answered, and what
//! befell the server; by pool and server id.
//!
//! This belongs to the VM, not to a configuration: while a reload drains the old one, both count in the same cells, and a server
//! that stays is not unknown afterwards.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::id_hash;
use super::server_life::ServerLife;
use crate::balance::Latency;

/// The counts of one VM. Bounded: cells that only this holds are dropped when a configuration asks for its own.
#[derive(Debug, Default)]
pub struct InFlight {
    counts: BTreeMap<(Rc<str>, u64), Rc<OwnLoad>>,
}

/// One server's.
#[derive(Debug, Default)]
pub(super) struct OwnLoad {
    pub(super) in_flight: Cell<u32>,
    /// Places that are kept for requests in flight elsewhere, should they fail there.
    pub(super) kept: Cell<u32>,
    /// Places that are written for this VM where all see them; never less than are taken.
    pub(super) written: Cell<u32>,
    /// As the rule of the method has it that was asked last.
    pub(super) latency: Cell<Latency>,
    pub(super) life: Cell<ServerLife>,
}

impl OwnLoad {
    /// What this VM takes of the server's bound.
    pub(super) fn places(&self) -> u32 {
        self.in_flight.get().saturating_add(self.kept.get())
    }
}

impl InFlight {
    /// The cell of a server; the same one for everybody who names the same.
    pub(super) fn cell(&mut self, pool: &Rc<str>, server_id: &str) -> Rc<OwnLoad> {
        Rc::clone(
            self.counts
                .entry((Rc::clone(pool), id_hash(server_id)))
                .or_default(),
        )
    }

    /// Forgets cells that no configuration uses any more.
    pub fn prune(&mut self) {
        self.counts.retain(|_, cell| Rc::strong_count(cell) > 1);
    }
}
