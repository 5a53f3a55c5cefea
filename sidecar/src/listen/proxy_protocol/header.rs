//! A header of the PROXY protocol as bytes (`proxy-protocol.txt` of HAProxy, versions 1 and 2): how far it reaches, and what it says.
//!
//! Pure, and without anything else of this crate, so that fuzzing takes this file as it is.

use std::net::SocketAddr;
use std::ops::Range;

use proxy_header::{ParseConfig, Protocol, ProxyHeader, Tlv};

/// Longest header of version 1, with its line end.
const V1_BYTES_MAX: usize = 107;
/// Longest header of version 2 that is read: the protocol allows 64 KiB, addresses and all its TLVs need a fraction of this.
const V2_BYTES_MAX: usize = 8 * 1024;
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, command, family, length.
const V2_FIXED_BYTES: usize = 16;
/// The shortest header there is has more: what is read before it is known which version it is.
const FIRST_BYTES: usize = V2_SIGNATURE.len();
/// Longest unique id (`PP2_TYPE_UNIQUE_ID`).
const UNIQUE_ID_BYTES_MAX: usize = 128;

/// The two ends of a connection as a balancer in front sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
}

/// What of the stream belongs to the header, as far as what was read tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// This many bytes more.
    Bytes(usize),
    /// All up to a line end, which is within this many bytes.
    Line(usize),
    /// Nothing.
    Complete,
}

/// What is to be read after `read`, the header's first bytes. Whoever reads what it says, over and over, ends: each answer but
/// [`Rest::Complete`] stands for a byte or more, of a bounded number.
///
/// # Errors
/// What was read begins no header, or an overlong one.
pub(crate) fn rest(read: &[u8]) -> Result<Rest, &'static str> {
    let Some(first) = read.get(..FIRST_BYTES) else {
        return Ok(Rest::Bytes(FIRST_BYTES - read.len()));
    };
    if first == V2_SIGNATURE {
        let length = match read.get(..V2_FIXED_BYTES) {
            Some(fixed) => v2_bytes(fixed)?,
            None => V2_FIXED_BYTES,
        };
        return Ok(match length.saturating_sub(read.len()) {
            0 => Rest::Complete,
            missing => Rest::Bytes(missing),
        });
    }
    if !first.starts_with(b"PROXY ") {
        return Err("expected a header of the PROXY protocol");
    }
    if read.ends_with(b"\n") {
        return Ok(Rest::Complete);
    }
    match V1_BYTES_MAX.saturating_sub(read.len()) {
        0 => Err("a line of version 1 that does not end"),
        room => Ok(Rest::Line(room)),
    }
}

/// Length of a whole header of version 2, of which the fixed part is there.
fn v2_bytes(fixed: &[u8]) -> Result<usize, &'static str> {
    let &[.., high, low] = fixed else {
        return Err("too short");
    };
    let length = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if length > V2_BYTES_MAX {
        return Err("a header of version 2 that is too long");
    }
    Ok(length)
}

/// Reads a whole header; `None`: it leaves the socket's own addresses. The library reads; what it leaves open is checked here: strict
/// numbers, the checksum, the lengths of TLVs.
///
/// # Errors
/// No header, a broken one, one whose checksum is wrong, or more than a header.
pub(crate) fn parse(header: &[u8]) -> Result<Option<Ends>, &'static str> {
    if is_local(header) {
        return Ok(None);
    }
    let (parsed, length) = ProxyHeader::parse(header, ParseConfig::default())
        .map_err(|_| "expected a header of the PROXY protocol")?;
    if length != header.len() {
        return Err("more than a header of the PROXY protocol");
    }
    if header.starts_with(b"PROXY") {
        check_v1(header)?;
    } else {
        check_v2(header, &parsed)?;
    }
    let ends = parsed
        .proxied_address()
        .filter(|address| address.protocol == Protocol::Stream);
    Ok(ends.map(|address| Ends {
        source: canonical(address.source),
        destination: canonical(address.destination),
    }))
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Whether it is a whole header of the command `LOCAL`: whatever else it says is to be passed over.
fn is_local(header: &[u8]) -> bool {
    const LOCAL: u8 = 0x20;
    let fixed = header.get(..V2_FIXED_BYTES).unwrap_or_default();
    header.starts_with(V2_SIGNATURE)
        && header.get(V2_SIGNATURE.len()) == Some(&LOCAL)
        && v2_bytes(fixed).is_ok_and(|length| length == header.len())
}

/// Single spaces, and numbers as they are written in decimal. (After `UNKNOWN` anything goes.)
fn check_v1(line: &[u8]) -> Result<(), &'static str> {
    let text = line.strip_suffix(b"\r\n").unwrap_or(line);
    let mut words = text.split(|byte| *byte == b' ');
    if words.next() != Some(b"PROXY") {
        return Err("expected a header of the PROXY protocol");
    }
    match words.next() {
        Some(b"UNKNOWN") => return Ok(()),
        Some(b"TCP4" | b"TCP6") => {}
        _ => return Err("expected TCP4, TCP6 or UNKNOWN"),
    }
    let ports = words.skip(2);
    for port in ports {
        let is_decimal = port.iter().all(u8::is_ascii_digit);
        let has_zero = port.len() > 1 && port.starts_with(b"0");
        if !is_decimal || has_zero {
            return Err("a port that is not written as one");
        }
    }
    Ok(())
}

fn check_v2(header: &[u8], parsed: &ProxyHeader<'_>) -> Result<(), &'static str> {
    // Once, however many fields say what it is: it takes as long as the header.
    let field = checksum_field(header);
    let expected = (!field.is_empty()).then(|| checksum(header, field));
    // Ends: the TLVs of a bounded header have at least three bytes each.
    for tlv in parsed.tlvs() {
        match tlv.map_err(|_| "a TLV whose length is wrong")? {
            Tlv::Crc32c(sum) if Some(sum) != expected => {
                return Err("a checksum that is wrong");
            }
            Tlv::UniqueId(id) if id.len() > UNIQUE_ID_BYTES_MAX => {
                return Err("a unique id that is too long");
            }
            _ => {}
        }
    }
    Ok(())
}

/// CRC-32C of the header with the checksum's own bytes, `field`, taken for zero (`PP2_TYPE_CRC32C`; RFC 4960 appendix B).
fn checksum(header: &[u8], field: Range<usize>) -> u32 {
    let mut sum = u32::MAX;
    for (at, &byte) in header.iter().enumerate() {
        sum ^= u32::from(if field.contains(&at) { 0 } else { byte });
        for _ in 0..u8::BITS {
            // Castagnoli's polynomial, reversed.
            let polynomial = if sum & 1 == 1 { 0x82f6_3b78 } else { 0 };
            sum = sum >> 1 ^ polynomial;
        }
    }
    !sum
}

/// Where the checksum stands; empty if there is none.
fn checksum_field(header: &[u8]) -> Range<usize> {
    const CHECKSUM: u8 = 3;
    let family = header.get(13).copied().unwrap_or_default();
    let addresses = match family >> 4 {
        1 => 12,
        2 => 36,
        3 => 216,
        _ => 0,
    };
    let mut at = V2_FIXED_BYTES + addresses;
    // Ends: each round moves on by at least three bytes.
    while let Some(&[kind, high, low]) = header.get(at..at + 3) {
        let end = at + 3 + usize::from(u16::from_be_bytes([high, low]));
        if kind == CHECKSUM {
            return at + 3..end;
        }
        at = end;
    }
    0..0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `Some((source, destination))`, `None` for the socket's own addresses, an error's words.
    #[track_caller]
    fn check(header: &[u8], expected: Result<Option<(&str, &str)>, &str>) {
        let found = parse(header)
            .map(|ends| ends.map(|ends| (ends.source.to_string(), ends.destination.to_string())));
        let shown = String::from_utf8_lossy(header);
        match (found, expected) {
            (Ok(found), Ok(expected)) => {
                let expected = expected.map(|(a, b)| (a.to_owned(), b.to_owned()));
                assert_eq!(found, expected, "{shown}");
            }
            (Err(found), Err(words)) => assert!(found.contains(words), "{shown}: {found}"),
            (found, expected) => panic!("{shown}: {found:?}, not {expected:?}"),
        }
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [V2_SIGNATURE, &[command, family], &length, rest].concat()
    }

    const V4: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 1, 0x11, 0x5c, 0x00, 0x50];

    #[test]
    fn lines_of_version_1() {
        let both = Ok(Some(("192.0.2.1:4444", "198.51.100.1:80")));
        check(b"PROXY TCP4 192.0.2.1 198.51.100.1 4444 80\r\n", both);
        check(
            b"PROXY TCP6 2001:db8::1 2001:db8::2 4444 80\r\n",
            Ok(Some(("[2001:db8::1]:4444", "[2001:db8::2]:80"))),
        );
        check(
            b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.1 4444 80\r\n",
            both,
        );
        check(b"PROXY UNKNOWN\r\n", Ok(None));
        check(b"PROXY UNKNOWN any thing  at all 1 2\r\n", Ok(None));
        check(b"PROXY UNKNOWN \xff\0\r\n", Ok(None));
        let refused: [&[u8]; 17] = [
            b"GET / HTTP/1.1\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 4444 80\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 4444 080\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 +444 80\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 65536 80\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 4444 80 \r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 4444 80\r\nG",
            b"PROXY TCP4  192.0.2.1 198.51.100.1 4444 80\r\n",
            b"PROXY TCP4 192.0.2.01 198.51.100.1 4444 80\r\n",
            b"PROXY TCP4 192.0.2.256 198.51.100.1 4444 80\r\n",
            b"PROXY TCP4 2001:db8::1 2001:db8::2 4444 80\r\n",
            b"PROXY TCP6 192.0.2.1 198.51.100.1 4444 80\r\n",
            b"PROXY UDP4 192.0.2.1 198.51.100.1 4444 80\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 4444\r\n",
            b"PROXYxTCP4 192.0.2.1 198.51.100.1 4444 80\r\n",
            b"proxy TCP4 192.0.2.1 198.51.100.1 4444 80\r\n",
            b"PROXY \r\n",
        ];
        for line in refused {
            check(line, Err(""));
        }
    }

    #[test]
    fn headers_of_version_2() {
        let both = Ok(Some(("192.0.2.1:4444", "198.51.100.1:80")));
        check(&v2(0x21, 0x11, V4), both);
        check(&v2(0x20, 0x11, V4), Ok(None));
        check(&v2(0x20, 0x00, &[]), Ok(None));
        check(&v2(0x20, 0x00, &[4, 0, 1, 0]), Ok(None));
        check(&v2(0x20, 0x99, &[1, 2]), Ok(None));
        check(&v2(0x21, 0x00, &[]), Ok(None));
        // Datagrams, and sockets of the file system.
        check(&v2(0x21, 0x12, V4), Ok(None));
        check(&v2(0x21, 0x31, &[b'/'; 216]), Ok(None));
        let mut v6 = [0; 36];
        v6[15] = 1;
        v6[31] = 2;
        v6[33] = 9;
        v6[35] = 80;
        check(&v2(0x21, 0x21, &v6), Ok(Some(("[::1]:9", "[::2]:80"))));
        check(&v2(0x22, 0x11, V4), Err("expected"));
        check(&v2(0x11, 0x11, V4), Err("expected"));
        check(&v2(0x21, 0x41, V4), Err("expected"));
        check(&v2(0x21, 0x11, &V4[..11]), Err("expected"));
        let mut longer = v2(0x21, 0x11, V4);
        longer.push(b'G');
        check(&longer, Err("more than"));
    }

    #[test]
    fn tlvs_are_checked() {
        let with = |tlvs: &[u8]| v2(0x21, 0x11, &[V4, tlvs].concat());
        let both = Ok(Some(("192.0.2.1:4444", "198.51.100.1:80")));
        check(&with(&[0xea, 0, 2, 1, 7]), both);
        check(&with(&[1, 0, 2, b'h', b'2', 4, 0, 0]), both);
        check(&with(&[1, 0, 3, b'h', b'2']), Err("TLV"));
        check(&with(&[1, 0]), Err("TLV"));
        check(&with(&[3, 0, 3, 0, 0, 0]), Err("TLV"));
        let id = |length: u8| [&[5, 0, length][..], &vec![7; usize::from(length)]].concat();
        check(&with(&id(128)), both);
        check(&with(&id(129)), Err("unique id"));
    }

    #[test]
    fn the_checksum_is_verified() {
        // The check value of CRC-32C.
        assert_eq!(checksum(b"123456789", 0..0), 0xe306_9283);
        let mut header = v2(
            0x21,
            0x11,
            &[V4, &[4, 0, 1, 0, 3, 0, 4, 0, 0, 0, 0, 5, 0, 1, 7]].concat(),
        );
        assert_eq!(checksum_field(&header), 35..39);
        let sum = checksum(&header, 35..39).to_be_bytes();
        header[35..39].copy_from_slice(&sum);
        check(&header, Ok(Some(("192.0.2.1:4444", "198.51.100.1:80"))));
        for at in 12..header.len() {
            let mut broken = header.clone();
            broken[at] ^= 1;
            // The lowest bit of the command makes it LOCAL; all else is a wrong sum, or no header at all.
            let expected = if at == 12 { Ok(None) } else { Err("") };
            check(&broken, expected);
        }
    }

    #[test]
    fn a_header_that_is_cut_is_none() {
        for whole in [
            b"PROXY TCP4 192.0.2.1 198.51.100.1 4444 80\r\n".to_vec(),
            v2(0x21, 0x11, V4),
            v2(0x20, 0x00, &[4, 0, 1, 0]),
        ] {
            for length in 0..whole.len() {
                check(&whole[..length], Err(""));
            }
        }
    }

    #[test]
    fn a_header_reaches_as_far_as_it_says_and_no_further() {
        let line = b"PROXY TCP4 192.0.2.1 198.51.100.1 4444 80\r\n";
        let binary = v2(0x21, 0x11, V4);
        let long = v2(0x21, 0x11, &[0; V2_BYTES_MAX]);
        let rows: [(&[u8], Result<Rest, &str>); 12] = [
            (b"", Ok(Rest::Bytes(12))),
            (b"PROXY ", Ok(Rest::Bytes(6))),
            (&line[..12], Ok(Rest::Line(V1_BYTES_MAX - 12))),
            (line, Ok(Rest::Complete)),
            (
                &[b"PROXY ".as_slice(), &[b'x'; 100]].concat(),
                Ok(Rest::Line(1)),
            ),
            (
                &[b"PROXY ".as_slice(), &[b'x'; 101]].concat(),
                Err("a line of version 1 that does not end"),
            ),
            (
                b"GET / HTTP/1",
                Err("expected a header of the PROXY protocol"),
            ),
            (&binary[..12], Ok(Rest::Bytes(4))),
            (&binary[..16], Ok(Rest::Bytes(12))),
            (&binary[..27], Ok(Rest::Bytes(1))),
            (&binary, Ok(Rest::Complete)),
            (&long[..16], Err("a header of version 2 that is too long")),
        ];
        for (read, expected) in rows {
            assert_eq!(rest(read), expected, "{}", String::from_utf8_lossy(read));
        }
    }
}
