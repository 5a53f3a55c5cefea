//! Large pools: 10,000 servers in one pool, and 1,000 pools of 10, in evenkeel with two workers.
//!
//! The servers are real addresses: one nginx listens on a port of every address of the loopback network, and each server of the
//! configuration is another one of these. Measured is how long it takes from exec to the first 200, how large the memory of a VM has
//! become after it was configured and has seen requests for many pools, how long that configuring takes of a thread's time (nothing else is
//! answered by that worker meanwhile), and what a client notices of a reload of the same: p99 of an open loop in windows with
//! one reload each, beside windows without.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use evenkeel_host::Process;
use evenkeel_tests::filter_alone::FilterAlone;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::Scale;
use crate::cpu::thread_nanoseconds;
use crate::load::{Connection, Load, Shape, get};
use crate::peers::{anywhere, evenkeel_binary, generate_for_envoy};
use crate::process::{Running, free_addresses};
use crate::report::{Section, Target, figure, table};
use crate::statistics::Samples;

const SERVERS: usize = 10_000;
const POOLS: usize = 1_000;
const WORKERS: usize = 2;
/// Of the open loop.
const PER_SECOND: u32 = 1_000;
const CONNECTIONS: usize = 32;
/// Requests of the VM whose memory is measured; ticks are between them.
const REQUESTS: usize = 2_000;
const STARTS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_micros(500);
/// Most that each may come to.
const FIRST_ANSWER_MS: f64 = 1_000.0;
const GUEST_MIB: f64 = 64.0;
const RELOAD_RATIO: f64 = 2.0;

/// One configuration.
#[derive(Debug, Clone, Copy)]
struct Shop {
    pools: usize,
    balance: &'static str,
}

const SHOPS: [Shop; 5] = [
    Shop {
        pools: 1,
        balance: "round_robin",
    },
    Shop {
        pools: 1,
        balance: "least_conn",
    },
    Shop {
        pools: 1,
        balance: "hash_consistent",
    },
    Shop {
        pools: 1,
        balance: "maglev",
    },
    Shop {
        pools: POOLS,
        balance: "round_robin",
    },
];

/// What came out for one.
#[derive(Debug, Default)]
struct Row {
    first_ms: Samples,
    guest_mib: Option<f64>,
    configure_ms: Samples,
    idle_p99_us: Samples,
    reload_p99_us: Samples,
}

pub fn run(scale: &Scale) -> Result<Section> {
    let scratch = tempfile::tempdir()?;
    let (port, _servers) = anywhere::start(scratch.path())?;
    let mut rows = Vec::new();
    let mut invalid = Vec::new();
    for shop in SHOPS {
        let mut row = Row::default();
        if let Err(error) = measure(scale, shop, port, scratch.path(), &mut row) {
            invalid.push(format!("{}: {error:#}", shop.name()));
        }
        eprintln!("{}", cells(shop, &row).join("  "));
        rows.push((shop, row));
    }
    let columns = [
        "evenkeel, 2 workers",
        "first answer ms",
        "guest MiB per VM",
        "configuring a VM, ms of CPU",
        "p99 idle ms",
        "p99 with a reload ms",
    ];
    let lines: Vec<Vec<String>> = rows.iter().map(|(shop, row)| cells(*shop, row)).collect();
    let json: Value = rows
        .iter()
        .map(|(shop, row)| {
            let values = json!({
                "first_ms": row.first_ms.values(), "guest_mib": row.guest_mib, "configure_ms": row.configure_ms.values(),
                "idle_p99_us": row.idle_p99_us.values(), "reload_p99_us": row.reload_p99_us.values(),
            });
            (shop.name(), values)
        })
        .collect();
    Ok(Section {
        key: "large",
        markdown: format!(
            "**Large pools**: {PER_SECOND} requests/s in windows of {:?}, one reload in each second window.\n\n{}",
            scale.measured,
            table(&columns, &lines)
        ),
        json,
        invalid,
        targets: rows
            .iter()
            .flat_map(|(shop, row)| targets(*shop, row))
            .collect(),
    })
}

fn cells(shop: Shop, row: &Row) -> Vec<String> {
    let milliseconds = |samples: &Samples| figure(samples.median().map(|us| us / 1_000.0), 2);
    vec![
        shop.name(),
        figure(row.first_ms.median(), 0),
        figure(row.guest_mib, 1),
        figure(row.configure_ms.median(), 0),
        milliseconds(&row.idle_p99_us),
        milliseconds(&row.reload_p99_us),
    ]
}

fn targets(shop: Shop, row: &Row) -> [Target; 3] {
    let name = shop.name();
    let ratio = row.reload_p99_us.over(&row.idle_p99_us).median();
    [
        ("first answer, ms", row.first_ms.median(), FIRST_ANSWER_MS),
        ("guest memory, MiB", row.guest_mib, GUEST_MIB),
        ("p99 with a reload over idle", ratio, RELOAD_RATIO),
    ]
    .map(|(what, measured, at_most)| Target {
        what: format!("{name}: {what}"),
        measured,
        at_most,
        digits: 1,
    })
}

impl Shop {
    fn name(self) -> String {
        let servers = SERVERS / self.pools;
        match self.pools {
            1 => format!("1 pool of {servers}, {}", self.balance),
            pools => format!("{pools} pools of {servers}, {}", self.balance),
        }
    }

    fn policy(self, port: u16) -> Result<Value> {
        let mut pools = serde_json::Map::new();
        let mut routes = Vec::new();
        for pool in 0..self.pools {
            let each = SERVERS / self.pools;
            let servers = (pool * each..(pool + 1) * each)
                .map(|number| Ok(json!({"address": anywhere::address(number, port)?.to_string()})));
            let servers = servers.collect::<Result<Vec<_>>>()?;
            let name = format!("p{pool}");
            if pool > 0 {
                let prefix = [format!("/{pool}/")];
                routes.push(json!({"match": {"path_prefix": prefix}, "pool": name}));
            }
            pools.insert(name, json!({"balance": self.balance, "servers": servers}));
        }
        routes.push(json!({"pool": "p0"}));
        Ok(json!({"routes": routes, "pools": pools}))
    }

    /// A path of each pool, and then again.
    fn path(self, number: usize) -> String {
        format!("/{}/item.php?id={number}", number % self.pools)
    }
}

fn measure(scale: &Scale, shop: Shop, port: u16, scratch: &Path, row: &mut Row) -> Result<()> {
    let folder = scratch.join(shop.name().replace([' ', ','], "_"));
    std::fs::create_dir_all(&folder)?;
    let policy = shop.policy(port)?;
    let [listen, admin] = free_addresses()?;
    let document = json!({
        "listeners": [{"name": "web", "bind": listen.to_string()}],
        "admin": {"bind": admin.to_string()},
        "workers": WORKERS,
        "policy": policy,
    });
    let configuration = folder.join("evenkeel.yaml");
    std::fs::write(&configuration, serde_json::to_string(&document)?)?;
    alone(shop, &policy, &configuration, &folder, row)?;
    for _ in 0..scale.starts.min(STARTS) {
        let (took, _running) = first_answer(shop, listen, &configuration, &folder)?;
        row.first_ms.push(took.as_secs_f64() * 1_000.0);
    }
    let (_, running) = first_answer(shop, listen, &configuration, &folder)?;
    reloads(scale, shop, (listen, admin), &running, row)
}

/// The filter without a network: its memory, and how long it takes to configure one.
fn alone(
    shop: Shop,
    policy: &Value,
    configuration: &Path,
    folder: &Path,
    row: &mut Row,
) -> Result<()> {
    let generated = folder.join("generated");
    generate_for_envoy(&evenkeel_binary()?, configuration, &generated)?;
    let module = FilterAlone::compile(&std::fs::read(generated.join("evenkeel.wasm"))?)?;
    let process = Process::new();
    let mut vms = Vec::new();
    for _ in 0..WORKERS {
        let before = thread_nanoseconds();
        vms.push(FilterAlone::start(&module, &process, policy)?);
        row.configure_ms
            .push((thread_nanoseconds() - before) / 1_000_000.0);
    }
    for number in 0..REQUESTS {
        let path = shop.path(number);
        let request = [
            (":authority", "www.example.com"),
            (":path", path.as_str()),
            (":method", "GET"),
            (":scheme", "http"),
        ];
        for vm in &vms {
            let mut sent = vm.request(&request)?.context("a server for a request")?;
            sent.answer()?;
            sent.finish();
            if number % 100 == 0 {
                vm.tick();
            }
        }
    }
    let memory = vms.iter().map(FilterAlone::memory_bytes);
    let memory = memory.collect::<Result<Vec<usize>>>()?;
    row.guest_mib = memory
        .into_iter()
        .max()
        .map(|bytes| bytes as f64 / 1_048_576.0);
    Ok(())
}

/// Starts it; how long until it answered.
fn first_answer(
    shop: Shop,
    listen: SocketAddr,
    configuration: &Path,
    folder: &Path,
) -> Result<(Duration, Running)> {
    let mut command = Command::new(evenkeel_binary()?);
    command.arg("run").arg("-c").arg(configuration);
    let request = get(&shop.path(0));
    let began = Instant::now();
    let running = Running::start("evenkeel", command, None, folder)?;
    // Ends with the first 200, or when patience does.
    loop {
        let attempt =
            Connection::open(listen).and_then(|mut connection| connection.exchange(&request));
        match attempt {
            Ok(_) => return Ok((began.elapsed(), running)),
            Err(error) if began.elapsed() > PATIENCE => return Err(error),
            Err(_) => std::thread::sleep(LOOK_AGAIN),
        }
    }
}

/// Windows of load, with and without a reload in them, in turns.
fn reloads(
    scale: &Scale,
    shop: Shop,
    (listen, admin): (SocketAddr, SocketAddr),
    running: &Running,
    row: &mut Row,
) -> Result<()> {
    let requests: Vec<Vec<u8>> = (0..POOLS).map(|number| get(&shop.path(number))).collect();
    for window in 0..2 * scale.rounds {
        let reloads = window % 2 == 1;
        let load = Load {
            address: listen,
            connections: CONNECTIONS,
            shape: Shape::Open {
                per_second: PER_SECOND,
            },
            requests: &requests,
            warm_up: scale.warm_up,
            measured: scale.measured,
        };
        let before = generation(admin)?;
        let outcome = load.run(|border| {
            if reloads && border == crate::load::Border::Begin {
                let pid = running
                    .pids()?
                    .first()
                    .copied()
                    .context("a running proxy")?;
                let pid = Pid::from_raw(i32::try_from(pid)?).context("a process id")?;
                kill_process(pid, Signal::HUP)?;
            }
            Ok(())
        })?;
        if let Some(error) = outcome.first_error {
            anyhow::bail!("{error}");
        }
        let since = generation(admin)? - before;
        anyhow::ensure!(
            since == u64::from(reloads),
            "{since} reloads in a window with {}",
            u8::from(reloads)
        );
        let samples = if reloads {
            &mut row.reload_p99_us
        } else {
            &mut row.idle_p99_us
        };
        samples.push(outcome.latency_us(0.99));
    }
    Ok(())
}

/// How often a configuration was put into force.
fn generation(admin: SocketAddr) -> Result<u64> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(admin)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("evenkeel_config_generation "));
    Ok(line.context("no generation in the metrics")?.parse()?)
}
