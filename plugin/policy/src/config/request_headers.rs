//! `request_headers` and `response_headers`: what becomes of headers, over the defaults.
//!
//! ```text
//!   set         {Name: value}: in the place of all of this name; an empty value removes
//!   add         {Name: value}: one more
//!   remove      names
//!   except      networks: peers that X-Forwarded-For and Forwarded do not name (HAProxy's `forwardfor except`)
//!   forwarded   true: servers get `Forwarded` (RFC 7239), too
//! ```

use std::collections::BTreeMap;

use super::document::{RequestHeadersDocument, ResponseHeadersDocument};
use super::names::shortened;
use super::real_ip::network_set;
use super::{ConfigError, HEADER_SETS_MAX};
use crate::client_ip::TrustedNetworks;
use crate::exchange::{HeaderRules, SendsForwarded, Telling, Template, is_header_name};

/// Headers that frame a message or steer it: not the operator's to set.
pub(super) const NOT_SETTABLE: [&str; 14] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    crate::contract::STEERING_HEADER,
    crate::contract::POOL_HEADER,
    crate::contract::RETRY_ON_HEADER,
    crate::contract::MAX_RETRIES_HEADER,
    crate::contract::RETRIABLE_STATUSES_HEADER,
    crate::contract::EXPLAIN_HEADER,
];

/// Reads `request_headers`.
pub(super) fn telling(document: Option<&RequestHeadersDocument>) -> Result<Telling, ConfigError> {
    let Some(document) = document else {
        return Ok(Telling::default());
    };
    let lists = Lists {
        path: "request_headers",
        set: &document.set.0,
        add: &document.add.0,
        remove: &document.remove.0,
    };
    let rules = rules(&lists)?;
    if rules.remove.iter().any(|name| **name == *b"host") {
        let path = match document
            .remove
            .0
            .iter()
            .any(|name| name.eq_ignore_ascii_case("host"))
        {
            true => "request_headers.remove",
            false => "request_headers.set.Host",
        };
        let message = "a request without Host is none: it cannot be removed";
        return Err(ConfigError::new(path, message));
    }
    let except = match &document.except {
        Some(texts) => network_set("request_headers.except", &texts.0)?,
        None => TrustedNetworks::default(),
    };
    let forwarded = match document.forwarded {
        Some(true) => SendsForwarded::Yes,
        Some(false) | None => SendsForwarded::No,
    };
    let names = rules.set.iter().map(|(name, _)| name).chain(&rules.remove);
    if forwarded == SendsForwarded::Yes && names.clone().any(|name| **name == *b"forwarded") {
        let message = "`Forwarded` is set or removed by name, too: one of the two has to go";
        return Err(ConfigError::new("request_headers.forwarded", message));
    }
    Ok(Telling {
        rules,
        except,
        forwarded,
    })
}

/// Reads `response_headers`.
pub(super) fn response_headers(
    document: Option<&ResponseHeadersDocument>,
) -> Result<HeaderRules, ConfigError> {
    let Some(document) = document else {
        return Ok(HeaderRules::default());
    };
    rules(&Lists {
        path: "response_headers",
        set: &document.set.0,
        add: &document.add.0,
        remove: &document.remove.0,
    })
}

struct Lists<'a> {
    path: &'a str,
    set: &'a BTreeMap<String, String>,
    add: &'a BTreeMap<String, String>,
    remove: &'a [String],
}

fn rules(lists: &Lists<'_>) -> Result<HeaderRules, ConfigError> {
    let path = lists.path;
    let counts = [
        ("set", lists.set.len()),
        ("add", lists.add.len()),
        ("remove", lists.remove.len()),
    ];
    for (key, count) in counts {
        if count > HEADER_SETS_MAX {
            let message = format!("expected at most {HEADER_SETS_MAX} headers, found {count}");
            return Err(ConfigError::new(format!("{path}.{key}"), message));
        }
    }
    let mut rules = HeaderRules::default();
    // Each name, and the list it stands in.
    let mut known: BTreeMap<Box<[u8]>, &str> = BTreeMap::new();
    let mut claim = |path: &str, name: Box<[u8]>, key: &'static str| match known.insert(name, key) {
        None => Ok(()),
        Some(other) if other == key => Err(ConfigError::new(path, "this header is there twice")),
        Some(other) => {
            let message =
                format!("this header stands under `{other}`, too: one of the two has to go");
            Err(ConfigError::new(path, message))
        }
    };
    for (name, text) in lists.set {
        let path = format!("{path}.set.{name}");
        let lower = header_name(&path, name, &NOT_SETTABLE)?;
        claim(&path, lower.clone(), "set")?;
        let template = Template::parse(text).map_err(|message| ConfigError::new(path, message))?;
        if template.is_empty() {
            rules.remove.push(lower);
        } else {
            rules.set.push((lower, template));
        }
    }
    for (name, text) in lists.add {
        let path = format!("{path}.add.{name}");
        let lower = header_name(&path, name, &NOT_SETTABLE)?;
        if *lower == *b"host" {
            let message = "a message has one Host: it can be set, not added";
            return Err(ConfigError::new(path, message));
        }
        claim(&path, lower.clone(), "add")?;
        let template = Template::parse(text).map_err(|message| ConfigError::new(&path, message))?;
        if template.is_empty() {
            return Err(ConfigError::new(path, "expected a value to add"));
        }
        rules.add.push((lower, template));
    }
    for (index, name) in lists.remove.iter().enumerate() {
        let path = format!("{path}.remove[{index}]");
        let lower = header_name(&path, name, &NOT_SETTABLE)?;
        claim(&path, lower.clone(), "remove")?;
        rules.remove.push(lower);
    }
    Ok(rules)
}

/// Reads the name of a header that is the operator's to set, in lower case.
pub(super) fn header_name(
    path: &str,
    name: &str,
    not_settable: &[&str],
) -> Result<Box<[u8]>, ConfigError> {
    let lower = name.to_ascii_lowercase();
    if !is_header_name(&lower) {
        let message = format!("expected the name of a header, found `{}`", shortened(name));
        return Err(ConfigError::new(path, message));
    }
    if not_settable.contains(&lower.as_str()) {
        let message = "this header is not for configuration to set";
        return Err(ConfigError::new(path, message));
    }
    Ok(lower.into_bytes().into())
}
