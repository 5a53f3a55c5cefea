//! `proxy_protocol` of a pool: in which version its servers are told whose connection it is.

use super::ConfigError;

/// A version of the PROXY protocol (`proxy-protocol.txt` of HAProxy).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Reads `v1` or `v2`; `off` and nothing at all are the same.
pub(super) fn proxy_version(
    path: &str,
    text: Option<&str>,
) -> Result<Option<ProxyVersion>, ConfigError> {
    match text {
        None | Some("off") => Ok(None),
        Some("v1") => Ok(Some(ProxyVersion::V1)),
        Some("v2") => Ok(Some(ProxyVersion::V2)),
        Some(other) => Err(ConfigError::new(
            format!("{path}.proxy_protocol"),
            format!("expected v1, v2 or off, found `{other}`"),
        )),
    }
}
