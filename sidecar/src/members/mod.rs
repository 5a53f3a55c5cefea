//! The servers of pools as they are now: what the file says, what operators changed since, and what names resolve to.
//!
//! ```text
//!   Config (file) ─┐
//!   Table (ctl) ───┼──▶ Roster of each pool ──▶ data plane: which addresses are members, and their counters
//!   names (DNS) ───┘                        └─▶ record in shared data ──▶ filters: who is eligible, and how much
//! ```
//!
//! The filter decides who is used; the data plane only knows who is a member. So nothing that changes is in the way of a request:
//! an address becomes a member before any filter can name it, and stays one for [`LEAVING`] after the last filter was told not to.

pub(crate) mod names;
mod roster;
mod table;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use evenkeel_policy::contract::VM_ID;
use evenkeel_policy::upstream::{Members, News};

use crate::generation::Generation;
use crate::shared::Shared;

pub(crate) use roster::{Roster, Server, Standing};
pub(crate) use table::{Admin, ID_BYTES_MAX, NewServer, Source, Table, Wrong};

/// A server that was removed can be reached for so long: filters look at changes every 250 ms, if their thread lets them.
pub(crate) const LEAVING: Duration = Duration::from_secs(5);
/// How often those are looked for whose time is over.
pub(crate) const SWEEP: Duration = Duration::from_secs(1);

/// What was changed at run time, and what has to be done about it.
#[derive(Default)]
pub(crate) struct Changes {
    table: Mutex<Table>,
}

impl Changes {
    pub(crate) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts the table into force: in the data plane first, then for the filters. `more` is a generation about to be put into force.
/// An error leaves the filters of the pools that it names as they were.
pub(crate) fn put_into_force(shared: &Shared, more: Option<&Generation>) -> Result<(), String> {
    let table = shared.members.table();
    let now = Instant::now();
    let current = shared.generation.load();
    for generation in [Some(&**current), more].into_iter().flatten() {
        refresh(generation, &table, now);
    }
    let (mut failed, mut has_news) = (Vec::new(), false);
    let process = &shared.process;
    for (pool, record) in table.records() {
        if is_told(shared, pool, &record) {
            continue;
        }
        if process.set_shared_data(VM_ID, &Members::key(pool), &record.encode(), 0) {
            has_news = true;
        } else {
            failed.push(pool.to_owned());
        }
    }
    if has_news {
        // Nobody else writes it, and the table is ours as long. A count that cannot be written was never told, or is told again.
        let told = process.shared_data(VM_ID, News::Members.key());
        let count = told.map_or(0, |(value, _cas)| News::count_of(&value));
        let next = count.wrapping_add(1).to_le_bytes();
        if !process.set_shared_data(VM_ID, News::Members.key(), &next, 0) {
            failed.push("(all)".to_owned());
        }
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(format!(
            "there is no room to tell the filters about pool {}",
            failed.join(", ")
        ))
    }
}

/// Whether the filters have this record, or one that differs in nothing but its version.
fn is_told(shared: &Shared, pool: &str, record: &Members) -> bool {
    let told = shared
        .process
        .shared_data(VM_ID, &Members::key(pool))
        .and_then(|(bytes, _cas)| Members::decode(&bytes));
    match told {
        Some(told) => told.servers == record.servers,
        None => record.servers.is_empty(),
    }
}

/// Brings the rosters of a generation up to date.
pub(crate) fn refresh(generation: &Generation, table: &Table, now: Instant) {
    for (pool, config) in generation.pools.iter().zip(&generation.config.policy.pools) {
        let before = pool.roster();
        if let Some(roster) = before.next(&table.list(config), now) {
            pool.set_roster(Arc::new(roster));
        }
    }
}

/// Lets go, from time to time, of servers whose time to leave is over.
pub(crate) async fn sweep(shared: Arc<Shared>) {
    let mut timer = tokio::time::interval(SWEEP);
    loop {
        timer.tick().await;
        let generation = shared.generation.load_full();
        if generation
            .pools
            .iter()
            .any(|pool| pool.roster().is_leaving())
        {
            refresh(&generation, &shared.members.table(), Instant::now());
        }
    }
}
