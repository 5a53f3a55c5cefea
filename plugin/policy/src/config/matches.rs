//! `match` of a route: what a request must be like. See [`crate::routing`] for how conditions are combined.
//!
//! ```text
//!   host         names, *.names          host_regex       over the host in lower case, without port
//!   path         the whole path          path_prefix, path_suffix, path_regex        the path in its normal form, without query
//!   method       in capitals             ignore_case      true: paths and values of headers and parameters are compared case apart
//!   header       {Name: value}           query            {name: value}
//!                a value: a text, a list of texts, true (it is there), false (it is not), or {exact, prefix, suffix, contains, regex}
//!   client       networks, or {in: networks, of: client | peer | tcp_peer}
//!   not          a match, or a list of them: none may hold as a whole
//! ```

use regex::bytes::{Regex, RegexBuilder};

use super::document::OneOrMany;
use super::names::{nearest, shortened};
use super::real_ip::network_set;
use super::route_document::{ClientDocument, MatchDocument, PatternsDocument, WantedDocument};
use super::{ConfigError, MATCH_VALUES_MAX};
use crate::exchange::is_header_name;
use crate::routing::{
    AddressOf, Case, ClientCondition, Conditions, Field, FieldCondition, HostPattern, PathFault,
    TABLES_BYTES_MAX, TextPattern, Wanted, write_bytes, write_normal,
};

/// Largest compiled expression, bytes: its size also bounds the time a match takes per byte of text.
const REGEX_BYTES_MAX: usize = 64 << 10;
/// Most matches under one `not`.
const NOT_MAX: usize = 64;
/// Longest name of a parameter.
const PARAMETER_BYTES_MAX: usize = 256;

/// Reads a match.
pub(super) fn conditions(path: &str, document: &MatchDocument) -> Result<Conditions, ConfigError> {
    let case = match document.ignore_case {
        Some(true) => Case::Ignored,
        Some(false) | None => Case::Matters,
    };
    let mut fields = Vec::new();
    for (name, wanted_document) in document.header.iter().flat_map(|named| &named.0) {
        let path = format!("{path}.header.{name}");
        let lower = name.to_ascii_lowercase();
        if !is_header_name(&lower) {
            return Err(ConfigError::new(path, "expected the name of a header"));
        }
        if lower == "host" {
            let message = "hosts are matched by `host` and `host_regex`";
            return Err(ConfigError::new(path, message));
        }
        let wanted = wanted(&path, wanted_document, case)?;
        let field = Field::Header(lower.into_bytes().into());
        fields.push(FieldCondition { field, wanted });
    }
    for (name, wanted_document) in document.query.iter().flat_map(|named| &named.0) {
        let path = format!("{path}.query.{name}");
        if name.is_empty() || name.len() > PARAMETER_BYTES_MAX {
            let message = "expected the name of a parameter, as it is when decoded";
            return Err(ConfigError::new(path, message));
        }
        let wanted = wanted(&path, wanted_document, case)?;
        let field = Field::Query(name.as_bytes().into());
        fields.push(FieldCondition { field, wanted });
    }
    let list = |key, texts: &Option<OneOrMany>, read: Read<Box<[u8]>>| {
        values(path, key, texts.as_ref(), read)
    };
    let regexes = |key, texts: &Option<OneOrMany>, case| {
        values(path, key, texts.as_ref(), &|text| regex(text, case))
    };
    Ok(Conditions {
        hosts: values(path, "host", document.host.as_ref(), &host)?,
        // The host is in lower case; an expression in capitals would match none.
        host_regexes: regexes("host_regex", &document.host_regex, Case::Ignored)?,
        methods: list("method", &document.method, &method)?,
        paths: list("path", &document.path, &rooted)?,
        path_prefixes: list("path_prefix", &document.path_prefix, &rooted)?,
        path_suffixes: list("path_suffix", &document.path_suffix, &suffix)?,
        path_regexes: regexes("path_regex", &document.path_regex, case)?,
        case,
        fields,
        client: match &document.client {
            Some(document) => Some(client(&format!("{path}.client"), document)?),
            None => None,
        },
        not: not(path, document)?,
    })
}

fn not(path: &str, document: &MatchDocument) -> Result<Vec<Conditions>, ConfigError> {
    let matches = document.not.as_ref().map_or(&[][..], |not| &not.0);
    if matches.len() > NOT_MAX {
        let message = format!(
            "expected at most {NOT_MAX} matches, found {}",
            matches.len()
        );
        return Err(ConfigError::new(format!("{path}.not"), message));
    }
    let one = |(index, document): (usize, &MatchDocument)| {
        let path = match matches.len() {
            1 => format!("{path}.not"),
            _ => format!("{path}.not[{index}]"),
        };
        if document.not.is_some() {
            let message = "expected no `not` within `not`";
            return Err(ConfigError::new(format!("{path}.not"), message));
        }
        let conditions = conditions(&path, document)?;
        if conditions.values() == 0 {
            let message = "expected conditions: an empty match holds for every request, so that none would be left";
            return Err(ConfigError::new(path, message));
        }
        Ok(conditions)
    };
    matches.iter().enumerate().map(one).collect()
}

fn client(path: &str, document: &ClientDocument) -> Result<ClientCondition, ConfigError> {
    let known = ["client", "peer", "tcp_peer"];
    let of = match document.of.as_deref() {
        None | Some("client") => AddressOf::Client,
        Some("peer") => AddressOf::Peer,
        Some("tcp_peer") => AddressOf::TcpPeer,
        Some(other) => {
            let hint = nearest(other, known.into_iter());
            let hint = hint.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
            let message = format!(
                "expected `client`, `peer` or `tcp_peer`, found `{}`{hint}",
                shortened(other)
            );
            return Err(ConfigError::new(format!("{path}.of"), message));
        }
    };
    Ok(ClientCondition {
        of,
        networks: network_set(path, &document.networks.0)?,
    })
}

/// How a text of a list is read; the error says what was expected.
type Read<'a, T> = &'a dyn Fn(&str) -> Result<T, String>;

/// The values of one key; an empty list would match nothing, and is taken for a mistake.
fn values<T>(
    path: &str,
    key: &str,
    texts: Option<&OneOrMany>,
    read: Read<'_, T>,
) -> Result<Vec<T>, ConfigError> {
    let Some(OneOrMany(texts)) = texts else {
        return Ok(Vec::new());
    };
    if texts.is_empty() || texts.len() > MATCH_VALUES_MAX {
        let message = format!(
            "expected 1 to {MATCH_VALUES_MAX} values, found {}",
            texts.len()
        );
        return Err(ConfigError::new(format!("{path}.{key}"), message));
    }
    let read_one = |(index, text): (usize, &String)| {
        read(text).map_err(|message| {
            let place = if texts.len() == 1 {
                String::new()
            } else {
                format!("[{index}]")
            };
            ConfigError::new(format!("{path}.{key}{place}"), message)
        })
    };
    texts.iter().enumerate().map(read_one).collect()
}

/// What a header or a parameter must be.
fn wanted(path: &str, document: &WantedDocument, case: Case) -> Result<Wanted, ConfigError> {
    let texts = |key, texts: Option<&OneOrMany>, make: fn(Box<[u8]>) -> TextPattern| {
        values(path, key, texts, &|text| Ok(make(text.as_bytes().into())))
    };
    let patterns = match document {
        WantedDocument::Present(true) => return Ok(Wanted::Present),
        WantedDocument::Present(false) => return Ok(Wanted::Absent),
        WantedDocument::Texts(OneOrMany(list)) => {
            if list.is_empty() {
                return Err(ConfigError::new(path, "expected at least one value"));
            }
            let exactly = |text: &String| TextPattern::Exactly(text.as_bytes().into());
            list.iter().map(exactly).collect()
        }
        WantedDocument::Patterns(document) => {
            let PatternsDocument {
                exact,
                prefix,
                suffix,
                contains,
                regex: regexes,
            } = &**document;
            let mut patterns = texts("exact", exact.as_ref(), TextPattern::Exactly)?;
            patterns.extend(texts("prefix", prefix.as_ref(), TextPattern::Beginning)?);
            patterns.extend(texts("suffix", suffix.as_ref(), TextPattern::Ending)?);
            patterns.extend(texts(
                "contains",
                contains.as_ref(),
                TextPattern::Containing,
            )?);
            patterns.extend(values(path, "regex", regexes.as_ref(), &|text| {
                Ok(TextPattern::Regex(regex(text, case)?))
            })?);
            patterns
        }
    };
    if patterns.is_empty() {
        let message = "expected `exact`, `prefix`, `suffix`, `contains` or `regex`";
        return Err(ConfigError::new(path, message));
    }
    Ok(Wanted::Any(patterns))
}

fn host(text: &str) -> Result<HostPattern, String> {
    let lower = text.trim_end_matches('.').to_ascii_lowercase();
    let (name, any_label) = match lower.strip_prefix("*.") {
        Some(rest) => (rest, true),
        None => (lower.as_str(), false),
    };
    let bracketed = name.starts_with('[') && name.ends_with(']') && !any_label;
    if name.contains(':') && !bracketed {
        return Err(format!(
            "hosts are compared without port: expected a host name, found `{}`",
            shortened(text)
        ));
    }
    let plain = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || b"-._".contains(&byte)
            || (bracketed && b"[]:".contains(&byte))
    };
    if name.is_empty() || !name.bytes().all(plain) || name.starts_with('.') {
        return Err(format!(
            "expected a host name such as www.example.org or *.example.org, found `{}`",
            shortened(text)
        ));
    }
    let name = name.as_bytes().into();
    Ok(if any_label {
        HostPattern::Below(name)
    } else {
        HostPattern::Exactly(name)
    })
}

fn method(text: &str) -> Result<Box<[u8]>, String> {
    if text.is_empty()
        || !text
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte == b'-')
    {
        return Err(format!(
            "expected a method in capitals such as GET, found `{}`",
            shortened(text)
        ));
    }
    Ok(text.as_bytes().into())
}

/// A path, or the beginning of one, in its normal form: any other is never met.
pub(super) fn rooted(text: &str) -> Result<Box<[u8]>, String> {
    if !text.starts_with('/') || text.contains(['?', '#']) {
        return Err(format!(
            "expected a path that begins with `/` and has no query, found `{}`",
            shortened(text)
        ));
    }
    let has_dots = text.split('/').any(|segment| matches!(segment, "." | ".."));
    if has_dots || text.contains("//") {
        return Err(format!(
            "paths are compared without `.`, `..` and empty segments: expected none, found `{}`",
            shortened(text)
        ));
    }
    normal(text, write_normal)
}

fn suffix(text: &str) -> Result<Box<[u8]>, String> {
    if text.is_empty() || text.contains(['?', '#', ';']) || text.contains("//") {
        return Err(format!(
            "expected the end of a path, without query, found `{}`",
            shortened(text)
        ));
    }
    let slash = |part: &[u8], out: &mut Vec<u8>| {
        for (place, piece) in part.split(|byte| *byte == b'/').enumerate() {
            if place > 0 {
                out.push(b'/');
            }
            write_bytes(piece, out)?;
        }
        Ok(())
    };
    normal(text, slash)
}

fn normal(
    text: &str,
    write: impl Fn(&[u8], &mut Vec<u8>) -> Result<(), PathFault>,
) -> Result<Box<[u8]>, String> {
    let mut out = Vec::new();
    match write(text.as_bytes(), &mut out) {
        Ok(()) => Ok(out.into()),
        Err(fault) => Err(format!(
            "no request has such a path: {fault}; found `{}`",
            shortened(text)
        )),
    }
}

/// Reads an expression over bytes, without Unicode's classes.
pub(super) fn regex(text: &str, case: Case) -> Result<Regex, String> {
    let pattern = match case {
        Case::Matters => text.to_owned(),
        Case::Ignored => format!("(?i){text}"),
    };
    RegexBuilder::new(&pattern)
        .unicode(false)
        .size_limit(REGEX_BYTES_MAX)
        .dfa_size_limit(TABLES_BYTES_MAX)
        .build()
        .map_err(|error| {
            format!(
                "expected a regular expression, found `{}`: {error}",
                shortened(text)
            )
        })
}

/// A match as people say it.
pub(super) fn in_words(document: &MatchDocument) -> String {
    let list = |texts: &Option<OneOrMany>, before: &str, after: &str| -> Vec<String> {
        texts
            .iter()
            .flat_map(|texts| &texts.0)
            .map(|text| format!("{before}{}{after}", shortened(text)))
            .collect()
    };
    let mut hosts = list(&document.host, "", "");
    hosts.extend(list(&document.host_regex, "~", ""));
    let mut paths = list(&document.path, "", "");
    paths.extend(list(&document.path_prefix, "", "*"));
    paths.extend(list(&document.path_suffix, "*", ""));
    paths.extend(list(&document.path_regex, "~", ""));
    let kinds = [
        ("host", hosts),
        ("path", paths),
        ("method", list(&document.method, "", "")),
    ];
    let kinds = kinds.iter().filter(|(_, values)| !values.is_empty());
    let mut said: Vec<String> = kinds
        .map(|(kind, values)| format!("{kind} {}", values.join(" or ")))
        .collect();
    for (kind, fields) in [("header", &document.header), ("query", &document.query)] {
        for (name, wanted) in fields.iter().flat_map(|named| &named.0) {
            said.push(format!(
                "{kind} {} {}",
                shortened(name),
                wanted_in_words(wanted)
            ));
        }
    }
    if let Some(client) = &document.client {
        let of = client.of.as_deref().unwrap_or("client");
        let networks = client.networks.0.join(" or ");
        said.push(format!("{} in {}", shortened(of), shortened(&networks)));
    }
    let not = document.not.as_ref().map_or(&[][..], |not| &not.0);
    said.extend(not.iter().map(|not| format!("not ({})", in_words(not))));
    if document.ignore_case == Some(true) {
        said.push("case apart".to_owned());
    }
    said.join(", ")
}

fn wanted_in_words(wanted: &WantedDocument) -> String {
    match wanted {
        WantedDocument::Present(true) => "present".to_owned(),
        WantedDocument::Present(false) => "absent".to_owned(),
        WantedDocument::Texts(texts) => format!("= {}", shortened(&texts.0.join(" or "))),
        WantedDocument::Patterns(document) => {
            let kinds = [
                ("=", &document.exact),
                ("^", &document.prefix),
                ("$", &document.suffix),
                ("*", &document.contains),
                ("~", &document.regex),
            ];
            let said = kinds.iter().flat_map(|(sign, texts)| {
                let texts = texts.iter().flat_map(|texts| &texts.0);
                texts.map(move |text| format!("{sign} {}", shortened(text)))
            });
            said.collect::<Vec<_>>().join(" or ")
        }
    }
}
