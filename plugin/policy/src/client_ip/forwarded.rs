//! `Forwarded` (RFC 7239): the elements of a line, and the address that an element's `for` names.
//!
//! ```text
//!   Forwarded: for=192.0.2.43;proto=https, For="[2001:db8::17]:4711";by=_proxy
//! ```
//!
//! Unlike in X-Forwarded-For, commas may stand within quotes, so that a line can only be read from the left. A line that breaks the grammar
//! (section 4) is nobody's word: the walk ends before it. So it does at an element without `for`, with `for` twice, or with one that is no
//! address: `unknown`, or a name that hides it (`_hidden`, section 6.3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::HOPS_MAX;
use super::address_text::parse_v4;

/// Longest `for` that can be an address with a port.
const NODE_BYTES_MAX: usize = 64;

/// The elements of a line: of a longer one the last [`HOPS_MAX`], more than which no walk looks at.
pub(super) struct Elements<'a> {
    /// A ring.
    kept: [&'a [u8]; HOPS_MAX],
    /// Elements in all.
    count: usize,
}

impl<'a> Elements<'a> {
    /// Splits a line at the commas that are not within quotes. `None`: quotes that do not end.
    pub(super) fn of(line: &'a [u8]) -> Option<Self> {
        let mut elements = Self {
            kept: [b""; HOPS_MAX],
            count: 0,
        };
        let mut rest = line;
        // Ends: each round takes an element and its comma away.
        loop {
            let end = end_of(rest, b',')?;
            let (element, after) = rest.split_at_checked(end)?;
            let element = element.trim_ascii();
            // Empty elements count for nothing (RFC 9110 section 5.6.1.2).
            if !element.is_empty() {
                if let Some(place) = elements.kept.get_mut(elements.count % HOPS_MAX) {
                    *place = element;
                }
                elements.count += 1;
            }
            match after.split_first() {
                Some((_, after)) => rest = after,
                None => return Some(elements),
            }
        }
    }

    pub(super) fn rightmost_first(&self) -> impl Iterator<Item = &'a [u8]> + '_ {
        let first = self.count.saturating_sub(HOPS_MAX);
        (first..self.count)
            .rev()
            .filter_map(|index| self.kept.get(index % HOPS_MAX).copied())
    }
}

/// Where the first `separator` is that is not within quotes, or the end. `None`: quotes that do not end.
fn end_of(text: &[u8], separator: u8) -> Option<usize> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if *byte == separator && !quoted => return Some(at),
            _ => {}
        }
    }
    (!quoted).then_some(text.len())
}

/// The address of an element's `for`.
pub(super) fn node_address(element: &[u8]) -> Option<IpAddr> {
    let mut found = None;
    let mut rest = element;
    // Ends: each round takes a pair and its semicolon away.
    loop {
        let end = end_of(rest, b';')?;
        let (pair, after) = rest.split_at_checked(end)?;
        let pair = pair.trim_ascii();
        if !pair.is_empty() {
            let equals = pair.iter().position(|byte| *byte == b'=')?;
            let (name, value) = pair.split_at_checked(equals)?;
            if name.eq_ignore_ascii_case(b"for") && found.replace(value.get(1..)?).is_some() {
                return None;
            }
        }
        match after.split_first() {
            Some((_, after)) => rest = after,
            None => break,
        }
    }
    let value = found?;
    match value.strip_prefix(b"\"") {
        None => node(value),
        Some(quoted) => {
            let quoted = quoted.strip_suffix(b"\"")?;
            let mut buffer = [0; NODE_BYTES_MAX];
            node(unquoted(quoted, &mut buffer)?)
        }
    }
}

/// What a quoted string says (RFC 9110 section 5.6.4). `None`: it is not one, or too long.
fn unquoted<'a>(quoted: &'a [u8], buffer: &'a mut [u8; NODE_BYTES_MAX]) -> Option<&'a [u8]> {
    if !quoted.iter().any(|byte| matches!(byte, b'\\' | b'"')) {
        return Some(quoted);
    }
    let mut length = 0;
    let mut bytes = quoted.iter();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'\\' => bytes.next()?,
            b'"' => return None,
            other => other,
        };
        *buffer.get_mut(length)? = *byte;
        length += 1;
    }
    buffer.get(..length)
}

/// A node (section 6): an IPv4 address, an IPv6 address in brackets; either with a port, which may be hidden (`_x`).
fn node(text: &[u8]) -> Option<IpAddr> {
    if text.len() > NODE_BYTES_MAX {
        return None;
    }
    if let Some(address) = parse_v4(text) {
        return Some(IpAddr::V4(address));
    }
    let text = std::str::from_utf8(text).ok()?;
    let (address, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (v6, after) = rest.split_once(']')?;
            (IpAddr::V6(v6.parse::<Ipv6Addr>().ok()?), after)
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            let (v4, after) = text.split_at_checked(end)?;
            (IpAddr::V4(v4.parse::<Ipv4Addr>().ok()?), after)
        }
    };
    let is_port = match port.strip_prefix(':') {
        None => port.is_empty(),
        Some(hidden) if hidden.starts_with('_') => {
            let is_name =
                |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
            hidden.len() > 1 && hidden.bytes().all(is_name)
        }
        Some(port) => port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok(),
    };
    is_port.then(|| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::super::{AddressHeader, RealIp, TrustedNetworks, Walk};
    use super::*;
    use proptest::prelude::*;

    fn real_ip(walk: Walk) -> RealIp {
        let networks = ["10.0.0.0/8", "2001:db8:1::/48"].map(|text| text.parse().unwrap());
        RealIp {
            trusted: TrustedNetworks::new(&networks),
            header: AddressHeader::Forwarded,
            walk,
        }
    }

    #[track_caller]
    fn check(lines: &[&str], last_only: &str, past_trusted: &str) {
        for (walk, expected) in [
            (Walk::LastOnly, last_only),
            (Walk::PastTrusted, past_trusted),
        ] {
            let peer = "10.0.0.1".parse().unwrap();
            let client = real_ip(walk).client(peer, lines.iter().map(|line| line.as_bytes()));
            assert_eq!(client.to_string(), expected, "{lines:?} {walk:?}");
        }
    }

    #[test]
    fn elements_are_walked_rightmost_first_over_all_lines() {
        check(&["for=192.0.2.43"], "192.0.2.43", "192.0.2.43");
        check(
            &["for=6.6.6.6, for=192.0.2.43;proto=https, FOR=10.0.0.5"],
            "10.0.0.5",
            "192.0.2.43",
        );
        check(
            &["for=6.6.6.6", "for=192.0.2.43,for=10.0.0.5"],
            "10.0.0.5",
            "192.0.2.43",
        );
        check(&["for=10.0.0.9", "for=10.0.0.5"], "10.0.0.5", "10.0.0.9");
        check(
            &["for=\"[2001:db8::17]:4711\";by=_x, for=\"[2001:db8:1::5]\""],
            "2001:db8:1::5",
            "2001:db8::17",
        );
        check(
            &["for=192.0.2.1;host=\"a,for=6.6.6.6;b\" , , by=x;For=\"10.0.0.5:_h\" ;proto=http;"],
            "10.0.0.5",
            "192.0.2.1",
        );
        check(&["for=\"192.0.2.4\\3:80\""], "192.0.2.43", "192.0.2.43");
        check(&["for=\"[::ffff:192.0.2.1]\""], "192.0.2.1", "192.0.2.1");
        check(&[], "10.0.0.1", "10.0.0.1");
    }

    #[test]
    fn what_names_no_address_ends_the_walk() {
        for element in [
            "for=unknown",
            "for=_hidden",
            "for=\"_hidden\"",
            "by=192.0.2.1",
            "for=192.0.2.1;for=192.0.2.2",
            "for=2001:db8::1",
            "for=\"2001:db8::1\"",
            "for=\"[192.0.2.1]\"",
            "for=\"[2001:db8::1\"",
            "for=\"[2001:db8::1]x\"",
            "for=192.0.2.1:x",
            "for=192.0.2.1:",
            "for=192.0.2.1:99999",
            "for=192.0.2.1:_",
            "for=010.0.0.1",
            "for = 192.0.2.1",
            "for=",
            "for",
            "for=\"192.0.2.1",
            "for=192.0.2.1\"",
            "for=\"192.0.2.1\"x",
            "192.0.2.1",
        ] {
            check(
                &[&format!("{element}, for=10.0.0.5")],
                match element.matches('"').count() % 2 {
                    0 => "10.0.0.5",
                    _ => "10.0.0.1",
                },
                match element.matches('"').count() % 2 {
                    0 => "10.0.0.5",
                    _ => "10.0.0.1",
                },
            );
            check(&[element], "10.0.0.1", "10.0.0.1");
        }
    }

    #[test]
    fn of_a_very_long_line_the_end_is_looked_at() {
        let line = format!("for=1.1.1.1,{}", "for=10.0.0.9,".repeat(HOPS_MAX + 10));
        check(&[&line], "10.0.0.9", "10.0.0.9");
        let line = format!(
            "{}for=1.1.1.1,for=10.0.0.8",
            "for=10.0.0.9,".repeat(HOPS_MAX + 10)
        );
        check(&[&line], "10.0.0.8", "1.1.1.1");
    }

    #[test]
    fn any_bytes_give_an_answer() {
        let parts = proptest::sample::select(vec![
            "for=", "10.0.0.5", "1.2.3.4", "\"", "\\", ",", ";", "[::1]", ":", "=", " ", "by", "é",
        ]);
        let lines = proptest::collection::vec(parts, 0..16).prop_map(|parts| parts.concat());
        proptest!(|(line in lines, bytes in proptest::collection::vec(any::<u8>(), 0..60))| {
            for line in [line.as_bytes(), &bytes] {
                real_ip(Walk::PastTrusted).client("10.0.0.1".parse().unwrap(), std::iter::once(line));
            }
        });
    }
}
