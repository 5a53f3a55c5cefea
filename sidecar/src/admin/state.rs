//! `/api/state`: the configuration in force and what goes on, as JSON.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::UNIX_EPOCH;

use evenkeel_policy::config::PoolConfig;
use evenkeel_policy::contract::VM_ID;
use evenkeel_policy::upstream::{Health, ServerState, StateRecord, id_hash};
use http::StatusCode;
use serde_json::{Value, json};

use crate::admin::changes::{Answer, refusal};
use crate::admin::metrics::total;
use crate::config::{Accept, Listener};
use crate::generation::{Generation, Pool};
use crate::members::{Server, Source, Standing};
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
        "pools": pools(shared, &generation),
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

/// A pool and its servers, also for `/api/pools`.
fn pool(shared: &Shared, pool: &Pool, config: &PoolConfig) -> Value {
    let roster = pool.roster();
    let checks = Checks::read(shared, &pool.name);
    json!({
        "name": pool.name,
        "balance": config.algorithm.name(),
        "servers": roster.members().map(|member| server(member, &checks)).collect::<Vec<_>>(),
    })
}

/// What checks found out about the servers of a pool, as the VM that checks tells it.
pub(super) struct Checks(HashMap<u64, ServerState>);

impl Checks {
    pub(super) fn read(shared: &Shared, pool: &str) -> Self {
        let record = shared.process.shared_data(VM_ID, &StateRecord::key(pool));
        let record = record.and_then(|(bytes, _cas)| StateRecord::decode(&bytes));
        let servers = record.map(|record| record.servers).unwrap_or_default();
        Self(
            servers
                .into_iter()
                .map(|state| (state.id_hash, state))
                .collect(),
        )
    }

    fn of(&self, server: &Server) -> Option<&ServerState> {
        self.0.get(&id_hash(&server.id))
    }

    /// Whether requests may go there, as far as is known here.
    fn is_up(&self, server: &Server) -> bool {
        let is_down = self
            .of(server)
            .is_some_and(|state| state.health == Health::Down);
        server.standing == Standing::Ready && !is_down
    }
}

/// One server. `since` is in milliseconds since 1970.
pub(super) fn server(server: &Server, checks: &Checks) -> Value {
    let state = checks.of(server);
    json!({
        "health": state.map_or("unchecked", |state| match state.health {
            Health::Checking => "checking",
            Health::Up => "up",
            Health::Down => "down",
        }),
        "reason": state.map(|state| &state.reason),
        "since": state.map(|state| state.since_ms),
        "transitions": state.map(|state| state.transitions),
        "id": server.id,
        "address": server.text,
        "weight": server.weight,
        "state": server.standing.name(),
        "from": match server.source {
            Source::File => "file",
            Source::Name => "name",
            Source::Added => "added",
        },
        "requests": total(server, |of| &of.requests),
        "in_flight": total(server, |of| &of.in_flight),
        "failures": total(server, |of| &of.failures),
        "idle_connections": total(server, |of| &of.idle_connections),
    })
}

/// All pools of the configuration in force.
fn pools(shared: &Shared, generation: &Generation) -> Vec<Value> {
    let configs = &generation.config.policy.pools;
    let both = generation.pools.iter().zip(configs);
    both.map(|(one, config)| pool(shared, one, config))
        .collect()
}

/// `/api/pools`.
pub(super) fn all(shared: &Shared) -> Answer {
    let pools = pools(shared, &shared.generation.load());
    (StatusCode::OK, json!({"pools": pools}))
}

/// One pool, or of it one server or those of one name.
pub(super) fn one(shared: &Shared, name: &str, id: Option<&str>) -> Answer {
    let generation = shared.generation.load();
    let place = generation.pool_named(name.as_bytes());
    let configs = &generation.config.policy.pools;
    let found = place.and_then(|place| Some((generation.pools.get(place)?, configs.get(place)?)));
    let Some((found, config)) = found else {
        let known: Vec<&str> = configs.iter().map(|pool| pool.name.as_str()).collect();
        let why = format!("no such pool: {name} (there are {})", known.join(", "));
        return refusal(StatusCode::NOT_FOUND, &why);
    };
    let Some(id) = id else {
        return (StatusCode::OK, pool(shared, found, config));
    };
    let (roster, checks) = (found.roster(), Checks::read(shared, name));
    let servers: Vec<Value> = roster
        .members()
        .filter(|server| server.is_of(id))
        .map(|one| server(one, &checks))
        .collect();
    if servers.is_empty() {
        return refusal(
            StatusCode::NOT_FOUND,
            &format!("no such server in pool {name}: {id}"),
        );
    }
    (StatusCode::OK, json!({"pool": name, "servers": servers}))
}

/// Why this proxy should get no requests, if it should not: it drains, a worker has no filter, or a pool that a route leads to has no
/// server that is up.
pub(super) fn not_ready(shared: &Shared) -> Option<String> {
    if !shared.is_ready() {
        let is_draining = shared.is_draining.load(Ordering::Acquire);
        return Some(
            if is_draining {
                "draining"
            } else {
                "a filter is missing"
            }
            .to_owned(),
        );
    }
    let generation = shared.generation.load();
    let is_routed = |pool: &&Pool| {
        let routes = &generation.config.policy.routes;
        routes.iter().any(|route| route.pool == pool.name)
    };
    let is_dead = |pool: &&Pool| {
        let checks = Checks::read(shared, &pool.name);
        !pool.roster().members().any(|server| checks.is_up(server))
    };
    let dead = generation.pools.iter().filter(is_routed).find(is_dead)?;
    Some(format!("pool {} has no server that is up", dead.name))
}
