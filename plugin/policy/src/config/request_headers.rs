//! `request_headers.set`: headers that requests get on top of the defaults.

use super::document::RequestHeadersDocument;
use super::{ConfigError, HEADER_SETS_MAX};
use crate::exchange::{HeaderTemplates, Template, is_header_name};

/// Headers that frame a message or steer it: not the operator's to set.
const NOT_SETTABLE: [&str; 12] = [
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
];

/// Reads `request_headers`.
pub(super) fn request_headers(
    document: Option<&RequestHeadersDocument>,
) -> Result<HeaderTemplates, ConfigError> {
    let Some(document) = document else {
        return Ok(HeaderTemplates::default());
    };
    let count = document.set.0.len();
    if count > HEADER_SETS_MAX {
        let message = format!("expected at most {HEADER_SETS_MAX} headers, found {count}");
        return Err(ConfigError::new("request_headers.set", message));
    }
    let mut templates: Vec<(Box<[u8]>, Template)> = Vec::with_capacity(count);
    for (name, text) in &document.set.0 {
        let path = format!("request_headers.set.{name}");
        let lower = name.to_ascii_lowercase();
        if !is_header_name(&lower) {
            return Err(ConfigError::new(path, "expected the name of a header"));
        }
        if NOT_SETTABLE.contains(&lower.as_str()) {
            return Err(ConfigError::new(
                path,
                "this header is not for configuration to set",
            ));
        }
        if lower == "host" && text.is_empty() {
            return Err(ConfigError::new(
                path,
                "a request without Host is none: it cannot be removed",
            ));
        }
        if templates
            .iter()
            .any(|(known, _)| **known == *lower.as_bytes())
        {
            return Err(ConfigError::new(path, "this header is there twice"));
        }
        let template = Template::parse(text).map_err(|message| ConfigError::new(path, message))?;
        templates.push((lower.into_bytes().into(), template));
    }
    Ok(HeaderTemplates::new(templates))
}
