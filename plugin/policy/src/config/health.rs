//! `health`: how servers are asked whether they are well.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::ConfigError;
use super::document::{HealthDocument, MysqlDocument, PoolDocument, RedisDocument};
use super::server_life::{duration, number};
use super::statuses::{StatusSet, statuses};

const INTERVAL: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(1);
/// A check more often than this would be load, and finer than the clock that starts it.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
const INTERVAL_MAX: Duration = Duration::from_secs(86_400);
/// Longest text of a path, host, query and the like, bytes.
const TEXT_BYTES_MAX: usize = 4_096;
/// Most checks in a row that a verdict may need.
const ROW_MAX: u16 = 100;

/// Active checks of a pool's servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthConfig {
    pub probe: Probe,
    /// Time from one check of a server to the next.
    pub interval: Duration,
    /// The same while its state is about to change; at most the interval.
    pub fast_interval: Duration,
    /// Most time for one check; at most the interval.
    pub timeout: Duration,
    /// Passed checks in a row that bring a server back.
    pub rise: u16,
    /// Failed checks in a row that take it out.
    pub fall: u16,
}

/// What a check asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// By a call to `<pool>.check`.
    Http(HttpProbe),
    /// By the bridge, because a filter cannot speak it.
    Bridge(BridgeProbe),
}

/// One HTTP request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpProbe {
    pub method: String,
    pub path: String,
    /// `None`: the server's address.
    pub host: Option<String>,
    pub expect: StatusSet,
    /// What the answer's body must contain; empty: anything does.
    pub body: String,
}

/// One request to the bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeProbe {
    /// `tcp`, `mysql` or `redis`.
    pub kind: &'static str,
    /// As the bridge reads them.
    pub options: Map<String, Value>,
}

pub(super) fn health(path: &str, pool: &PoolDocument) -> Result<Option<HealthConfig>, ConfigError> {
    let Some(document) = &pool.health else {
        return Ok(None);
    };
    let path = format!("{path}.health");
    let interval = duration(&path, "interval", document.interval.as_deref(), INTERVAL)?;
    if !(INTERVAL_MIN..=INTERVAL_MAX).contains(&interval) {
        return Err(ConfigError::new(
            format!("{path}.interval"),
            "expected 100ms to 24h",
        ));
    }
    let at_most_interval = |key: &str, text: Option<&str>, default: Duration, least: Duration| {
        let read = duration(&path, key, text, default.min(interval))?;
        if read < least || read > interval {
            let least = least.as_millis();
            let message =
                format!("expected {least}ms to `interval`: checks of a server follow each other");
            return Err(ConfigError::new(format!("{path}.{key}"), message));
        }
        Ok(read)
    };
    let millisecond = Duration::from_millis(1);
    Ok(Some(HealthConfig {
        probe: probe(&path, document)?,
        interval,
        fast_interval: at_most_interval(
            "fast_interval",
            document.fast_interval.as_deref(),
            interval,
            INTERVAL_MIN,
        )?,
        timeout: at_most_interval("timeout", document.timeout.as_deref(), TIMEOUT, millisecond)?,
        rise: number(&path, "rise", document.rise, 2, 1..=ROW_MAX)?,
        fall: number(&path, "fall", document.fall, 3, 1..=ROW_MAX)?,
    }))
}

fn probe(path: &str, document: &HealthDocument) -> Result<Probe, ConfigError> {
    let kinds = [
        ("tcp", document.tcp.is_some()),
        ("mysql", document.mysql.is_some()),
        ("redis", document.redis.is_some()),
    ];
    let mut named = kinds
        .iter()
        .filter(|(_, named)| *named)
        .map(|(kind, _)| *kind);
    let kind = named.next();
    if let (Some(first), Some(second)) = (kind, named.next()) {
        let message = format!("a server has one kind of check, and `{first}` stands here too");
        return Err(ConfigError::new(format!("{path}.{second}"), message));
    }
    let http_keys = [
        ("path", document.path.is_some()),
        ("method", document.method.is_some()),
        ("host", document.host.is_some()),
        ("expect", document.expect.is_some()),
        ("body", document.body.is_some()),
    ];
    if let Some(kind) = kind
        && let Some((key, _)) = http_keys.iter().find(|(_, named)| *named)
    {
        let message = format!("only a check by HTTP knows `{key}`, and `{kind}` stands beside it");
        return Err(ConfigError::new(format!("{path}.{key}"), message));
    }
    match (kind, &document.mysql, &document.redis) {
        (None, ..) => http(path, document).map(Probe::Http),
        (_, Some(mysql), _) => bridge("mysql", mysql_options(&format!("{path}.mysql"), mysql)?),
        (_, _, Some(redis)) => bridge("redis", redis_options(&format!("{path}.redis"), redis)?),
        _ => bridge("tcp", Map::new()),
    }
}

fn bridge(kind: &'static str, options: Map<String, Value>) -> Result<Probe, ConfigError> {
    Ok(Probe::Bridge(BridgeProbe { kind, options }))
}

fn http(path: &str, document: &HealthDocument) -> Result<HttpProbe, ConfigError> {
    let wrong =
        |key: &str, message: String| Err(ConfigError::new(format!("{path}.{key}"), message));
    let target = document.path.as_deref().unwrap_or("/");
    let plain = |text: &str| {
        text.len() <= TEXT_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if !target.starts_with('/') || !plain(target) || target.contains('#') {
        return wrong(
            "path",
            format!("expected a path that begins with `/`, without spaces, found `{target}`"),
        );
    }
    let method = document.method.as_deref().unwrap_or("GET");
    if !["GET", "HEAD", "OPTIONS"].contains(&method) {
        return wrong(
            "method",
            format!("expected GET, HEAD or OPTIONS, found `{method}`"),
        );
    }
    let host = document.host.clone();
    if let Some(host) = &host
        && (host.is_empty() || !plain(host) || host.contains(['/', '@', ',', '?', '#']))
    {
        return wrong(
            "host",
            format!("expected the name of a host, found `{host}`"),
        );
    }
    let body = document.body.clone().unwrap_or_default();
    if !body.is_empty() && method == "HEAD" {
        return wrong(
            "body",
            "the answer to `method: HEAD` has no body".to_owned(),
        );
    }
    if body.len() > TEXT_BYTES_MAX {
        return wrong("body", format!("expected at most {TEXT_BYTES_MAX} bytes"));
    }
    let expect = match &document.expect {
        None => StatusSet::range(200, 399),
        Some(list) if list.is_empty() => {
            return wrong("expect", "expected at least one status".to_owned());
        }
        Some(list) => statuses(&format!("{path}.expect"), list)?,
    };
    Ok(HttpProbe {
        method: method.to_owned(),
        path: target.to_owned(),
        host,
        expect,
        body,
    })
}

fn mysql_options(path: &str, document: &MysqlDocument) -> Result<Map<String, Value>, ConfigError> {
    if document.query.is_some() != document.equals.is_some() {
        let message =
            "`query` and `equals` belong together: what is asked, and what the first value must be";
        return Err(ConfigError::new(path, message));
    }
    texts(
        path,
        [
            ("user", Some(&document.user)),
            ("password_file", document.password_file.as_ref()),
            ("query", document.query.as_ref()),
            ("equals", document.equals.as_ref()),
        ],
    )
}

fn redis_options(path: &str, document: &RedisDocument) -> Result<Map<String, Value>, ConfigError> {
    if let Some(role) = &document.role
        && !["master", "replica"].contains(&role.as_str())
    {
        let message = format!("expected master or replica, found `{role}`");
        return Err(ConfigError::new(format!("{path}.role"), message));
    }
    texts(
        path,
        [
            ("password_file", document.password_file.as_ref()),
            ("role", document.role.as_ref()),
        ],
    )
}

fn texts<const N: usize>(
    path: &str,
    keys: [(&str, Option<&String>); N],
) -> Result<Map<String, Value>, ConfigError> {
    let mut options = Map::new();
    for (key, text) in keys {
        let Some(text) = text else { continue };
        if text.len() > TEXT_BYTES_MAX {
            let message = format!("expected at most {TEXT_BYTES_MAX} bytes");
            return Err(ConfigError::new(format!("{path}.{key}"), message));
        }
        options.insert(key.to_owned(), json!(text));
    }
    Ok(options)
}
