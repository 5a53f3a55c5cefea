//! Headers that belong to one connection and are not passed on (RFC 9110 section 7.6.1).

use http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};

/// Most names that a `Connection` header may make hop-by-hop; a message with more is refused.
const CONNECTION_NAMES_MAX: usize = 32;

/// The one protocol that a connection may be upgraded to, as in the Envoy that `evenkeel envoy` sets up. Over `h2c` a client would speak to
/// the server past every route and every rule.
const TUNNELLED: &[u8] = b"websocket";

/// `Keep-Alive` and `Proxy-Connection` have no constant in `http`.
const KEEP_ALIVE: &str = "keep-alive";
const PROXY_CONNECTION: &str = "proxy-connection";

/// What `Connection` and its kin said, before they are taken away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HopByHop {
    /// The protocol asked for by `Upgrade`, where `Connection` names it and it is [`TUNNELLED`].
    pub(crate) upgrade: Option<HeaderValue>,
    /// `TE: trailers`.
    pub(crate) trailers_welcome: bool,
}

/// More than [`CONNECTION_NAMES_MAX`] names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

/// Removes them. One pass over the names when there are none, or nothing but `Connection: keep-alive` or `close`, which is what
/// servers send.
pub(crate) fn remove(headers: &mut HeaderMap) -> Result<HopByHop, TooMany> {
    let mut found = HopByHop::default();
    match present(headers) {
        Present::Nothing => return Ok(found),
        Present::Persistence => {
            headers.remove(CONNECTION);
            return Ok(found);
        }
        Present::More => {}
    }
    let named = connection_names(headers)?;
    if named.iter().any(|name| name == "upgrade") {
        let protocol = headers.get(UPGRADE).cloned();
        found.upgrade =
            protocol.filter(|protocol| protocol.as_bytes().eq_ignore_ascii_case(TUNNELLED));
    }
    found.trailers_welcome = headers
        .get_all(TE)
        .iter()
        .any(|value| tokens(value.as_bytes()).any(|token| token.eq_ignore_ascii_case(b"trailers")));
    for name in named {
        // These frame or address the message: whoever names them in `Connection` would break it.
        if !matches!(
            name.as_str(),
            "host" | "content-length" | "te" | "content-type"
        ) {
            headers.remove(name.as_str());
        }
    }
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE, TE] {
        headers.remove(name);
    }
    headers.remove(KEEP_ALIVE);
    headers.remove(PROXY_CONNECTION);
    Ok(found)
}

/// What of them is in a message.
enum Present {
    Nothing,
    /// One `Connection` header that names no other header.
    Persistence,
    More,
}

fn present(headers: &HeaderMap) -> Present {
    let mut present = Present::Nothing;
    for (name, value) in headers {
        if !is_hop_by_hop(name) {
            continue;
        }
        let value = value.as_bytes();
        let is_persistence =
            value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close");
        if name != CONNECTION || !is_persistence || !matches!(present, Present::Nothing) {
            return Present::More;
        }
        present = Present::Persistence;
    }
    present
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    name == CONNECTION
        || name == TRANSFER_ENCODING
        || name == UPGRADE
        || name == TE
        || name.as_str() == KEEP_ALIVE
        || name.as_str() == PROXY_CONNECTION
}

fn connection_names(headers: &HeaderMap) -> Result<Vec<String>, TooMany> {
    let mut names = Vec::new();
    for value in headers.get_all(CONNECTION) {
        for token in tokens(value.as_bytes()) {
            if names.len() == CONNECTION_NAMES_MAX {
                return Err(TooMany);
            }
            names.push(String::from_utf8_lossy(token).to_ascii_lowercase());
        }
    }
    Ok(names)
}

fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    name.parse::<HeaderName>().unwrap(),
                    value.parse::<HeaderValue>().unwrap(),
                )
            })
            .collect()
    }

    #[test]
    fn what_connection_names_is_removed_and_the_rest_stays() {
        let mut map = headers(&[
            ("host", "a"),
            ("connection", "close, X-Secret, Host"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers, deflate"),
            ("transfer-encoding", "chunked"),
            ("accept", "*/*"),
        ]);
        let found = remove(&mut map).unwrap();
        assert_eq!(
            found,
            HopByHop {
                upgrade: None,
                trailers_welcome: true
            }
        );
        assert_eq!(map, headers(&[("host", "a"), ("accept", "*/*")]));
    }

    #[test]
    fn an_upgrade_counts_only_if_connection_names_it() {
        let mut named = headers(&[("connection", "Upgrade"), ("upgrade", "websocket")]);
        assert_eq!(remove(&mut named).unwrap().upgrade.unwrap(), "websocket");
        assert!(named.is_empty());
        let mut unnamed = headers(&[("upgrade", "websocket")]);
        assert_eq!(remove(&mut unnamed).unwrap().upgrade, None);
        assert!(unnamed.is_empty());
        for protocol in ["h2c", "websocket, h2c", "TLS/1.0", ""] {
            let mut other = headers(&[("connection", "upgrade"), ("upgrade", protocol)]);
            assert_eq!(remove(&mut other).unwrap().upgrade, None, "{protocol}");
            assert!(other.is_empty());
        }
    }

    #[test]
    fn too_many_names_are_refused() {
        let many = vec!["x"; CONNECTION_NAMES_MAX + 1].join(",");
        assert_eq!(remove(&mut headers(&[("connection", &many)])), Err(TooMany));
    }
}
