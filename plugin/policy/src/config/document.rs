//! The `policy` subtree as somebody wrote it: every key of the reference configuration, and no other.
//!
//! Only shapes are checked here (a list, a number, a known key); what the values mean is [`super::Config`]'s business. Keys that
//! are understood but not served yet are kept as they came, to be refused by name.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::ConfigError;
use super::names::nearest;
use super::route_document::RouteDocument;

/// The `policy` subtree as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    pub(super) real_ip: Option<RealIpDocument>,
    pub(super) request_headers: Option<RequestHeadersDocument>,
    pub(super) response_headers: Option<ResponseHeadersDocument>,
    #[serde(default)]
    pub(super) limits: Named<LimitDocument>,
    #[serde(default)]
    pub(super) routes: Vec<RouteDocument>,
    #[serde(default)]
    pub(super) pools: Named<PoolDocument>,
}

impl Document {
    /// Reads JSON text.
    pub fn from_json(text: &[u8]) -> Result<Self, ConfigError> {
        let mut parser = serde_json::Deserializer::from_slice(text);
        let document = parse(&mut parser)?;
        parser
            .end()
            .map_err(|error| ConfigError::new("", error.to_string()))?;
        Ok(document)
    }

    /// Reads a JSON value, such as a subtree of a larger document.
    pub fn from_value(value: Value) -> Result<Self, ConfigError> {
        parse(value)
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RealIpDocument {
    #[serde(default)]
    pub(super) trusted: OneOrMany,
    pub(super) header: Option<String>,
    pub(super) recursive: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RequestHeadersDocument {
    #[serde(default)]
    pub(super) set: Named<String>,
    #[serde(default)]
    pub(super) add: Named<String>,
    #[serde(default)]
    pub(super) remove: OneOrMany,
    pub(super) except: Option<OneOrMany>,
    pub(super) forwarded: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResponseHeadersDocument {
    #[serde(default)]
    pub(super) set: Named<String>,
    #[serde(default)]
    pub(super) add: Named<String>,
    #[serde(default)]
    pub(super) remove: OneOrMany,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitDocument {
    pub(super) rate: Option<String>,
    pub(super) in_flight: Option<u64>,
    pub(super) burst: Option<u64>,
    pub(super) delay: Option<u64>,
    pub(super) nodelay: Option<bool>,
    pub(super) key: Option<String>,
    pub(super) table: Option<u64>,
    pub(super) status: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PoolDocument {
    pub(super) balance: Option<String>,
    pub(super) servers: Option<Vec<ServerDocument>>,
    pub(super) retries: Option<u64>,
    pub(super) keepalive: Option<KeepaliveDocument>,
    pub(super) timeouts: Option<TimeoutsDocument>,
    pub(super) resolve: Option<String>,
    pub(super) mode: Option<String>,
    pub(super) hash_key: Option<String>,
    pub(super) hash_balance_factor: Option<u64>,
    pub(super) health: Option<HealthDocument>,
    pub(super) passive: Option<PassiveDocument>,
    pub(super) retry_on: Option<Vec<Value>>,
    pub(super) sticky: Option<Value>,
    pub(super) panic_below: Option<u64>,
    pub(super) queue: Option<QueueDocument>,
    pub(super) protocol: Option<Value>,
    pub(super) role: Option<Value>,
    pub(super) greeting_timeout: Option<Value>,
    pub(super) writer_wait: Option<Value>,
    pub(super) on_down: Option<Value>,
    pub(super) proxy_protocol: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServerDocument {
    pub(super) address: String,
    pub(super) id: Option<String>,
    pub(super) weight: Option<u64>,
    pub(super) backup: Option<bool>,
    pub(super) down: Option<bool>,
    pub(super) max_fails: Option<u64>,
    pub(super) fail_timeout: Option<String>,
    pub(super) max_conns: Option<u64>,
    pub(super) slow_start: Option<String>,
}

/// Health checks: by HTTP unless another kind is named.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HealthDocument {
    pub(super) path: Option<String>,
    pub(super) method: Option<String>,
    pub(super) host: Option<String>,
    pub(super) expect: Option<Vec<Value>>,
    pub(super) body: Option<String>,
    pub(super) interval: Option<String>,
    pub(super) fast_interval: Option<String>,
    pub(super) timeout: Option<String>,
    pub(super) rise: Option<u64>,
    pub(super) fall: Option<u64>,
    pub(super) tcp: Option<TcpDocument>,
    pub(super) mysql: Option<MysqlDocument>,
    pub(super) redis: Option<RedisDocument>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TcpDocument {}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MysqlDocument {
    pub(super) user: String,
    pub(super) password_file: Option<String>,
    pub(super) query: Option<String>,
    pub(super) equals: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RedisDocument {
    pub(super) password_file: Option<String>,
    pub(super) role: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QueueDocument {
    pub(super) length: Option<u64>,
    pub(super) timeout: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PassiveDocument {
    pub(super) statuses: Option<Vec<Value>>,
    pub(super) failures: Option<u64>,
    pub(super) ejection: Option<String>,
    pub(super) ejection_max: Option<String>,
    pub(super) share_max: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeepaliveDocument {
    pub(super) per_worker: Option<u64>,
    pub(super) idle: Option<String>,
    pub(super) requests: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TimeoutsDocument {
    pub(super) connect: Option<String>,
    pub(super) response: Option<String>,
}

/// A text, or a list of texts.
#[derive(Debug, Clone, Default)]
pub(super) struct OneOrMany(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<OneOrMany, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = items.next_element()? {
                    texts.push(text);
                }
                Ok(OneOrMany(texts))
            }
        }
        deserializer.deserialize_any(Texts)
    }
}

/// A mapping from names, none of them twice.
#[derive(Debug, Clone)]
pub(super) struct Named<T>(pub(super) BTreeMap<String, T>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Named<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Named<T>, A::Error> {
                let mut named = BTreeMap::new();
                while let Some((name, value)) = entries.next_entry::<String, T>()? {
                    if named.contains_key(&name) {
                        return Err(de::Error::custom(format!("`{name}` is there twice")));
                    }
                    named.insert(name, value);
                }
                Ok(Named(named))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

/// Deserialises with the path of the key in every error.
pub(super) fn parse<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, ConfigError>
where
    D::Error: fmt::Display,
{
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let path = error.path().to_string();
        // A dot is the root, and a question mark what could not be read at all.
        let path = path.trim_end_matches(['?', '.']).to_owned();
        in_plain_words(path, &error.inner().to_string())
    })
}

/// Serde's message in the words of somebody who writes configuration files, without the position within the JSON text (it is
/// not the position within the file), and with the nearest known key for an unknown one.
fn in_plain_words(path: String, message: &str) -> ConfigError {
    let message = message.split(" at line ").next().unwrap_or(message);
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let mut quoted = rest.split('`').skip(1).step_by(2);
        let unknown = quoted.next().unwrap_or_default();
        let known: Vec<&str> = quoted.collect();
        let hint = match nearest(unknown, known.iter().copied()) {
            Some(name) => format!("did you mean `{name}`?"),
            None if known.is_empty() => "none is expected here".to_owned(),
            None => format!("known here: {}", known.join(", ")),
        };
        let parent_ends_with_key = path == unknown || path.ends_with(&format!(".{unknown}"));
        let path = match (parent_ends_with_key, path.is_empty()) {
            (true, _) => path,
            (false, true) => unknown.to_owned(),
            (false, false) => format!("{path}.{unknown}"),
        };
        return ConfigError::new(path, format!("unknown key `{unknown}`; {hint}"));
    }
    if let Some(rest) = message.strip_prefix("missing field ") {
        return ConfigError::new(path, format!("the key {rest} is required"));
    }
    let message = match message.split_once(", expected ") {
        Some((found, expected)) => {
            let found = found
                .replace("invalid type: ", "")
                .replace("invalid value: ", "")
                .replace("sequence", "a list");
            let found = found
                .replace("null", "nothing")
                .replace("map", "a mapping")
                .replace("unit value", "nothing");
            let expected = match expected {
                "u64" => "a whole number from 0 up",
                "a sequence" => "a list",
                "a map" => "a mapping",
                other if other.starts_with("struct ") => "a mapping",
                other => other,
            };
            format!("expected {expected}, found {found}")
        }
        None => message.to_owned(),
    };
    ConfigError::new(path, message)
}
