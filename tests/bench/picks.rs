//! What choosing a server costs, inside `evenkeel.wasm` on our host and natively: every method, pools of 2 to 10,000 servers of which
//! three of ten are down, at random.
//!
//! Four VMs share each pool. Their clock goes on 50 µs with each pick (a busy worker's 20,000 requests a second), so that each hundred
//! picks contain one reading of what the three others told; and in between those did as many picks themselves, and told. Measured is
//! the thread's CPU time of one VM's hundred picks, median over many. A pick is what a request causes: the clock where load is
//! looked at, reading others' load when due, the ordered list of up to three, counting the request. Telling others is not in it.
//!
//! The loop runs inside the guest, in a build of the filter with the feature `bench`: one pick is far cheaper than a request.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use evenkeel_host::{Module, Process};
use evenkeel_policy::balance::{Algorithm, Facts};
use evenkeel_policy::config::{Config, Document};
use evenkeel_policy::random::Sequence;
use evenkeel_policy::upstream::{InFlight, Pool};
use evenkeel_tests::filter_alone::{FilterAlone, VM_ID};
use serde_json::{Value, json};

use crate::cpu::thread_nanoseconds;
use crate::peers::target_folder;
use crate::report::{Section, Target, figure, table};
use crate::statistics::Samples;

const SIZES: [usize; 5] = [2, 10, 100, 1_000, 10_000];
const VMS: usize = 4;
/// Picks that are measured at once: at [`STEP_NS`] each, 5 ms, after which others' load is read again.
const BATCH: u32 = 100;
const STEP_NS: u64 = 50_000;
/// Batches before those that count: tables are built, loads are there.
const WARM_BATCHES: usize = 3;
/// Servers that are looked at in all batches of one cell, more or less.
const LOOKS: usize = 10_000_000;
const BATCHES: [usize; 2] = [15, 60];
/// Most that a pick may cost at ten servers; and at ten thousand, whether or not all of them are looked at.
const TARGET_AT_TEN_NS: f64 = 1_000.0;
const TARGET_SCANNING_NS: f64 = 50_000.0;

/// What a method costs with one size of pool, nanoseconds per pick.
struct Cell {
    method: Algorithm,
    size: usize,
    inside: Option<f64>,
    natively: Option<f64>,
}

pub fn run(methods: &[String], sizes: &[usize]) -> Result<Section> {
    let wasm = std::fs::read(build_filter()?)?;
    let module = FilterAlone::compile(&wasm)?;
    let sizes = if sizes.is_empty() { &SIZES[..] } else { sizes };
    let mut cells = Vec::new();
    for method in Algorithm::ALL {
        if !methods.is_empty() && !methods.iter().any(|name| name == method.name()) {
            continue;
        }
        for size in sizes {
            let pool = pool(method, *size);
            cells.push(Cell {
                method,
                size: *size,
                inside: inside(&module, &pool, *size)?.median(),
                natively: natively(&pool, *size)?.median(),
            });
        }
        eprintln!("{}", line(&cells, method, sizes).join("  "));
    }
    let mut columns = vec!["ns per pick, in the filter (natively)".to_owned()];
    columns.extend(sizes.iter().map(|size| format!("{size} servers")));
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let mut seen: Vec<Algorithm> = cells.iter().map(|cell| cell.method).collect();
    seen.dedup();
    let rows: Vec<Vec<String>> = seen
        .into_iter()
        .map(|method| line(&cells, method, sizes))
        .collect();
    Ok(Section {
        key: "picks",
        markdown: format!(
            "**Choosing a server**, {VMS} VMs on one pool, 3 of 10 servers down at random.\n\n{}",
            table(&columns, &rows)
        ),
        json: cells
            .iter()
            .map(|cell| {
                json!({"method": cell.method.name(), "servers": cell.size,
                       "filter_ns": cell.inside, "native_ns": cell.natively})
            })
            .collect(),
        invalid: Vec::new(),
        targets: targets(&cells),
    })
}

fn line(cells: &[Cell], method: Algorithm, sizes: &[usize]) -> Vec<String> {
    let of = |size: &usize| {
        let cell = cells
            .iter()
            .find(|cell| cell.method == method && cell.size == *size);
        cell.map_or_else(String::new, |cell| {
            format!("{} ({})", figure(cell.inside, 0), figure(cell.natively, 0))
        })
    };
    let name = [method.name().to_owned()].into_iter();
    name.chain(sizes.iter().map(of)).collect()
}

fn targets(cells: &[Cell]) -> Vec<Target> {
    let target = |cell: &Cell| {
        let jumps = matches!(
            cell.method,
            Algorithm::HashConsistent | Algorithm::Maglev | Algorithm::RandomTwo
        );
        let at_most = match cell.size {
            10 => TARGET_AT_TEN_NS,
            10_000 if jumps => 3.0 * TARGET_AT_TEN_NS,
            10_000 => TARGET_SCANNING_NS,
            _ => return None,
        };
        Some(Target {
            what: format!("{} of {}, ns per pick", cell.method.name(), cell.size),
            measured: cell.inside,
            at_most,
            digits: 0,
        })
    };
    cells.iter().filter_map(target).collect()
}

/// The filter that picks at our order.
fn build_filter() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let built = Command::new(root.join("deploy/build-filter.sh"))
        .env("EVENKEEL_FILTER_FEATURES", "bench")
        .env("CARGO_TARGET_DIR", target_folder()?.join("bench-filter"))
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("running deploy/build-filter.sh")?;
    anyhow::ensure!(built.status.success(), "the filter cannot be built");
    let output = String::from_utf8_lossy(&built.stdout);
    Ok(output.lines().last().unwrap_or_default().trim().into())
}

fn pool(method: Algorithm, size: usize) -> Value {
    let mut random = Sequence::new(size as u64);
    // Exactly three of ten, at random.
    let mut order: Vec<usize> = (0..size).collect();
    for place in (1..size).rev() {
        order.swap(place, below(&mut random, place + 1));
    }
    let down = order.get(..size * 3 / 10).unwrap_or_default();
    let mut is_down = vec![false; size];
    for server in down {
        if let Some(is_down) = is_down.get_mut(*server) {
            *is_down = true;
        }
    }
    let servers = is_down.iter().enumerate().map(|(server, down)| {
        let weight = if method.allows_weights() {
            random.below(5) + 1
        } else {
            1
        };
        let address = format!("10.0.{}.{}:80", server / 256, server % 256);
        json!({"address": address, "weight": weight, "down": down})
    });
    json!({"balance": method.name(), "servers": servers.collect::<Vec<_>>(), "retries": 2})
}

fn batches(size: usize) -> usize {
    let [fewest, most] = BATCHES;
    (LOOKS / size / BATCH as usize).clamp(fewest, most)
}

fn inside(module: &Module, pool: &Value, size: usize) -> Result<Samples> {
    let policy = json!({"routes": [{"pool": "shop"}], "pools": {"shop": pool}});
    let process = Process::new();
    let mut vms = Vec::new();
    for _ in 0..VMS {
        vms.push(FilterAlone::start(module, &process, &policy)?);
    }
    let order = |picks: u32, tells: u8| -> Result<()> {
        let mut order = 0_u32.to_le_bytes().to_vec();
        order.extend(picks.to_le_bytes());
        order.push(tells);
        let written = process.set_shared_data(VM_ID, b"evenkeel//bench", &order, 0);
        anyhow::ensure!(written, "the order could not be written");
        Ok(())
    };
    vms.iter().for_each(|vm| vm.clock.step_ns.set(STEP_NS));
    // They take their slots, and then see each other.
    order(1, 1)?;
    vms.iter().for_each(FilterAlone::tick);
    order(0, 0)?;
    vms.iter().for_each(FilterAlone::tick);
    let measured = vms.first().context("a VM")?;
    let mut samples = Samples::default();
    for batch in 0..WARM_BATCHES + batches(size) {
        order(BATCH, 1)?;
        vms.iter().skip(1).for_each(FilterAlone::tick);
        // What load there is must be everybody's.
        if batch < WARM_BATCHES {
            measured.tick();
        }
        order(BATCH, 0)?;
        let before = thread_nanoseconds();
        measured.tick();
        let nanoseconds = thread_nanoseconds() - before;
        if batch >= WARM_BATCHES {
            samples.push(nanoseconds / f64::from(BATCH));
        }
    }
    Ok(samples)
}

/// The same loop without a filter, and without others.
fn natively(pool: &Value, size: usize) -> Result<Samples> {
    let document = Document::from_value(json!({"pools": {"shop": pool}}))?;
    let config = Config::from_document(&document)?;
    let config = config.pools.first().context("a pool")?;
    let mut pool = Pool::new(config, &mut InFlight::default(), 0);
    let mut random = Sequence::new(1);
    let mut samples = Samples::default();
    for batch in 0..WARM_BATCHES + batches(size) {
        let before = thread_nanoseconds();
        for _ in 0..BATCH {
            let key = random.next_u64().to_le_bytes();
            let [first, second, third, fourth, ..] = key;
            let facts = Facts {
                client: Some(IpAddr::from([first, second, third, fourth])),
                hash_key: &key,
            };
            let choices = pool.choose(&facts, &mut random);
            let picked = choices.get(0).context("a server")?;
            pool.began(picked);
            if pool.needs_latency() {
                pool.answered(picked, random.below(50_000), 1_000_000_000);
            }
            pool.ended(below(&mut random, size));
        }
        let nanoseconds = thread_nanoseconds() - before;
        if batch >= WARM_BATCHES {
            samples.push(nanoseconds / f64::from(BATCH));
        }
    }
    Ok(samples)
}

fn below(random: &mut Sequence, bound: usize) -> usize {
    usize::try_from(random.below(bound as u64)).unwrap_or(0)
}
