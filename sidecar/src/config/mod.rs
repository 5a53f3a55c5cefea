//! The configuration file: as written ([`document`]), where each key stands ([`locate`]), and as valid ([`Config`]).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A valid configuration, ready to run.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it came from, for messages.
    pub path: PathBuf,
    pub listeners: Vec<Listener>,
    pub admin: Option<SocketAddr>,
    /// Threads; at least 1.
    pub workers: usize,
    pub timeouts: Timeouts,
    pub limits: Limits,
    pub access_log: Option<AccessLog>,
    /// Filters that run before evenkeel's own, in order.
    pub filters: Vec<ExtraFilter>,
    /// The valid policy: pools, servers, timeouts.
    pub policy: evenkeel_policy::config::Config,
    /// The file's `policy` subtree as JSON, unchanged: what the filter is configured with.
    pub policy_json: serde_json::Value,
}

/// Where requests come in.
#[derive(Debug, Clone)]
pub struct Listener {
    pub name: String,
    pub bind: SocketAddr,
    pub accept: Accept,
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// The certificate and key files, for `evenkeel envoy`.
    pub tls_files: Option<TlsFiles>,
}

#[derive(Debug, Clone)]
pub struct TlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// How connections come to workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accept {
    /// Each worker has its own listening socket; the kernel spreads connections by hash.
    Reuseport,
    /// One accepts, and hands each connection to the worker with the fewest open.
    Balanced,
}

/// Defaults and meaning: DESIGN section 4.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    pub client_header: Duration,
    pub connect: Duration,
    /// Longest silence between two reads from the server.
    pub response: Duration,
    pub idle: Duration,
    pub tunnel: Duration,
    pub drain: Duration,
}

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Open client connections of the process.
    pub connections: usize,
    pub header_bytes: usize,
    pub headers: usize,
    /// Largest request body; 0 = no limit.
    pub body_bytes: u64,
}

#[derive(Debug, Clone)]
pub struct AccessLog {
    pub target: LogTarget,
    pub format: LogFormat,
}

#[derive(Debug, Clone)]
pub enum LogTarget {
    Stdout,
    File(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Combined,
}

/// A proxy-wasm filter of the operator's own.
#[derive(Debug, Clone)]
pub struct ExtraFilter {
    pub path: PathBuf,
    pub configuration: String,
}
