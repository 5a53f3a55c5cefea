//! Time and ticks.

use std::time::{Duration, SystemTime};

use wasmtime::Caller;

use crate::guest_memory::{open, write};
use crate::state::State;
use crate::status::{Answer, Status};

/// `proxy_get_current_time_nanoseconds(*time)`: wall clock since the epoch.
pub(super) fn now(caller: &mut Caller<'_, State>, time_at: u32) -> Answer {
    let time = wall_clock(caller.data());
    let (memory, _) = open(caller)?;
    Ok(write(memory, time_at, time.to_le_bytes())?)
}

/// `proxy_set_tick_period_milliseconds(period)`: of the active context's root; 0 stops. NotFound without a context.
pub(super) fn set_tick_period(caller: &mut Caller<'_, State>, period: u32) -> Answer {
    let state = caller.data();
    let root = state.active.root.as_ref().ok_or(Status::NotFound)?;
    state
        .environment
        .set_tick_period(root.id, Duration::from_millis(u64::from(period)));
    Ok(())
}

/// Nanoseconds since the epoch, by the environment's clock; 0 before it.
pub(super) fn wall_clock(state: &State) -> u64 {
    let since = state
        .environment
        .wall_clock()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
