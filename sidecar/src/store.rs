//! The session store in this process: its backend, and the gateway that PHP connects to.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use evenkeel_session_store::backend::embedded::Embedded;
use evenkeel_session_store::backend::remote::Redis;
use evenkeel_session_store::gateway::{Bound, Gateway, Listen};

use crate::config::{BackendConfig, StoreConfig};

/// One that runs.
pub(crate) struct Store {
    gateway: Mutex<Option<Gateway>>,
    backend: Backend,
}

enum Backend {
    Embedded(Embedded),
    Redis(Redis),
}

/// Opens the store and serves it; everything that can fail is done when this returns.
pub(crate) fn start(config: &StoreConfig) -> anyhow::Result<Store> {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let bound = bind(&config.listen)?;
    let settings = config.gateway.clone();
    let (gateway, backend) = match &config.backend {
        BackendConfig::Embedded(embedded) => {
            let path = embedded.path.as_deref();
            let told = || path.map_or(String::new(), |path: &Path| format!(": {}", path.display()));
            let (store, loaded) = Embedded::open(embedded)
                .with_context(|| format!("session_store.path{}", told()))?;
            match path {
                Some(_) => tracing::info!(
                    "session store: embedded{}, {} sessions, {} records read",
                    told(),
                    store.figures().entries,
                    loaded.records
                ),
                None => tracing::warn!(
                    "session store: embedded, in memory only: sessions end with this process (session_store.path keeps them)"
                ),
            }
            (
                Gateway::start(bound, store.clone(), settings),
                Backend::Embedded(store),
            )
        }
        BackendConfig::Redis(redis) => {
            let store = Redis::new(redis.clone());
            tracing::info!("session store: a Redis");
            (
                Gateway::start(bound, store.clone(), settings),
                Backend::Redis(store),
            )
        }
    };
    Ok(Store {
        gateway: Mutex::new(Some(gateway.context("session_store")?)),
        backend,
    })
}

fn bind(listen: &[Listen]) -> anyhow::Result<Vec<Bound>> {
    let mut bound = Vec::new();
    for address in listen {
        let name = match address {
            Listen::Tcp(address) => address.to_string(),
            Listen::Unix { path, .. } => path.display().to_string(),
        };
        let socket = address
            .bind()
            .with_context(|| format!("session_store.resp: cannot listen on {name}"))?;
        let name = socket
            .address()
            .map_or(name, |address: SocketAddr| address.to_string());
        tracing::info!("sessions for PHP on {name}");
        bound.push(socket);
    }
    Ok(bound)
}

impl Store {
    /// Appends its metrics.
    pub(crate) fn render(&self, out: &mut String) {
        if let Some(gateway) = self
            .gateway
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
        {
            gateway.counters().render(out);
        }
        match &self.backend {
            Backend::Embedded(store) => store.figures().render(out),
            Backend::Redis(store) => store.figures().render(out),
        }
    }

    /// Serves nobody any more.
    pub(crate) fn stop(&self) {
        let gateway = self
            .gateway
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(gateway) = gateway {
            gateway.stop();
        }
    }
}

/// Serves the store alone, until a signal ends it.
pub(crate) fn run(config: &StoreConfig) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut terminate, mut interrupt) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        let store = start(config)?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        store.stop();
        Ok(ExitCode::SUCCESS)
    })
}
