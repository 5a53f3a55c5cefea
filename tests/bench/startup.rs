//! How long from exec to the first 200.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

use crate::Scale;
use crate::cores::Cores;
use crate::load::{Connection, get};
use crate::peers::{Backends, Choice, Peer};
use crate::process::Running;
use crate::report::{Section, Target, figure, table};
use crate::statistics::Samples;

const WORKERS: usize = 2;
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two attempts; part of the error of the figure.
const LOOK_AGAIN: Duration = Duration::from_micros(500);

pub fn run(scale: &Scale, choice: &Choice) -> Result<Section> {
    let cores = Cores::find()?;
    let scratch = tempfile::tempdir()?;
    let backends = Backends::start(cores.rest, scratch.path())?;
    let peers: Vec<Peer> = choice
        .peers()?
        .into_iter()
        .filter(|peer| *peer != Peer::Direct && !peer.is_variant())
        .collect();
    let mut results: Vec<Samples> = peers.iter().map(|_| Samples::default()).collect();
    let mut invalid = Vec::new();
    for _ in 0..scale.starts {
        for (peer, samples) in peers.iter().zip(&mut results) {
            match once(*peer, &backends, scratch.path()) {
                Ok(took) => samples.push(took.as_secs_f64() * 1000.0),
                Err(error) => invalid.push(format!("{}: {error:#}", peer.name())),
            }
        }
    }
    let lines: Vec<Vec<String>> = peers
        .iter()
        .zip(&results)
        .map(|(peer, samples)| {
            let (low, high) = samples.range().unzip();
            vec![
                peer.name().to_owned(),
                figure(samples.median(), 1),
                format!("{}–{}", figure(low, 1), figure(high, 1)),
            ]
        })
        .collect();
    let markdown = format!(
        "**Start-up**: exec to the first 200 through the proxy, {WORKERS} workers, median of {}\n\n{}",
        scale.starts,
        table(&["proxy", "ms", "range"], &lines)
    );
    let json: Value = peers
        .iter()
        .zip(&results)
        .map(|(peer, samples)| (peer.name().to_owned(), json!(samples.values())))
        .collect();
    let own = peers
        .iter()
        .zip(&results)
        .find(|(peer, _)| **peer == Peer::Evenkeel);
    let measured = own.and_then(|(_, samples)| samples.median());
    let target = Target {
        what: "start-up, ms".to_owned(),
        measured,
        at_most: 300.0,
        digits: 0,
    };
    Ok(Section {
        key: "startup_ms",
        markdown,
        json,
        invalid,
        targets: vec![target],
    })
}

fn once(peer: Peer, backends: &Backends, scratch: &std::path::Path) -> Result<Duration> {
    let task = peer.task(backends, WORKERS, true, scratch)?;
    // What `evenkeel envoy` writes beforehand is not part of a start.
    let command = peer.command(&task)?;
    let request = get("/");
    let began = Instant::now();
    let _running = Running::start(peer.name(), command, None, &task.folder)?;
    // Ends with the first 200, or when patience does.
    loop {
        let attempt =
            Connection::open(task.listen).and_then(|mut connection| connection.exchange(&request));
        match attempt {
            Ok(_) => return Ok(began.elapsed()),
            Err(error) if began.elapsed() > PATIENCE => return Err(error),
            Err(_) => std::thread::sleep(LOOK_AGAIN),
        }
    }
}
