//! The configuration file: as written ([`document`]), where each key stands ([`locate`]), and as valid ([`Config`]).
//!
//! Text → tree with places → JSON → [`Document`] → [`Config`]; the `policy` subtree goes to `evenkeel-policy` unchanged, here as in
//! the filter. Every fault, whoever finds it, is told by the path of its key, and the tree knows line and column of that.

pub mod document;
pub mod fault;
pub mod locate;
mod store;
mod store_document;
pub mod tls;
mod valid;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_policy::client_ip::TrustedNetworks;
use evenkeel_policy::config::{Chooser, ConfigError};

use self::document::{Document, Mapping};
use self::fault::Collector;
pub use self::fault::Faults;
use self::locate::{FILE_BYTES_MAX, Position, Tree};
pub use self::store::{BackendConfig, StoreConfig};
use self::valid::Validator;

/// What a filter may need to notice that a request has waited for long enough.
pub(crate) const QUEUE_GRACE: Duration = Duration::from_secs(2);

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
    pub session_store: Option<StoreConfig>,
    /// Filters that run before evenkeel's own, in order.
    pub filters: Vec<ExtraFilter>,
    /// The valid policy: pools, servers, timeouts.
    pub policy: evenkeel_policy::config::Config,
    /// The file's `policy` subtree as JSON, unchanged: what the filter is configured with.
    pub policy_json: serde_json::Value,
    /// What only Envoy can do; `None`: nothing.
    only_for_envoy: Option<Faults>,
}

/// What a file is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Proxy,
    StoreAlone,
}

/// Where requests come in.
#[derive(Debug, Clone)]
pub struct Listener {
    pub name: String,
    pub bind: SocketAddr,
    pub accept: Accept,
    /// Who must say, by the PROXY protocol, whose connections its are; `None`: nobody may.
    pub proxy_senders: Option<ProxySenders>,
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// The certificate and key files, for `evenkeel envoy`.
    pub tls_files: Option<TlsFiles>,
}

/// `proxy_protocol.from`.
#[derive(Debug, Clone)]
pub struct ProxySenders {
    pub networks: TrustedNetworks,
    /// As written, for `evenkeel envoy`: addresses and networks.
    pub texts: Vec<String>,
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
    /// Longest silence between two reads of a request's body (nginx's `client_body_timeout`), never a total.
    pub client_body: Duration,
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

impl fmt::Display for LogTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => formatter.write_str("standard output"),
            Self::File(path) => path.display().fmt(formatter),
        }
    }
}

impl Config {
    /// The longest that a request may wait in a queue; 0 if there is none.
    pub(crate) fn longest_queue(&self) -> Duration {
        let queues = self.policy.pools.iter().filter_map(|pool| pool.queue);
        let longest = queues.map(|queue| queue.timeout).max();
        longest.unwrap_or_default()
    }

    /// How long a filter may hold a request: as long as a server, or the client, may be silent, and longer than any queue.
    pub(crate) fn filter_pause_max(&self) -> Duration {
        let queue = self.longest_queue() + QUEUE_GRACE;
        self.timeouts.response.max(self.timeouts.idle).max(queue)
    }

    /// The listener that is configured for this address.
    pub(crate) fn listener_at(&self, bind: SocketAddr) -> Option<&Listener> {
        self.listeners.iter().find(|listener| listener.bind == bind)
    }

    /// Reads and checks the file; its certificates and filters too. No port is opened, nothing is written.
    ///
    /// # Errors
    /// Everything that is wrong, each with its place.
    pub fn load(path: &Path) -> Result<Self, Faults> {
        Self::load_for(Purpose::Proxy, path)
    }

    /// The same for a file of which only `session_store` is to be served; it need not have listeners.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_store(path: &Path) -> Result<StoreConfig, Faults> {
        let config = Self::load_for(Purpose::StoreAlone, path)?;
        let missing = || "has no session_store".to_owned();
        config
            .session_store
            .ok_or_else(|| Faults::one(path.to_owned(), Position::default(), missing()))
    }

    fn load_for(purpose: Purpose, path: &Path) -> Result<Self, Faults> {
        let whole = |message| Faults::one(path.to_owned(), Position::default(), message);
        let size = std::fs::metadata(path)
            .map_err(|error| whole(format!("cannot be read: {error}")))?
            .len();
        if size > FILE_BYTES_MAX as u64 {
            return Err(whole(format!("is larger than {FILE_BYTES_MAX} bytes")));
        }
        let bytes =
            std::fs::read(path).map_err(|error| whole(format!("cannot be read: {error}")))?;
        let text = String::from_utf8(bytes).map_err(|_| whole("is not UTF-8 text".to_owned()))?;
        Self::parse_for(purpose, path, &text)
    }

    /// The same for a file that our own proxy is to serve by.
    ///
    /// # Errors
    /// As [`Config::load`], and what only Envoy can do.
    pub fn load_to_run(path: &Path) -> Result<Self, Faults> {
        let mut config = Self::load(path)?;
        match config.only_for_envoy.take() {
            Some(faults) => Err(faults),
            None => Ok(config),
        }
    }

    /// The same for a text that stands, or could stand, at `path`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, Faults> {
        Self::parse_for(Purpose::Proxy, path, text)
    }

    fn parse_for(purpose: Purpose, path: &Path, text: &str) -> Result<Self, Faults> {
        let tree =
            Tree::parse(text).map_err(|(at, message)| Faults::one(path.to_owned(), at, message))?;
        let mut faults = Collector::new(path.to_owned(), &tree);
        let config = Self::from_tree(path, &tree, purpose, &mut faults);
        match (config, faults.finish()) {
            (Some(config), None) => Ok(config),
            (_, Some(faults)) => Err(faults),
            (None, None) => Err(Faults::one(
                path.to_owned(),
                Position::default(),
                "cannot be used".to_owned(),
            )),
        }
    }

    /// `None` only after telling `faults` why.
    fn from_tree(
        path: &Path,
        tree: &Tree,
        purpose: Purpose,
        faults: &mut Collector<'_>,
    ) -> Option<Self> {
        let json = match tree.to_json() {
            serde_json::Value::Null => serde_json::Value::Object(serde_json::Map::new()),
            json => json,
        };
        let store_source = json.get("session_store").cloned().unwrap_or_default();
        let document: Document = match serde_path_to_error::deserialize(json) {
            Ok(Mapping(document)) => document,
            Err(error) => {
                let place = error.path().to_string();
                faults.serde(
                    if place == "." { "" } else { &place },
                    &error.inner().to_string(),
                );
                return None;
            }
        };
        let folder = path.parent().map_or(PathBuf::new(), Path::to_owned);
        let mut valid = Validator {
            folder: &folder,
            faults,
        };
        let listeners = match (&document.listeners, purpose) {
            (None, Purpose::StoreAlone) => Vec::new(),
            _ => valid.listeners(document.listeners.as_deref()),
        };
        let admin = valid.admin(document.admin.as_ref());
        let workers = valid.workers(document.workers);
        let timeouts = valid.timeouts(document.timeouts.as_ref());
        let limits = valid.limits(document.limits.as_ref());
        let access_log = valid.access_log(document.access_log.as_ref());
        let store = document.session_store.as_ref().map(|Mapping(store)| store);
        let session_store = valid.session_store(store, store_source);
        if document.session_store.is_none() && purpose == Purpose::StoreAlone {
            valid.faults.value(
                "session_store",
                "expected one, such as {backend: embedded, path: /var/lib/evenkeel}",
            );
        }
        let filters = valid.filters(document.filters.as_deref());
        let policy_json = document.policy.unwrap_or(serde_json::Value::Null);
        let policy = policy(&policy_json)
            .map_err(|error| faults.policy(error))
            .ok()?;
        let mut only_for_envoy = Collector::new(path.to_owned(), tree);
        for pool in policy
            .pools
            .iter()
            .filter(|pool| pool.chooser == Chooser::Envoy)
        {
            let key = format!("policy.pools.{}.balance", pool.name);
            only_for_envoy.value(&key, "`envoy` leaves the choice to Envoy, for what `evenkeel envoy` writes; here names are resolved for every method, so name one");
        }
        Some(Self {
            only_for_envoy: only_for_envoy.finish(),
            path: path.to_owned(),
            listeners,
            admin,
            workers,
            timeouts,
            limits,
            access_log,
            session_store,
            filters,
            policy,
            policy_json,
        })
    }
}

/// What `evenkeel-policy` makes of the subtree; its errors are told by paths from the file's root.
fn policy(json: &serde_json::Value) -> Result<evenkeel_policy::config::Config, ConfigError> {
    let json = if json.is_null() {
        serde_json::Value::Object(serde_json::Map::new())
    } else {
        json.clone()
    };
    let document = evenkeel_policy::config::Document::from_value(json);
    document
        .and_then(|document| evenkeel_policy::config::Config::from_document(&document))
        .map_err(|error| error.within("policy"))
}

#[cfg(test)]
mod tests;
