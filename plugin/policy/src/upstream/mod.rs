//! The servers of a pool as one VM knows them: who is eligible, how busy they are, what other VMs have in flight.
//!
//! A VM chooses with what it has in its own memory. Only methods that look at load need other VMs' figures, and they come through
//! shared data, which each VM writes for itself: there is nothing to take turns for, and nothing that a dead VM leaves locked.

mod attempts_watch;
mod conn_limits;
mod failures;
mod in_flight;
mod load_record;
mod members;
mod others_load;
mod pool;
mod pool_load;
mod shared_data;
mod slots;
mod slow_start;
mod vm_shares;

#[cfg(test)]
mod conn_limits_tests;
#[cfg(test)]
mod tests;

pub use conn_limits::Freed;
pub use failures::{FailureRule, Failures, FailuresCount};
pub use in_flight::InFlight;
pub use load_record::{CHUNK_SERVERS, Layout, LoadEntry, LoadRecord};
pub use members::{AdminChange, Member, Members};
pub use pool::{Pool, ServerCounters};
pub use shared_data::{SharedData, Written};
pub use slots::{SLOTS_MAX, STILL_TICKS_MAX, Slots};
pub use slow_start::{SlowStart, effective_weights};

/// Shared load is read at most so often, milliseconds.
pub const LOAD_READ_INTERVAL_MS: u64 = 5;

/// The number that stands for a server's id in records of other VMs: FNV-1a, 64 bits, over its bytes.
pub fn id_hash(id: &str) -> u64 {
    id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
