//! Addresses as text: what hosts tell of a peer, and what requests carry.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Longest `[v6%zone]:port` that is read.
const TEXT_BYTES_MAX: usize = 128;

/// Reads `ip:port` or `[v6]:port` as hosts write it in `source.address`. `None` for anything else, such as a socket's path.
pub fn parse_socket_address(text: &[u8]) -> Option<SocketAddr> {
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Reads an IPv4 address as the standard library does: four decimal numbers without zeros before them. By hand, because within a VM
/// the standard library's reader costs several times as much, and a walk reads many.
pub(super) fn parse_v4(text: &[u8]) -> Option<Ipv4Addr> {
    if text.len() > V4_BYTES_MAX {
        return None;
    }
    let (mut address, mut octet, mut digits, mut dots) = (0_u32, 0_u32, 0_u8, 0_u8);
    for byte in text {
        match byte {
            b'0'..=b'9' => {
                // At most 15 digits: the numbers fit until they are looked at.
                if digits > 0 && octet == 0 || digits == 3 {
                    return None;
                }
                octet = octet * 10 + u32::from(byte - b'0');
                digits += 1;
            }
            b'.' if digits > 0 && octet <= 255 && dots < 3 => {
                address = address << 8 | octet;
                (octet, digits) = (0, 0);
                dots += 1;
            }
            _ => return None,
        }
    }
    (dots == 3 && digits > 0 && octet <= 255).then(|| Ipv4Addr::from_bits(address << 8 | octet))
}

/// `255.255.255.255`.
const V4_BYTES_MAX: usize = 15;

/// Appends the address without port and brackets. IPv4, nearly every address, is written by hand: the formatter of the
/// standard library costs several times as much in a VM.
pub fn write_ip(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(v4) => {
            let mut text = [b'.'; V4_BYTES_MAX];
            let mut end = 0;
            let mut put = |byte: u8| {
                if let Some(place) = text.get_mut(end) {
                    *place = byte;
                }
                end += 1;
            };
            for (index, octet) in v4.octets().into_iter().enumerate() {
                if index > 0 {
                    put(b'.');
                }
                if octet >= 100 {
                    put(b'0' + octet / 100);
                }
                if octet >= 10 {
                    put(b'0' + octet / 10 % 10);
                }
                put(b'0' + octet % 10);
            }
            out.extend_from_slice(text.get(..end).unwrap_or_default());
        }
        // Writing to a Vec does not fail.
        IpAddr::V6(v6) => drop(write!(out, "{v6}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_standard_library_reads() {
        use proptest::prelude::*;
        let part = prop_oneof!["[0-9]{0,4}", "[.]", "0", "[0-9]{1,3}[.]", ".{0,2}"];
        let texts = proptest::collection::vec(part, 0..7).prop_map(|parts| parts.concat());
        let address = any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).to_string());
        proptest!(|(text in texts, address in address)| {
            for text in [text, address] {
                prop_assert_eq!(parse_v4(text.as_bytes()), text.parse().ok(), "{}", text);
            }
        });
    }

    #[test]
    fn writes_what_the_standard_library_writes() {
        for text in [
            "0.0.0.0",
            "1.2.3.4",
            "10.20.99.100",
            "255.255.255.255",
            "192.0.2.109",
            "2001:db8::1",
            "::",
        ] {
            let mut out = Vec::new();
            write_ip(text.parse().unwrap(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }
}
