//! How many requests one VM has in flight, by pool and server id.
//!
//! Counts belong to the VM, not to a configuration: while a reload drains the old one, both count in the same cells.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::id_hash;

/// The counts of one VM. Bounded: cells that only this holds are dropped when a configuration asks for its own.
#[derive(Debug, Default)]
pub struct InFlight {
    counts: BTreeMap<(String, u64), Rc<Cell<u32>>>,
}

impl InFlight {
    /// The cell of a server; the same one for everybody who names the same.
    pub(super) fn cell(&mut self, pool: &str, server_id: &str) -> Rc<Cell<u32>> {
        Rc::clone(
            self.counts
                .entry((pool.to_owned(), id_hash(server_id)))
                .or_default(),
        )
    }

    /// Forgets cells that no configuration uses any more.
    pub fn prune(&mut self) {
        self.counts.retain(|_, cell| Rc::strong_count(cell) > 1);
    }
}
