//! The configuration file as written: every key of it is named here, also those that are not served yet.
//!
//! Shape only. What a value may be is said in [`super::valid`]; the `policy` subtree is parsed by `evenkeel-policy` and kept here
//! as it is. A key that this version understands but does not serve is of type [`Unserved`], and is refused by name.

use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// A key that is understood, but not served by this version.
pub type Unserved = Option<Value>;

/// The whole file.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    pub listeners: Option<Vec<Mapping<Listener>>>,
    pub admin: Option<Mapping<Admin>>,
    pub session_store: Option<Mapping<super::store_document::SessionStore>>,
    pub workers: Option<u64>,
    pub timeouts: Option<Mapping<Timeouts>>,
    pub limits: Option<Mapping<Limits>>,
    pub access_log: Option<Mapping<AccessLog>>,
    pub filters: Option<Vec<Mapping<Filter>>>,
    pub policy: Option<Value>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    pub name: Option<String>,
    pub bind: Option<String>,
    pub mode: Option<Mode>,
    pub accept: Option<Accept>,
    pub tls: Option<Mapping<Tls>>,
    pub proxy_protocol: Option<Mapping<ProxyProtocol>>,
    pub pool: Unserved,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyProtocol {
    pub from: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, serde::Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    Http,
    Tcp,
}

#[derive(Debug, Clone, Copy, serde::Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Accept {
    Reuseport,
    Balanced,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    pub cert: Option<String>,
    pub key: Option<String>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    pub bind: Option<String>,
}

/// Durations as written: text with a unit.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeouts {
    pub client_header: Option<Value>,
    pub client_body: Option<Value>,
    pub connect: Option<Value>,
    pub response: Option<Value>,
    pub idle: Option<Value>,
    pub tunnel: Option<Value>,
    pub drain: Option<Value>,
    pub tcp_idle: Unserved,
    pub tcp_drain: Unserved,
}

/// Sizes as written: a number of bytes, or text with a unit.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    pub connections: Option<u64>,
    pub header_bytes: Option<Value>,
    pub headers: Option<u64>,
    pub body_bytes: Option<Value>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessLog {
    pub path: Option<String>,
    pub format: Option<Format>,
}

#[derive(Debug, Clone, Copy, serde::Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    Json,
    Combined,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    pub path: Option<String>,
    pub configuration: Option<String>,
}

/// What must be written as a mapping: serde's own structs would also take a list, by position.
#[derive(Debug)]
pub struct Mapping<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Mapping<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(MappingVisitor(PhantomData))
            .map(Self)
    }
}

struct MappingVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for MappingVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a mapping of keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}
