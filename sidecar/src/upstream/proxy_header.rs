//! The PROXY protocol towards servers (`proxy-protocol.txt` of HAProxy): whose connection it is that they get.

use std::net::{IpAddr, SocketAddr};

use evenkeel_policy::config::ProxyVersion;
use proxy_header::{ProxiedAddress, ProxyHeader};

/// What is sent first on a connection for a client: `peer` as the socket, or a balancer in front, told, and the address it came to.
pub(crate) fn of_client(version: ProxyVersion, peer: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let (peer, local) = of_one_family(peer, local);
    encoded(
        version,
        &ProxyHeader::with_address(ProxiedAddress::stream(peer, local)),
    )
}

/// What is sent first on a connection of our own, such as a check's: nobody's.
pub(crate) fn of_nobody(version: ProxyVersion) -> Vec<u8> {
    encoded(version, &ProxyHeader::with_local())
}

fn encoded(version: ProxyVersion, header: &ProxyHeader<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    // Neither fails: there are no TLVs, and both addresses are of one family.
    let _ = match version {
        ProxyVersion::V1 => header.encode_v1(&mut out),
        ProxyVersion::V2 => header.encode_v2(&mut out),
    };
    out
}

/// The protocol has one family for both: where they differ, IPv4 is written within IPv6.
fn of_one_family(a: SocketAddr, b: SocketAddr) -> (SocketAddr, SocketAddr) {
    if a.is_ipv4() == b.is_ipv4() {
        return (a, b);
    }
    let mapped = |address: SocketAddr| match address.ip() {
        IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    (mapped(a), mapped(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(peer: &str, local: &str, v1: &str, v2_length: usize) {
        let (peer, local) = (peer.parse().unwrap(), local.parse().unwrap());
        let text = of_client(ProxyVersion::V1, peer, local);
        assert_eq!(String::from_utf8(text).unwrap(), v1);
        let binary = of_client(ProxyVersion::V2, peer, local);
        assert_eq!(binary.len(), v2_length);
    }

    #[test]
    fn headers_are_those_of_the_specification() {
        check(
            "192.0.2.1:4444",
            "198.51.100.1:80",
            "PROXY TCP4 192.0.2.1 198.51.100.1 4444 80\r\n",
            28,
        );
        check(
            "[2001:db8::1]:4444",
            "[2001:db8::2]:80",
            "PROXY TCP6 2001:db8::1 2001:db8::2 4444 80\r\n",
            52,
        );
        check(
            "192.0.2.1:4444",
            "[2001:db8::2]:80",
            "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 4444 80\r\n",
            52,
        );
        assert_eq!(of_nobody(ProxyVersion::V1), b"PROXY UNKNOWN\r\n");
        assert_eq!(
            of_nobody(ProxyVersion::V2),
            b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
        );
    }
}
