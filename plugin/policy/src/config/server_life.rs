//! When a server is taken out because of what became of requests, and how it comes back.

use std::time::Duration;

use super::ConfigError;
use super::document::{PassiveDocument, PoolDocument, ServerDocument};
use super::limits::max_conns;
use super::statuses::{StatusSet, statuses};
use super::units::parse_duration;
use crate::balance::Algorithm;

/// nginx's defaults of `max_fails` and `fail_timeout`.
const MAX_FAILS: u16 = 1;
const FAIL_TIMEOUT: Duration = Duration::from_secs(10);

/// When failures take one server out, and how it comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerLimits {
    /// Failures within [`ServerLimits::fail_timeout`] after which it is left out; 0: never.
    pub max_fails: u16,
    /// How long failures count, and how long a server is left out.
    pub fail_timeout: Duration,
    /// How long its weight grows after it came back; 0: it has its weight at once.
    pub slow_start: Duration,
    /// Requests that it takes at a time, from all workers together; 0: any number.
    pub max_conns: u32,
}

impl Default for ServerLimits {
    /// nginx's.
    fn default() -> Self {
        Self {
            max_fails: MAX_FAILS,
            fail_timeout: FAIL_TIMEOUT,
            slow_start: Duration::ZERO,
            max_conns: 0,
        }
    }
}

/// Passive health: who fails again and again is ejected for a time that grows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassiveConfig {
    /// Answers that count as failures besides failed attempts.
    pub statuses: StatusSet,
    /// Failures in a row that eject: 1–1000.
    pub failures: u16,
    /// The first ejection's length; the n-th is n times as long.
    pub ejection: Duration,
    /// No ejection is longer.
    pub ejection_max: Duration,
    /// Most servers of a pool that are ejected at a time, percent of all, rounded down: 1–100.
    pub share_max: u8,
}

pub(super) fn server_limits(
    path: &str,
    document: &ServerDocument,
    algorithm: Algorithm,
) -> Result<ServerLimits, ConfigError> {
    let slow_start = duration(
        path,
        "slow_start",
        document.slow_start.as_deref(),
        Duration::ZERO,
    )?;
    if let Some(why) = algorithm.why_no_slow_start()
        && !slow_start.is_zero()
    {
        let message = format!("`{}` knows no slow start: {why}", algorithm.name());
        return Err(ConfigError::new(format!("{path}.slow_start"), message));
    }
    Ok(ServerLimits {
        max_fails: number(
            path,
            "max_fails",
            document.max_fails,
            MAX_FAILS,
            0..=u16::MAX,
        )?,
        fail_timeout: duration(
            path,
            "fail_timeout",
            document.fail_timeout.as_deref(),
            FAIL_TIMEOUT,
        )?,
        slow_start,
        max_conns: max_conns(path, document)?,
    })
}

/// Percent of available servers under which all are used; 0: never.
pub(super) fn panic_below(path: &str, document: &PoolDocument) -> Result<u8, ConfigError> {
    let percent = number(path, "panic_below", document.panic_below, 0, 0..=100)?;
    Ok(u8::try_from(percent).unwrap_or(100))
}

pub(super) fn passive(
    path: &str,
    document: Option<&PassiveDocument>,
) -> Result<Option<PassiveConfig>, ConfigError> {
    let Some(document) = document else {
        return Ok(None);
    };
    let path = format!("{path}.passive");
    let positive = |key: &str, text: &Option<String>, default: u64| {
        let read = duration(&path, key, text.as_deref(), Duration::from_secs(default))?;
        if read.is_zero() {
            return Err(ConfigError::new(
                format!("{path}.{key}"),
                "expected more than 0",
            ));
        }
        Ok(read)
    };
    let ejection = positive("ejection", &document.ejection, 30)?;
    let ejection_max = match &document.ejection_max {
        None => ejection.max(Duration::from_secs(300)),
        Some(_) => positive("ejection_max", &document.ejection_max, 300)?,
    };
    if ejection > ejection_max {
        let message = "expected at least `ejection`, the length of the first one";
        return Err(ConfigError::new(format!("{path}.ejection_max"), message));
    }
    let share_max = number(&path, "share_max", document.share_max, 50, 1..=100)?;
    let listed = document.statuses.as_deref().unwrap_or_default();
    Ok(Some(PassiveConfig {
        statuses: statuses(&format!("{path}.statuses"), listed)?,
        failures: number(&path, "failures", document.failures, 5, 1..=1_000)?,
        ejection,
        ejection_max,
        share_max: u8::try_from(share_max).unwrap_or(100),
    }))
}

/// A whole number of a range.
pub(super) fn number(
    path: &str,
    key: &str,
    value: Option<u64>,
    default: u16,
    range: std::ops::RangeInclusive<u16>,
) -> Result<u16, ConfigError> {
    let Some(value) = value else {
        return Ok(default);
    };
    let read = u16::try_from(value)
        .ok()
        .filter(|read| range.contains(read));
    read.ok_or_else(|| {
        let message = format!(
            "expected {} to {}, found {value}",
            range.start(),
            range.end()
        );
        ConfigError::new(format!("{path}.{key}"), message)
    })
}

/// A duration, 0 too.
pub(super) fn duration(
    path: &str,
    key: &str,
    text: Option<&str>,
    default: Duration,
) -> Result<Duration, ConfigError> {
    text.map_or(Ok(default), |text| {
        parse_duration(text).map_err(|message| ConfigError::new(format!("{path}.{key}"), message))
    })
}
