//! The `policy` subtree of the configuration file: as written ([`Document`]) and as valid ([`Config`]).
//!
//! Parse, don't validate: whoever holds a [`Config`] need not check anything again. Both the filter and the sidecar read the
//! same subtree through here, so that they cannot disagree about what it says. Every error names the key by its path, what was
//! expected there and what was found; a key that is understood but not served yet is refused, never ignored.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use thiserror::Error;

use crate::balance::Algorithm;
use crate::exchange::{HashKey, HeaderRules, RouteRule, Telling};
use crate::limits::Limit;
use crate::routing::Router;

pub use crate::client_ip::RealIp;

pub mod units;

mod addresses;
mod document;
mod filter;
mod hashing;
mod health;
mod left_to_envoy;
mod limits;
mod matches;
mod names;
mod pools;
mod proxy_protocol;
mod real_ip;
mod request_headers;
mod request_limits;
mod retry_on;
mod route_document;
mod routes;
mod server_life;
mod statuses;
mod unserved;

pub use addresses::server_address as parse_server_address;
pub use document::Document;
pub use filter::{FilterConfig, ListenerIdentity, Mode, filter_configuration};
pub use health::{BridgeProbe, HealthConfig, HttpProbe, Probe};
pub use left_to_envoy::Chooser;
pub use limits::QueueConfig;
pub use names::{check_name, nearest};
pub use proxy_protocol::ProxyVersion;
pub use real_ip::network_set;
pub use retry_on::RetryOn;
pub use server_life::{PassiveConfig, ServerLimits};
pub use statuses::StatusSet;

/// Most pools of one configuration.
pub const POOLS_MAX: usize = 1_024;
/// Most servers of one pool.
pub const SERVERS_MAX: usize = crate::balance::ServerMask::SERVERS_MAX;
/// Most routes of one configuration; the width of the route sets.
pub const ROUTES_MAX: usize = crate::routing::ROUTES_MAX;
/// Most values (hosts, prefixes, …) of the matches of all routes together.
pub const MATCH_VALUES_MAX: usize = 16_384;
/// Most regular expressions of all routes together.
pub const REGEXES_MAX: usize = 128;
/// Most trusted networks.
pub const TRUSTED_MAX: usize = 4_096;
/// Most headers in each list of `request_headers` and `response_headers`.
pub const HEADER_SETS_MAX: usize = 64;
/// Most `limits`.
pub const LIMITS_MAX: usize = 64;
/// Most keys of all their tables together: what hosts keep for us is bounded.
pub const TABLES_MAX: u64 = 262_144;
/// Largest configuration text of a filter, bytes.
pub const CONFIGURATION_BYTES_MAX: usize = 8 << 20;

/// What is wrong with a configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}{message}", prefix(path))]
pub struct ConfigError {
    /// Path of the key from the root of what was parsed: `pools.shop.servers[0].weight`. Empty: the root itself.
    pub path: String,
    /// What was expected, and what was found.
    pub message: String,
}

impl ConfigError {
    pub(crate) fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
        }
    }

    /// The same error seen from further out: `within("policy")` makes `policy.pools.shop` of `pools.shop`.
    #[must_use]
    pub fn within(mut self, outer: &str) -> Self {
        self.path = if self.path.is_empty() {
            outer.to_owned()
        } else if self.path.starts_with('[') {
            format!("{outer}{}", self.path)
        } else {
            format!("{outer}.{}", self.path)
        };
        self
    }
}

fn prefix(path: &str) -> String {
    if path.is_empty() {
        String::new()
    } else {
        format!("{path}: ")
    }
}

/// A valid `policy` subtree.
#[derive(Debug, Clone)]
pub struct Config {
    /// Whose word on the client's address is taken; `None`: nobody's.
    pub real_ip: Option<RealIp>,
    /// What servers are told of a request.
    pub telling: Telling,
    /// What becomes of the headers of responses.
    pub response_headers: HeaderRules,
    /// Which route a request takes.
    pub router: Router,
    /// What the routes do, by their index.
    pub rules: Vec<RouteRule>,
    /// Limits by name, in the order of their names.
    pub limits: Vec<Limit>,
    /// The routes in order, in words, for people (`evenkeel check`).
    pub routes: Vec<RouteSummary>,
    /// Pools by name, in the order of their names: an index into this is a pool's id for this configuration's life.
    pub pools: Vec<PoolConfig>,
}

/// One route in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSummary {
    /// Such as `host www.example.org or *.cdn.org, path /static* or *.css`; empty: every request.
    pub condition: String,
    /// What becomes of the request, such as `pool shop` or `deny 403`.
    pub action: String,
    /// Name of the pool; empty if it goes to none.
    pub pool: String,
}

/// One pool of servers.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    pub name: String,
    /// Who chooses: if not the filter, then the method counts for nothing.
    pub chooser: Chooser,
    pub algorithm: Algorithm,
    /// In the order of the file; at most [`SERVERS_MAX`]. With [`PoolConfig::named`] at least one,
    /// and at least one of them primary.
    pub servers: Vec<ServerConfig>,
    /// Servers whose addresses a name of DNS has; each address becomes one server.
    pub named: Vec<NamedServer>,
    /// How often their names are resolved.
    pub resolve: Duration,
    /// What the method hashes; `None` if it hashes no key.
    pub hash_key: Option<HashKey>,
    /// Most load of a server in percent of its share (101 and more), under methods that hash; `None`: no bound.
    pub hash_balance_factor: Option<u16>,
    /// Further servers to try after the first: 0–7.
    pub retries: u8,
    /// What must have happened for that.
    pub retry_on: RetryOn,
    /// Percent of available servers under which all are used; 0: never.
    pub panic_below: u8,
    /// Active checks; `None`: nobody asks, and servers are up.
    pub health: Option<HealthConfig>,
    /// Ejection of those that fail again and again.
    pub passive: Option<PassiveConfig>,
    /// Waiting while every server is full; `None`: nobody waits.
    pub queue: Option<QueueConfig>,
    pub keepalive: Keepalive,
    pub timeouts: PoolTimeouts,
    /// How its servers are told whose connection it is; `None`: they are not.
    pub proxy_protocol: Option<ProxyVersion>,
}

/// One server of a pool.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Stable name across reloads; the configured address unless stated.
    pub id: String,
    pub address: SocketAddr,
    /// 1–65535.
    pub weight: u16,
    pub tier: Tier,
    pub admin: AdminState,
    pub limits: ServerLimits,
}

/// Servers under one name.
#[derive(Debug, Clone)]
pub struct NamedServer {
    /// A name of DNS, in lower case.
    pub host: String,
    /// What all of them are alike in: [`ServerConfig::id`] is the beginning of their ids, and of [`ServerConfig::address`] only the
    /// port counts.
    pub server: ServerConfig,
}

impl NamedServer {
    /// The server with one of the addresses that the name has: `id#ip`.
    pub fn at(&self, ip: IpAddr) -> ServerConfig {
        ServerConfig {
            id: format!("{}#{ip}", self.server.id),
            address: SocketAddr::new(ip, self.server.address.port()),
            ..self.server.clone()
        }
    }
}

/// When a server is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    Primary,
    /// Only while no primary server is eligible.
    Backup,
}

/// Whether a server takes requests at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminState {
    Ready,
    /// Takes none, but keeps its place (hash slots, ids).
    Down,
}

/// Idle connections to servers, per worker and endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    pub per_worker: u32,
    pub idle: Duration,
    pub requests: u32,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self {
            per_worker: 64,
            idle: Duration::from_secs(60),
            requests: 10_000,
        }
    }
}

/// A pool's own timeouts, over the global ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolTimeouts {
    pub connect: Option<Duration>,
    pub response: Option<Duration>,
}

impl Config {
    /// Makes a valid configuration of what was written, or says what is wrong first.
    pub fn from_document(document: &Document) -> Result<Self, ConfigError> {
        let pools = pools::pools(&document.pools)?;
        let limits = request_limits::limits(&document.limits)?;
        let names: Vec<&str> = limits.iter().map(|limit| limit.name.as_str()).collect();
        let routes = routes::routes(&document.routes, &pools, &names)?;
        let response_headers = document.response_headers.as_ref();
        Ok(Self {
            real_ip: real_ip::real_ip(document.real_ip.as_ref())?,
            telling: request_headers::telling(document.request_headers.as_ref())?,
            response_headers: request_headers::response_headers(response_headers)?,
            router: routes.router,
            rules: routes.rules,
            limits,
            routes: routes.summaries,
            pools,
        })
    }

    /// A pool's index by its name.
    pub fn pool_index(&self, name: &str) -> Option<usize> {
        self.pools
            .binary_search_by(|pool| pool.name.as_str().cmp(name))
            .ok()
    }
}

impl TryFrom<&Document> for Config {
    type Error = ConfigError;

    fn try_from(document: &Document) -> Result<Self, ConfigError> {
        Self::from_document(document)
    }
}

#[cfg(test)]
mod life_tests;
#[cfg(test)]
mod method_tests;
#[cfg(test)]
mod route_tests;
#[cfg(test)]
mod tests;
