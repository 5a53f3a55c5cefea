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
    value: &serde_json::Value,
    _faults: &mut super::Collector<'_>,
) -> Option<evenkeel_policy::config::Config> {
    use evenkeel_policy::config::{
        AdminState, Config, Keepalive, PoolConfig, PoolTimeouts, ServerConfig, Tier,
    };
    let time = |v: &serde_json::Value| v.as_str().and_then(|text| duration(text).ok());
    let pools = value["pools"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, pool)| PoolConfig {
            name: name.clone(),
            servers: pool["servers"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|server| {
                    let address = server["address"].as_str()?;
                    Some(ServerConfig {
                        id: server["id"].as_str().unwrap_or(address).to_owned(),
                        address: address.parse().ok()?,
                        weight: server["weight"]
                            .as_u64()
                            .and_then(|w| u16::try_from(w).ok())
                            .unwrap_or(1),
                        tier: if server["backup"] == true {
                            Tier::Backup
                        } else {
                            Tier::Primary
                        },
                        admin: if server["down"] == true {
                            AdminState::Down
                        } else {
                            AdminState::Ready
                        },
                    })
                })
                .collect(),
            retries: 2,
            keepalive: Keepalive {
                per_worker: 64,
                idle: Duration::from_secs(60),
                requests: 10_000,
            },
            timeouts: PoolTimeouts {
                connect: time(&pool["timeouts"]["connect"]),
                response: time(&pool["timeouts"]["response"]),
            },
        })
        .collect();
    Some(Config {
        real_ip: None,
        pools,
    })
}

pub enum Mode {
    Http,
}
pub struct ListenerIdentity {
    pub name: String,
    pub mode: Mode,
    pub pool: Option<String>,
}
pub fn filter_configuration(listener: &ListenerIdentity, policy: &serde_json::Value) -> String {
    let _ = (&listener.pool, &listener.mode);
    serde_json::json!({"schema": 1, "listener": {"name": listener.name, "mode": "http"}, "secrets": [], "policy": policy}).to_string()
}
