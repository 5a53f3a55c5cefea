//! Pools and their servers.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::addresses::{server_address, server_name};
use super::document::{KeepaliveDocument, Named, PoolDocument, ServerDocument, TimeoutsDocument};
use super::hashing::hash_key;
use super::health::health;
use super::left_to_envoy::{Chooser, chooser};
use super::limits::queue;
use super::names::check_name;
use super::proxy_protocol::proxy_version;
use super::retry_on::retry_on;
use super::server_life::{panic_below, passive, server_limits};
use super::units::parse_duration;
use super::unserved::{NOT_SERVED, refuse};
use super::{
    AdminState, ConfigError, Keepalive, NamedServer, POOLS_MAX, PoolConfig, PoolTimeouts,
    SERVERS_MAX, ServerConfig, Tier,
};
use crate::balance::Algorithm;
use crate::contract::ENDPOINTS_MAX;
use crate::upstream::id_hash;

/// Servers tried after the first, unless stated.
const RETRIES_DEFAULT: u8 = 2;
/// How often names are resolved, unless stated; HAProxy's `hold valid` is 10 s, nginx keeps to the answer's TTL.
const RESOLVE_DEFAULT: Duration = Duration::from_secs(30);
const RESOLVE_MIN: Duration = Duration::from_secs(1);
/// Percent of an equal share that bound a server's load: with 100 or less there would not be room for all.
const BALANCE_FACTORS: RangeInclusive<u16> = 101..=10_000;
/// Most connections kept per worker and endpoint.
const KEEPALIVE_MAX: u64 = 65_535;

/// The pools, in the order of their names.
pub(super) fn pools(document: &Named<PoolDocument>) -> Result<Vec<PoolConfig>, ConfigError> {
    if document.0.len() > POOLS_MAX {
        return Err(ConfigError::new(
            "pools",
            format!(
                "expected at most {POOLS_MAX} pools, found {}",
                document.0.len()
            ),
        ));
    }
    document
        .0
        .iter()
        .map(|(name, pool)| one_pool(name, pool))
        .collect()
}

fn one_pool(name: &str, document: &PoolDocument) -> Result<PoolConfig, ConfigError> {
    let path = format!("pools.{name}");
    check_name(name).map_err(|message| ConfigError::new(&path, message))?;
    refuse_what_is_not_served(&path, document)?;
    let chooser = chooser(&path, document)?;
    let algorithm = match &document.balance {
        None => Algorithm::default(),
        Some(_) if chooser == Chooser::Envoy => Algorithm::default(),
        Some(text) => Algorithm::from_name(text)
            .map_err(|message| ConfigError::new(format!("{path}.balance"), message))?,
    };
    let (servers, named) = servers(&path, document, algorithm)?;
    let retries = match document.retries {
        None => RETRIES_DEFAULT,
        Some(retries) => u8::try_from(retries)
            .ok()
            .filter(|retries| usize::from(*retries) < ENDPOINTS_MAX)
            .ok_or_else(|| {
                ConfigError::new(
                    format!("{path}.retries"),
                    format!("expected 0 to {}, found {retries}", ENDPOINTS_MAX - 1),
                )
            })?,
    };
    Ok(PoolConfig {
        name: name.to_owned(),
        chooser,
        algorithm,
        servers,
        named,
        resolve: match &document.resolve {
            None => RESOLVE_DEFAULT,
            Some(text) => at_least(&format!("{path}.resolve"), text, RESOLVE_MIN)?,
        },
        hash_key: hash_key(&path, document, algorithm)?,
        hash_balance_factor: hash_balance_factor(&path, document, algorithm)?,
        retries,
        retry_on: retry_on(&path, document)?,
        panic_below: panic_below(&path, document)?,
        health: health(&path, document)?,
        passive: passive(&path, document.passive.as_ref())?,
        queue: queue(&path, document.queue.as_ref())?,
        keepalive: keepalive(&format!("{path}.keepalive"), document.keepalive.as_ref())?,
        timeouts: timeouts(&format!("{path}.timeouts"), document.timeouts.as_ref())?,
        proxy_protocol: proxy_version(&path, document.proxy_protocol.as_deref())?,
    })
}

/// HAProxy's `hash-balance-factor`: percent of an equal share, 0 for none.
fn hash_balance_factor(
    path: &str,
    document: &PoolDocument,
    algorithm: Algorithm,
) -> Result<Option<u16>, ConfigError> {
    let path = format!("{path}.hash_balance_factor");
    let Some(percent) = document.hash_balance_factor.filter(|percent| *percent > 0) else {
        return Ok(None);
    };
    if !algorithm.allows_bounded_load() {
        let method = algorithm.name();
        let message = format!("`{method}` hashes no key, so there is nothing whose load to bound");
        return Err(ConfigError::new(path, message));
    }
    u16::try_from(percent)
        .ok()
        .filter(|percent| BALANCE_FACTORS.contains(percent))
        .map(Some)
        .ok_or_else(|| {
            let (least, most) = (BALANCE_FACTORS.start(), BALANCE_FACTORS.end());
            let message =
                format!("expected 0 for no bound, or {least} to {most} percent, found {percent}");
            ConfigError::new(path, message)
        })
}

fn refuse_what_is_not_served(path: &str, pool: &PoolDocument) -> Result<(), ConfigError> {
    match pool.mode.as_deref() {
        None | Some("http") => {}
        Some("tcp") => {
            return Err(ConfigError::new(
                format!("{path}.mode"),
                format!("`tcp` is {NOT_SERVED}"),
            ));
        }
        Some(other) => {
            return Err(ConfigError::new(
                format!("{path}.mode"),
                format!("expected http or tcp, found `{other}`"),
            ));
        }
    }
    let keys = [
        ("sticky", &pool.sticky),
        ("protocol", &pool.protocol),
        ("role", &pool.role),
        ("greeting_timeout", &pool.greeting_timeout),
        ("writer_wait", &pool.writer_wait),
        ("on_down", &pool.on_down),
    ];
    keys.into_iter()
        .try_for_each(|(key, value)| refuse(&format!("{path}.{key}"), value.as_ref()))
}

fn servers(
    path: &str,
    pool: &PoolDocument,
    algorithm: Algorithm,
) -> Result<(Vec<ServerConfig>, Vec<NamedServer>), ConfigError> {
    let path = format!("{path}.servers");
    let documents = pool.servers.as_deref().unwrap_or_default();
    if documents.is_empty() {
        return Err(ConfigError::new(path, "expected at least one server"));
    }
    if documents.len() > SERVERS_MAX {
        return Err(ConfigError::new(
            path,
            format!(
                "expected at most {SERVERS_MAX} servers, found {}",
                documents.len()
            ),
        ));
    }
    let mut servers = Vec::with_capacity(documents.len());
    let mut named = Vec::new();
    let (mut ids, mut hashes, mut addresses) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (index, document) in documents.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let server = one_server(&path, document, algorithm)?;
        let name = server_name(&document.address);
        if name.is_none() && !addresses.insert(server.address) {
            return Err(ConfigError::new(
                format!("{path}.address"),
                format!("`{}` is in this pool twice", server.address),
            ));
        }
        // Other VMs' load is found by the hash of the id: two ids with one hash would be one server to them.
        if !ids.insert(server.id.clone()) || !hashes.insert(id_hash(&server.id)) {
            return Err(ConfigError::new(
                format!("{path}.id"),
                format!("`{}` is in this pool twice", server.id),
            ));
        }
        match name {
            Some((host, _port)) => named.push(NamedServer { host, server }),
            None => servers.push(server),
        }
    }
    let mut all = servers
        .iter()
        .chain(named.iter().map(|named| &named.server));
    if all.all(|server| server.tier == Tier::Backup) {
        return Err(ConfigError::new(
            path,
            "expected at least one server that is not a backup",
        ));
    }
    Ok((servers, named))
}

fn one_server(
    path: &str,
    document: &ServerDocument,
    algorithm: Algorithm,
) -> Result<ServerConfig, ConfigError> {
    let address = match server_name(&document.address) {
        Some((_host, port)) => SocketAddr::from(([0, 0, 0, 0], port)),
        None => server_address(&document.address)
            .map_err(|message| ConfigError::new(format!("{path}.address"), message))?,
    };
    let id = match &document.id {
        None if address.ip().is_unspecified() => document.address.to_ascii_lowercase(),
        None => address.to_string(),
        Some(id) => {
            check_name(id).map_err(|message| ConfigError::new(format!("{path}.id"), message))?;
            id.clone()
        }
    };
    let weight = match document.weight {
        None => 1,
        Some(0) => {
            let message = "expected 1 to 65535, found 0; to take a server out use `down: true`";
            return Err(ConfigError::new(format!("{path}.weight"), message));
        }
        Some(weight) => u16::try_from(weight).map_err(|_| {
            ConfigError::new(
                format!("{path}.weight"),
                format!("expected 1 to 65535, found {weight}"),
            )
        })?,
    };
    let tier = if document.backup == Some(true) {
        Tier::Backup
    } else {
        Tier::Primary
    };
    if tier == Tier::Backup && !algorithm.allows_backup() {
        let message = format!(
            "`{}` knows no backup servers: a key has one place, and one only",
            algorithm.name()
        );
        return Err(ConfigError::new(format!("{path}.backup"), message));
    }
    if weight != 1 && !algorithm.allows_weights() {
        let message = format!(
            "`{}` knows no weights: servers are taken in the order in which they stand here",
            algorithm.name()
        );
        return Err(ConfigError::new(format!("{path}.weight"), message));
    }
    let admin = if document.down == Some(true) {
        AdminState::Down
    } else {
        AdminState::Ready
    };
    Ok(ServerConfig {
        id,
        address,
        weight,
        tier,
        admin,
        limits: server_limits(path, document, algorithm)?,
    })
}

fn keepalive(path: &str, document: Option<&KeepaliveDocument>) -> Result<Keepalive, ConfigError> {
    let mut keepalive = Keepalive::default();
    let Some(document) = document else {
        return Ok(keepalive);
    };
    if let Some(per_worker) = document.per_worker {
        let kept = u32::try_from(per_worker)
            .ok()
            .filter(|_| per_worker <= KEEPALIVE_MAX);
        keepalive.per_worker = kept.ok_or_else(|| {
            ConfigError::new(
                format!("{path}.per_worker"),
                format!("expected 0 to {KEEPALIVE_MAX}, found {per_worker}"),
            )
        })?;
    }
    if let Some(idle) = &document.idle {
        keepalive.idle = positive(&format!("{path}.idle"), idle)?;
    }
    if let Some(requests) = document.requests {
        let served = u32::try_from(requests)
            .ok()
            .filter(|requests| *requests > 0);
        keepalive.requests = served.ok_or_else(|| {
            ConfigError::new(
                format!("{path}.requests"),
                format!("expected 1 to {}, found {requests}", u32::MAX),
            )
        })?;
    }
    Ok(keepalive)
}

fn timeouts(path: &str, document: Option<&TimeoutsDocument>) -> Result<PoolTimeouts, ConfigError> {
    let Some(document) = document else {
        return Ok(PoolTimeouts::default());
    };
    let read = |key: &str, text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => positive(&format!("{path}.{key}"), text).map(Some),
    };
    Ok(PoolTimeouts {
        connect: read("connect", &document.connect)?,
        response: read("response", &document.response)?,
    })
}

fn at_least(path: &str, text: &str, least: Duration) -> Result<Duration, ConfigError> {
    let duration = positive(path, text)?;
    if duration < least {
        let message = format!("expected at least {least:?}, found {duration:?}");
        return Err(ConfigError::new(path, message));
    }
    Ok(duration)
}

fn positive(path: &str, text: &str) -> Result<Duration, ConfigError> {
    match parse_duration(text) {
        Ok(duration) if duration.is_zero() => Err(ConfigError::new(path, "expected more than 0")),
        Ok(duration) => Ok(duration),
        Err(message) => Err(ConfigError::new(path, message)),
    }
}
