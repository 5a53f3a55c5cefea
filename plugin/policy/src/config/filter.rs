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
struct FilterDocument<P> {
    schema: u64,
    listener: ListenerDocument,
    /// Keys for what is sealed and hashed for clients; nothing of this version needs them.
    #[serde(default, rename = "secrets")]
    _secrets: Vec<String>,
    policy: P,
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
        // Nearly always, and without a tree between and without noting where each key stands: a worker answers nobody while it is configured.
        let document = match serde_json::from_slice::<FilterDocument<Document>>(text) {
            Ok(document) => document,
            Err(_) => with_places(text)?,
        };
        check_schema(document.schema)?;
        let listener = listener(&document.listener)?;
        let policy = Config::from_document(&document.policy);
        Ok(Self {
            listener,
            policy: policy.map_err(|error| error.within("policy"))?,
        })
    }
}

/// Reads a text that cannot be read, to say why: its schema comes first, then whose listener it is, then what is in it.
fn with_places(text: &[u8]) -> Result<FilterDocument<Document>, ConfigError> {
    let mut parser = serde_json::Deserializer::from_slice(text);
    let document: FilterDocument<Value> = parse(&mut parser)?;
    parser
        .end()
        .map_err(|error| ConfigError::new("", error.to_string()))?;
    check_schema(document.schema)?;
    listener(&document.listener)?;
    let policy = Document::from_value(document.policy);
    Ok(FilterDocument {
        schema: document.schema,
        listener: document.listener,
        _secrets: document._secrets,
        policy: policy.map_err(|error| error.within("policy"))?,
    })
}

fn check_schema(schema: u64) -> Result<(), ConfigError> {
    if schema == u64::from(SCHEMA) {
        return Ok(());
    }
    let message = format!("expected {SCHEMA}, found {schema}");
    Err(ConfigError::new("schema", message))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn shop(weight: u32) -> Value {
        let servers = json!([{"address": "10.0.0.1:80", "weight": weight}]);
        json!({"pools": {"shop": {"servers": servers}}, "routes": [{"pool": "shop"}]})
    }

    #[test]
    fn a_filter_reads_what_was_written_for_it() {
        let listener = ListenerIdentity {
            name: "web".to_owned(),
            mode: Mode::Http,
            pool: None,
        };
        let text = filter_configuration(&listener, &shop(1));
        let filter = FilterConfig::from_json(text.as_bytes()).expect("accepted");
        assert_eq!(filter.listener, listener);
        assert_eq!(filter.policy.pools[0].name, "shop");
        assert!(
            FilterConfig::from_json(filter_configuration(&listener, &Value::Null).as_bytes())
                .is_ok()
        );
    }

    #[test]
    fn a_filter_says_what_is_wrong_with_its_text() {
        let listener = |mode, pool| ListenerIdentity {
            name: "web".to_owned(),
            mode,
            pool,
        };
        let tcp = filter_configuration(&listener(Mode::Tcp, Some("db".to_owned())), &shop(1));
        let pooled = filter_configuration(&listener(Mode::Http, Some("shop".to_owned())), &shop(1));
        let wrong = filter_configuration(&listener(Mode::Http, None), &shop(0));
        let rows: [(&[u8], &str, &str); 10] = [
            (b"", "", "found nothing"),
            (b"{", "", ""),
            (
                b"\x0a\x0c\x0a\x06schema\x12\x02\x10\x01",
                "",
                "google.protobuf.StringValue",
            ),
            (b"\n{\"schema\":1}", "", "the key `listener` is required"),
            (
                br#"{"schema":2,"listener":{"name":"web"},"policy":{}}"#,
                "schema",
                "expected 1, found 2",
            ),
            (
                br#"{"schema":1,"listener":{"name":"web"},"policy":{},"x":1}"#,
                "x",
                "unknown key",
            ),
            (
                br#"{"schema":1,"listener":{"name":"evenkeel"},"policy":{}}"#,
                "listener.name",
                "reserved",
            ),
            (
                tcp.as_bytes(),
                "listener.mode",
                "not served by this version",
            ),
            (pooled.as_bytes(), "listener.pool", "expected no pool"),
            (
                wrong.as_bytes(),
                "policy.pools.shop.servers[0].weight",
                "expected 1 to 65535",
            ),
        ];
        for (text, path, said) in rows {
            let error = FilterConfig::from_json(text).expect_err("refused");
            assert_eq!(error.path, path, "{error}");
            assert!(
                error.message.contains(said),
                "{error}: expected it to say {said:?}"
            );
        }
    }
}
