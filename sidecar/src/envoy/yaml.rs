//! The little YAML that is written here: quoted scalars, durations, addresses, indented blocks.

use std::fmt::Write;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

/// A text as a double-quoted scalar: JSON's strings are YAML's.
pub(super) fn quoted(text: &str) -> String {
    ascii(&serde_json::Value::String(text.to_owned()).to_string())
}

/// JSON text for people to read, in ASCII, for a literal block.
pub(super) fn pretty_json(text: &str) -> String {
    let pretty = serde_json::from_str::<serde_json::Value>(text)
        .ok()
        .and_then(|value| serde_json::to_string_pretty(&value).ok());
    ascii(pretty.as_deref().unwrap_or(text))
}

/// JSON text with everything outside ASCII as `\u` escapes, so that no parser takes anything for a line end. In JSON such letters only
/// stand within strings.
fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for letter in json.chars() {
        if letter.is_ascii() {
            out.push(letter);
        } else {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

/// A duration as protobuf's JSON writes it: seconds with a fraction.
pub(super) fn seconds(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{}s", duration.as_secs()),
        millis => format!("{}.{millis:03}s", duration.as_secs()),
    }
}

/// An address as Envoy's flow mapping.
pub(super) fn address(address: SocketAddr) -> String {
    host_address(&address.ip().to_string(), address.port())
}

/// The address of a listener. As in evenkeel, `[::]` takes IPv4 as well, which Envoy must be told.
pub(super) fn bind_address(address: SocketAddr) -> String {
    if address.ip() != Ipv6Addr::UNSPECIFIED {
        return self::address(address);
    }
    format!(
        "{{ socket_address: {{ address: \"::\", port_value: {}, ipv4_compat: true }} }}",
        address.port()
    )
}

/// The same of a name, or an address without brackets.
pub(super) fn host_address(host: &str, port: u16) -> String {
    format!(
        "{{ socket_address: {{ address: {}, port_value: {port} }} }}",
        quoted(host)
    )
}

/// Every line of `block` moved right by `spaces`; empty lines stay empty.
pub(super) fn indented(block: &str, spaces: usize) -> String {
    let mut out = String::with_capacity(block.len() * 2);
    for line in block.lines() {
        if !line.is_empty() {
            let _ = write!(out, "{:spaces$}{line}", "");
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_read_back_as_they_were() {
        for text in [
            "plain",
            "with \"quotes\" and \\ and \n",
            "ümläut \u{2028} 🚢",
            "%REQ(X)% ${A} {b: c} # d",
            "\\u0041",
        ] {
            let back: String = serde_json::from_str(&quoted(text)).unwrap();
            assert_eq!(back, text);
        }
    }

    #[test]
    fn durations_are_seconds() {
        let rows = [
            (0, "0s"),
            (250, "0.250s"),
            (5_000, "5s"),
            (61_001, "61.001s"),
        ];
        for (millis, expected) in rows {
            assert_eq!(seconds(Duration::from_millis(millis)), expected);
        }
    }

    #[test]
    fn json_becomes_ascii_and_stays_the_same() {
        let value = serde_json::json!({"a": "é\u{2028}🚢"});
        let text = pretty_json(&value.to_string());
        assert!(text.is_ascii());
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            value
        );
    }
}
