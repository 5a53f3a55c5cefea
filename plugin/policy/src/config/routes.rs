//! `routes`: which requests go to which pool.

use regex_lite::{Regex, RegexBuilder};

use super::document::{MatchDocument, OneOrMany, RouteDocument};
use super::names::{nearest, shortened};
use super::unserved::NOT_SERVED;
use super::{ConfigError, MATCH_VALUES_MAX, PoolConfig, REGEXES_MAX, ROUTES_MAX, RouteSummary};
use crate::routing::{Conditions, HostPattern, Route, Router};

/// Largest compiled expression, bytes: its size also bounds the time a match takes per byte of path.
const REGEX_BYTES_MAX: usize = 64 << 10;

/// Reads the routes; the second part tells them in words.
pub(super) fn routes(
    documents: &[RouteDocument],
    pools: &[PoolConfig],
) -> Result<(Router, Vec<RouteSummary>), ConfigError> {
    if documents.len() > ROUTES_MAX {
        return Err(ConfigError::new(
            "routes",
            format!(
                "expected at most {ROUTES_MAX} routes, found {}",
                documents.len()
            ),
        ));
    }
    let mut routes = Vec::with_capacity(documents.len());
    let mut summaries = Vec::with_capacity(documents.len());
    for (index, document) in documents.iter().enumerate() {
        let path = format!("routes[{index}]");
        let pool = pools
            .iter()
            .position(|pool| pool.name == document.pool)
            .ok_or_else(|| {
                let hint = nearest(&document.pool, pools.iter().map(|pool| pool.name.as_str()));
                let hint = hint.map_or(String::new(), |name| format!("; did you mean `{name}`?"));
                ConfigError::new(
                    format!("{path}.pool"),
                    format!("no pool is named `{}`{hint}", shortened(&document.pool)),
                )
            })?;
        let conditions = match &document.condition {
            None => Conditions::default(),
            Some(condition) => conditions(&format!("{path}.match"), condition)?,
        };
        let condition = document.condition.as_ref().map_or(String::new(), in_words);
        summaries.push(RouteSummary {
            condition,
            pool: document.pool.clone(),
        });
        routes.push(Route { conditions, pool });
    }
    let count = |of: fn(&Conditions) -> usize| {
        routes
            .iter()
            .map(|route| of(&route.conditions))
            .sum::<usize>()
    };
    let bounds = [
        (
            "values in all matches",
            count(Conditions::values),
            MATCH_VALUES_MAX,
        ),
        (
            "regular expressions",
            count(|conditions| conditions.path_regexes.len()),
            REGEXES_MAX,
        ),
    ];
    for (what, found, most) in bounds {
        if found > most {
            return Err(ConfigError::new(
                "routes",
                format!("expected at most {most} {what}, found {found}"),
            ));
        }
    }
    Ok((Router::new(&routes), summaries))
}

fn conditions(path: &str, document: &MatchDocument) -> Result<Conditions, ConfigError> {
    let keys = [
        ("header", &document.header),
        ("query", &document.query),
        ("client", &document.client),
        ("not", &document.not),
    ];
    for (key, value) in keys {
        if value.is_some() {
            return Err(ConfigError::new(format!("{path}.{key}"), NOT_SERVED));
        }
    }
    Ok(Conditions {
        hosts: values(path, "host", document.host.as_ref(), host)?,
        methods: values(path, "method", document.method.as_ref(), method)?,
        paths: values(path, "path", document.path.as_ref(), rooted)?,
        path_prefixes: values(path, "path_prefix", document.path_prefix.as_ref(), rooted)?,
        path_suffixes: values(path, "path_suffix", document.path_suffix.as_ref(), suffix)?,
        path_regexes: values(path, "path_regex", document.path_regex.as_ref(), regex)?,
    })
}

/// The values of one key; an empty list would match nothing, and is taken for a mistake.
fn values<T>(
    path: &str,
    key: &str,
    texts: Option<&OneOrMany>,
    read: fn(&str) -> Result<T, String>,
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

fn rooted(text: &str) -> Result<Box<[u8]>, String> {
    if !text.starts_with('/') || text.contains(['?', '#']) {
        return Err(format!(
            "expected a path that begins with `/` and has no query, found `{}`",
            shortened(text)
        ));
    }
    Ok(text.as_bytes().into())
}

fn suffix(text: &str) -> Result<Box<[u8]>, String> {
    if text.is_empty() || text.contains(['?', '#']) {
        return Err(format!(
            "expected the end of a path, without query, found `{}`",
            shortened(text)
        ));
    }
    Ok(text.as_bytes().into())
}

fn regex(text: &str) -> Result<Regex, String> {
    RegexBuilder::new(text)
        .size_limit(REGEX_BYTES_MAX)
        .build()
        .map_err(|error| {
            format!(
                "expected a regular expression, found `{}`: {error}",
                shortened(text)
            )
        })
}

/// A match as people say it.
fn in_words(document: &MatchDocument) -> String {
    let list = |texts: &Option<OneOrMany>, before: &str, after: &str| -> Vec<String> {
        texts
            .iter()
            .flat_map(|texts| &texts.0)
            .map(|text| format!("{before}{}{after}", shortened(text)))
            .collect()
    };
    let mut paths = list(&document.path, "", "");
    paths.extend(list(&document.path_prefix, "", "*"));
    paths.extend(list(&document.path_suffix, "*", ""));
    paths.extend(list(&document.path_regex, "~", ""));
    let kinds = [
        ("host", list(&document.host, "", "")),
        ("path", paths),
        ("method", list(&document.method, "", "")),
    ];
    let kinds = kinds.iter().filter(|(_, values)| !values.is_empty());
    kinds
        .map(|(kind, values)| format!("{kind} {}", values.join(" or ")))
        .collect::<Vec<_>>()
        .join(", ")
}
