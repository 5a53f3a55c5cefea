//! The text a filter is configured with: the `policy` subtree, and which listener it serves.

use serde::Deserialize;
use serde_json::{Value, json};

use super::document::parse;
use super::names::check_name;
use super::unserved::NOT_SERVED;
use super::{CONFIGURATION_BYTES_MAX, Config, ConfigError, Document};
use crate::contract::SCHEMA;

/// What one filter is configured with.
#[derive(Debug, Clone)]
pub struct FilterConfig {
    pub listener: ListenerIdentity,
    pub policy: Config,
}

/// Which listener a filter serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerIdentity {
    pub name: String,
    pub mode: Mode,
    /// The pool of a TCP listener; none for HTTP, where routes say it.
    pub pool: Option<String>,
}

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Http,
    Tcp,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FilterDocument {
    schema: u64,
    listener: ListenerDocument,
    /// Keys for what is sealed and hashed for clients; nothing of this version needs them.
    #[serde(default, rename = "secrets")]
    _secrets: Vec<String>,
    policy: Value,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListenerDocument {
    name: String,
    mode: Option<String>,
    pool: Option<String>,
}

impl FilterConfig {
    /// Reads what [`filter_configuration`] wrote. The error's path starts at the text's root: `policy.pools.shop`.
    pub fn from_json(text: &[u8]) -> Result<Self, ConfigError> {
        if text.len() > CONFIGURATION_BYTES_MAX {
            return Err(ConfigError::new(
                "",
                format!(
                    "expected at most {CONFIGURATION_BYTES_MAX} bytes, found {}",
                    text.len()
                ),
            ));
        }
        if let Some(what) = not_json(text) {
            return Err(ConfigError::new("", what));
        }
        let mut parser = serde_json::Deserializer::from_slice(text);
        let document: FilterDocument = parse(&mut parser)?;
        parser
            .end()
            .map_err(|error| ConfigError::new("", error.to_string()))?;
        if document.schema != u64::from(SCHEMA) {
            return Err(ConfigError::new(
                "schema",
                format!("expected {SCHEMA}, found {}", document.schema),
            ));
        }
        let listener = listener(&document.listener)?;
        let policy = Document::from_value(document.policy)
            .and_then(|document| Config::from_document(&document));
        Ok(Self {
            listener,
            policy: policy.map_err(|error| error.within("policy"))?,
        })
    }
}

fn listener(document: &ListenerDocument) -> Result<ListenerIdentity, ConfigError> {
    check_name(&document.name).map_err(|message| ConfigError::new("listener.name", message))?;
    match document.mode.as_deref() {
        None | Some("http") => {}
        Some("tcp") => {
            return Err(ConfigError::new(
                "listener.mode",
                format!("`tcp` is {NOT_SERVED}"),
            ));
        }
        Some(other) => {
            return Err(ConfigError::new(
                "listener.mode",
                format!("expected http or tcp, found `{other}`"),
            ));
        }
    }
    if document.pool.is_some() {
        return Err(ConfigError::new(
            "listener.pool",
            "expected no pool: in http mode `policy.routes` say it",
        ));
    }
    Ok(ListenerIdentity {
        name: document.name.clone(),
        mode: Mode::Http,
        pool: None,
    })
}

/// Says so when the text is the binary form of a `google.protobuf.Struct`, as Envoy hands it over.
fn not_json(text: &[u8]) -> Option<&'static str> {
    let binary_struct = matches!(text, [0x0a, _, 0x0a, ..] | [0x0a, _, _, 0x0a, ..])
        && serde_json::from_slice::<Value>(text).is_err();
    if text.is_empty() {
        return Some("expected JSON text, found nothing");
    }
    binary_struct.then_some(
        "expected JSON text, found a binary google.protobuf.Struct: give the configuration as google.protobuf.StringValue",
    )
}

/// The text to configure a filter with, of a listener and the file's `policy` subtree, unchanged.
pub fn filter_configuration(listener: &ListenerIdentity, policy: &Value) -> String {
    let mode = match listener.mode {
        Mode::Http => "http",
        Mode::Tcp => "tcp",
    };
    let mut identity = json!({"name": listener.name, "mode": mode});
    if let (Some(pool), Some(identity)) = (&listener.pool, identity.as_object_mut()) {
        identity.insert("pool".to_owned(), Value::String(pool.clone()));
    }
    let policy = if policy.is_null() { &json!({}) } else { policy };
    json!({"schema": SCHEMA, "listener": identity, "secrets": [], "policy": policy}).to_string()
}
