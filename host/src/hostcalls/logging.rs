//! Log lines of a guest.

use wasmtime::Caller;

use crate::embedder::LogLevel;
use crate::guest_memory::{bytes, open, write};
use crate::state::State;
use crate::status::{Answer, Status};

/// Longest line handed to the embedder, bytes; the rest is cut off.
const LINE_BYTES_MAX: usize = 16 << 10;

const LEVELS: [LogLevel; 6] = [
    LogLevel::Trace,
    LogLevel::Debug,
    LogLevel::Info,
    LogLevel::Warn,
    LogLevel::Error,
    LogLevel::Critical,
];

/// `proxy_log(level, message, length)`. BadArgument: no such level.
pub(super) fn log(caller: &mut Caller<'_, State>, level: u32, message: u32, length: u32) -> Answer {
    let level = LEVELS.get(level as usize).ok_or(Status::BadArgument)?;
    let (memory, state) = open(caller)?;
    state
        .environment
        .log(*level, line(bytes(memory, message, length)?));
    Ok(())
}

/// What is logged of a message.
pub(super) fn line(message: &[u8]) -> &[u8] {
    message.get(..LINE_BYTES_MAX).unwrap_or(message)
}

/// `proxy_get_log_level(*level)`.
pub(super) fn level(caller: &mut Caller<'_, State>, level_at: u32) -> Answer {
    let (memory, state) = open(caller)?;
    let wanted = state.environment.log_level();
    let number = LEVELS
        .iter()
        .zip(0_u32..)
        .find(|(level, _)| **level == wanted)
        .map_or(0, |(_, number)| number);
    Ok(write(memory, level_at, number.to_le_bytes())?)
}
