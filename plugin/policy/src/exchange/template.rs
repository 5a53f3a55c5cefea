//! Values with variables, for headers and locations.
//!
//! ```text
//!   $client_ip     the client's address, after the proxies that are trusted
//!   $remote_addr   the peer's address
//!   $host          the host, lower-case, without port
//!   $scheme        http or https
//!   $method
//!   $uri           the path in its normal form, with its query
//!   $path          the path in its normal form
//!   $query         the query as received, without question mark
//!   $request_id    the request's id
//!   $$             a dollar sign
//! ```
//!
//! What a request does not have is empty.

use std::net::IpAddr;

use crate::client_ip::write_ip;
use crate::config::nearest;
use crate::random::Sequence;
use crate::routing::without_port;

/// A value with variables; an empty one removes the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Box<[u8]>),
    Variable(Variable),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variable {
    ClientIp,
    RemoteAddr,
    Host,
    Scheme,
    Method,
    Uri,
    Path,
    Query,
    RequestId,
}

const VARIABLES: [(&str, Variable); 9] = [
    ("client_ip", Variable::ClientIp),
    ("remote_addr", Variable::RemoteAddr),
    ("host", Variable::Host),
    ("scheme", Variable::Scheme),
    ("method", Variable::Method),
    ("uri", Variable::Uri),
    ("path", Variable::Path),
    ("query", Variable::Query),
    ("request_id", Variable::RequestId),
];

/// What variables stand for in one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Values<'a> {
    pub(super) client: Option<IpAddr>,
    pub(super) peer: Option<IpAddr>,
    pub(super) host: &'a [u8],
    pub(super) scheme: &'a [u8],
    pub(super) method: &'a [u8],
    /// In its normal form, with the query.
    pub(super) target: &'a [u8],
    pub(super) path: &'a [u8],
    pub(super) query: &'a [u8],
    pub(super) request_id: &'a [u8],
}

impl Template {
    /// Reads a value. The error says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        const VALUE_BYTES_MAX: usize = 4_096;
        if text.len() > VALUE_BYTES_MAX {
            return Err(format!(
                "expected at most {VALUE_BYTES_MAX} bytes, found {}",
                text.len()
            ));
        }
        if text
            .chars()
            .any(|character| character.is_control() && character != '\t')
            || text.trim() != text
        {
            return Err("expected one line without space around it".to_owned());
        }
        let mut parts = Vec::new();
        let mut pieces = text.split('$');
        push_text(&mut parts, pieces.next().unwrap_or_default());
        // A dollar sign stands before each further piece; an empty one that is not the last is half of `$$`.
        while let Some(piece) = pieces.next() {
            if piece.is_empty() {
                let Some(after) = pieces.next() else {
                    return Err("expected a variable after `$`; `$$` is a dollar sign".to_owned());
                };
                push_text(&mut parts, "$");
                push_text(&mut parts, after);
                continue;
            }
            let end = piece
                .bytes()
                .take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
                .count();
            let (name, after) = piece.split_at_checked(end).unwrap_or((piece, ""));
            let variable = VARIABLES
                .iter()
                .find(|(known, _)| *known == name)
                .ok_or_else(|| unknown(name))?;
            parts.push(Part::Variable(variable.1));
            push_text(&mut parts, after);
        }
        Ok(Self { parts })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether it needs a request id.
    pub(super) fn needs_request_id(&self) -> bool {
        self.parts.contains(&Part::Variable(Variable::RequestId))
    }

    /// Appends the value.
    pub(super) fn write(&self, values: &Values<'_>, out: &mut Vec<u8>) {
        for part in &self.parts {
            let variable = match part {
                Part::Text(text) => {
                    out.extend_from_slice(text);
                    continue;
                }
                Part::Variable(variable) => variable,
            };
            match variable {
                Variable::ClientIp => values.client.into_iter().for_each(|ip| write_ip(ip, out)),
                Variable::RemoteAddr => values.peer.into_iter().for_each(|ip| write_ip(ip, out)),
                Variable::Host => {
                    out.extend(without_port(values.host).iter().map(u8::to_ascii_lowercase));
                }
                Variable::Scheme => out.extend_from_slice(values.scheme),
                Variable::Method => out.extend_from_slice(values.method),
                Variable::Uri => out.extend_from_slice(values.target),
                Variable::Path => out.extend_from_slice(values.path),
                Variable::Query => out.extend_from_slice(values.query),
                Variable::RequestId => out.extend_from_slice(values.request_id),
            }
        }
    }
}

/// Bytes of a request id.
pub(super) const REQUEST_ID_BYTES: usize = 32;

/// A request id of 32 hexadecimal digits, as nginx makes them.
pub(super) fn make_request_id(random: &mut Sequence) -> [u8; REQUEST_ID_BYTES] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut id = [b'0'; REQUEST_ID_BYTES];
    let numbers = [random.next_u64(), random.next_u64()];
    for (half, number) in id.chunks_exact_mut(16).zip(numbers) {
        let bytes = number.to_be_bytes();
        for (pair, byte) in half.chunks_exact_mut(2).zip(bytes) {
            let digits = [byte >> 4, byte & 15]
                .map(|value| DIGITS.get(usize::from(value)).copied().unwrap_or(b'0'));
            pair.copy_from_slice(&digits);
        }
    }
    id
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    if !text.is_empty() {
        parts.push(Part::Text(text.as_bytes().into()));
    }
}

fn unknown(name: &str) -> String {
    let known = VARIABLES.iter().map(|(name, _)| *name);
    match nearest(name, known.clone()) {
        Some(near) => format!("no variable is named `${name}`; did you mean `${near}`?"),
        None => format!(
            "no variable is named `${name}`; known: ${}",
            known.collect::<Vec<_>>().join(", $")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let values = Values {
            client: "192.0.2.7".parse().ok(),
            peer: "10.0.0.1".parse().ok(),
            host: b"WWW.example.org:8080",
            scheme: b"https",
            method: b"GET",
            target: b"/a/b?c=d",
            path: b"/a/b",
            query: b"c=d",
            request_id: &make_request_id(&mut Sequence::new(1)),
        };
        let mut out = Vec::new();
        Template::parse(text).unwrap().write(&values, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected, "{text}");
    }

    #[test]
    fn variables_are_filled_in() {
        check("$client_ip", "192.0.2.7");
        check(
            "for=$client_ip;by=$remote_addr",
            "for=192.0.2.7;by=10.0.0.1",
        );
        check("$scheme://$host/", "https://www.example.org/");
        check("$method $path $query $uri", "GET /a/b c=d /a/b?c=d");
        check("5 $$", "5 $");
        check("$$$host", "$www.example.org");
        check("a$$b", "a$b");
        check("", "");
        check("id-$request_id", "id-910a2dec89025cc1beeb8da1658eec67");
    }

    #[test]
    fn what_is_no_variable_is_refused() {
        for bad in [
            "$",
            "$hots",
            "a$",
            "$ host",
            "x\r\ny",
            "x\0",
            " x",
            "$client-ip",
        ] {
            assert!(Template::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Template::parse("$hots").unwrap_err().contains("`$host`"));
    }
}
