//! Until the policy's own parser is merged.
use std::time::Duration;

pub fn duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("expected a duration such as 250ms, 10s, 5m or 1h, found `{text}`");
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| expected())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        "h" => Ok(Duration::from_secs(number.saturating_mul(3600))),
        _ => Err(expected()),
    }
}

pub fn size(text: &str) -> Result<u64, String> {
    let expected = || format!("expected a size such as 512, 64KiB or 8MiB, found `{text}`");
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| expected())?;
    let factor = match unit {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(expected()),
    };
    number.checked_mul(factor).ok_or_else(expected)
}

pub fn policy(
    _value: &serde_json::Value,
    _faults: &mut super::Collector<'_>,
) -> Option<evenkeel_policy::config::Config> {
    Some(evenkeel_policy::config::Config {
        real_ip: None,
        pools: Vec::new(),
    })
}
