//! Addresses of servers: `ip:port` and `[v6]:port`. Names of DNS are refused, saying so.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::names::shortened;

/// Reads a server's address. The error says what was expected.
pub(super) fn server_address(text: &str) -> Result<SocketAddr, String> {
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
        return format!(
            "names are not served yet: expected `ip:port` or `[v6]:port`, found `{found}`"
        );
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
            ("web1:80", "names are not served yet"),
            ("web1.example.org", "names are not served yet"),
            ("010.0.0.1:80", "ip:port"),
            ("", "ip:port"),
            ("http://10.0.0.1/", "ip:port"),
        ];
        for (bad, expected) in rows {
            let message = server_address(bad).unwrap_err();
            assert!(message.contains(expected), "{bad}: {message}");
        }
    }
}
