//! The comparison: both loads over all proxies, in interleaved rounds.
//!
//! All proxies run from beginning to end, on the same core; only one is loaded at a time, and each round begins with
//! another, so that nobody always follows the same neighbour. Between two measurements the access log is emptied.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::Scale;
use crate::cores::{Cores, on_core};
use crate::cpu::{CpuTime, Memory};
use crate::features;
use crate::load::{Border, Load, Shape, mix};
use crate::peers::{Backends, Choice, Peer, Proxy};
use crate::report::{Section, Target, figure, table};
use crate::statistics::Samples;
use crate::syscalls;

const CONNECTIONS: usize = 64;
/// Of the open loop.
const PER_SECOND: u32 = 5000;
const LOADS: [Shape; 2] = [
    Shape::Closed,
    Shape::Open {
        per_second: PER_SECOND,
    },
];

/// Everything measured of one proxy under one load; one sample a round.
#[derive(Debug, Default)]
struct Row {
    per_second: Samples,
    p50_us: Samples,
    p99_us: Samples,
    cpu_us: Samples,
    user_us: Samples,
    kernel_us: Samples,
    /// Share of one core, 0 to 1.
    busy: Samples,
    calls: Option<f64>,
    rss_mib: Samples,
    peak_mib: Samples,
    invalid: Option<String>,
}

pub fn run(scale: &Scale, choice: &Choice) -> Result<Section> {
    let cores = Cores::find()?;
    let scratch = tempfile::tempdir()?;
    let backends = Backends::start(cores.rest, scratch.path())?;
    let mut proxies = Vec::new();
    let mut invalid = Vec::new();
    for peer in choice.peers()? {
        let ready = peer
            .start(&backends, 1, choice.access_log, cores.proxy, scratch.path())
            .and_then(|proxy| features::check(&proxy, &backends).map(|()| proxy));
        match ready {
            Ok(proxy) => proxies.push(proxy),
            Err(error) => invalid.push(format!("{}: {error:#}", peer.name())),
        }
    }
    let requests = mix();
    let mut results: Vec<[Row; 2]> = proxies.iter().map(|_| Default::default()).collect();
    for round in 0..scale.rounds {
        for step in 0..proxies.len() {
            let turn = (usize::try_from(round)? + step) % proxies.len();
            let (Some(proxy), Some(rows)) = (proxies.get(turn), results.get_mut(turn)) else {
                continue;
            };
            for (shape, row) in LOADS.into_iter().zip(rows) {
                eprintln!(
                    "round {} of {}: {} {}",
                    round + 1,
                    scale.rounds,
                    proxy.peer.name(),
                    shape_name(shape)
                );
                let load = load(proxy, shape, &requests, scale.warm_up, scale.measured);
                if let Err(error) = on_core(cores.rest, || measure(proxy, &load, row)) {
                    row.invalid.get_or_insert(format!("{error:#}"));
                }
                empty_log(proxy)?;
            }
        }
    }
    for (proxy, rows) in proxies.iter().zip(&mut results) {
        for (shape, row) in LOADS.into_iter().zip(rows) {
            let load = load(proxy, shape, &requests, scale.warm_up, scale.traced);
            if let Err(error) = trace(proxy, &load, row, cores, scratch.path()) {
                eprintln!(
                    "system calls of {} were not counted: {error:#}",
                    proxy.peer.name()
                );
            }
        }
        if let Err(error) = check_log(proxy) {
            invalid.push(format!("{error:#}"));
        }
    }
    Ok(section(scale, &proxies, &results, invalid))
}

fn load<'a>(
    proxy: &Proxy,
    shape: Shape,
    requests: &'a [Vec<u8>],
    warm_up: Duration,
    measured: Duration,
) -> Load<'a> {
    Load {
        address: proxy.address,
        connections: CONNECTIONS,
        shape,
        requests,
        warm_up,
        measured,
    }
}

/// One round of one proxy under one load.
fn measure(proxy: &Proxy, load: &Load<'_>, row: &mut Row) -> Result<()> {
    let pids = proxy
        .running
        .as_ref()
        .map(|running| running.pids())
        .transpose()?
        .unwrap_or_default();
    let mut clocks = Vec::with_capacity(2);
    let outcome = load.run(|_: Border| {
        clocks.push(CpuTime::of(&pids)?);
        Ok(())
    })?;
    let (Some(before), Some(after)) = (clocks.first(), clocks.last()) else {
        anyhow::bail!("the clocks were not read")
    };
    if outcome.errors > 0 {
        anyhow::bail!(
            "{} errors, the first: {}",
            outcome.errors,
            outcome.first_error.unwrap_or_default()
        );
    }
    anyhow::ensure!(outcome.answered > 0, "nothing was answered");
    row.per_second.push(outcome.per_second());
    row.p50_us.push(outcome.latency_us(0.50));
    row.p99_us.push(outcome.latency_us(0.99));
    if pids.is_empty() {
        return Ok(());
    }
    let spent = *after - *before;
    let cpu_us = spent.total_ns as f64 / 1000.0 / outcome.answered as f64;
    row.cpu_us.push(cpu_us);
    if let Some(user) = spent.user_share() {
        row.user_us.push(cpu_us * user);
        row.kernel_us.push(cpu_us * (1.0 - user));
    }
    row.busy
        .push(spent.total_ns as f64 / outcome.elapsed.as_nanos() as f64);
    let memory = Memory::of(&pids)?;
    row.rss_mib.push(memory.now_kib as f64 / 1024.0);
    row.peak_mib.push(memory.peak_kib as f64 / 1024.0);
    Ok(())
}

fn trace(
    proxy: &Proxy,
    load: &Load<'_>,
    row: &mut Row,
    cores: Cores,
    scratch: &Path,
) -> Result<()> {
    let Some(running) = &proxy.running else {
        return Ok(());
    };
    let pids = running.pids()?;
    row.calls = on_core(cores.rest, || {
        syscalls::per_request(&pids, load, cores.rest, scratch)
    })?;
    Ok(())
}

/// Seven rounds of 80,000 lines a second would fill a disk.
fn empty_log(proxy: &Proxy) -> Result<()> {
    let Some(path) = &proxy.access_log else {
        return Ok(());
    };
    std::fs::File::options()
        .write(true)
        .open(path)
        .and_then(|file| file.set_len(0))
        .with_context(|| format!("emptying {}", path.display()))
}

/// After the last load there must be lines, at the latest when a buffered log is flushed.
fn check_log(proxy: &Proxy) -> Result<()> {
    let Some(path) = &proxy.access_log else {
        return Ok(());
    };
    let began = std::time::Instant::now();
    while std::fs::metadata(path)?.len() == 0 {
        anyhow::ensure!(
            began.elapsed() < Duration::from_secs(15),
            "{} wrote no access log",
            proxy.peer.name()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn shape_name(shape: Shape) -> &'static str {
    match shape {
        Shape::Closed => "saturated",
        Shape::Open { .. } => "open loop",
    }
}

fn section(
    scale: &Scale,
    proxies: &[Proxy],
    results: &[[Row; 2]],
    mut invalid: Vec<String>,
) -> Section {
    let mut markdown = format!(
        "Medians of {} interleaved rounds of {:?}; one core for the proxy, another for load and servers; {CONNECTIONS} keep-alive \
         connections, answers of 1 KiB. CPU time is that of all threads of the proxy; its range over the rounds is in brackets.\n\n",
        scale.rounds, scale.measured
    );
    for proxy in proxies {
        markdown.push_str(&format!(
            "- **{}** ({}): {}\n",
            proxy.peer.name(),
            proxy.version,
            proxy.peer.remark()
        ));
    }
    let mut json = BTreeMap::new();
    for (index, shape) in LOADS.into_iter().enumerate() {
        let rows: Vec<(&Proxy, &Row)> = proxies
            .iter()
            .zip(results.iter().filter_map(|rows| rows.get(index)))
            .collect();
        let reference = rows
            .iter()
            .find(|(proxy, _)| proxy.peer == Peer::Nginx)
            .map(|(_, row)| &row.cpu_us);
        let title = match shape {
            Shape::Closed => "Saturated: every connection asks again at once".to_owned(),
            Shape::Open { per_second } => format!(
                "Open loop: {per_second} requests/s, latency from the time a request was due"
            ),
        };
        let lines: Vec<Vec<String>> = rows
            .iter()
            .map(|(proxy, row)| cells(proxy, row, reference))
            .collect();
        markdown.push_str(&format!("\n**{title}**\n\n{}", table(&COLUMNS, &lines)));
        for (proxy, row) in &rows {
            if let Some(reason) = &row.invalid {
                invalid.push(format!(
                    "{}, {}: {reason}",
                    proxy.peer.name(),
                    shape_name(shape)
                ));
            }
        }
        let values: BTreeMap<&str, Value> = rows
            .iter()
            .map(|(proxy, row)| (proxy.peer.name(), row_json(proxy, row)))
            .collect();
        json.insert(shape_name(shape), values);
    }
    let targets = targets(proxies, results);
    Section {
        key: "compare",
        markdown,
        json: json!(json),
        invalid,
        targets,
    }
}

/// evenkeel\'s CPU time over that of others, saturated.
fn targets(proxies: &[Proxy], results: &[[Row; 2]]) -> Vec<Target> {
    let row = |peer: Peer| {
        let (_, [saturated, _]) = proxies
            .iter()
            .zip(results)
            .find(|(proxy, _)| proxy.peer == peer)?;
        saturated.invalid.is_none().then_some(saturated)
    };
    let target = |(own, peer, at_most): (Peer, Peer, f64)| Target {
        what: format!(
            "CPU per request, saturated, {} over {}",
            own.name(),
            peer.name()
        ),
        measured: row(own)
            .zip(row(peer))
            .and_then(|(own, other)| own.cpu_us.over(&other.cpu_us).median()),
        at_most,
        digits: 2,
    };
    [
        (Peer::Evenkeel, Peer::Nginx, 1.20),
        (Peer::Evenkeel, Peer::NginxBufferedLog, 1.20),
        (Peer::Evenkeel, Peer::Haproxy, 1.05),
        (Peer::Evenkeel, Peer::EnvoyWithEvenkeel, 0.30),
        (Peer::EvenkeelLeastConn, Peer::NginxLeastConn, 1.40),
    ]
    .map(target)
    .into()
}

const COLUMNS: [&str; 10] = [
    "proxy",
    "requests/s",
    "p50 ms",
    "p99 ms",
    "CPU µs/request",
    "× nginx",
    "user + kernel µs",
    "system calls/request",
    "RSS (peak) MiB",
    "core busy",
];

fn cells(proxy: &Proxy, row: &Row, reference: Option<&Samples>) -> Vec<String> {
    if let Some(reason) = &row.invalid {
        let mut cells = vec![format!(
            "{}: **invalid**, {}",
            proxy.peer.name(),
            reason.replace('|', "/")
        )];
        cells.resize(COLUMNS.len(), "–".to_owned());
        return cells;
    }
    let cpu = row.cpu_us.median();
    let ratio = reference.and_then(|reference| row.cpu_us.over(reference).median());
    let spread = row
        .cpu_us
        .range()
        .map(|(low, high)| format!(" [{low:.1}–{high:.1}]"))
        .unwrap_or_default();
    let milliseconds = |samples: &Samples| figure(samples.median().map(|us| us / 1000.0), 3);
    vec![
        proxy.peer.name().to_owned(),
        figure(row.per_second.median(), 0),
        milliseconds(&row.p50_us),
        milliseconds(&row.p99_us),
        format!("{}{spread}", figure(cpu, 1)),
        figure(ratio, 2),
        format!(
            "{} + {}",
            figure(row.user_us.median(), 1),
            figure(row.kernel_us.median(), 1)
        ),
        figure(row.calls, 1),
        format!(
            "{} ({})",
            figure(row.rss_mib.median(), 1),
            figure(row.peak_mib.range().map(|(_, high)| high), 1)
        ),
        figure(row.busy.median().map(|busy| busy * 100.0), 0) + " %",
    ]
}

fn row_json(proxy: &Proxy, row: &Row) -> Value {
    json!({
        "version": proxy.version,
        "invalid": row.invalid,
        "requests_per_second": row.per_second.values(),
        "p50_us": row.p50_us.values(),
        "p99_us": row.p99_us.values(),
        "cpu_us_per_request": row.cpu_us.values(),
        "user_us_per_request": row.user_us.values(),
        "kernel_us_per_request": row.kernel_us.values(),
        "core_busy": row.busy.values(),
        "system_calls_per_request": row.calls,
        "rss_mib": row.rss_mib.values(),
        "peak_rss_mib": row.peak_mib.values(),
    })
}
