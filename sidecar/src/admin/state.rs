//! `/api/state`: the configuration in force and what goes on, as JSON.

use std::sync::atomic::Ordering;
use std::time::UNIX_EPOCH;

use serde_json::{Value, json};

use crate::admin::metrics::total;
use crate::config::{Accept, Listener};
use crate::generation::{Pool, Server};
use crate::shared::{Shared, WorkerHandle};

pub(super) fn render(shared: &Shared) -> String {
    let generation = shared.generation.load();
    let loaded = generation
        .loaded
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let state = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": shared.started.elapsed().as_secs(),
        "ready": shared.is_ready(),
        "draining": shared.is_draining.load(Ordering::Acquire),
        "config": {
            "path": generation.config.path.display().to_string(),
            "generation": generation.number,
            "loaded_at": loaded,
        },
        "reloads_failed": shared.reloads_failed.load(Ordering::Relaxed),
        "connections": {"open": shared.open_connections(), "limit": generation.config.limits.connections},
        "listeners": generation.config.listeners.iter().map(listener).collect::<Vec<_>>(),
        "workers": shared.workers.iter().map(worker).collect::<Vec<_>>(),
        "pools": generation.pools.iter().map(pool).collect::<Vec<_>>(),
    });
    state.to_string()
}

fn listener(listener: &Listener) -> Value {
    json!({
        "name": listener.name,
        "bind": listener.bind.to_string(),
        "accept": match listener.accept {
            Accept::Reuseport => "reuseport",
            Accept::Balanced => "balanced",
        },
        "tls": listener.tls.is_some(),
    })
}

fn worker(worker: &WorkerHandle) -> Value {
    let counters = &worker.counters;
    json!({
        "ready": worker.is_ready.load(Ordering::Acquire),
        "connections": worker.open.load(Ordering::Relaxed),
        "requests": counters.requests.get(),
        "requests_in_flight": counters.requests_in_flight.get(),
        "filter_failures": counters.filter_failures.get(),
        "filter_replacements": counters.filter_replacements.get(),
    })
}

fn pool(pool: &Pool) -> Value {
    json!({"name": pool.name, "servers": pool.servers.iter().map(server).collect::<Vec<_>>()})
}

fn server(server: &Server) -> Value {
    json!({
        "id": server.id,
        "address": server.text,
        "down": server.is_down,
        "requests": total(server, |of| &of.requests),
        "in_flight": total(server, |of| &of.in_flight),
        "failures": total(server, |of| &of.failures),
        "idle_connections": total(server, |of| &of.idle_connections),
    })
}
