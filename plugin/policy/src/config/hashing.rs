//! What the hashing methods hash.

use super::ConfigError;
use super::document::PoolDocument;
use crate::balance::{Algorithm, KeyNeed};
use crate::exchange::HashKey;

/// The key that a pool's method hashes; `None` if it hashes none. A key beside a method that hashes nothing at all has no effect,
/// so that methods can be changed back and forth.
pub(super) fn hash_key(
    path: &str,
    document: &PoolDocument,
    algorithm: Algorithm,
) -> Result<Option<HashKey>, ConfigError> {
    let path = format!("{path}.hash_key");
    let wrong = |message: String| Err(ConfigError::new(&path, message));
    let default = match algorithm.key_need() {
        KeyNeed::None => None,
        KeyNeed::Uri => Some(HashKey::uri()),
        KeyNeed::Host => Some(HashKey::host()),
    };
    let Some(text) = &document.hash_key else {
        return Ok(default);
    };
    let key = HashKey::parse(text).map_err(|message| ConfigError::new(&path, message))?;
    let name = algorithm.name();
    match algorithm {
        Algorithm::IpHash | Algorithm::SourceHash => wrong(format!(
            "`{name}` always hashes the client's address; for another key use `hash`"
        )),
        Algorithm::UrlHash if key != HashKey::uri() => wrong(format!(
            "`{name}` always hashes `$uri`; for another key use `hash`"
        )),
        _ => Ok(default.map(|_| key)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::{Config, Document, PoolConfig};
    use super::*;

    fn pool(keys: Value) -> Result<PoolConfig, ConfigError> {
        let mut pool = json!({"servers": [{"address": "10.0.0.1:80"}]});
        keys.as_object()
            .unwrap()
            .iter()
            .for_each(|(key, value)| pool[key] = value.clone());
        let document =
            Document::from_value(json!({"pools": {"shop": pool}, "routes": [{"pool": "shop"}]}))?;
        Ok(Config::from_document(&document)?.pools.remove(0))
    }

    #[test]
    fn keys_are_the_methods_unless_stated() {
        let (uri, host) = (Some(HashKey::uri()), Some(HashKey::host()));
        for (keys, expected) in [
            (json!({}), None),
            (json!({"hash_key": "$uri"}), None),
            (json!({"balance": "ip_hash"}), None),
            (json!({"balance": "hash"}), uri.clone()),
            (
                json!({"balance": "url_hash", "hash_key": "$uri"}),
                uri.clone(),
            ),
            (
                json!({"balance": "hash_consistent", "hash_key": "$host"}),
                host.clone(),
            ),
            (json!({"balance": "maglev"}), uri.clone()),
            (json!({"balance": "rendezvous"}), uri.clone()),
            (json!({"balance": "dh"}), host.clone()),
            (json!({"balance": "lblc"}), host.clone()),
            (json!({"balance": "lblcr", "hash_key": "$uri"}), uri),
        ] {
            assert_eq!(pool(keys.clone()).unwrap().hash_key, expected, "{keys}");
        }
    }

    #[test]
    fn what_contradicts_is_refused_with_the_reason() {
        for (keys, path, said) in [
            (
                json!({"balance": "hash", "hash_key": "$urii"}),
                "hash_key",
                "did you mean `$uri`",
            ),
            (
                json!({"balance": "round_robin", "hash_key": ""}),
                "hash_key",
                "expected a variable",
            ),
            (
                json!({"balance": "url_hash", "hash_key": "$host"}),
                "hash_key",
                "always hashes `$uri`",
            ),
            (
                json!({"balance": "ip_hash", "hash_key": "$uri"}),
                "hash_key",
                "always hashes the client's address",
            ),
            (
                json!({"balance": "sh", "hash_key": "$uri"}),
                "hash_key",
                "`source_hash` always hashes",
            ),
            (
                json!({"hash_balance_factor": 150}),
                "hash_balance_factor",
                "`round_robin` hashes no key",
            ),
            (
                json!({"balance": "hash", "hash_balance_factor": 100}),
                "hash_balance_factor",
                "101 to 10000 percent, found 100",
            ),
            (
                json!({"balance": "hash", "hash_balance_factor": 65_536}),
                "hash_balance_factor",
                "found 65536",
            ),
        ] {
            let error = pool(keys.clone()).unwrap_err();
            assert_eq!(error.path, format!("pools.shop.{path}"), "{keys}: {error}");
            assert!(error.message.contains(said), "{keys}: {error}");
        }
        assert_eq!(
            pool(json!({"balance": "maglev", "hash_balance_factor": 125}))
                .unwrap()
                .hash_balance_factor,
            Some(125)
        );
        assert_eq!(
            pool(json!({"hash_balance_factor": 0}))
                .unwrap()
                .hash_balance_factor,
            None
        );
    }
}
