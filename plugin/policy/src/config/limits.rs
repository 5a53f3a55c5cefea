//! How many requests a server takes at a time, and who waits when all are full.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::ConfigError;
use super::document::{QueueDocument, ServerDocument};
use super::units::parse_duration;

/// Largest `max_conns`.
const MAX_CONNS_MAX: u32 = 1_000_000;
const LENGTHS: RangeInclusive<u32> = 1..=100_000;
const LENGTH_DEFAULT: u32 = 1_000;
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// Longest `queue.timeout`: nobody waits longer for a page, and hosts bound how long a filter may hold a request.
const TIMEOUT_MAX: Duration = Duration::from_secs(240);

/// Requests that wait while every server of their pool is at its `max_conns`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueConfig {
    /// Most that wait, all workers together: 1–100000.
    pub length: u32,
    /// How long one waits at most; more than 0.
    pub timeout: Duration,
}

/// Requests that a server takes at a time; 0: any number.
pub(super) fn max_conns(path: &str, document: &ServerDocument) -> Result<u32, ConfigError> {
    let Some(value) = document.max_conns else {
        return Ok(0);
    };
    let read = u32::try_from(value).ok();
    read.filter(|read| *read <= MAX_CONNS_MAX).ok_or_else(|| {
        let message = format!("expected 0 for no bound, or up to {MAX_CONNS_MAX}, found {value}");
        ConfigError::new(format!("{path}.max_conns"), message)
    })
}

pub(super) fn queue(
    path: &str,
    document: Option<&QueueDocument>,
) -> Result<Option<QueueConfig>, ConfigError> {
    let Some(document) = document else {
        return Ok(None);
    };
    let length = match document.length {
        None => LENGTH_DEFAULT,
        Some(value) => {
            let read = u32::try_from(value).ok();
            read.filter(|read| LENGTHS.contains(read)).ok_or_else(|| {
                let (least, most) = (LENGTHS.start(), LENGTHS.end());
                let message = format!(
                    "expected {least} to {most}, found {value}; without a queue leave the key out"
                );
                ConfigError::new(format!("{path}.queue.length"), message)
            })?
        }
    };
    let timeout = match &document.timeout {
        None => TIMEOUT_DEFAULT,
        Some(text) => {
            let path = format!("{path}.queue.timeout");
            let read = parse_duration(text).map_err(|message| ConfigError::new(&path, message))?;
            if read.is_zero() || read > TIMEOUT_MAX {
                let most = TIMEOUT_MAX.as_secs();
                let message = format!("expected more than 0 and at most {most}s, found {text}");
                return Err(ConfigError::new(path, message));
            }
            read
        }
    };
    Ok(Some(QueueConfig { length, timeout }))
}
