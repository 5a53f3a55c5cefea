//! The servers of a pool as one VM knows them: who is eligible, how busy they are, what other VMs have in flight.
//!
//! A VM chooses with what it has in its own memory. Only methods that look at load need other VMs' figures, and they come through
//! shared data, which each VM writes for itself: there is nothing to take turns for, and nothing that a dead VM leaves locked.

mod attempts_watch;
mod availability;
mod beat_record;
mod changed_servers;
mod conn_limits;
mod ejection;
mod failures;
mod health;
mod in_flight;
mod lease;
mod load_record;
mod members;
mod news;
mod others_load;
mod pool;
mod pool_checks;
mod pool_load;
mod probe;
mod server_life;
mod server_places;
mod server_record;
mod shared_data;
mod slots;
mod slow_start;
mod state_record;
mod tier_masks;
mod transition;
mod vm_shares;
mod waiting_line;
mod waiting_vms;

#[cfg(test)]
mod conn_limits_tests;
#[cfg(test)]
mod leak_tests;
#[cfg(test)]
mod life_tests;
#[cfg(test)]
mod limits_tests;
#[cfg(test)]
mod tests;

pub use changed_servers::with_members;
pub use conn_limits::Freed;
pub use health::{Health, HealthChange, Verdict};
pub use in_flight::InFlight;
pub use lease::{Held, Lease};
pub use load_record::{CHUNK_SERVERS, Layout, LoadEntry, LoadRecord};
pub use members::{AdminChange, Member, Members};
pub use news::News;
pub use pool::{Chosen, Pool, ServerCounters};
pub use pool_checks::PoolChecks;
pub use probe::{BODY_BYTES_MAX, ProbeCall};
pub use shared_data::{SharedData, Written};
pub use slots::{SLOTS_MAX, STILL_TICKS_MAX, Slots};
pub use state_record::{ServerState, StateRecord};
pub use transition::{Cause, Standing, Transition};
pub use waiting_line::WaitingLine;
pub use waiting_vms::{WaitingVm, WaitingVms};

/// What a server's answer was like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quality {
    Good,
    /// Of a status that counts as a failure.
    Bad,
}

/// Shared load is read at most so often, milliseconds.
pub const LOAD_READ_INTERVAL_MS: u64 = 5;

/// The number that stands for a server's id in records of other VMs: FNV-1a, 64 bits, over its bytes.
pub fn id_hash(id: &str) -> u64 {
    id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
