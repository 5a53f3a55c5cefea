//! `limits`: how often, and how many at a time. See [`crate::limits`].
//!
//! ```text
//!   rate        5r/s or 30r/m       burst     requests beyond the rate that are let through: 0 unless stated
//!   delay       up to how many of them need not wait: 0 unless stated       nodelay     true: none waits
//!   in_flight   requests at a time, instead of a rate
//!   key         as `hash_key`: $client_ip unless stated       table     keys that are remembered: 16384 unless stated
//!   status      of the answer: 429 unless stated
//! ```

use super::document::{LimitDocument, Named};
use super::names::{check_name, shortened};
use super::{ConfigError, LIMITS_MAX, TABLES_MAX};
use crate::exchange::HashKey;
use crate::limits::{Kind, Limit, Rate, buckets};

/// Largest rate, a second.
const RATE_MAX: u32 = 1_000_000;
/// Largest burst, delay and count.
const REQUESTS_MAX: u64 = 1_000_000;
const TABLE_DEFAULT: u32 = 16_384;
const TABLE_MAX: u32 = 131_072;
/// Longest that a request may have to wait, milliseconds: hosts bound how long a filter may hold one.
const DELAY_MS_MAX: u64 = 30_000;

/// Reads the limits, in the order of their names.
pub(super) fn limits(documents: &Named<LimitDocument>) -> Result<Vec<Limit>, ConfigError> {
    let count = documents.0.len();
    if count > LIMITS_MAX {
        let message = format!("expected at most {LIMITS_MAX} limits, found {count}");
        return Err(ConfigError::new("limits", message));
    }
    let mut limits = Vec::with_capacity(count);
    let mut tables = 0;
    for (name, document) in &documents.0 {
        let path = format!("limits.{name}");
        check_name(name).map_err(|message| ConfigError::new(&path, message))?;
        tables += document.table.unwrap_or(u64::from(TABLE_DEFAULT));
        limits.push(limit(&path, name, document)?);
    }
    if tables > TABLES_MAX {
        let message = format!(
            "expected tables of at most {TABLES_MAX} keys together, found {tables}; see `table`"
        );
        return Err(ConfigError::new("limits", message));
    }
    Ok(limits)
}

fn limit(path: &str, name: &str, document: &LimitDocument) -> Result<Limit, ConfigError> {
    let wrong = |key: &str, message: String| ConfigError::new(format!("{path}.{key}"), message);
    let key = document.key.as_deref().unwrap_or("$client_ip");
    let key = HashKey::parse(key).map_err(|message| wrong("key", message))?;
    let kind = match (&document.rate, document.in_flight) {
        (Some(text), None) => {
            let per_second = rate(text).map_err(|message| wrong("rate", message))?;
            Kind::Rate(bucket(path, document, per_second)?)
        }
        (None, Some(max)) => {
            for (key, is_there) in [
                ("burst", document.burst.is_some()),
                ("delay", document.delay.is_some()),
                ("nodelay", document.nodelay.is_some()),
            ] {
                if is_there {
                    let message = "belongs to a `rate`, and this limit counts what is `in_flight`";
                    return Err(wrong(key, message.to_owned()));
                }
            }
            let read = u32::try_from(max)
                .ok()
                .filter(|_| (1..=REQUESTS_MAX).contains(&max));
            let max = read.ok_or_else(|| {
                wrong(
                    "in_flight",
                    format!("expected 1 to {REQUESTS_MAX}, found {max}"),
                )
            })?;
            Kind::InFlight { max }
        }
        _ => {
            let message = "expected either `rate` or `in_flight`: how often, or how many at a time";
            return Err(ConfigError::new(path, message));
        }
    };
    let table = match document.table {
        None => TABLE_DEFAULT,
        Some(table) => {
            let read = u32::try_from(table).ok();
            read.filter(|table| (1..=TABLE_MAX).contains(table))
                .ok_or_else(|| {
                    wrong("table", format!("expected 1 to {TABLE_MAX}, found {table}"))
                })?
        }
    };
    let status = match document.status {
        None => 429,
        Some(status) => {
            let read = u16::try_from(status).ok();
            read.filter(|status| (400..=599).contains(status))
                .ok_or_else(|| {
                    wrong(
                        "status",
                        format!("expected a status from 400 to 599, found {status}"),
                    )
                })?
        }
    };
    Ok(Limit {
        name: name.to_owned(),
        key,
        status,
        kind,
        buckets: buckets(table),
    })
}

/// Thousandths of a request a second, rounded down as nginx does.
fn rate(text: &str) -> Result<u32, String> {
    let expected = || {
        let found = shortened(text);
        format!(
            "expected a rate such as 5r/s or 30r/m, from 1r/m up to {RATE_MAX}r/s, found `{found}`"
        )
    };
    let (number, per_seconds) = match text.split_once("r/") {
        Some((number, "s")) => (number, 1),
        Some((number, "m")) => (number, 60),
        _ => return Err(expected()),
    };
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(expected());
    }
    let number: u32 = number.parse().map_err(|_| expected())?;
    if number == 0 || number > RATE_MAX {
        return Err(expected());
    }
    Ok(number * 1_000 / per_seconds)
}

fn bucket(path: &str, document: &LimitDocument, per_second: u32) -> Result<Rate, ConfigError> {
    let thousandths = |key: &str, value: Option<u64>| match value {
        None => Ok(0),
        Some(value) => {
            let read = u32::try_from(value).ok();
            read.filter(|_| value <= REQUESTS_MAX)
                .map(|read| read * 1_000)
                .ok_or_else(|| {
                    let message = format!("expected 0 to {REQUESTS_MAX}, found {value}");
                    ConfigError::new(format!("{path}.{key}"), message)
                })
        }
    };
    let burst = thousandths("burst", document.burst)?;
    let delay = match (document.delay, document.nodelay) {
        (Some(_), Some(true)) => {
            let message = "nobody waits under `nodelay`: leave one of the two out";
            return Err(ConfigError::new(format!("{path}.delay"), message));
        }
        (None, Some(true)) => u32::MAX,
        (delay, _) => thousandths("delay", delay)?,
    };
    let longest_ms = u64::from(burst.saturating_sub(delay)) * 1_000 / u64::from(per_second.max(1));
    if longest_ms > DELAY_MS_MAX {
        let message = format!(
            "with this burst a request would wait for up to {} s, and at most {} s are served: expected a smaller burst, a `delay`, or `nodelay: true`",
            longest_ms / 1_000,
            DELAY_MS_MAX / 1_000
        );
        return Err(ConfigError::new(format!("{path}.burst"), message));
    }
    Ok(Rate {
        per_second,
        burst,
        delay,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::{config, refused};
    use super::*;

    fn with_limit(limit: Value) -> Value {
        json!({"limits": {"login": limit}})
    }

    #[track_caller]
    fn check(limit: Value, expected: Kind) {
        let config = config(with_limit(limit)).expect("accepted");
        assert_eq!(config.limits[0].kind, expected);
    }

    #[test]
    fn limits_are_written_as_in_nginx() {
        let rate = |per_second, burst, delay| {
            Kind::Rate(Rate {
                per_second,
                burst,
                delay,
            })
        };
        check(json!({"rate": "5r/s"}), rate(5_000, 0, 0));
        check(json!({"rate": "100r/m"}), rate(1_666, 0, 0));
        check(
            json!({"rate": "5r/s", "burst": 10, "nodelay": true}),
            rate(5_000, 10_000, u32::MAX),
        );
        check(
            json!({"rate": "5r/s", "burst": 10, "delay": 8, "nodelay": false}),
            rate(5_000, 10_000, 8_000),
        );
        check(
            json!({"in_flight": 20, "table": 100}),
            Kind::InFlight { max: 20 },
        );
        assert_eq!(
            config(with_limit(json!({"in_flight": 1, "table": 100})))
                .unwrap()
                .limits[0]
                .buckets,
            8
        );
    }

    #[test]
    fn limits_that_contradict_themselves_are_refused() {
        let refused = |limit: Value, path: &str, said: &str| {
            let path = format!("limits.login{path}");
            refused(with_limit(limit), &path, said);
        };
        refused(json!({}), "", "either `rate` or `in_flight`");
        refused(json!({"rate": "5r/s", "in_flight": 1}), "", "either");
        for rate in [
            "5",
            "5r/h",
            "0r/s",
            "-1r/s",
            "+1r/s",
            "1.5r/s",
            "1000001r/s",
            "r/s",
        ] {
            refused(json!({"rate": rate}), ".rate", "5r/s or 30r/m");
        }
        refused(
            json!({"rate": "5r/s", "delay": 1, "nodelay": true}),
            ".delay",
            "leave one",
        );
        refused(
            json!({"rate": "5r/m", "burst": 10}),
            ".burst",
            "up to 120 s",
        );
        refused(
            json!({"rate": "5r/m", "burst": 2_000_000}),
            ".burst",
            "0 to 1000000",
        );
        refused(json!({"in_flight": 0}), ".in_flight", "expected 1");
        refused(
            json!({"in_flight": 5, "burst": 1}),
            ".burst",
            "belongs to a `rate`",
        );
        refused(
            json!({"in_flight": 5, "key": "x"}),
            ".key",
            "expected a variable",
        );
        refused(
            json!({"in_flight": 5, "status": 200}),
            ".status",
            "400 to 599",
        );
        refused(json!({"in_flight": 5, "table": 0}), ".table", "expected 1");
        refused(
            json!({"in_flight": 5, "tabel": 5}),
            ".tabel",
            "did you mean `table`?",
        );
        super::super::tests::refused(
            json!({"limits": {"a": {"in_flight": 1, "table": 131_072}, "b": {"in_flight": 1, "table": 131_072}, "c": {"in_flight": 1, "table": 1}}}),
            "limits",
            "together",
        );
        super::super::tests::refused(
            json!({"limits": {"a b": {"in_flight": 1}}}),
            "limits.a b",
            "expected a name",
        );
    }
}
