//! Memory while many clients keep their connections and do nothing.

use anyhow::Result;
use serde_json::{Value, json};

use crate::Scale;
use crate::cores::Cores;
use crate::cpu::Memory;
use crate::load::{Connection, get};
use crate::peers::{Backends, Choice, Peer};
use crate::process::Running;
use crate::report::{Section, Target, figure, table};

const WORKERS: usize = 2;

/// One proxy and the clients that hold on to it.
struct Held {
    peer: Peer,
    running: Running,
    clients: Vec<Connection>,
    fresh: Memory,
    busy: Memory,
}

pub fn run(scale: &Scale, choice: &Choice) -> Result<Section> {
    let cores = Cores::find()?;
    let scratch = tempfile::tempdir()?;
    let backends = Backends::start(cores.rest, scratch.path())?;
    let mut held = Vec::new();
    let mut invalid = Vec::new();
    for peer in choice
        .peers()?
        .into_iter()
        .filter(|peer| *peer != Peer::Direct && !peer.is_variant())
    {
        match hold(peer, &backends, scale.idle_clients, scratch.path()) {
            Ok(proxy) => held.push(proxy),
            Err(error) => invalid.push(format!("{}: {error:#}", peer.name())),
        }
    }
    eprintln!(
        "{} clients of each proxy are idle for {:?}",
        scale.idle_clients, scale.idle_wait
    );
    // The waiting is what is measured.
    std::thread::sleep(scale.idle_wait);
    let mut lines = Vec::new();
    let mut json = serde_json::Map::new();
    let what = format!("memory with {} idle clients, MiB", scale.idle_clients);
    let mut target = Target {
        what,
        measured: None,
        at_most: 60.0,
        digits: 1,
    };
    for held in &mut held {
        let later = Memory::of(&held.running.pids()?)?;
        let gone = held
            .clients
            .iter_mut()
            .filter_map(|client| client.exchange(&get("/")).err())
            .count();
        if gone > 0 {
            invalid.push(format!(
                "{}: {gone} of {} idle clients were let go",
                held.peer.name(),
                scale.idle_clients
            ));
        }
        let mib = |kib: u64| kib as f64 / 1024.0;
        let values = [
            mib(held.fresh.now_kib),
            mib(held.busy.now_kib),
            mib(later.now_kib),
            mib(later.peak_kib),
        ];
        let cells = values.iter().map(|value| figure(Some(*value), 1));
        lines.push(
            std::iter::once(held.peer.name().to_owned())
                .chain(cells)
                .collect(),
        );
        if held.peer == Peer::Evenkeel {
            target.measured = Some(mib(later.now_kib));
        }
        json.insert(held.peer.name().to_owned(), json!(values));
    }
    let markdown = format!(
        "**Memory** in MiB (resident, all processes) with {} idle keep-alive clients that each made one request, {WORKERS} workers\n\n{}",
        scale.idle_clients,
        table(
            &[
                "proxy",
                "after start",
                "after the requests",
                &format!("{:?} later", scale.idle_wait),
                "peak"
            ],
            &lines
        )
    );
    Ok(Section {
        key: "idle_mib",
        markdown,
        json: Value::Object(json),
        invalid,
        targets: vec![target],
    })
}

fn hold(
    peer: Peer,
    backends: &Backends,
    clients: usize,
    scratch: &std::path::Path,
) -> Result<Held> {
    let task = peer.task(backends, WORKERS, true, scratch)?;
    let mut running = Running::start(peer.name(), peer.command(&task)?, None, &task.folder)?;
    running.until_listening(task.listen)?;
    let fresh = Memory::of(&running.pids()?)?;
    let request = get("/");
    let mut open = Vec::with_capacity(clients);
    for _ in 0..clients {
        let mut client = Connection::open(task.listen)?;
        client.exchange(&request)?;
        open.push(client);
    }
    let busy = Memory::of(&running.pids()?)?;
    Ok(Held {
        peer,
        running,
        clients: open,
        fresh,
        busy,
    })
}
