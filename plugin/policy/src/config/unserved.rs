//! Keys of the reference configuration that this version understands but does not serve: refused by name, never ignored.
//!
//! A value that means "off" is accepted, because then doing nothing is doing what was asked.

use serde_json::Value;

use super::ConfigError;
use super::units::parse_duration;

/// What is said of a key that is not served.
pub(super) const NOT_SERVED: &str = "understood, but not served by this version";

/// Refuses `value` at `path` unless it is absent or means "off": `0`, `0s`, `false`.
pub(super) fn refuse(path: &str, value: Option<&Value>) -> Result<(), ConfigError> {
    let off = match value {
        None | Some(Value::Null | Value::Bool(false)) => true,
        Some(Value::Number(number)) => number.as_u64() == Some(0),
        Some(Value::String(text)) => parse_duration(text).is_ok_and(|duration| duration.is_zero()),
        Some(Value::Bool(true) | Value::Array(_) | Value::Object(_)) => false,
    };
    if off {
        Ok(())
    } else {
        Err(ConfigError::new(path, NOT_SERVED))
    }
}
