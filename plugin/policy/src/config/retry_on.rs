//! `retry_on`: what must have happened for the next server of a list to be tried, as the words that hosts read.
//!
//! A request whose method may be repeated (RFC 9110 section 9.2.2) is tried again after whatever is listed. Any other one only
//! where the server cannot have begun with it: never after a status, and after a reset only if nothing was sent.

use super::ConfigError;
use super::document::PoolDocument;

/// Statuses that may be listed: those that say that another server could do better.
const STATUSES: [u16; 3] = [502, 503, 504];
const KNOWN: &str = "connect-failure, reset-before-response, 502, 503 or 504";

/// The conditions of a pool in Envoy's words; the sidecar reads the same ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryOn {
    /// For requests that may be repeated; empty: never.
    pub repeatable: String,
    /// For all others; empty: never.
    pub unsent: String,
    /// Statuses that requests which may be repeated are tried again after, such as `502,503`; empty: none.
    pub statuses: String,
}

impl Default for RetryOn {
    fn default() -> Self {
        Self::of(Failures::Connecting, Failures::Resets, &[])
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failures {
    None,
    Connecting,
    Resets,
}

impl RetryOn {
    /// Whether nothing is ever tried again.
    pub fn is_never(&self) -> bool {
        self.repeatable.is_empty() && self.unsent.is_empty()
    }

    fn of(connecting: Failures, resets: Failures, statuses: &[u16]) -> Self {
        let (mut repeatable, mut unsent) = (Vec::new(), Vec::new());
        if connecting == Failures::Connecting {
            repeatable.extend(["connect-failure", "refused-stream"]);
            unsent.extend(["connect-failure", "refused-stream"]);
        }
        if resets == Failures::Resets {
            repeatable.push("reset");
            unsent.push("reset-before-request");
        }
        if !statuses.is_empty() {
            repeatable.push("retriable-status-codes");
        }
        let statuses: Vec<String> = statuses.iter().map(u16::to_string).collect();
        Self {
            repeatable: repeatable.join(","),
            unsent: unsent.join(","),
            statuses: statuses.join(","),
        }
    }
}

pub(super) fn retry_on(path: &str, document: &PoolDocument) -> Result<RetryOn, ConfigError> {
    let path = format!("{path}.retry_on");
    let Some(conditions) = &document.retry_on else {
        return Ok(RetryOn::default());
    };
    if document.retries == Some(0) && !conditions.is_empty() {
        let message = "`retries: 0` leaves no server to try after the first, so this has no effect";
        return Err(ConfigError::new(path, message));
    }
    let (mut connecting, mut resets, mut statuses) =
        (Failures::None, Failures::None, Vec::with_capacity(3));
    for (index, condition) in conditions.iter().enumerate() {
        match condition.as_str() {
            Some("connect-failure") => connecting = Failures::Connecting,
            Some("reset-before-response") => resets = Failures::Resets,
            text => {
                let number = condition.as_u64().or_else(|| text?.parse().ok());
                let status = number.and_then(|number| u16::try_from(number).ok());
                let status = status.filter(|status| STATUSES.contains(status));
                let status = status.ok_or_else(|| {
                    let message = format!("expected {KNOWN}, found {condition}");
                    ConfigError::new(format!("{path}[{index}]"), message)
                })?;
                if !statuses.contains(&status) {
                    statuses.push(status);
                }
            }
        }
    }
    Ok(RetryOn::of(connecting, resets, &statuses))
}
