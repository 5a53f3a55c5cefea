//! The `policy` subtree of the configuration file: as written ([`Document`]) and as valid ([`Config`]).

use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;

/// What is wrong with a configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{path}: {message}")]
pub struct ConfigError {
    /// Path of the key from the root of what was parsed: `pools.shop.servers[0].weight`.
    pub path: String,
    /// What was expected, and what was found.
    pub message: String,
}

/// A valid `policy` subtree.
#[derive(Debug, Clone)]
pub struct Config {
    pub real_ip: Option<RealIp>,
    /// Pools by name, in the order of their names: an index into this is a pool's id for this configuration's life.
    pub pools: Vec<PoolConfig>,
    // routes, request_headers: added by the routing and exchange modules
}

/// Whose word on the client's address is taken.
#[derive(Debug, Clone)]
pub struct RealIp {}

/// One pool of servers.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    pub name: String,
    pub servers: Vec<ServerConfig>,
    /// Further servers to try after the first: 0–7.
    pub retries: u8,
    pub keepalive: Keepalive,
    pub timeouts: PoolTimeouts,
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
#[derive(Debug, Clone, Copy)]
pub struct Keepalive {
    pub per_worker: u32,
    pub idle: Duration,
    pub requests: u32,
}

/// A pool's own timeouts, over the global ones.
#[derive(Debug, Clone, Copy, Default)]
pub struct PoolTimeouts {
    pub connect: Option<Duration>,
    pub response: Option<Duration>,
}
