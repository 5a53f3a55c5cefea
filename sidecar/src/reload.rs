//! A new configuration under way: all of it is made ready beside the old one; then it takes over, or nothing has happened.
//!
//! Sockets that both configurations name stay open and go on accepting. Requests in flight end on the old configuration and its
//! plugins, in the same VMs. What a reload cannot change (`workers`, `admin`, `session_store`, how a listener accepts) is refused, with the rest.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use evenkeel_policy::config::PoolConfig;
use tokio::sync::oneshot;

use crate::access_log::Message;
use crate::access_log::{Writer, check_target};
use crate::config::Config;
use crate::control::{Control, Listening};
use crate::filter;
use crate::generation::Generation;
use crate::listen::bind::{self, Bound};
use crate::members::{self, names};
use crate::shared::Shared;
use crate::worker::Command;
use crate::worker_thread::LogTo;

/// How long workers may take to start the filters of a new configuration.
const PREPARE_WAIT_MAX: Duration = Duration::from_secs(30);

/// Reads the configuration and puts it into force; errors are logged and leave the old one.
pub(crate) async fn reload(control: &mut Control, listening: &mut Vec<Listening>) {
    let shared = Arc::clone(&control.shared);
    match attempt(control, listening).await {
        Ok(number) => tracing::info!("configuration reloaded: generation {number}"),
        Err(reason) => {
            // What was noted for the new configuration.
            forget_gone(&shared);
            shared.reloads_failed.fetch_add(1, Ordering::Relaxed);
            tracing::error!("the configuration was not reloaded, the old one stays: {reason}");
        }
    }
}

/// Forgets changes at run time that are about nothing in the configuration in force.
fn forget_gone(shared: &Shared) {
    let generation = shared.generation.load_full();
    let pools = &generation.config.policy.pools;
    shared.members.table().forget_gone(pools);
    if let Err(error) = members::put_into_force(shared, None) {
        tracing::error!("{error}");
    }
}

async fn attempt(control: &mut Control, listening: &mut Vec<Listening>) -> Result<u64, String> {
    let load = control
        .options
        .load
        .as_ref()
        .ok_or("there is no file to read")?;
    let config = load()?;
    let shared = Arc::clone(&control.shared);
    let previous = shared.generation.load_full();
    refuse_unchangeable(&previous.config, &config, shared.workers.len(), listening)?;
    let filters = control.modules.load(&config)?;
    if let Some(log) = &config.access_log {
        check_target(&log.target)
            .map_err(|error| format!("cannot open the access log {}: {error}", log.target))?;
    }
    let bound = bind_new(&config, shared.workers.len(), listening)?;
    resolve_new(&shared, &config).await?;
    let generation = Arc::new(Generation::new(
        config,
        filters,
        shared.workers.len(),
        &shared.members.table(),
        Some(&previous),
    ));
    try_out(&shared, &generation, &previous).await?;
    if let Err(reason) = prepare(control, &generation).await {
        for worker in &shared.workers {
            let _ = worker.commands.send(Command::Abandon);
        }
        return Err(reason);
    }
    commit(control, listening, bound, generation).await
}

fn refuse_unchangeable(
    old: &Config,
    new: &Config,
    workers: usize,
    listening: &[Listening],
) -> Result<(), String> {
    if new.workers.max(1) != workers {
        return Err(format!(
            "workers: {} instead of {workers} needs a restart",
            new.workers
        ));
    }
    let store = |config: &Config| {
        config
            .session_store
            .as_ref()
            .map(|store| store.source.clone())
    };
    if store(new) != store(old) {
        return Err("session_store: another one needs a restart".to_owned());
    }
    if new.admin != old.admin {
        return Err("admin: another address needs a restart".to_owned());
    }
    for listener in &new.listeners {
        if listening
            .iter()
            .any(|known| known.bind == listener.bind && known.accept != listener.accept)
        {
            return Err(format!(
                "listener {}: another way to accept on the same address needs a restart",
                listener.name
            ));
        }
    }
    Ok(())
}

fn bind_new(
    config: &Config,
    workers: usize,
    listening: &[Listening],
) -> Result<Vec<Bound>, String> {
    let is_new = |bind| !listening.iter().any(|known| known.bind == bind);
    let new = config
        .listeners
        .iter()
        .filter(|listener| is_new(listener.bind));
    new.map(|listener| {
        bind::probe(listener.bind)
            .and_then(|()| bind::bind(listener, workers))
            .map_err(|error| {
                format!(
                    "listener {}: cannot listen on {}: {error}",
                    listener.name, listener.bind
                )
            })
    })
    .collect()
}

/// Looks up the names that the configuration in force does not have: the new filters know their addresses from the first request on.
async fn resolve_new(shared: &Arc<Shared>, config: &Config) -> Result<(), String> {
    let is_new = |pool: &&PoolConfig| {
        let table = shared.members.table();
        let mut named = pool.named.iter();
        named.any(|named| !table.is_resolved(&pool.name, &named.server.id))
    };
    let new: Vec<PoolConfig> = config.policy.pools.iter().filter(is_new).cloned().collect();
    let theirs = Arc::clone(shared);
    let asking = move || names::resolve(&theirs.names, &theirs.members, new.iter());
    // A look-up that panicked found nothing, and is tried again in its time.
    let _ = tokio::task::spawn_blocking(asking).await;
    members::put_into_force(shared, None)
}

/// Filters refuse a configuration, or die of it, where that harms nobody, and where nobody waits for them meanwhile.
async fn try_out(
    shared: &Arc<Shared>,
    generation: &Arc<Generation>,
    previous: &Arc<Generation>,
) -> Result<(), String> {
    let (shared, generation) = (Arc::clone(shared), Arc::clone(generation));
    let previous = Arc::clone(previous);
    let trial = move || filter::try_out(&generation.filters, &previous.filters, &shared.process);
    match tokio::task::spawn_blocking(trial).await {
        Ok(outcome) => outcome,
        Err(_) => Err("the new filters cannot be tried out".to_owned()),
    }
}

/// Every worker starts the new filters beside the old ones.
async fn prepare(control: &Control, generation: &Arc<Generation>) -> Result<(), String> {
    let mut answers = Vec::new();
    for worker in &control.shared.workers {
        let (answer, answered) = oneshot::channel();
        let _ = worker
            .commands
            .send(Command::Prepare(Arc::clone(generation), answer));
        answers.push(answered);
    }
    for answered in answers {
        match tokio::time::timeout(PREPARE_WAIT_MAX, answered).await {
            Ok(Ok(outcome)) => outcome?,
            Ok(Err(_)) => return Err("a worker has ended".to_owned()),
            Err(_) => return Err("a worker does not answer".to_owned()),
        }
    }
    Ok(())
}

async fn commit(
    control: &mut Control,
    listening: &mut Vec<Listening>,
    bound: Vec<Bound>,
    generation: Arc<Generation>,
) -> Result<u64, String> {
    let shared = Arc::clone(&control.shared);
    let log = move_log(control, &generation.config);
    for worker in &shared.workers {
        let _ = worker.commands.send(Command::Commit(log.clone()));
    }
    let number = generation.number;
    shared.generation.store(Arc::clone(&generation));
    forget_gone(&shared);
    listening.extend(
        bound
            .into_iter()
            .map(|bound| Listening::start(&shared, bound)),
    );
    let is_kept = |known: &Listening| {
        generation
            .config
            .listeners
            .iter()
            .any(|listener| listener.bind == known.bind)
    };
    let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(listening).into_iter().partition(is_kept);
    *listening = kept;
    for listener in gone {
        listener.stop(&shared).await;
    }
    Ok(number)
}

/// The log goes where the new configuration says; a writer that cannot be started leaves the old one.
fn move_log(control: &mut Control, config: &Config) -> Option<LogTo> {
    let Some(wanted) = &config.access_log else {
        // The thread ends with the last worker's buffer.
        control.log = None;
        return None;
    };
    if let Some(log) = &control.log {
        // A full queue means a disk that is stuck: the next reload tries again.
        let _ = log
            .messages()
            .try_send(Message::Target(wanted.target.clone()));
    } else {
        match Writer::start(&wanted.target) {
            Ok(writer) => control.log = Some(writer),
            Err(error) => tracing::error!("cannot open the access log {}: {error}", wanted.target),
        }
    }
    control.log.as_ref().map(|log| LogTo {
        format: wanted.format,
        writer: log.messages(),
    })
}
