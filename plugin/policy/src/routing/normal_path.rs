//! The path in its normal form: what routes are compared with, and what goes on to the server. The two are one text, so that no
//! spelling of a path gets past a route and means something else behind it.
//!
//! Normal is, in this order (RFC 3986 section 6.2.2; merging and the refusals are nginx's, `ngx_http_parse_complex_uri`):
//!
//! ```text
//!   percent-encoded letters, digits, - . _ ~        plain: %41 is A, %2e is a dot
//!   any other %xx                                   with capitals: %c3 is %C3
//!   bytes that RFC 3986 does not allow in a path    percent-encoded: a plain é, |, \ or "
//!   several slashes in a row                        one (nginx's merge_slashes)
//!   . and .. segments                               taken out; .. takes the segment before it along
//! ```
//!
//! Refused, because servers behind differ in what they make of it: a path that does not begin with a slash (`*` is OPTIONS' own), a
//! percent sign without two hexadecimal digits, `%2F` (a slash to some and none to others), NUL, control bytes, a fragment, and `..`
//! above the root. The query is no part of the path: it goes on as it came. Reserved characters (`! $ & ' ( ) * + , ; = : @`) and
//! their percent-encoded forms are different paths (RFC 3986 section 2.2), and both go on as they came.

use thiserror::Error;

/// Whether a path had to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Normal {
    /// It is in its normal form as it came.
    AsReceived,
    /// The normal form, with the query, was written.
    Written,
}

/// Why a path is refused with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PathFault {
    #[error("the path does not begin with a slash")]
    NotRooted,
    #[error("a percent sign without two hexadecimal digits in the path")]
    BrokenPercent,
    #[error("a percent-encoded slash in the path")]
    EncodedSlash,
    #[error("a control byte in the path")]
    ControlByte,
    #[error("a fragment in the request target")]
    Fragment,
    #[error("the path leads above the root")]
    AboveRoot,
}

/// What a byte of a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Allowed as it is.
    Plain,
    Percent,
    /// To be percent-encoded.
    Foreign,
    Control,
}

const CLASSES: [Class; 256] = classes();

const fn classes() -> [Class; 256] {
    let mut classes = [Class::Foreign; 256];
    let mut byte = 0_u8;
    while byte < u8::MAX {
        let class = match byte {
            // pchar and slash (RFC 3986 section 3.3).
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => Class::Plain,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => {
                Class::Plain
            }
            b':' | b'@' | b'/' => Class::Plain,
            b'%' => Class::Percent,
            0..=31 | 127 => Class::Control,
            _ => Class::Foreign,
        };
        if let Some(place) = classes.split_at_mut(byte as usize).1.first_mut() {
            *place = class;
        }
        byte += 1;
    }
    classes
}

fn class(byte: u8) -> Class {
    CLASSES
        .get(usize::from(byte))
        .copied()
        .unwrap_or(Class::Foreign)
}

/// Brings a request target, path and query, into its normal form. `out` (cleared before) is written only if that is another text
/// than came. An empty target and `*` are left alone: they have no path.
pub fn normalise(target: &[u8], out: &mut Vec<u8>) -> Result<Normal, PathFault> {
    if is_normal(target) || target.is_empty() || target == b"*" {
        return Ok(Normal::AsReceived);
    }
    let end = target
        .iter()
        .position(|byte| *byte == b'?')
        .unwrap_or(target.len());
    let (path, query) = target.split_at_checked(end).unwrap_or((target, b""));
    out.clear();
    write_normal(path, out)?;
    out.extend_from_slice(query);
    Ok(if out == target {
        Normal::AsReceived
    } else {
        Normal::Written
    })
}

/// Whether the target is surely in its normal form: one look at each byte of the path. A dot at the beginning of a segment is left
/// to the longer way.
fn is_normal(target: &[u8]) -> bool {
    let mut after_slash = false;
    if target.first() != Some(&b'/') {
        return false;
    }
    for byte in target {
        let is_slash = *byte == b'/';
        if after_slash && (is_slash || *byte == b'.') {
            return false;
        }
        after_slash = is_slash;
        if class(*byte) != Class::Plain {
            return *byte == b'?';
        }
    }
    true
}

/// Appends the normal form of a path to `out`, which is empty.
pub(crate) fn write_normal(path: &[u8], out: &mut Vec<u8>) -> Result<(), PathFault> {
    let Some((b'/', rest)) = path.split_first() else {
        return Err(PathFault::NotRooted);
    };
    out.push(b'/');
    let mut segment_start = out.len();
    let mut segments = rest.split(|byte| *byte == b'/').peekable();
    // Ends: each round is a segment of the path.
    while let Some(segment) = segments.next() {
        write_bytes(segment, out)?;
        let is_last = segments.peek().is_none();
        match out.get(segment_start..).unwrap_or_default() {
            b"" => {}
            b"." => out.truncate(segment_start),
            b".." => {
                // Without `/..` the text ends in the segment before, which begins after a slash.
                let before = out
                    .get(..segment_start.saturating_sub(1))
                    .unwrap_or_default();
                let slash = before.iter().rposition(|byte| *byte == b'/');
                segment_start = slash.ok_or(PathFault::AboveRoot)? + 1;
                out.truncate(segment_start);
            }
            _ if is_last => {}
            _ => {
                out.push(b'/');
                segment_start = out.len();
            }
        }
    }
    Ok(())
}

/// Appends text without slashes in its normal form: what is percent-encoded, and what has to be.
pub(crate) fn write_bytes(text: &[u8], out: &mut Vec<u8>) -> Result<(), PathFault> {
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match class(*byte) {
            Class::Plain => out.push(*byte),
            Class::Control => return Err(PathFault::ControlByte),
            Class::Foreign if *byte == b'#' => return Err(PathFault::Fragment),
            Class::Foreign => write_encoded(*byte, out),
            Class::Percent => {
                let mut digit = || bytes.next().and_then(|digit| hex(*digit));
                let (Some(high), Some(low)) = (digit(), digit()) else {
                    return Err(PathFault::BrokenPercent);
                };
                match high << 4 | low {
                    0 => return Err(PathFault::ControlByte),
                    b'/' => return Err(PathFault::EncodedSlash),
                    plain if plain.is_ascii_alphanumeric() || b"-._~".contains(&plain) => {
                        out.push(plain);
                    }
                    other => write_encoded(other, out),
                }
            }
        }
    }
    Ok(())
}

fn write_encoded(byte: u8, out: &mut Vec<u8>) {
    let digit = |value: u8| {
        if value < 10 {
            b'0' + value
        } else {
            b'A' + value - 10
        }
    };
    out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
}

/// The value of a hexadecimal digit.
pub(crate) fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(target: &str, expected: Result<&str, PathFault>) {
        let mut out = b"left over".to_vec();
        let found = normalise(target.as_bytes(), &mut out).map(|normal| match normal {
            Normal::AsReceived => target.to_owned(),
            Normal::Written => String::from_utf8(out).unwrap(),
        });
        assert_eq!(found.as_deref(), expected.as_deref(), "{target}");
    }

    #[test]
    fn a_path_has_one_normal_form() {
        for same in [
            "/",
            "/a/b.css",
            "/a/?x=//..%2f%",
            "/a;b=1/c:d@e",
            "/a%20b",
            "/%C3%A9",
            "/.well-known/x",
            "/...",
            "/..a/.b/",
            "/%21",
            "*",
            "",
        ] {
            check(same, Ok(same));
        }
        for (target, expected) in [
            ("//", "/"),
            ("/a//b///c", "/a/b/c"),
            ("/a/./b", "/a/b"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/a/../", "/"),
            ("/a/b/../../c", "/c"),
            ("/a/b/..", "/a/"),
            ("/a//../b", "/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/%2e", "/a/"),
            ("/%61dmin", "/admin"),
            ("/%7Eme/%c3%a9", "/~me/%C3%A9"),
            ("/é|\"", "/%C3%A9%7C%22"),
            ("/a\\b", "/a%5Cb"),
            ("/a b", "/a%20b"),
            ("/index%2Ephp/x.css?a=%2e", "/index.php/x.css?a=%2e"),
            ("/./a?../b", "/a?../b"),
        ] {
            check(target, Ok(expected));
        }
    }

    #[test]
    fn what_servers_would_read_differently_is_refused() {
        use PathFault::*;
        for (target, fault) in [
            ("a", NotRooted),
            ("?", NotRooted),
            ("http://a/", NotRooted),
            ("/%", BrokenPercent),
            ("/%2", BrokenPercent),
            ("/%2/", BrokenPercent),
            ("/%zz", BrokenPercent),
            ("/a%2Fb", EncodedSlash),
            ("/a%2fb", EncodedSlash),
            ("/a%00b", ControlByte),
            ("/a\u{0}b", ControlByte),
            ("/a\tb", ControlByte),
            ("/a\u{7f}", ControlByte),
            ("/a#b", Fragment),
            ("/..", AboveRoot),
            ("/a/../..", AboveRoot),
            ("//../a", AboveRoot),
            ("/%2e%2e/etc/passwd", AboveRoot),
        ] {
            check(target, Err(fault));
        }
    }

    #[test]
    fn the_normal_form_of_a_normal_form_is_itself() {
        let parts = proptest::sample::select(vec![
            "/", "//", "a", ".", "..", "%2e", "%41", "%c3", "é", "?", "%20", ";", " ", "%2F", "%",
            "\\", "b.php", "#",
        ]);
        let targets = proptest::collection::vec(parts, 0..12).prop_map(|parts| parts.concat());
        proptest!(|(target in targets, bytes in proptest::collection::vec(any::<u8>(), 0..40))| {
            for target in [format!("/{target}").into_bytes(), bytes] {
                let mut first = Vec::new();
                let Ok(normal) = normalise(&target, &mut first) else { continue };
                let form = if normal == Normal::Written { &first } else { &target };
                let mut second = Vec::new();
                prop_assert_eq!(normalise(form, &mut second), Ok(Normal::AsReceived));
                if form.first() != Some(&b'/') {
                    continue;
                }
                let path = form.split(|byte| *byte == b'?').next().unwrap_or_default();
                let segments: Vec<&[u8]> = path.split(|byte| *byte == b'/').skip(1).collect();
                prop_assert!(segments.iter().all(|segment| *segment != b"." && *segment != b".."));
                let inner = segments.iter().rev().skip(1);
                prop_assert!(inner.clone().all(|segment| !segment.is_empty()));
            }
        });
    }
}
