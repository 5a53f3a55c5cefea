//! Headers by which proxies tell of those before them: which to believe, which to take away.
//!
//! From a peer that is not trusted nothing of the kind goes on, whatever it is called; servers behind see only what this proxy
//! knows itself. PHP and CGI read `X_Real_IP` and `X-Real-IP` as the same variable, so the spellings with underscores are taken
//! away from everybody, as are those of `Content-Length` and `Transfer-Encoding`; so is `Proxy`, which they would read as `HTTP_PROXY`.

use crate::contract::{
    EXPLAIN_HEADER, MAX_RETRIES_HEADER, POOL_HEADER, RETRIABLE_STATUSES_HEADER, RETRY_ON_HEADER,
    STEERING_HEADER,
};

/// Whose word a peer's is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    Trusted,
    Stranger,
}

/// Headers that tell of the client or of what it asked for, besides `x-forwarded-*`.
const TELLING: [&[u8]; 9] = [
    b"x-request-id",
    b"forwarded",
    b"x-real-ip",
    b"x-client-ip",
    b"x-cluster-client-ip",
    b"cf-connecting-ip",
    b"true-client-ip",
    b"x-original-url",
    b"x-rewrite-url",
];
/// Headers that say where a body ends. A server that reads their spellings with underscores as the same would find another end than
/// the proxy before it.
const FRAMING: [&[u8]; 2] = [b"content-length", b"transfer-encoding"];
/// Longest header name that can be a spelling of any of these.
const SPELLING_BYTES_MAX: usize = 64;

/// Whether a header that came with a request must not go on. `address_header` is the configured one, lower-case.
pub(super) fn must_go(name: &[u8], peer: Peer, address_header: Option<&[u8]>) -> bool {
    // Most headers are let through by their first letter.
    match name.first() {
        Some(b'c' | b'f' | b't' | b'x') => {
            if steers(name) {
                return true;
            }
            let tells = tells(name) || address_header.is_some_and(|header| header == name);
            (tells && peer == Peer::Stranger) || is_other_spelling(name, address_header)
        }
        Some(b'p') if name == b"proxy" => true,
        _ => match address_header {
            Some(header) if header == name => peer == Peer::Stranger,
            Some(_) => is_other_spelling(name, address_header),
            None => false,
        },
    }
}

/// Contract headers: set by this filter alone.
fn steers(name: &[u8]) -> bool {
    let own = [
        STEERING_HEADER,
        POOL_HEADER,
        RETRY_ON_HEADER,
        MAX_RETRIES_HEADER,
        RETRIABLE_STATUSES_HEADER,
        EXPLAIN_HEADER,
    ];
    own.iter().any(|own| own.as_bytes() == name)
}

fn tells(name: &[u8]) -> bool {
    name.starts_with(b"x-forwarded-") || TELLING.contains(&name)
}

/// Whether a name with underscores is another spelling of a telling header, or of one that frames the body.
fn is_other_spelling(name: &[u8], address_header: Option<&[u8]>) -> bool {
    if name.len() > SPELLING_BYTES_MAX || !name.contains(&b'_') {
        return false;
    }
    let mut buffer = [0; SPELLING_BYTES_MAX];
    buffer
        .iter_mut()
        .zip(name)
        .for_each(|(place, byte)| *place = if *byte == b'_' { b'-' } else { *byte });
    let plain = buffer.get(..name.len()).unwrap_or_default();
    let is_address_header = address_header.is_some_and(|header| header != name && header == plain);
    tells(plain) || FRAMING.contains(&plain) || is_address_header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_tell_nothing_and_nobody_uses_another_spelling() {
        let both = (true, true);
        let stranger = (true, false);
        let neither = (false, false);
        let rows = [
            ("x-real-ip", stranger),
            ("x-forwarded-for", stranger),
            ("x-forwarded-host", stranger),
            ("x-forwarded-whatever", stranger),
            ("forwarded", stranger),
            ("cf-connecting-ip", stranger),
            ("x-original-url", stranger),
            ("x-own-address", stranger),
            ("x_own_address", both),
            ("x_real_ip", both),
            ("x-real_ip", both),
            ("x_forwarded_for", both),
            ("x_forwarded-proto", both),
            ("proxy", both),
            ("x-gateway-destination-endpoint", both),
            ("x-evenkeel-pool", both),
            ("x-evenkeel-explain", both),
            ("x-envoy-retry-on", both),
            ("x-envoy-max-retries", both),
            ("x-requested-with", neither),
            ("cookie", neither),
            ("content-type", neither),
            ("te", neither),
            ("user-agent", neither),
            ("proxy-authorization", neither),
            ("x_custom", neither),
            ("", neither),
        ];
        for (name, (from_stranger, from_trusted)) in rows {
            let header = Some(b"x-own-address".as_slice());
            assert_eq!(
                must_go(name.as_bytes(), Peer::Stranger, header),
                from_stranger,
                "{name} from a stranger"
            );
            assert_eq!(
                must_go(name.as_bytes(), Peer::Trusted, header),
                from_trusted,
                "{name} from a trusted peer"
            );
        }
        assert!(must_go(b"my_address", Peer::Trusted, Some(b"my-address")));
        assert!(
            !must_go(b"my_address", Peer::Trusted, Some(b"my_address")),
            "configured with an underscore"
        );
    }
}
