//! `session_store` as written.

use serde_json::Value;

use super::document::{Mapping, Unserved};

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionStore {
    pub backend: Option<String>,
    pub path: Option<String>,
    pub fsync: Option<Value>,
    pub max_memory: Option<Value>,
    pub username: Option<String>,
    pub password: Option<String>,
    pub password_file: Option<String>,
    pub tls: Option<Mapping<Tls>>,
    pub ack: Option<Ack>,
    pub failover_wait: Option<Value>,
    pub resp: Option<OneOrMany>,
    pub auth: Option<Vec<Mapping<Auth>>>,
    pub formats: Unserved,
    pub secrets: Unserved,
    pub locks: Option<Mapping<Locks>>,
    pub limits: Option<Mapping<Limits>>,
    pub http: Unserved,
    pub bridge_token_file: Unserved,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    pub ca: Option<String>,
    pub cert: Option<String>,
    pub key: Option<String>,
}

#[derive(Debug, Clone, Copy, serde::Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Ack {
    Master,
    Replica,
}

#[derive(Debug, serde::Deserialize)]
#[serde(untagged, expecting = "expected an address or a list of addresses")]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    pub user: Option<String>,
    pub password: Option<String>,
    pub password_file: Option<String>,
    pub db: Option<Vec<u8>>,
    pub prefix: Option<String>,
    pub commands: Option<Commands>,
}

#[derive(Debug, Clone, Copy, serde::Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Commands {
    Session,
    Cache,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locks {
    pub wait: Option<Value>,
    pub lease: Option<Value>,
    pub max: Option<u64>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    pub clients: Option<u64>,
    pub value: Option<Value>,
    pub parked: Option<u64>,
}
