//! What must hold of any bytes at the beginning of a connection: the body of the fuzz target, and of the test that replays its corpus.
//!
//! The reader is compared with another one that is written here from the specification (`proxy-protocol.txt` of HAProxy, sections 2.1 and 2.2), and
//! with what we write ourselves.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use evenkeel_policy::config::ProxyVersion;

use super::header::{self, Ends, Rest};
use super::written;

const V1_BYTES_MAX: usize = 107;
const V2_BYTES_MAX: usize = 8 * 1024;
const V2_FIXED: usize = 16;
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Headers up to this length are cut at every byte.
const CUT_BYTES_MAX: usize = 600;
const CHECKSUM: u8 = 3;

/// A stream may be any bytes: a header and what follows it, or less, or none.
pub(crate) fn proxy_protocol(stream: &[u8]) {
    let Some(header) = taken(stream) else {
        return;
    };
    let found = header::parse(header);
    let expected = by_the_specification(header);
    assert_eq!(found.ok(), expected, "{}", header.escape_ascii());
    for cut in 0..header.len().min(CUT_BYTES_MAX) {
        let part = &header[..cut];
        assert_ne!(header::rest(part), Ok(Rest::Complete), "cut at {cut}");
        assert!(header::parse(part).is_err(), "cut at {cut}");
    }
    match found {
        Ok(Some(ends)) => is_told_on(ends),
        Ok(None) => nobody_is_told_of(),
        Err(_) => {}
    }
    if found.is_ok() && header.starts_with(SIGNATURE) {
        is_believed_with_a_checksum_only_if_it_is_right(header);
    }
}

/// Reads as the listener does: what belongs to the header, no byte more, and never more than a header has. `None`: there is none, or it
/// does not end.
fn taken(stream: &[u8]) -> Option<&[u8]> {
    let mut read = 0;
    let mut rounds = 0;
    let header = loop {
        rounds += 1;
        assert!(rounds <= V1_BYTES_MAX, "it does not end");
        let left = &stream[read..];
        let more = match header::rest(&stream[..read]).ok()? {
            Rest::Complete => break &stream[..read],
            Rest::Bytes(missing) => missing,
            Rest::Line(room) => {
                // Bytes come in pieces: of any length, here of one that the stream's own bytes tell.
                let piece = usize::from(*left.first()? % 16) + 1;
                let seen = &left[..room.min(piece).min(left.len())];
                let end = seen.iter().position(|byte| *byte == b'\n');
                end.map_or(seen.len(), |end| end + 1)
            }
        };
        assert!(more > 0, "nothing is no answer");
        assert!(read + more <= V2_BYTES_MAX, "too much is asked for");
        if more > left.len() {
            return None;
        }
        read += more;
    };
    if header.starts_with(SIGNATURE) {
        let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
        assert_eq!(header.len(), V2_FIXED + length);
    } else {
        assert!(header.len() <= V1_BYTES_MAX);
        let line_end = stream.iter().position(|byte| *byte == b'\n');
        // A line that ends within the first bytes, which are read at once, is no header.
        assert!(line_end == Some(header.len() - 1) || header::parse(header).is_err());
    }
    Some(header)
}

/// The two ends, or none; outside `None` if it has to be refused.
fn by_the_specification(header: &[u8]) -> Option<Option<Ends>> {
    if header.starts_with(SIGNATURE) {
        version_2(header)
    } else {
        version_1(header)
    }
}

fn version_1(line: &[u8]) -> Option<Option<Ends>> {
    let text = line.strip_suffix(b"\r\n")?;
    if text.iter().any(|byte| matches!(byte, b'\r' | b'\n')) {
        return None;
    }
    if text == b"PROXY UNKNOWN" || text.starts_with(b"PROXY UNKNOWN ") {
        return Some(None);
    }
    let text = std::str::from_utf8(text).ok()?;
    let words: Vec<&str> = text.split(' ').collect();
    let [_, family, source, destination, from, to] = words[..] else {
        return None;
    };
    let address = |text: &str| match family {
        "TCP4" => text.parse().ok().map(IpAddr::V4),
        "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => None,
    };
    let port = |text: &str| {
        let port: u16 = text.parse().ok()?;
        (port.to_string() == text).then_some(port)
    };
    Some(Some(Ends {
        source: SocketAddr::new(address(source)?.to_canonical(), port(from)?),
        destination: SocketAddr::new(address(destination)?.to_canonical(), port(to)?),
    }))
}

fn version_2(header: &[u8]) -> Option<Option<Ends>> {
    let (fixed, rest) = header.split_at_checked(V2_FIXED)?;
    match fixed[12] {
        0x20 => return Some(None),
        0x21 => {}
        _ => return None,
    }
    let (size, is_told) = match fixed[13] {
        0x00 => (0, false),
        0x11 => (4, true),
        0x12 => (4, false),
        0x21 => (16, true),
        0x22 => (16, false),
        0x31 | 0x32 => (106, false),
        _ => return None,
    };
    let ports = if size == 0 { 0 } else { 4 };
    let (addresses, tlvs) = rest.split_at_checked(2 * size + ports)?;
    tlvs_hold(header, tlvs)?;
    if !is_told {
        return Some(None);
    }
    let address = |bytes: &[u8]| match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).unwrap()),
        _ => IpAddr::from(<[u8; 16]>::try_from(bytes).unwrap()).to_canonical(),
    };
    let port = |at: usize| u16::from_be_bytes([addresses[at], addresses[at + 1]]);
    Some(Some(Ends {
        source: SocketAddr::new(address(&addresses[..size]), port(2 * size)),
        destination: SocketAddr::new(address(&addresses[size..2 * size]), port(2 * size + 2)),
    }))
}

fn tlvs_hold(header: &[u8], tlvs: &[u8]) -> Option<()> {
    let mut sum = None;
    let mut rest = tlvs;
    while let Some((kind, after)) = rest.split_first() {
        let (length, after) = after.split_at_checked(2)?;
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        let (value, after) = after.split_at_checked(length)?;
        match *kind {
            CHECKSUM => {
                let stated = u32::from_be_bytes(value.try_into().ok()?);
                // Of several checksums the first is the one that is zero while it is made.
                let at = header.len() - after.len() - value.len();
                let made = *sum.get_or_insert_with(|| crc32c_with_zeros(header, at));
                if stated != made {
                    return None;
                }
            }
            5 if value.len() > 128 => return None,
            0x20 if value.len() < 5 => return None,
            // Texts: a name, a namespace, and what stands within the TLV of TLS.
            0x02 | 0x21..=0x25 | 0x30 => drop(std::str::from_utf8(value).ok()?),
            _ => {}
        }
        rest = after;
    }
    Some(())
}

/// What we tell servers is what we were told.
fn is_told_on(ends: Ends) {
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let header = written::of_client(version, ends.source, ends.destination);
        let stream = [&header, &b"GET / HTTP/1.1\r\n"[..]].concat();
        assert_eq!(taken(&stream), Some(&header[..]), "{ends:?}");
        assert_eq!(header::parse(&header), Ok(Some(ends)));
    }
}

fn nobody_is_told_of() {
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        assert_eq!(header::parse(&written::of_nobody(version)), Ok(None));
    }
}

/// A checksum at the end, the right one and a wrong one. A header that has one already is another header with a second.
fn is_believed_with_a_checksum_only_if_it_is_right(header: &[u8]) {
    const LOCAL: u8 = 0x20;
    let length = header.len() + 7 - V2_FIXED;
    if header[12] == LOCAL || header.len() + 7 > V2_BYTES_MAX || has_checksum(header) {
        return;
    }
    let mut longer = [header, &[CHECKSUM, 0, 4, 0, 0, 0, 0]].concat();
    longer[14..16].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
    let at = longer.len() - 4;
    let sum = crc32c_with_zeros(&longer, at);
    longer[at..].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(header::parse(&longer), header::parse(header));
    longer[at] ^= 1;
    assert!(header::parse(&longer).is_err(), "a wrong checksum");
}

/// Whether a valid header has a checksum among its TLVs.
fn has_checksum(header: &[u8]) -> bool {
    let addresses = match header[13] >> 4 {
        0 => 0,
        1 => 12,
        2 => 36,
        _ => 216,
    };
    let mut rest = &header[V2_FIXED + addresses..];
    while let [kind, high, low, after @ ..] = rest {
        if *kind == CHECKSUM {
            return true;
        }
        rest = &after[usize::from(u16::from_be_bytes([*high, *low]))..];
    }
    false
}

/// CRC-32C with the four bytes from `zeros` on taken for zero; most significant bit first, unlike the reader's.
fn crc32c_with_zeros(bytes: &[u8], zeros: usize) -> u32 {
    const CASTAGNOLI: u32 = 0x1edc_6f41;
    let mut sum = u32::MAX;
    for (at, byte) in bytes.iter().enumerate() {
        let byte = if (zeros..zeros + 4).contains(&at) {
            0
        } else {
            *byte
        };
        sum ^= u32::from(byte.reverse_bits()) << 24;
        for _ in 0..8 {
            let carry = sum >> 31;
            sum = (sum << 1) ^ (carry * CASTAGNOLI);
        }
    }
    !sum.reverse_bits()
}
