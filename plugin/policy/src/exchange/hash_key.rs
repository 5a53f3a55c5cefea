//! What the hashing methods hash: a template of variables and text, read once, written for a request into a buffer that is kept.
//!
//! ```text
//!   $uri             the path with its query, as received (nginx's $request_uri)
//!   $path            the path alone, as received
//!   $client_ip       the client's address after the proxies that are trusted
//!   $host            the host, lower-case, without port
//!   $header(Name)    a header's value; several lines of it joined by ", "
//!   $cookie(Name)    the value of the first cookie of this name
//!   $query(name)     the value of the first parameter of this name, as received (nginx's $arg_name)
//! ```
//!
//! What a request does not have is empty. A key that is empty as a whole is none: then methods go by turns.

use std::net::IpAddr;

use super::is_header_name;
use crate::client_ip::write_ip;
use crate::config::nearest;
use crate::routing::without_port;

/// Longest template, bytes.
const TEMPLATE_BYTES_MAX: usize = 1_024;
/// Most variables and texts of a template: each costs a pass over the headers at most.
const PARTS_MAX: usize = 16;

/// A template of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashKey {
    parts: Box<[Part]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Box<[u8]>),
    Uri,
    Path,
    ClientIp,
    Host,
    /// By lower-case name.
    Header(Box<[u8]>),
    Cookie(Box<[u8]>),
    Query(Box<[u8]>),
}

/// What the parts are taken from.
pub(super) struct KeyFacts<'a, H> {
    pub(super) path: &'a [u8],
    pub(super) host: &'a [u8],
    pub(super) client: Option<IpAddr>,
    pub(super) pairs: &'a H,
}

impl HashKey {
    /// `$uri`.
    pub fn uri() -> Self {
        Self {
            parts: Box::new([Part::Uri]),
        }
    }

    /// `$host`.
    pub fn host() -> Self {
        Self {
            parts: Box::new([Part::Host]),
        }
    }

    /// Reads a template. The error says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(format!(
                "expected at most {TEMPLATE_BYTES_MAX} bytes, found {}",
                text.len()
            ));
        }
        if text.chars().any(char::is_control) {
            return Err("expected text without control characters".to_owned());
        }
        let (first, mut rest) = text
            .split_once('$')
            .map_or((text, None), |(first, rest)| (first, Some(rest)));
        let mut parts = Vec::new();
        push_text(&mut parts, first);
        // Ends: each round takes a dollar sign away.
        while let Some(after) = rest {
            let remainder = match after.strip_prefix('$') {
                Some(remainder) => {
                    push_text(&mut parts, "$");
                    remainder
                }
                None => {
                    let (variable, remainder) = variable(after)?;
                    parts.push(variable);
                    remainder
                }
            };
            let (plain, next) = remainder
                .split_once('$')
                .map_or((remainder, None), |(plain, next)| (plain, Some(next)));
            push_text(&mut parts, plain);
            rest = next;
        }
        if !parts.iter().any(|part| !matches!(part, Part::Text(_))) {
            return Err(format!(
                "expected a variable: every request would have the same key; known: {KNOWN}"
            ));
        }
        if parts.len() > PARTS_MAX {
            return Err(format!(
                "expected at most {PARTS_MAX} variables and texts, found {}",
                parts.len()
            ));
        }
        Ok(Self {
            parts: parts.into(),
        })
    }

    /// Appends a request's key.
    pub(super) fn write<'a, H>(&self, facts: &KeyFacts<'_, H>, out: &mut Vec<u8>)
    where
        H: Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    {
        for part in &self.parts {
            let values = |name: &'static [u8]| {
                facts
                    .pairs
                    .clone()
                    .filter(move |pair| pair.0 == name)
                    .map(|pair| pair.1)
            };
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Uri => out.extend_from_slice(facts.path),
                Part::Path => out.extend_from_slice(split_query(facts.path).0),
                Part::ClientIp => facts
                    .client
                    .into_iter()
                    .for_each(|client| write_ip(client, out)),
                Part::Host => {
                    out.extend(without_port(facts.host).iter().map(u8::to_ascii_lowercase))
                }
                Part::Header(name) => {
                    let lines = facts.pairs.clone().filter(|pair| *pair.0 == **name);
                    for (place, (_, line)) in lines.enumerate() {
                        if place > 0 {
                            out.extend_from_slice(b", ");
                        }
                        out.extend_from_slice(line);
                    }
                }
                Part::Cookie(name) => {
                    let crumbs =
                        values(b"cookie").flat_map(|line| line.split(|byte| *byte == b';'));
                    out.extend_from_slice(value_of(crumbs.map(<[u8]>::trim_ascii), name));
                }
                Part::Query(name) => {
                    let query = split_query(facts.path).1;
                    out.extend_from_slice(value_of(query.split(|byte| *byte == b'&'), name));
                }
            }
        }
    }
}

const KNOWN: &str = "$uri $path $client_ip $host $header(Name) $cookie(Name) $query(name)";

/// Reads a variable that a dollar sign announced; gives what comes after it too.
fn variable(text: &str) -> Result<(Part, &str), String> {
    let end = text
        .bytes()
        .take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        .count();
    let (name, after) = text.split_at_checked(end).unwrap_or((text, ""));
    let plain = match name {
        "uri" => Some(Part::Uri),
        "path" => Some(Part::Path),
        "client_ip" => Some(Part::ClientIp),
        "host" => Some(Part::Host),
        _ => None,
    };
    if let Some(part) = plain {
        return Ok((part, after));
    }
    if !matches!(name, "header" | "cookie" | "query") {
        let known = [
            "uri",
            "path",
            "client_ip",
            "host",
            "header",
            "cookie",
            "query",
        ];
        return Err(match nearest(name, known.into_iter()) {
            Some(near) => format!("no variable is named `${name}`; did you mean `${near}`?"),
            None => format!("no variable is named `${name}`; known: {KNOWN}"),
        });
    }
    let Some((argument, after)) = after
        .strip_prefix('(')
        .and_then(|after| after.split_once(')'))
    else {
        return Err(format!(
            "expected a name in brackets after `${name}`, as in `${name}(id)`"
        ));
    };
    let bytes: Box<[u8]> = argument.as_bytes().into();
    let part = match name {
        "header" => {
            let lower = argument.to_ascii_lowercase();
            if !is_header_name(&lower) {
                return Err(format!("expected the name of a header, found `{argument}`"));
            }
            Part::Header(lower.into_bytes().into())
        }
        "cookie" if is_header_name(argument) => Part::Cookie(bytes),
        "cookie" => return Err(format!("expected the name of a cookie, found `{argument}`")),
        _ if argument.is_empty() || argument.contains(['&', '=', '#', ' ']) => {
            return Err(format!(
                "expected the name of a parameter, found `{argument}`"
            ));
        }
        _ => Part::Query(bytes),
    };
    Ok((part, after))
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    match parts.last_mut() {
        _ if text.is_empty() => {}
        Some(Part::Text(before)) => *before = [before, text.as_bytes()].concat().into(),
        _ => parts.push(Part::Text(text.as_bytes().into())),
    }
}

/// The path and the query; what comes after a `#` belongs to neither.
fn split_query(uri: &[u8]) -> (&[u8], &[u8]) {
    let uri = uri.split(|byte| *byte == b'#').next().unwrap_or_default();
    let mut parts = uri.splitn(2, |byte| *byte == b'?');
    (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    )
}

/// The value of the first `name=value` among `pairs`; empty if there is none.
fn value_of<'a>(mut pairs: impl Iterator<Item = &'a [u8]>, name: &[u8]) -> &'a [u8] {
    let value = |pair: &'a [u8]| pair.strip_prefix(name)?.strip_prefix(b"=");
    pairs.find_map(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIRS: [(&[u8], &[u8]); 6] = [
        (b":path", b"/a%20b/?id=7&idx=8&id=9&empty"),
        (b"x-user", b"ann"),
        (b"cookie", b"PHPSESSIDX=no; a=1;PHPSESSID=abc=d ; b=2"),
        (b"x-list", b"1"),
        (b"cookie", b"PHPSESSID=second; c=3"),
        (b"x-list", b"2"),
    ];

    #[track_caller]
    fn check(template: &str, expected: &str) {
        let pairs = PAIRS.iter().copied();
        let facts = KeyFacts {
            path: PAIRS[0].1,
            host: b"WWW.Example.org:8080",
            client: "2001:db8::1".parse().ok(),
            pairs: &pairs,
        };
        let mut out = Vec::new();
        HashKey::parse(template).unwrap().write(&facts, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected, "{template}");
    }

    #[test]
    fn variables_are_filled_in_and_joined() {
        check("$uri", "/a%20b/?id=7&idx=8&id=9&empty");
        check("$path", "/a%20b/");
        check("$client_ip", "2001:db8::1");
        check("$host", "www.example.org");
        check("$header(X-User)", "ann");
        check("$header(x-list)", "1, 2");
        check("$cookie(PHPSESSID)", "abc=d");
        check("$cookie(c)", "3");
        check("$query(id)", "7");
        check("$query(idx)", "8");
        check("$host$path", "www.example.org/a%20b/");
        check("$header(X-User)-$query(id)_$$", "ann-7_$");
        check(
            "u:$query(empty)$query(none)$cookie(none)$header(none)",
            "u:",
        );
        check("$cookie(phpsessid)", "");
    }

    #[test]
    fn what_is_no_template_is_refused_with_the_reason() {
        let long = "$uri".repeat(TEMPLATE_BYTES_MAX);
        let many = "$uri".repeat(PARTS_MAX + 1);
        for (bad, said) in [
            ("", "expected a variable"),
            ("text", "the same key"),
            ("$$", "expected a variable"),
            ("$", "no variable is named `$`"),
            ("$urii", "did you mean `$uri`"),
            ("$request_uri", "known: $uri"),
            ("$header", "a name in brackets after `$header`"),
            ("$header()", "the name of a header"),
            ("$header(a b)", "the name of a header"),
            ("$cookie(a", "a name in brackets"),
            ("$cookie(a=b)", "the name of a cookie"),
            ("$query()", "the name of a parameter"),
            ("$query(a&b)", "the name of a parameter"),
            ("$uri\n", "control characters"),
            (&long, "at most 1024 bytes"),
            (&many, "at most 16 variables"),
        ] {
            let error = HashKey::parse(bad).unwrap_err();
            assert!(error.contains(said), "{bad}: {error}");
        }
    }
}
