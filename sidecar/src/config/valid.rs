//! From the file as written to a configuration that can run: ranges, defaults, names, files. Collects every fault it can find.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_host::{Engine, Module};
use evenkeel_policy::config::units::{parse_duration, parse_size};
use evenkeel_policy::config::{check_name, network_set};
use serde_json::Value;

use super::document::{self, Mapping, Unserved};
use super::fault::Collector;
use super::tls::{self, TlsFault};
use super::{
    Accept, AccessLog, ExtraFilter, Limits, Listener, LogFormat, LogTarget, ProxySenders, Timeouts,
    TlsFiles,
};

/// Most listeners, workers and filters of the operator's own. Shared data has slots for 128 VMs, and a reload needs twice the workers.
const LISTENERS_MAX: usize = 64;
const WORKERS_MAX: usize = 64;
const FILTERS_MAX: usize = 16;
/// Largest `.wasm` file of the operator's own.
const FILTER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The longest and shortest time that a timeout can be set to.
const TIMEOUT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
const TIMEOUT_MIN: Duration = Duration::from_millis(1);
/// The HTTP parser's smallest read buffer.
const HEADER_BYTES_MIN: u64 = 8 * 1024;
const HEADER_BYTES_MAX: u64 = 16 * 1024 * 1024;
const HEADERS_MAX: u64 = 10_000;
const CONNECTIONS_MAX: u64 = 10_000_000;

/// What is said of a key of a later version.
pub(super) const NOT_SERVED: &str = "understood, but not served by this version";

/// Checks everything except the policy, and says which part of it is what. Values that are wrong become their defaults: the collector knows.
pub(super) struct Validator<'c, 't> {
    /// Relative paths in the file are relative to where it is.
    pub(super) folder: &'c Path,
    pub(super) faults: &'c mut Collector<'t>,
}

impl Validator<'_, '_> {
    pub(super) fn listeners(
        &mut self,
        listeners: Option<&[Mapping<document::Listener>]>,
    ) -> Vec<Listener> {
        let listeners = listeners.unwrap_or_default();
        if listeners.is_empty() || listeners.len() > LISTENERS_MAX {
            self.faults.value("listeners", format!("expected 1 to {LISTENERS_MAX} listeners, such as {{name: web, bind: 0.0.0.0:8080}}"));
            return Vec::new();
        }
        let mut names = BTreeSet::new();
        let mut binds = BTreeSet::new();
        let mut valid = Vec::new();
        for (index, Mapping(listener)) in listeners.iter().enumerate() {
            let path = format!("listeners[{index}]");
            if listener.mode == Some(document::Mode::Tcp) {
                self.faults
                    .value(&format!("{path}.mode"), format!("`tcp` is {NOT_SERVED}"));
                continue;
            }
            self.unserved(&format!("{path}.pool"), &listener.pool);
            let name = listener
                .name
                .clone()
                .unwrap_or_else(|| format!("listener{}", index + 1));
            self.name(&format!("{path}.name"), &name);
            if !names.insert(name.clone()) {
                self.faults.value(
                    &format!("{path}.name"),
                    format!("expected a name of its own, found `{name}` a second time"),
                );
            }
            let Some(bind) = self.address(
                &format!("{path}.bind"),
                listener.bind.as_deref(),
                "0.0.0.0:8080",
            ) else {
                continue;
            };
            // Port 0 is any free port, so the same twice is no contradiction.
            if bind.port() != 0 && !binds.insert(bind) {
                self.faults.value(
                    &format!("{path}.bind"),
                    format!("expected an address of its own, found {bind} a second time"),
                );
            }
            let (tls, tls_files) = listener.tls.as_ref().map_or((None, None), |Mapping(tls)| {
                self.tls(&format!("{path}.tls"), tls)
            });
            let accept = match listener.accept {
                Some(document::Accept::Balanced) => Accept::Balanced,
                Some(document::Accept::Reuseport) | None => Accept::Reuseport,
            };
            valid.push(Listener {
                name,
                bind,
                accept,
                proxy_senders: self.proxy_senders(&path, listener.proxy_protocol.as_ref()),
                tls,
                tls_files,
            });
        }
        valid
    }

    fn proxy_senders(
        &mut self,
        path: &str,
        document: Option<&Mapping<document::ProxyProtocol>>,
    ) -> Option<ProxySenders> {
        let Mapping(document) = document?;
        let texts = document.from.clone().unwrap_or_default();
        match network_set(&format!("{path}.proxy_protocol.from"), &texts) {
            Ok(networks) => Some(ProxySenders { networks, texts }),
            Err(error) => {
                self.faults.policy(error);
                None
            }
        }
    }

    fn tls(
        &mut self,
        path: &str,
        tls: &document::Tls,
    ) -> (
        Option<std::sync::Arc<rustls::ServerConfig>>,
        Option<TlsFiles>,
    ) {
        let (Some(cert), Some(key)) = (&tls.cert, &tls.key) else {
            self.faults.value(
                path,
                "expected both cert and key, such as {cert: site.pem, key: site.key}",
            );
            return (None, None);
        };
        let files = TlsFiles {
            cert: self.file(cert),
            key: self.file(key),
        };
        match tls::load(&files.cert, &files.key) {
            Ok(config) => (Some(config), Some(files)),
            Err(TlsFault::Cert(why)) => {
                self.faults.value(&format!("{path}.cert"), why);
                (None, None)
            }
            Err(TlsFault::Key(why)) => {
                self.faults.value(&format!("{path}.key"), why);
                (None, None)
            }
        }
    }

    pub(super) fn admin(&mut self, admin: Option<&Mapping<document::Admin>>) -> Option<SocketAddr> {
        self.address("admin.bind", admin?.0.bind.as_deref(), "127.0.0.1:8404")
    }

    pub(super) fn workers(&mut self, workers: Option<u64>) -> usize {
        match usize::try_from(workers.unwrap_or(0)) {
            Ok(0) => std::thread::available_parallelism()
                .map_or(1, usize::from)
                .min(WORKERS_MAX),
            Ok(workers) if workers <= WORKERS_MAX => workers,
            _ => {
                self.faults.value(
                    "workers",
                    format!("expected 0 (one per core) to {WORKERS_MAX}"),
                );
                1
            }
        }
    }

    pub(super) fn timeouts(&mut self, timeouts: Option<&Mapping<document::Timeouts>>) -> Timeouts {
        let none = document::Timeouts::default();
        let timeouts = timeouts.map_or(&none, |Mapping(timeouts)| timeouts);
        self.unserved("timeouts.tcp_idle", &timeouts.tcp_idle);
        self.unserved("timeouts.tcp_drain", &timeouts.tcp_drain);
        let seconds = Duration::from_secs;
        Timeouts {
            client_header: self.timeout(
                "client_header",
                timeouts.client_header.as_ref(),
                seconds(10),
                TIMEOUT_MIN,
            ),
            client_body: self.timeout(
                "client_body",
                timeouts.client_body.as_ref(),
                seconds(60),
                TIMEOUT_MIN,
            ),
            connect: self.timeout(
                "connect",
                timeouts.connect.as_ref(),
                seconds(5),
                TIMEOUT_MIN,
            ),
            response: self.timeout(
                "response",
                timeouts.response.as_ref(),
                seconds(60),
                TIMEOUT_MIN,
            ),
            idle: self.timeout("idle", timeouts.idle.as_ref(), seconds(75), TIMEOUT_MIN),
            tunnel: self.timeout(
                "tunnel",
                timeouts.tunnel.as_ref(),
                seconds(3600),
                TIMEOUT_MIN,
            ),
            drain: self.timeout(
                "drain",
                timeouts.drain.as_ref(),
                seconds(30),
                Duration::ZERO,
            ),
        }
    }

    fn timeout(
        &mut self,
        key: &str,
        value: Option<&Value>,
        default: Duration,
        least: Duration,
    ) -> Duration {
        self.span(
            &format!("timeouts.{key}"),
            value,
            default,
            least,
            TIMEOUT_MAX,
        )
    }

    /// A duration between two bounds.
    pub(super) fn span(
        &mut self,
        path: &str,
        value: Option<&Value>,
        default: Duration,
        least: Duration,
        most: Duration,
    ) -> Duration {
        let parsed = match value {
            None | Some(Value::Null) => return default,
            Some(Value::String(text)) => parse_duration(text),
            Some(other) => Err(format!(
                "expected a duration with its unit, such as 250ms, 10s, 5m or 1h, found {other}"
            )),
        };
        match parsed {
            Ok(duration) if (least..=most).contains(&duration) => duration,
            Ok(duration) => {
                self.faults.value(
                    path,
                    format!("expected {least:?} to {most:?}, found {duration:?}"),
                );
                default
            }
            Err(why) => {
                self.faults.value(path, why);
                default
            }
        }
    }

    pub(super) fn limits(&mut self, limits: Option<&Mapping<document::Limits>>) -> Limits {
        let none = document::Limits::default();
        let limits = limits.map_or(&none, |Mapping(limits)| limits);
        Limits {
            connections: self.count(
                "limits.connections",
                limits.connections,
                100_000,
                CONNECTIONS_MAX,
            ),
            header_bytes: self.header_bytes(limits.header_bytes.as_ref()),
            headers: self.count("limits.headers", limits.headers, 100, HEADERS_MAX),
            body_bytes: self.size("limits.body_bytes", limits.body_bytes.as_ref(), 0),
        }
    }

    fn header_bytes(&mut self, value: Option<&Value>) -> usize {
        let bytes = self.size("limits.header_bytes", value, 64 * 1024);
        if !(HEADER_BYTES_MIN..=HEADER_BYTES_MAX).contains(&bytes) {
            self.faults.value(
                "limits.header_bytes",
                format!("expected 8KiB to 16MiB, found {bytes} bytes"),
            );
        }
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    pub(super) fn count(
        &mut self,
        path: &str,
        value: Option<u64>,
        default: usize,
        most: u64,
    ) -> usize {
        match value {
            None => default,
            Some(value @ 1..) if value <= most => usize::try_from(value).unwrap_or(default),
            Some(value) => {
                self.faults
                    .value(path, format!("expected 1 to {most}, found {value}"));
                default
            }
        }
    }

    pub(super) fn size(&mut self, path: &str, value: Option<&Value>, default: u64) -> u64 {
        let parsed = match value {
            None | Some(Value::Null) => return default,
            Some(Value::String(text)) => parse_size(text),
            Some(other) => other.as_u64().ok_or_else(|| {
                format!("expected a size such as 512, 64KiB or 8MiB, found {other}")
            }),
        };
        parsed.unwrap_or_else(|why| {
            self.faults.value(path, why);
            default
        })
    }

    pub(super) fn access_log(
        &mut self,
        log: Option<&Mapping<document::AccessLog>>,
    ) -> Option<AccessLog> {
        let Mapping(log) = log?;
        let target = match log.path.as_deref() {
            None | Some("stdout") => LogTarget::Stdout,
            Some("") => {
                self.faults
                    .value("access_log.path", "expected stdout or the path of a file");
                return None;
            }
            Some(path) => LogTarget::File(self.file(path)),
        };
        let format = match log.format {
            Some(document::Format::Combined) => LogFormat::Combined,
            Some(document::Format::Json) | None => LogFormat::Json,
        };
        Some(AccessLog { target, format })
    }

    pub(super) fn filters(
        &mut self,
        filters: Option<&[Mapping<document::Filter>]>,
    ) -> Vec<ExtraFilter> {
        let filters = filters.unwrap_or_default();
        if filters.len() > FILTERS_MAX {
            self.faults
                .value("filters", format!("expected at most {FILTERS_MAX} filters"));
            return Vec::new();
        }
        let mut valid = Vec::new();
        let mut engine = None;
        for (index, Mapping(filter)) in filters.iter().enumerate() {
            let Some(path) = filter.path.as_deref().filter(|path| !path.is_empty()) else {
                self.faults.value(
                    &format!("filters[{index}].path"),
                    "expected the path of a .wasm file",
                );
                continue;
            };
            let file = self.file(path);
            if let Err(why) = check_module(&file, &mut engine) {
                self.faults.value(
                    &format!("filters[{index}].path"),
                    format!("expected a proxy-wasm module: {}: {why}", file.display()),
                );
            }
            valid.push(ExtraFilter {
                path: file,
                configuration: filter.configuration.clone().unwrap_or_default(),
            });
        }
        valid
    }

    /// A value that means "off" is accepted: doing nothing is then doing what was asked.
    pub(super) fn unserved(&mut self, path: &str, value: &Unserved) {
        let off = match value {
            None | Some(Value::Null | Value::Bool(false)) => true,
            Some(Value::Number(number)) => number.as_u64() == Some(0),
            Some(Value::String(text)) => {
                parse_duration(text).is_ok_and(|duration| duration.is_zero())
            }
            Some(_) => false,
        };
        if !off {
            self.faults.key(path, NOT_SERVED);
        }
    }

    fn name(&mut self, path: &str, name: &str) {
        if let Err(why) = check_name(name) {
            self.faults.value(path, why);
        }
    }

    fn address(&mut self, path: &str, text: Option<&str>, example: &str) -> Option<SocketAddr> {
        let parsed = text.and_then(|text| text.parse().ok());
        if parsed.is_none() {
            let found = text.map_or("nothing".to_owned(), |text| format!("`{text}`"));
            self.faults.value(path, format!("expected an address with its port, such as {example} or [::]:8080, found {found}"));
        }
        parsed
    }

    pub(super) fn file(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }
}

/// Compiles the module once to see that it is one and that every import of it is known.
fn check_module(path: &Path, engine: &mut Option<Engine>) -> Result<(), String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(FILTER_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    if bytes.len() as u64 > FILTER_BYTES_MAX {
        return Err(format!("it is larger than {FILTER_BYTES_MAX} bytes"));
    }
    if !bytes.starts_with(b"\0asm") {
        return Err("it does not begin like one".to_owned());
    }
    let engine = match engine {
        Some(engine) => engine,
        None => engine.insert(Engine::new().map_err(|error| error.to_string())?),
    };
    Module::compile(engine, &bytes)
        .map(drop)
        .map_err(|error| error.to_string())
}
