//! What routes are compared with: a request, as far as they may look at it.

use std::borrow::Cow;
use std::net::IpAddr;

use super::normal_path::hex;

/// A request to be routed. `pairs` are its headers by lower-case name.
#[derive(Debug)]
pub struct RequestView<'a, H> {
    /// May have a port and a trailing dot.
    pub host: &'a [u8],
    pub method: &'a [u8],
    /// In its normal form, without query.
    pub path: &'a [u8],
    /// As received, without the question mark.
    pub query: &'a [u8],
    pub client: Option<IpAddr>,
    pub peer: Option<IpAddr>,
    pub tcp_peer: Option<IpAddr>,
    pub pairs: &'a H,
}

/// Splits a request target at its question mark, which belongs to neither part.
pub fn split_query(target: &[u8]) -> (&[u8], &[u8]) {
    let end = target.iter().position(|byte| *byte == b'?');
    end.and_then(|end| target.split_at_checked(end))
        .map_or((target, b""), |(path, rest)| {
            (path, rest.get(1..).unwrap_or_default())
        })
}

/// The parameters of a query in order, decoded as forms are (WHATWG URL section 5.1): `+` is a space, a percent sign without two digits is
/// itself. Names without `=` have an empty value.
pub(super) fn parameters(query: &[u8]) -> impl Iterator<Item = (Cow<'_, [u8]>, Cow<'_, [u8]>)> {
    query
        .split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let mut parts = pair.splitn(2, |byte| *byte == b'=');
            let mut next = || decoded(parts.next().unwrap_or_default());
            (next(), next())
        })
}

fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, b'+' | b'%')) {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    // Ends: each round takes at least one byte away.
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        let pair = after.first_chunk::<2>();
        let value = pair.and_then(|[high, low]| Some(hex(*high)? << 4 | hex(*low)?));
        match (byte, value) {
            (b'+', _) => out.push(b' '),
            (b'%', Some(value)) => {
                out.push(value);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => out.push(*byte),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_as_forms_are() {
        let text = |bytes: Cow<'_, [u8]>| String::from_utf8_lossy(&bytes).into_owned();
        let found: Vec<(String, String)> = parameters(b"a=1&b+c=%41+%zz%&&d&=x&e=f=g%2")
            .map(|(name, value)| (text(name), text(value)))
            .collect();
        let expected = [
            ("a", "1"),
            ("b c", "A %zz%"),
            ("d", ""),
            ("", "x"),
            ("e", "f=g%2"),
        ];
        let found: Vec<(&str, &str)> = found
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(found, expected);
        assert_eq!(split_query(b"/a?b?c"), (&b"/a"[..], &b"b?c"[..]));
        assert_eq!(split_query(b"/a"), (&b"/a"[..], &b""[..]));
    }
}
