//! Values of headers with variables: `$client_ip $remote_addr $host $scheme $request_id`; `$$` is a dollar sign.

use std::net::IpAddr;

use crate::client_ip::write_ip;
use crate::config::nearest;
use crate::random::Sequence;
use crate::routing::without_port;

/// Headers to set in requests, by lower-case name.
#[derive(Debug, Clone, Default)]
pub struct HeaderTemplates {
    templates: Vec<(Box<[u8]>, Template)>,
}

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
    RequestId,
}

const VARIABLES: [(&str, Variable); 5] = [
    ("client_ip", Variable::ClientIp),
    ("remote_addr", Variable::RemoteAddr),
    ("host", Variable::Host),
    ("scheme", Variable::Scheme),
    ("request_id", Variable::RequestId),
];

/// What variables stand for in one request.
pub(super) struct Values<'a> {
    pub(super) client: Option<IpAddr>,
    pub(super) peer: Option<IpAddr>,
    pub(super) host: &'a [u8],
    pub(super) scheme: &'a [u8],
    /// The request's `x-request-id`.
    pub(super) request_id: Option<&'a [u8]>,
    /// The one that was made because there was none: the same wherever it is used.
    pub(super) made_request_id: Option<[u8; 32]>,
}

impl HeaderTemplates {
    pub fn new(templates: Vec<(Box<[u8]>, Template)>) -> Self {
        Self { templates }
    }

    /// Whether `name` is among them.
    pub(super) fn names(&self, name: &[u8]) -> bool {
        self.templates.iter().any(|(known, _)| **known == *name)
    }

    /// Whether any header is removed.
    pub(super) fn removes(&self) -> bool {
        self.templates.iter().any(|(_, value)| value.is_empty())
    }

    /// Whether `name` is removed.
    pub(super) fn removes_header(&self, name: &[u8]) -> bool {
        self.templates
            .iter()
            .any(|(known, value)| **known == *name && value.is_empty())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &Template)> {
        self.templates
            .iter()
            .map(|(name, template)| (&**name, template))
    }
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

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether it needs a request id.
    pub(super) fn needs_request_id(&self) -> bool {
        self.parts.contains(&Part::Variable(Variable::RequestId))
    }

    /// Appends the value.
    pub(super) fn write(&self, values: &Values<'_>, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Variable(Variable::ClientIp) => {
                    values.client.into_iter().for_each(|ip| write_ip(ip, out))
                }
                Part::Variable(Variable::RemoteAddr) => {
                    values.peer.into_iter().for_each(|ip| write_ip(ip, out))
                }
                Part::Variable(Variable::Host) => {
                    out.extend(without_port(values.host).iter().map(u8::to_ascii_lowercase));
                }
                Part::Variable(Variable::Scheme) => out.extend_from_slice(values.scheme),
                Part::Variable(Variable::RequestId) => {
                    let made = values.made_request_id.as_ref().map(<[u8; 32]>::as_slice);
                    out.extend_from_slice(values.request_id.or(made).unwrap_or_default());
                }
            }
        }
    }
}

/// A request id of 32 hexadecimal digits, as nginx makes them.
pub(super) fn make_request_id(random: &mut Sequence) -> [u8; 32] {
    let number = u128::from(random.next_u64()) << 64 | u128::from(random.next_u64());
    std::array::from_fn(|index| {
        let digit = u8::try_from(number >> (4 * (31 - index)) & 15).unwrap_or(0);
        if digit < 10 {
            b'0' + digit
        } else {
            b'a' + digit - 10
        }
    })
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
            request_id: None,
            made_request_id: Some(make_request_id(&mut Sequence::new(1))),
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
