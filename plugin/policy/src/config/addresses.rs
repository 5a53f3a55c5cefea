//! Addresses of servers: `ip:port`, `[v6]:port`, and `name:port` for a name of DNS, which the host of the filter resolves.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::names::shortened;

/// Longest name of DNS, and longest part of one between dots (RFC 1035 section 2.3.4).
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// Reads `name:port`; `None`: it is no name. In lower case, without a dot at the end. A name whose last part is a number could be
/// taken for an address (WHATWG URL section 3.5) and is none here.
pub(super) fn server_name(text: &str) -> Option<(String, u16)> {
    let (name, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let last = name.rsplit('.').next()?;
    let is_name = name.len() <= NAME_BYTES_MAX
        && name.split('.').all(is_label)
        && last.bytes().any(|byte| byte.is_ascii_alphabetic())
        && !last.starts_with("0x");
    is_name.then(|| (name.to_ascii_lowercase(), port))
}

/// Reads a server's address. The error says what was expected.
pub fn server_address(text: &str) -> Result<SocketAddr, String> {
    let found = shortened(text);
    let Ok(address) = text.parse::<SocketAddr>() else {
        return Err(why_not_an_address(text, &found));
    };
    if let SocketAddr::V6(v6) = address
        && v6.scope_id() != 0
    {
        return Err(format!(
            "expected an address without a zone, found `{found}`"
        ));
    }
    if address.port() == 0 {
        return Err(format!("expected a port from 1 to 65535, found `{found}`"));
    }
    if address.ip().is_unspecified() || address.ip().is_multicast() {
        return Err(format!(
            "expected the address of one server, found `{found}`"
        ));
    }
    if address.ip().to_canonical() != address.ip() {
        return Err(format!(
            "expected `{}`, found `{found}`",
            SocketAddr::new(address.ip().to_canonical(), address.port())
        ));
    }
    Ok(address)
}

fn why_not_an_address(text: &str, found: &str) -> String {
    if text.parse::<Ipv6Addr>().is_ok() {
        return format!(
            "expected `[{text}]:port`: an IPv6 address stands in brackets, and the port is missing"
        );
    }
    let without_brackets = text.trim_start_matches('[').trim_end_matches(']');
    if without_brackets.parse::<IpAddr>().is_ok() {
        return format!("expected `{text}:port`: the port is missing");
    }
    let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
    let bare_host = host.trim_start_matches('[').trim_end_matches(']');
    if bare_host.parse::<IpAddr>().is_ok() {
        return format!("expected a port from 1 to 65535 after the address, found `{found}`");
    }
    let like_a_name = host
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    if like_a_name && host.bytes().any(|byte| byte.is_ascii_alphabetic()) {
        return format!("expected `ip:port`, `[v6]:port` or `name:port`, found `{found}`");
    }
    format!("expected `ip:port` or `[v6]:port`, found `{found}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_numbers_with_a_port() {
        for good in [
            "192.168.139.128:80",
            "127.0.0.1:65535",
            "[2001:db8::1]:8080",
            "[::1]:1",
        ] {
            assert_eq!(server_address(good).unwrap().to_string(), good);
        }
        let rows = [
            ("192.168.139.128", "the port is missing"),
            ("::1", "brackets"),
            ("[::1]", "the port is missing"),
            ("127.0.0.1:0", "1 to 65535"),
            ("127.0.0.1:65536", "1 to 65535"),
            ("0.0.0.0:80", "one server"),
            ("[::]:80", "one server"),
            ("224.0.0.1:80", "one server"),
            ("[::ffff:10.0.0.1]:80", "`10.0.0.1:80`"),
            ("web1.example.org", "name:port"),
            ("web_1:0", "name:port"),
            ("010.0.0.1:80", "ip:port"),
            ("", "ip:port"),
            ("http://10.0.0.1/", "ip:port"),
        ];
        for (bad, expected) in rows {
            let message = server_address(bad).unwrap_err();
            assert!(message.contains(expected), "{bad}: {message}");
        }
    }
    #[track_caller]
    fn check(text: &str, expected: Option<(&str, u16)>) {
        let name = server_name(text);
        let name = name.as_ref().map(|(host, port)| (host.as_str(), *port));
        assert_eq!(name, expected, "{text}");
    }

    #[test]
    fn names_of_dns_are_told_from_addresses() {
        check("web1:80", Some(("web1", 80)));
        check("Web.Internal.:8080", Some(("web.internal", 8080)));
        check("localhost:1", Some(("localhost", 1)));
        check("a_b.c-d:65535", Some(("a_b.c-d", 65_535)));
        for none in [
            "10.0.0.1:80",
            "[::1]:80",
            "web:0",
            "web",
            "10.0.1:80",
            "a..b:80",
            "-a:80",
            "a-:80",
            ":80",
            "a b:80",
            "0x7f.1:80",
            "0x7f:80",
        ] {
            check(none, None);
        }
        check(&format!("{}:80", "a".repeat(64)), None);
        check(&format!("{}a:80", "a.".repeat(127)), None);
    }
}
