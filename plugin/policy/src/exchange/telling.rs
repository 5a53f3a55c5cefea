//! What servers are told of a request: who the client is, what it asked for, and what the configuration adds.
//!
//! ```text
//!   X-Real-IP            the client
//!   X-Forwarded-For      what a trusted peer wrote, and the peer: the hop that was really there, never the address found for it
//!   X-Forwarded-Proto, X-Forwarded-Host, X-Forwarded-Port        what a trusted peer wrote, or the scheme, the Host, and its port
//!   X-Request-Id         what a trusted peer wrote, or a new one
//!   Forwarded            when asked for: what a trusted peer wrote, and an element for the peer (RFC 7239)
//! ```

use std::net::IpAddr;

use super::edits::Edits;
use super::forwarded::Peer;
use super::header_rules::HeaderRules;
use super::noted::{
    FORWARDED, FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PORT, FORWARDED_PROTO, Lines, Noted,
    REAL_IP, REQUEST_ID,
};
use super::template::Values;
use crate::client_ip::{TrustedNetworks, write_ip};

/// What is told beyond the rules of `request_headers`, and to whom it is not.
#[derive(Debug, Clone, Default)]
pub struct Telling {
    pub rules: HeaderRules,
    /// Peers that are not appended to X-Forwarded-For and Forwarded (HAProxy's `forwardfor except`).
    pub except: TrustedNetworks,
    pub forwarded: SendsForwarded,
}

/// Whether servers get a `Forwarded` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SendsForwarded {
    Yes,
    #[default]
    No,
}

/// The defaults that the rules leave to us.
#[derive(Debug, Clone, Copy)]
pub(super) struct Defaults {
    real_ip: bool,
    forwarded_for: bool,
    forwarded_proto: bool,
    forwarded_host: bool,
    forwarded_port: bool,
    request_id: bool,
    forwarded: bool,
}

/// The addresses of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    pub(super) whose_word: Peer,
    pub(super) peer: Option<IpAddr>,
    pub(super) client: Option<IpAddr>,
}

impl Defaults {
    pub(super) fn of(telling: &Telling) -> Self {
        let is_ours = |name: &[u8]| !telling.rules.decides(name);
        Self {
            real_ip: is_ours(REAL_IP),
            forwarded_for: is_ours(FORWARDED_FOR),
            forwarded_proto: is_ours(FORWARDED_PROTO),
            forwarded_host: is_ours(FORWARDED_HOST),
            forwarded_port: is_ours(FORWARDED_PORT),
            request_id: is_ours(REQUEST_ID),
            forwarded: telling.forwarded == SendsForwarded::Yes && is_ours(FORWARDED),
        }
    }

    /// Whether requests get an id.
    pub(super) fn request_id(&self) -> bool {
        self.request_id
    }
}

/// Writes all of it.
pub(super) fn tell<'a, H>(
    telling: &Telling,
    defaults: &Defaults,
    noted: &Noted<'a>,
    pairs: &H,
    addresses: Addresses,
    values: &Values<'_>,
    edits: &mut Edits,
) where
    H: Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
{
    if defaults.real_ip {
        match addresses.client {
            Some(client) => edits.set_with(REAL_IP, |out| write_ip(client, out)),
            None => edits.remove(REAL_IP),
        }
    }
    let appended = addresses
        .peer
        .filter(|peer| telling.except.is_empty() || !telling.except.contains(*peer));
    if defaults.forwarded_for {
        tell_forwarded_for(noted, pairs, addresses, appended, edits);
    }
    if defaults.forwarded_proto && noted.forwarded_proto.is_none() {
        edits.set(FORWARDED_PROTO, noted.scheme);
    }
    if defaults.forwarded_host && noted.forwarded_host.is_none() {
        edits.set_with(FORWARDED_HOST, |out| out.extend_from_slice(noted.host));
    }
    if defaults.forwarded_port && noted.forwarded_port.is_none() {
        edits.set_with(FORWARDED_PORT, |out| {
            out.extend_from_slice(port_of(noted.host, noted.scheme));
        });
    }
    if defaults.request_id && noted.request_id.is_none() {
        edits.set_with(REQUEST_ID, |out| out.extend_from_slice(values.request_id));
    }
    if defaults.forwarded
        && let Some(peer) = appended
    {
        edits.set_with(FORWARDED, |out| {
            if addresses.whose_word == Peer::Trusted {
                write_lines(FORWARDED, pairs, out);
            }
            write_forwarded(peer, noted, out);
        });
    }
    telling.rules.write_values(values, edits);
}

fn tell_forwarded_for<'a, H>(
    noted: &Noted<'a>,
    pairs: &H,
    addresses: Addresses,
    appended: Option<IpAddr>,
    edits: &mut Edits,
) where
    H: Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
{
    let Some(peer) = appended else {
        if addresses.whose_word == Peer::Stranger && noted.forwarded_for != Lines::None {
            edits.remove(FORWARDED_FOR);
        }
        return;
    };
    edits.set_with(FORWARDED_FOR, |out| {
        match noted.forwarded_for {
            _ if addresses.whose_word == Peer::Stranger => {}
            Lines::None => {}
            Lines::One(b"") => {}
            Lines::One(line) => {
                out.extend_from_slice(line);
                out.extend_from_slice(b", ");
            }
            Lines::Several => write_lines(FORWARDED_FOR, pairs, out),
        }
        write_ip(peer, out);
    });
}

/// Appends the lines of a header, each with a comma after it.
fn write_lines<'a, H>(name: &[u8], pairs: &H, out: &mut Vec<u8>)
where
    H: Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
{
    let lines = pairs.clone().filter(|(known, _)| *known == name);
    for (_, line) in lines.filter(|(_, line)| !line.is_empty()) {
        out.extend_from_slice(line);
        out.extend_from_slice(b", ");
    }
}

/// Appends an element (RFC 7239 section 4): `for=192.0.2.1;host=example.org;proto=https`.
fn write_forwarded(peer: IpAddr, noted: &Noted<'_>, out: &mut Vec<u8>) {
    match peer {
        IpAddr::V4(_) => {
            out.extend_from_slice(b"for=");
            write_ip(peer, out);
        }
        IpAddr::V6(_) => {
            out.extend_from_slice(b"for=\"[");
            write_ip(peer, out);
            out.extend_from_slice(b"]\"");
        }
    }
    if !noted.host.is_empty() {
        out.extend_from_slice(b";host=");
        write_value(noted.host, out);
    }
    out.extend_from_slice(b";proto=");
    out.extend_from_slice(noted.scheme);
}

/// Appends a token, or a quoted string where it is none (RFC 9110 section 5.6.4).
fn write_value(value: &[u8], out: &mut Vec<u8>) {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    if value.iter().all(is_token) {
        out.extend_from_slice(value);
        return;
    }
    out.push(b'"');
    for byte in value {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

/// The port of a Host, or the scheme's.
fn port_of<'a>(host: &'a [u8], scheme: &[u8]) -> &'a [u8] {
    let digits = host
        .iter()
        .rev()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let port = host.len().checked_sub(digits).and_then(|at| {
        let (before, port) = host.split_at_checked(at)?;
        (before.ends_with(b":") && !port.is_empty()).then_some(port)
    });
    // The last part of a bare IPv6 address is not a port: brackets tell, and bare ones are not legal hosts.
    port.unwrap_or(match scheme {
        b"https" => b"443",
        _ => b"80",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_the_hosts_or_the_schemes() {
        for (host, scheme, port) in [
            ("a.example", "http", "80"),
            ("a.example", "https", "443"),
            ("a.example:8080", "https", "8080"),
            ("[::1]", "http", "80"),
            ("[::1]:81", "http", "81"),
            ("a.example:", "http", "80"),
            ("127.0.0.1", "http", "80"),
            ("", "https", "443"),
        ] {
            assert_eq!(
                port_of(host.as_bytes(), scheme.as_bytes()),
                port.as_bytes(),
                "{host}"
            );
        }
    }
}
