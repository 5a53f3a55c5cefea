//! `session_store`, valid: a store, who may use it, and where.
//!
//! Secrets come from files, or from the environment as `${NAME}`; one that stands in the file itself is taken with a warning. Nothing here prints one: what
//! holds them has no `Debug`, and messages name keys.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use evenkeel_session_store::backend::DATABASES;
use evenkeel_session_store::backend::embedded::{self, Capacity};
use evenkeel_session_store::backend::remote::address::{Address, Place};
use evenkeel_session_store::backend::remote::{self, Login, tls};
use evenkeel_session_store::gateway::{self, Listen, LockSettings, User};
use serde_json::Value;

use super::document::Mapping;
use super::store_document::{self as document, Ack, Commands, OneOrMany, SessionStore};
use super::valid::{NOT_SERVED, Validator};

const RESP: &str = "127.0.0.1:6380";
const MEMORY: u64 = 256 * 1024 * 1024;
const MEMORY_MIN: u64 = 1024 * 1024;
/// How long a single Redis may be away until commands that wait for it fail.
const FAILOVER_WAIT: Duration = Duration::from_secs(10);
/// With Sentinels: their default of 30 s until a master counts as down, and what they take to replace it.
const FAILOVER_WAIT_SENTINEL: Duration = Duration::from_secs(45);
const WAIT_MAX: Duration = Duration::from_secs(60);
const LEASE_MIN: Duration = Duration::from_secs(1);
const LEASE_MAX: Duration = Duration::from_secs(24 * 3600);
/// A client that asks nothing for so long is closed; PHP's persistent connections notice and come back.
const IDLE: Duration = Duration::from_secs(3600);
const LISTEN_MAX: usize = 16;
const USERS_MAX: usize = 256;
const LOCKS_MAX: u64 = 10_000_000;
const CLIENTS_MAX: u64 = 1_000_000;
const VALUE_MIN: u64 = 1024;
const VALUE_MAX: u64 = 512 * 1024 * 1024;
const PREFIX_MAX: usize = 256;
const SECRET_BYTES_MAX: u64 = 4096;

/// A valid `session_store`.
#[derive(Clone)]
pub struct StoreConfig {
    pub backend: BackendConfig,
    pub listen: Vec<Listen>,
    pub gateway: gateway::Settings,
    /// What to tell the operator at the start.
    pub warnings: Vec<String>,
    /// The subtree as it stands in the file, to see whether it has changed.
    pub source: Value,
}

#[derive(Clone)]
pub enum BackendConfig {
    Embedded(embedded::Settings),
    Redis(remote::Settings),
}

impl fmt::Debug for StoreConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("StoreConfig")
    }
}

impl Validator<'_, '_> {
    /// `None`: there is none, or none that can be used; the collector knows.
    pub(super) fn session_store(
        &mut self,
        store: Option<&SessionStore>,
        source: Value,
    ) -> Option<StoreConfig> {
        let store = store?;
        let mut warnings = Vec::new();
        for (key, value) in [
            ("formats", &store.formats),
            ("secrets", &store.secrets),
            ("http", &store.http),
            ("bridge_token_file", &store.bridge_token_file),
        ] {
            self.unserved(&format!("session_store.{key}"), value);
        }
        if store.ack == Some(Ack::Replica) {
            self.faults
                .value("session_store.ack", format!("`replica` is {NOT_SERVED}"));
        }
        let (locks, locks_max) = self.store_locks(store.locks.as_ref());
        let limits = self.store_limits(store.limits.as_ref());
        let users = self.store_users(store.auth.as_deref(), &mut warnings);
        let listen = self.store_listen(store.resp.as_ref(), users.is_empty());
        let backend = self.store_backend(store, locks_max, limits.parked, &mut warnings)?;
        Some(StoreConfig {
            backend,
            listen,
            gateway: gateway::Settings {
                users,
                limits,
                locks,
            },
            warnings,
            source,
        })
    }

    fn store_backend(
        &mut self,
        store: &SessionStore,
        locks: usize,
        parked_max: usize,
        warnings: &mut Vec<String>,
    ) -> Option<BackendConfig> {
        let backend = store.backend.as_deref().unwrap_or("embedded");
        let of_embedded = [
            ("path", store.path.is_some()),
            ("fsync", store.fsync.is_some()),
            ("max_memory", store.max_memory.is_some()),
        ];
        let of_redis = [
            ("username", store.username.is_some()),
            ("password", store.password.is_some()),
            ("password_file", store.password_file.is_some()),
            ("tls", store.tls.is_some()),
            ("failover_wait", store.failover_wait.is_some()),
        ];
        let (others, only): (&[_], _) = match backend {
            "embedded" => (&of_redis, "it is for a Redis, and the backend is embedded"),
            _ => (
                &of_embedded,
                "it is for the embedded backend, and this one is a Redis",
            ),
        };
        for (key, _) in others.iter().filter(|(_, is_set)| *is_set) {
            self.faults.key(&format!("session_store.{key}"), only);
        }
        if backend == "embedded" {
            let bytes = self.size(
                "session_store.max_memory",
                store.max_memory.as_ref(),
                MEMORY,
            );
            if bytes < MEMORY_MIN {
                self.faults
                    .value("session_store.max_memory", "expected at least 1MiB");
            }
            let second = Duration::from_secs(1);
            let fsync = self.span(
                "session_store.fsync",
                store.fsync.as_ref(),
                second,
                Duration::ZERO,
                WAIT_MAX,
            );
            return Some(BackendConfig::Embedded(embedded::Settings {
                path: store.path.as_deref().map(|path| self.file(path)),
                fsync,
                capacity: Capacity { bytes, locks },
            }));
        }
        let login = self.store_login(store, backend, warnings)?;
        let automatic = Some(&Value::String("auto".to_owned()));
        let long = match login.place {
            Place::Sentinel { .. } => FAILOVER_WAIT_SENTINEL,
            Place::Tcp(_) | Place::Unix(_) => FAILOVER_WAIT,
        };
        let failover_wait = match store.failover_wait.as_ref() {
            wait if wait == automatic => long,
            wait => self.span(
                "session_store.failover_wait",
                wait,
                long,
                Duration::from_millis(100),
                WAIT_MAX,
            ),
        };
        Some(BackendConfig::Redis(remote::Settings {
            login,
            failover_wait,
            parked_max,
        }))
    }

    fn store_login(
        &mut self,
        store: &SessionStore,
        backend: &str,
        warnings: &mut Vec<String>,
    ) -> Option<Login> {
        const KEY: &str = "session_store.backend";
        let address = match Address::parse(backend) {
            Ok(address) => address,
            Err(_) if backend.starts_with("redis+cluster://") => {
                self.faults
                    .value(KEY, format!("`redis+cluster` is {NOT_SERVED}"));
                return None;
            }
            Err(why) => {
                self.faults.value(
                    KEY,
                    format!("expected embedded or the address of a Redis: {why}"),
                );
                return None;
            }
        };
        if address.password.is_some() {
            warnings.push(format!(
                "{KEY}: a password stands in the file; password_file keeps it out"
            ));
        }
        let given = self.secret(
            "session_store",
            store.password.as_deref(),
            store.password_file.as_deref(),
            warnings,
        );
        if given.is_some() && address.password.is_some() {
            self.faults.value(
                KEY,
                "expected one password, found another one in a key of its own",
            );
        }
        let tls = match (&store.tls, address.is_tls) {
            (Some(Mapping(tls)), true) => self.store_tls(tls),
            (None, true) => {
                self.faults.value(KEY, "expected tls: {ca: FILE} beside rediss://: the system's own certificates are not asked");
                None
            }
            (Some(_), false) => {
                self.faults.key(
                    "session_store.tls",
                    "expected rediss:// as the backend's scheme with it",
                );
                None
            }
            (None, false) => None,
        };
        Some(Login {
            place: address.place,
            tls,
            user: store.username.clone().or(address.user),
            password: given.or(address.password),
        })
    }

    fn store_tls(
        &mut self,
        document: &document::Tls,
    ) -> Option<std::sync::Arc<rustls::ClientConfig>> {
        let Some(ca) = &document.ca else {
            self.faults.value(
                "session_store.tls",
                "expected ca, the file of the certificates that are believed",
            );
            return None;
        };
        let shown = match (&document.cert, &document.key) {
            (Some(cert), Some(key)) => Some((self.file(cert), self.file(key))),
            (None, None) => None,
            _ => {
                self.faults.value(
                    "session_store.tls",
                    "expected both cert and key, or none of them",
                );
                return None;
            }
        };
        let shown = shown
            .as_ref()
            .map(|(cert, key)| (cert.as_path(), key.as_path()));
        let (key, why) = match tls::client(&self.file(ca), shown) {
            Ok(config) => return Some(config),
            Err(tls::Fault::Ca(why)) => ("ca", why),
            Err(tls::Fault::Cert(why)) => ("cert", why),
            Err(tls::Fault::Key(why)) => ("key", why),
        };
        self.faults.value(&format!("session_store.tls.{key}"), why);
        None
    }

    fn store_listen(&mut self, resp: Option<&OneOrMany>, is_open: bool) -> Vec<Listen> {
        const KEY: &str = "session_store.resp";
        let default = [RESP.to_owned()];
        let texts = match resp {
            None => &default[..],
            Some(OneOrMany::One(text)) => std::slice::from_ref(text),
            Some(OneOrMany::Many(texts)) => texts,
        };
        if texts.is_empty() || texts.len() > LISTEN_MAX {
            self.faults.value(
                KEY,
                format!("expected 1 to {LISTEN_MAX} addresses, such as {RESP}"),
            );
        }
        let mut listen = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let path = match resp {
                Some(OneOrMany::Many(_)) => format!("{KEY}[{index}]"),
                _ => KEY.to_owned(),
            };
            match Listen::parse(text) {
                Ok(address) if !address.is_local() && is_open => {
                    self.faults.value(&path, "expected session_store.auth with it: other machines can reach this address, and nobody would need a password");
                }
                Ok(Listen::Unix { path, mode }) => listen.push(Listen::Unix {
                    path: self.folder.join(path),
                    mode,
                }),
                Ok(address) => listen.push(address),
                Err(why) => self.faults.value(&path, why),
            }
        }
        listen
    }

    fn store_users(
        &mut self,
        auth: Option<&[Mapping<document::Auth>]>,
        warnings: &mut Vec<String>,
    ) -> Vec<User> {
        let auth = auth.unwrap_or_default();
        if auth.len() > USERS_MAX {
            self.faults.value(
                "session_store.auth",
                format!("expected at most {USERS_MAX} users"),
            );
            return Vec::new();
        }
        let (mut users, mut names) = (Vec::new(), BTreeSet::new());
        for (index, Mapping(auth)) in auth.iter().enumerate() {
            let path = format!("session_store.auth[{index}]");
            let name = auth.user.clone().unwrap_or_else(|| "default".to_owned());
            if !names.insert(name.clone()) {
                self.faults.value(
                    &path,
                    format!("expected a user of its own, found `{name}` a second time"),
                );
            }
            if auth.commands == Some(Commands::Cache) {
                self.faults.value(
                    &format!("{path}.commands"),
                    format!("`cache` is {NOT_SERVED}"),
                );
            }
            let databases = auth.db.clone().unwrap_or_else(|| vec![0]);
            if databases.is_empty() || databases.iter().any(|database| *database >= DATABASES) {
                self.faults.value(
                    &format!("{path}.db"),
                    format!("expected databases from 0 to {}", DATABASES - 1),
                );
            }
            let prefix = auth.prefix.clone().unwrap_or_default();
            if prefix.len() > PREFIX_MAX {
                self.faults.value(
                    &format!("{path}.prefix"),
                    format!("expected at most {PREFIX_MAX} bytes"),
                );
            }
            let password = self.secret(
                &path,
                auth.password.as_deref(),
                auth.password_file.as_deref(),
                warnings,
            );
            match password.filter(|password| !password.is_empty()) {
                Some(password) => users.push(User {
                    name,
                    password,
                    databases,
                    prefix: Bytes::from(prefix),
                }),
                None => self.faults.value(
                    &path,
                    "expected password_file, or password: ${NAME} of the environment",
                ),
            }
        }
        users
    }

    /// A secret from a file (its last line end does not count), from the environment, or as it stands.
    fn secret(
        &mut self,
        path: &str,
        inline: Option<&str>,
        file: Option<&str>,
        warnings: &mut Vec<String>,
    ) -> Option<String> {
        if let (Some(_), Some(_)) = (inline, file) {
            self.faults
                .value(path, "expected password or password_file, found both");
        }
        if let Some(file) = file {
            let name = self.file(file);
            let key = format!("{path}.password_file");
            return match read_secret(&name) {
                Ok(secret) => Some(secret),
                Err(why) => {
                    self.faults
                        .value(&key, format!("cannot be read: {}: {why}", name.display()));
                    None
                }
            };
        }
        let inline = inline?;
        let Some(name) = inline
            .strip_prefix("${")
            .and_then(|rest| rest.strip_suffix('}'))
        else {
            warnings.push(format!("{path}.password: stands in the file itself; password_file or ${{NAME}} keeps it out"));
            return Some(inline.to_owned());
        };
        let value = std::env::var(name).ok();
        if value.is_none() {
            self.faults.value(
                &format!("{path}.password"),
                format!("expected {name} in the environment"),
            );
        }
        value
    }

    /// With how many locks there may be.
    fn store_locks(&mut self, locks: Option<&Mapping<document::Locks>>) -> (LockSettings, usize) {
        let locks = locks.map(|Mapping(locks)| locks);
        let wait = locks.and_then(|locks| locks.wait.as_ref());
        let lease = locks.and_then(|locks| locks.lease.as_ref());
        let settings = LockSettings {
            wait: self.span(
                "session_store.locks.wait",
                wait,
                Duration::from_secs(10),
                Duration::ZERO,
                WAIT_MAX,
            ),
            lease: self.span(
                "session_store.locks.lease",
                lease,
                Duration::from_secs(60),
                LEASE_MIN,
                LEASE_MAX,
            ),
        };
        let max = locks.and_then(|locks| locks.max);
        (
            settings,
            self.count("session_store.locks.max", max, 100_000, LOCKS_MAX),
        )
    }

    fn store_limits(&mut self, limits: Option<&Mapping<document::Limits>>) -> gateway::Limits {
        let limits = limits.map(|Mapping(limits)| limits);
        let value = limits.and_then(|limits| limits.value.as_ref());
        let value = self.size("session_store.limits.value", value, 8 * 1024 * 1024);
        if !(VALUE_MIN..=VALUE_MAX).contains(&value) {
            self.faults
                .value("session_store.limits.value", "expected 1KiB to 512MiB");
        }
        let clients = limits.and_then(|limits| limits.clients);
        let parked = limits.and_then(|limits| limits.parked);
        gateway::Limits {
            clients: self.count("session_store.limits.clients", clients, 10_000, CLIENTS_MAX),
            value: usize::try_from(value).unwrap_or(usize::MAX),
            parked: self.count("session_store.limits.parked", parked, 1024, CLIENTS_MAX),
            idle: IDLE,
        }
    }
}

fn read_secret(path: &PathBuf) -> Result<String, String> {
    let size = std::fs::metadata(path)
        .map_err(|error| error.to_string())?
        .len();
    if size > SECRET_BYTES_MAX {
        return Err(format!("is larger than {SECRET_BYTES_MAX} bytes"));
    }
    let mut text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let length = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(length);
    Ok(text)
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
