//! Who the client is: the address of the peer, or what trusted proxies say of it.
//!
//! The walk is nginx's (`ngx_http_realip_module`, `ngx_http_get_forwarded_addr`): while the address in hand is a trusted one,
//! take the next from the right; what cannot be read stops the walk and keeps what was found. An address nobody trusted wrote is
//! never looked at, which is what makes the header safe to read at all.

use std::net::{IpAddr, Ipv4Addr};

mod address_text;
mod forwarded;
mod trusted;

use address_text::parse_v4;
pub use address_text::{parse_socket_address, write_ip};
pub use trusted::TrustedNetworks;

/// Most addresses that one walk looks at; the walk ends there with what it has.
pub const HOPS_MAX: usize = 256;
/// Longest text that can be an address with a port and brackets.
const TOKEN_BYTES_MAX: usize = 64;

/// Whose word on the client's address is taken.
#[derive(Debug, Clone)]
pub struct RealIp {
    pub trusted: TrustedNetworks,
    pub header: AddressHeader,
    pub walk: Walk,
}

/// Where trusted proxies write the client's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressHeader {
    /// `X-Forwarded-For`: all lines of it, the last line first.
    ForwardedFor,
    /// `Forwarded` (RFC 7239): all lines of it, the last line first; of each element its `for`.
    Forwarded,
    /// None: the PROXY protocol's header before the request, which the host has read. The peer is the client.
    ProxyProtocol,
    /// Any other header, by its lower-case name: only its first line, as in nginx.
    Named(Vec<u8>),
}

impl AddressHeader {
    /// Its lower-case name; of the PROXY protocol what the configuration calls it, which names no header.
    pub fn name(&self) -> &[u8] {
        match self {
            Self::ForwardedFor => b"x-forwarded-for",
            Self::Forwarded => b"forwarded",
            Self::ProxyProtocol => b"proxy_protocol",
            Self::Named(name) => name,
        }
    }
}

/// How far to the left the walk goes (nginx: `real_ip_recursive`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walk {
    /// One step: the last address of the last line.
    LastOnly,
    /// Past every trusted address, to the last one that is not trusted (or the leftmost).
    PastTrusted,
}

/// How a line ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// Every address of it was taken: an earlier line may go on.
    UsedUp,
    /// The walk is over.
    Over,
}

impl RealIp {
    /// The client's address: `peer` unless it is trusted and `lines` (the values of the header, in the order received) say
    /// otherwise. Never allocates.
    pub fn client<'a>(
        &self,
        peer: IpAddr,
        mut lines: impl DoubleEndedIterator<Item = &'a [u8]>,
    ) -> IpAddr {
        let mut address = peer.to_canonical();
        let mut hops = HOPS_MAX;
        match &self.header {
            AddressHeader::ProxyProtocol => {}
            AddressHeader::Named(_) => {
                if let Some(line) = lines.next() {
                    self.walk_line(&mut address, line, &mut hops);
                }
            }
            AddressHeader::ForwardedFor | AddressHeader::Forwarded => {
                for line in lines.rev() {
                    let ended = match self.header {
                        AddressHeader::Forwarded => {
                            self.walk_elements(&mut address, line, &mut hops)
                        }
                        _ => self.walk_line(&mut address, line, &mut hops),
                    };
                    if ended == Line::Over || self.walk == Walk::LastOnly {
                        break;
                    }
                }
            }
        }
        address
    }

    /// Walks the elements of one line of `Forwarded` from the right. Ends: at most as many rounds as a line's elements that are kept.
    fn walk_elements(&self, address: &mut IpAddr, line: &[u8], hops: &mut usize) -> Line {
        let Some(elements) = forwarded::Elements::of(line) else {
            return Line::Over;
        };
        for element in elements.rightmost_first() {
            if *hops == 0 || !self.trusted.contains(*address) {
                return Line::Over;
            }
            *hops -= 1;
            let Some(found) = forwarded::node_address(element) else {
                return Line::Over;
            };
            *address = found;
            if self.walk == Walk::LastOnly {
                break;
            }
        }
        Line::UsedUp
    }

    /// Walks one line from the right. Ends: each round shortens the line, and spends a hop.
    fn walk_line(&self, address: &mut IpAddr, line: &[u8], hops: &mut usize) -> Line {
        let mut rest = line;
        loop {
            if *hops == 0 || !self.trusted.contains(*address) {
                return Line::Over;
            }
            *hops -= 1;
            let (before, found) = match last_v4(rest) {
                Some((before, address)) => (before, IpAddr::V4(address)),
                None => {
                    let (before, token) = last_token(rest);
                    let Some(found) = parse_token(token) else {
                        return Line::Over;
                    };
                    (before, found)
                }
            };
            *address = found;
            match before {
                Some(before) if self.walk == Walk::PastTrusted => rest = before,
                _ => return Line::UsedUp,
            }
        }
    }
}

/// The rightmost address of a line, and what stands before it, if the line ends in `, ` and a plain IPv4 address: nearly all do. One
/// look at each byte, because a walk looks at many.
fn last_v4(line: &[u8]) -> Option<(Option<&[u8]>, Ipv4Addr)> {
    let (mut address, mut shift) = (0_u32, 0_u32);
    let (mut octet, mut scale) = (0_u32, 1_u32);
    let mut at = line.len();
    // Ends: each round takes a byte, and after 15 of them there are four numbers or none.
    for byte in line.iter().rev() {
        at -= 1;
        let digit = u32::from(byte.wrapping_sub(b'0'));
        if digit <= 9 {
            if scale > 100 {
                return None;
            }
            octet += digit * scale;
            scale *= 10;
            continue;
        }
        // A number of its own digits: none of them a zero before others, and no more than a byte.
        if scale == 1 || octet > 255 || (scale > 10 && octet < scale / 10) {
            return None;
        }
        address |= octet << shift;
        if *byte != b'.' {
            break;
        }
        if shift == 24 {
            return None;
        }
        shift += 8;
        (octet, scale) = (0, 1);
    }
    if line.get(at) != Some(&b' ') {
        return None;
    }
    // The first byte of a line is never a separator.
    let before = line.get(..at).filter(|_| shift == 24 && at > 0)?;
    let before = before
        .strip_suffix(b",")
        .filter(|before| !before.is_empty())?;
    Some((Some(before), Ipv4Addr::from_bits(address)))
}

/// The rightmost address of a line, and what stands before it (`None`: nothing). As in nginx, the first byte of a line is
/// never taken for a separator.
fn last_token(line: &[u8]) -> (Option<&[u8]>, &[u8]) {
    let is_separator = |byte: &u8| matches!(byte, b' ' | b',');
    let Some((first, tail)) = line.split_first() else {
        return (None, line);
    };
    let kept = tail.len()
        - tail
            .iter()
            .rev()
            .take_while(|byte| is_separator(byte))
            .count();
    let tail = tail.get(..kept).unwrap_or_default();
    match tail.iter().rposition(is_separator) {
        Some(position) => {
            // `position` counts from the second byte: the separator itself is left out on both sides.
            (
                line.get(..=position),
                tail.get(position + 1..).unwrap_or_default(),
            )
        }
        None if tail.is_empty() => (None, std::slice::from_ref(first)),
        None => (None, line.get(..=tail.len()).unwrap_or_default()),
    }
}

/// `ip`, `ip:port`, `[v6]` or `[v6]:port`; the port must be one.
fn parse_token(token: &[u8]) -> Option<IpAddr> {
    if let Some(address) = parse_v4(token) {
        return Some(IpAddr::V4(address));
    }
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let text = std::str::from_utf8(token).ok()?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            (
                IpAddr::V6(host.parse().ok()?),
                after
                    .strip_prefix(':')
                    .or(after.is_empty().then_some("1"))?,
            )
        }
        None => {
            // Without brackets nobody can tell where an IPv6 address ends: nginx reads no port there.
            let (host, port) = text.split_once(':')?;
            (IpAddr::V4(host.parse().ok()?), port)
        }
    };
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port > 0);
    is_port.then(|| host.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn real_ip(header: AddressHeader, walk: Walk) -> RealIp {
        let networks = ["127.0.0.1/32", "10.0.0.0/8"].map(|text| text.parse().unwrap());
        RealIp {
            trusted: TrustedNetworks::new(&networks),
            header,
            walk,
        }
    }

    #[track_caller]
    fn check(real_ip: &RealIp, peer: &str, lines: &[&[u8]], expected: &str) {
        let client = real_ip.client(peer.parse().unwrap(), lines.iter().copied());
        assert_eq!(client.to_string(), expected, "{lines:?} from {peer}");
    }

    /// Real nginx 1.22.1, trusted {127.0.0.1, 10.0.0.0/8}, X-Forwarded-For: lines, recursive off, recursive on.
    #[test]
    fn agrees_with_nginx() {
        let rows: [(&[&[u8]], &str, &str); 10] = [
            (&[b"1.1.1.1"], "1.1.1.1", "1.1.1.1"),
            (&[b"6.6.6.6, 1.1.1.1, 10.0.0.5"], "10.0.0.5", "1.1.1.1"),
            (&[b"10.0.0.9, 10.0.0.5"], "10.0.0.5", "10.0.0.9"),
            (&[b"garbage, 10.0.0.5"], "10.0.0.5", "10.0.0.5"),
            (&[b"unknown"], "127.0.0.1", "127.0.0.1"),
            (&[b"1.1.1.1:4444, 10.0.0.5:80"], "10.0.0.5", "1.1.1.1"),
            (&[b"[2001:db8::1]:99, 10.0.0.5"], "10.0.0.5", "2001:db8::1"),
            (&[b"6.6.6.6", b"1.1.1.1, 10.0.0.5"], "10.0.0.5", "1.1.1.1"),
            (&[b"6.6.6.6, 1.1.1.1", b"10.0.0.5"], "10.0.0.5", "1.1.1.1"),
            (&[b"1.1.1.1 , ,10.0.0.5 ,"], "10.0.0.5", "1.1.1.1"),
        ];
        for (lines, last_only, past_trusted) in rows {
            check(
                &real_ip(AddressHeader::ForwardedFor, Walk::LastOnly),
                "127.0.0.1",
                lines,
                last_only,
            );
            check(
                &real_ip(AddressHeader::ForwardedFor, Walk::PastTrusted),
                "127.0.0.1",
                lines,
                past_trusted,
            );
        }
        let named = real_ip(AddressHeader::Named(b"x-real-ip".to_vec()), Walk::LastOnly);
        check(&named, "127.0.0.1", &[b"1.1.1.1", b"2.2.2.2"], "1.1.1.1");
        check(&named, "127.0.0.1", &[b"1.1.1.1, 2.2.2.2"], "2.2.2.2");
    }

    #[test]
    fn only_trusted_peers_are_believed() {
        let walk = real_ip(AddressHeader::ForwardedFor, Walk::PastTrusted);
        check(&walk, "192.0.2.1", &[b"1.1.1.1"], "192.0.2.1");
        check(&walk, "2001:db8::9", &[b"1.1.1.1"], "2001:db8::9");
        check(&walk, "127.0.0.1", &[], "127.0.0.1");
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_one() {
        let walk = real_ip(AddressHeader::ForwardedFor, Walk::PastTrusted);
        check(&walk, "::ffff:10.0.0.5", &[b"1.1.1.1"], "1.1.1.1");
        check(&walk, "10.0.0.5", &[b"1.1.1.1, ::ffff:10.1.1.1"], "1.1.1.1");
        check(&walk, "::ffff:192.0.2.1", &[b"1.1.1.1"], "192.0.2.1");
    }

    #[test]
    fn what_is_not_an_address_stops_the_walk() {
        let walk = real_ip(AddressHeader::ForwardedFor, Walk::PastTrusted);
        let rows: [&[u8]; 14] = [
            b"",
            b" ",
            b",",
            b" 1.1.1.1",
            b",1.1.1.1",
            b"1.1.1.1:0",
            b"1.1.1.1:99999",
            b"1.1.1.1:+80",
            b"[1.1.1.1]",
            b"[2001:db8::1",
            b"[2001:db8::1]80",
            b"010.0.0.1",
            b"\xff\xfe",
            b"_hidden",
        ];
        for line in rows {
            check(&walk, "10.0.0.1", &[line], "10.0.0.1");
        }
    }

    #[test]
    fn a_line_that_begins_with_a_separator_is_where_the_walk_ends() {
        let walk = real_ip(AddressHeader::ForwardedFor, Walk::PastTrusted);
        let rows: [(&[&[u8]], &str); 5] = [
            (&[b"1.1.1.1", b" , 10.0.0.5"], "10.0.0.5"),
            (&[b"1.1.1.1", b", 10.0.0.5"], "10.0.0.5"),
            (&[b"1.1.1.1", b",, 10.0.0.5, 10.0.0.6"], "10.0.0.5"),
            (&[b"1.1.1.1", b",10.0.0.5, 10.0.0.6"], "10.0.0.6"),
            (&[b"1.1.1.1", b""], "10.0.0.1"),
        ];
        for (lines, expected) in rows {
            check(&walk, "10.0.0.1", lines, expected);
        }
    }

    #[test]
    fn a_very_long_list_ends_at_the_bound() {
        let line = b"10.0.0.9,".repeat(HOPS_MAX + 10);
        let text = [b"1.1.1.1,".as_slice(), &line].concat();
        check(
            &real_ip(AddressHeader::ForwardedFor, Walk::PastTrusted),
            "127.0.0.1",
            &[&text],
            "10.0.0.9",
        );
    }

    #[test]
    fn the_quick_way_is_the_long_way() {
        use proptest::prelude::*;
        let part = prop_oneof![
            "[0-9]{1,3}",
            "[.]",
            ", ",
            "[ ,]",
            "[0-9]{1,3}[.][0-9]{1,3}[.][0-9]{1,3}[.][0-9]{1,3}",
            "[a:0]"
        ];
        let lines = proptest::collection::vec(part, 0..10).prop_map(|parts| parts.concat());
        proptest!(|(line in lines)| {
            if let Some((before, found)) = last_v4(line.as_bytes()) {
                let (long_before, token) = last_token(line.as_bytes());
                prop_assert_eq!(parse_token(token), Some(IpAddr::V4(found)), "{}", line);
                // Separators at the end of what stands before count for nothing: the next look skips them.
                let trimmed = |text: Option<&[u8]>| text.map(|text| last_token(text).1.to_vec());
                prop_assert_eq!(trimmed(before), trimmed(long_before), "{}", line);
            }
        });
        let quick = last_v4(b"1.1.1.1, 10.0.0.255");
        assert_eq!(
            quick,
            Some((Some(&b"1.1.1.1"[..]), Ipv4Addr::new(10, 0, 0, 255)))
        );
    }

    #[test]
    fn any_bytes_give_an_answer() {
        use proptest::prelude::*;
        let walk = real_ip(AddressHeader::ForwardedFor, Walk::PastTrusted);
        proptest!(|(lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..4))| {
            walk.client("10.0.0.1".parse().unwrap(), lines.iter().map(Vec::as_slice));
        });
    }
}
