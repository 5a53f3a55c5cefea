//! `balance: envoy`: a pool whose servers Envoy chooses by itself, because it alone knows what their names stand for.
//!
//! A filter in Envoy cannot resolve names, and nobody tells it of their addresses; Envoy resolves them, and takes turns among what it finds.
//! Everything that the filter does for servers it knows is refused here by name: it would be a promise that nobody keeps.

use super::ConfigError;
use super::document::PoolDocument;

/// The name in `balance`. It is none of the methods.
pub(super) const NAME: &str = "envoy";

/// Who chooses the servers of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chooser {
    Filter,
    /// The filter names the pool, and no server.
    Envoy,
}

/// Who chooses in this pool.
pub(super) fn chooser(path: &str, pool: &PoolDocument) -> Result<Chooser, ConfigError> {
    if pool.balance.as_deref() != Some(NAME) {
        return Ok(Chooser::Filter);
    }
    let refused = |key: &str| {
        let message = "with `balance: envoy` Envoy chooses by itself, and the filter knows no server of this pool: nobody would do this";
        Err(ConfigError::new(format!("{path}.{key}"), message))
    };
    let of_pool = [
        ("health", pool.health.is_some()),
        ("passive", pool.passive.is_some()),
        ("queue", pool.queue.is_some()),
        ("panic_below", pool.panic_below.is_some()),
        ("hash_key", pool.hash_key.is_some()),
        ("hash_balance_factor", pool.hash_balance_factor.is_some()),
    ];
    if let Some((key, _)) = of_pool.iter().find(|(_, is_set)| *is_set) {
        return refused(key);
    }
    let servers = pool.servers.as_deref().unwrap_or_default();
    for (index, server) in servers.iter().enumerate() {
        let of_server = [
            ("max_fails", server.max_fails.is_some()),
            ("fail_timeout", server.fail_timeout.is_some()),
            ("max_conns", server.max_conns.is_some()),
            ("slow_start", server.slow_start.is_some()),
            // Envoy uses a lower priority when it takes hosts for unhealthy, which without checks it never does.
            ("backup", server.backup == Some(true)),
        ];
        if let Some((key, _)) = of_server.iter().find(|(_, is_set)| *is_set) {
            return refused(&format!("servers[{index}].{key}"));
        }
    }
    Ok(Chooser::Envoy)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::{Config, Document};

    /// The pool, or the path of what is refused.
    fn read(pool: Value) -> Result<Chooser, String> {
        let document = Document::from_value(json!({"pools": {"web": pool}}));
        let config = document.and_then(|document| Config::from_document(&document));
        config
            .map(|config| config.pools[0].chooser)
            .map_err(|error| error.path)
    }

    #[track_caller]
    fn check(keys: Value, server: Value, expected: Result<Chooser, &str>) {
        let mut pool = json!({"balance": "envoy", "servers": [{"address": "web.test:80"}]});
        let (Some(keys), Some(server)) = (keys.as_object(), server.as_object()) else {
            panic!("not objects");
        };
        let whole = pool.as_object_mut().unwrap();
        whole.extend(keys.clone());
        let first = pool["servers"][0].as_object_mut().unwrap();
        first.extend(server.clone());
        assert_eq!(read(pool), expected.map_err(str::to_owned));
    }

    #[test]
    fn what_the_filter_would_do_is_refused_by_name() {
        check(json!({}), json!({}), Ok(Chooser::Envoy));
        check(json!({"balance": "random"}), json!({}), Ok(Chooser::Filter));
        let fine = json!({"retries": 1, "resolve": "5s", "retry_on": [503]});
        check(fine, json!({"weight": 3, "down": true}), Ok(Chooser::Envoy));
        for key in ["health", "passive", "queue"] {
            let path = format!("pools.web.{key}");
            check(json!({key: {}}), json!({}), Err(&path));
        }
        check(
            json!({"panic_below": 5}),
            json!({}),
            Err("pools.web.panic_below"),
        );
        check(
            json!({"hash_key": "$uri"}),
            json!({}),
            Err("pools.web.hash_key"),
        );
        for (key, value) in [
            ("max_conns", json!(3)),
            ("max_fails", json!(0)),
            ("fail_timeout", json!("1s")),
            ("slow_start", json!("1s")),
            ("backup", json!(true)),
        ] {
            let path = format!("pools.web.servers[0].{key}");
            check(json!({}), json!({key: value}), Err(&path));
        }
    }
}
