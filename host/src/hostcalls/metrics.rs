//! Metrics of a guest; the rules are [`crate::metrics::VmMetrics`]'s.

use wasmtime::Caller;

use crate::guest_memory::{bytes, open, write};
use crate::state::State;
use crate::status::Answer;

/// `proxy_define_metric(kind, name, *id)`. BadArgument: no such kind, or the name is of another kind already. InternalFailure: a bound is reached.
pub(super) fn define(
    caller: &mut Caller<'_, State>,
    kind: u32,
    name: u32,
    name_length: u32,
    id_at: u32,
) -> Answer {
    let (memory, state) = open(caller)?;
    bytes(memory, id_at, 4)?;
    let id = state
        .metrics
        .define(kind, bytes(memory, name, name_length)?)?;
    Ok(write(memory, id_at, id.to_le_bytes())?)
}

/// `proxy_get_metric(id, *value)`. NotFound: no such metric. BadArgument: a histogram.
pub(super) fn get(caller: &mut Caller<'_, State>, id: u32, value_at: u32) -> Answer {
    let (memory, state) = open(caller)?;
    Ok(write(
        memory,
        value_at,
        state.metrics.get(id)?.to_le_bytes(),
    )?)
}

/// `proxy_record_metric(id, value)`: adds to a counter, sets a gauge, records in a histogram. NotFound: no such metric.
pub(super) fn record(caller: &mut Caller<'_, State>, id: u32, value: u64) -> Answer {
    Ok(caller.data().metrics.record(id, value)?)
}

/// `proxy_increment_metric(id, offset)`. NotFound: no such metric. BadArgument: a histogram, or a counter and not upwards.
pub(super) fn increment(caller: &mut Caller<'_, State>, id: u32, offset: i64) -> Answer {
    Ok(caller.data().metrics.increment(id, offset)?)
}
