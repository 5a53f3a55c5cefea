//! How evenly each method spreads, and what its clients notice, when one of four servers is four times slower.
//!
//! The servers are PHP's own web server with a page that takes 5 ms, and on one of them 20 ms, two at a time each: so a server
//! has a capacity, and a queue before it. The load is more than a quarter of it each can bear for the slow one, and far less than all can
//! bear together: whoever spreads by turns drowns the slow server, whoever looks at load or latency does not. Keys and clients vary
//! with each request, so that the hashing methods have something to spread.
//!
//! *Work imbalance*: the time that the busiest server spent on its requests over the mean of all four; 1 is even. nginx and HAProxy run in
//! the same run, with the methods of theirs that look at load.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use evenkeel_policy::balance::{Algorithm, KeyNeed};
use serde_json::{Value, json};

use crate::Scale;
use crate::load::{Load, Shape};
use crate::peers::{evenkeel_binary, haproxy, nginx};
use crate::process::{Running, free_addresses, on_path};
use crate::report::{Section, figure, table};

const SERVERS: usize = 4;
/// The place of the slow one; neither the first nor the last, which some methods prefer.
const SLOW: usize = 2;
const FAST_US: u32 = 5_000;
const SLOW_US: u32 = 20_000;
/// Requests that one server works on at a time.
const AT_A_TIME: usize = 2;
const PER_SECOND: u32 = 500;
const CONNECTIONS: usize = 256;
const BODY: usize = 1_024;
const KEYS: usize = 997;
/// Longest that one method is measured; with a few dozen rows this is what bounds the whole.
const MEASURED_MAX: Duration = Duration::from_secs(4);

/// The proxies' methods that are compared with.
const NGINX: [(&str, &str); 3] = [
    ("nginx, round robin", ""),
    ("nginx, least_conn", "least_conn;"),
    ("nginx, random two least_conn", "random two least_conn;"),
];
const HAPROXY: [&str; 3] = ["roundrobin", "leastconn", "random(2)"];

/// A proxy to measure.
struct Row {
    name: String,
    command: Command,
    listen: SocketAddr,
}

/// What came out.
#[derive(Debug, Clone, Copy)]
struct Outcome {
    p50_us: f64,
    p99_us: f64,
    /// Of the requests, 0 to 1.
    slow_share: f64,
    imbalance: f64,
}

pub fn run(scale: &Scale) -> Result<Section> {
    let scratch = tempfile::tempdir()?;
    let servers = Servers::start(scratch.path())?;
    let mut rows = Vec::new();
    for (name, method) in NGINX {
        rows.push(with_nginx(name, method, &servers, scratch.path())?);
    }
    for method in HAPROXY {
        rows.push(with_haproxy(method, &servers, scratch.path())?);
    }
    for method in Algorithm::ALL {
        rows.push(with_evenkeel(method, &servers, scratch.path())?);
    }
    let mut lines = Vec::new();
    let mut json = serde_json::Map::new();
    let mut invalid = Vec::new();
    for row in rows {
        let name = row.name.clone();
        match measure(scale, row, &servers, scratch.path()) {
            Ok(outcome) => {
                let line = vec![
                    name.clone(),
                    figure(Some(outcome.p50_us / 1_000.0), 1),
                    figure(Some(outcome.p99_us / 1_000.0), 1),
                    figure(Some(outcome.slow_share * 100.0), 1) + " %",
                    figure(Some(outcome.imbalance), 2),
                ];
                eprintln!("{}", line.join("  "));
                lines.push(line);
                let values = json!([
                    outcome.p50_us,
                    outcome.p99_us,
                    outcome.slow_share,
                    outcome.imbalance
                ]);
                json.insert(name, values);
            }
            Err(error) => invalid.push(format!("{name}: {error:#}")),
        }
    }
    let columns = [
        "method",
        "p50 ms",
        "p99 ms",
        "slow server's share",
        "work imbalance",
    ];
    Ok(Section {
        key: "spread",
        markdown: format!(
            "**Spread** over {SERVERS} servers ({AT_A_TIME} requests of {FAST_US} µs at a time; one of them {SLOW_US} µs), {PER_SECOND} \
             requests/s for {:?} each; 7.7 % to the slow one would be even.\n\n{}",
            scale.measured.min(MEASURED_MAX),
            table(&columns, &lines)
        ),
        json: Value::Object(json),
        invalid,
        targets: Vec::new(),
    })
}

fn measure(scale: &Scale, row: Row, servers: &Servers, scratch: &Path) -> Result<Outcome> {
    let folder = scratch.join(row.listen.port().to_string());
    std::fs::create_dir_all(&folder)?;
    let mut running = Running::start("proxy", row.command, None, &folder)?;
    running.until_listening(row.listen)?;
    servers.idle()?;
    let requests: Vec<Vec<u8>> = (0..KEYS).map(request).collect();
    let mut counts = Vec::with_capacity(2);
    let load = Load {
        address: row.listen,
        connections: CONNECTIONS,
        shape: Shape::Open {
            per_second: PER_SECOND,
        },
        requests: &requests,
        warm_up: scale.warm_up,
        measured: scale.measured.min(MEASURED_MAX),
    };
    let outcome = load.run(|_| {
        counts.push(servers.counts()?);
        Ok(())
    })?;
    if let Some(error) = outcome.first_error {
        anyhow::bail!("{error}");
    }
    let (Some(before), Some(after)) = (counts.first(), counts.last()) else {
        anyhow::bail!("requests were not counted")
    };
    let served: Vec<f64> = after
        .iter()
        .zip(before)
        .map(|(after, before)| (after - before) as f64)
        .collect();
    let work = served
        .iter()
        .enumerate()
        .map(|(server, count)| count * f64::from(cost_us(server)));
    let all: f64 = work.clone().sum();
    Ok(Outcome {
        p50_us: outcome.latency_us(0.50),
        p99_us: outcome.latency_us(0.99),
        slow_share: served.get(SLOW).copied().unwrap_or(0.0) / served.iter().sum::<f64>(),
        imbalance: work.fold(0.0, f64::max) * SERVERS as f64 / all,
    })
}

/// Another key and another client each.
fn request(number: usize) -> Vec<u8> {
    let (high, low) = (number / 250, number % 250 + 1);
    format!(
        "GET /item/{number} HTTP/1.1\r\nHost: www{number}.example.com\r\nX-Forwarded-For: 198.51.{high}.{low}\r\n\r\n"
    )
    .into_bytes()
}

fn cost_us(server: usize) -> u32 {
    if server == SLOW { SLOW_US } else { FAST_US }
}

/// The PHP servers.
struct Servers {
    addresses: [SocketAddr; SERVERS],
    running: Vec<Running>,
    folder: std::path::PathBuf,
}

impl Servers {
    fn start(scratch: &Path) -> Result<Self> {
        let addresses: [SocketAddr; SERVERS] = free_addresses()?;
        let folder = scratch.join("php");
        std::fs::create_dir_all(&folder)?;
        let php = on_path("php").context("no php on the PATH")?;
        let mut running = Vec::new();
        for (server, address) in addresses.iter().enumerate() {
            let page = folder.join(format!("page{server}.php"));
            // One byte for each request: its length is the count.
            let text = format!(
                "<?php usleep({cost}); file_put_contents(__DIR__ . '/count{server}', '.', FILE_APPEND); \
                 header('Content-Type: text/plain'); header('Content-Length: {BODY}'); echo str_repeat('x', {BODY});",
                cost = cost_us(server)
            );
            std::fs::write(&page, text)?;
            std::fs::write(folder.join(format!("count{server}")), "")?;
            let mut command = Command::new(&php);
            command
                .env("PHP_CLI_SERVER_WORKERS", AT_A_TIME.to_string())
                .args(["-n", "-q", "-S", &address.to_string()])
                .arg(&page);
            let mut one = Running::start(&format!("php{server}"), command, None, &folder)?;
            one.until_listening(*address)?;
            running.push(one);
        }
        Ok(Self {
            addresses,
            running,
            folder,
        })
    }

    /// Requests that each has answered.
    fn counts(&self) -> Result<Vec<u64>> {
        let count = |server: usize| {
            let file = self.folder.join(format!("count{server}"));
            Ok(std::fs::metadata(file)?.len())
        };
        (0..self.running.len()).map(count).collect()
    }

    /// Waits until what the proxy before has left in queues is done: nothing is answered for a while.
    fn idle(&self) -> Result<()> {
        const QUIET: Duration = Duration::from_millis(200);
        const LOOKS_MAX: usize = 100;
        let mut known = self.counts()?;
        for _ in 0..LOOKS_MAX {
            std::thread::sleep(QUIET);
            let now = self.counts()?;
            if now == known {
                return Ok(());
            }
            known = now;
        }
        anyhow::bail!("the servers do not come to rest")
    }
}

fn with_evenkeel(method: Algorithm, servers: &Servers, scratch: &Path) -> Result<Row> {
    let [listen] = free_addresses()?;
    let list = servers.addresses.iter();
    let list: Vec<Value> = list
        .map(|address| json!({"address": address.to_string()}))
        .collect();
    let mut pool = json!({"balance": method.name(), "servers": list});
    if let (true, Some(pool)) = (takes_key(method), pool.as_object_mut()) {
        pool.insert("hash_key".to_owned(), json!("$uri"));
    }
    let document = json!({
        "listeners": [{"name": "web", "bind": listen.to_string()}],
        "workers": 1,
        "policy": {
            "real_ip": {"trusted": ["127.0.0.0/8"], "header": "X-Forwarded-For"},
            "routes": [{"pool": "shop"}],
            "pools": {"shop": pool},
        },
    });
    let path = scratch.join(format!("{}.yaml", method.name()));
    std::fs::write(&path, document.to_string())?;
    let mut command = Command::new(evenkeel_binary()?);
    command.arg("run").arg("-c").arg(path);
    Ok(Row {
        name: method.name().to_owned(),
        command,
        listen,
    })
}

fn takes_key(method: Algorithm) -> bool {
    !matches!(method.key_need(), KeyNeed::None) && method != Algorithm::UrlHash
}

fn with_nginx(name: &str, method: &str, servers: &Servers, scratch: &Path) -> Result<Row> {
    let [listen] = free_addresses()?;
    let folder = scratch.join(format!("nginx{}", listen.port()));
    std::fs::create_dir_all(&folder)?;
    let list: String = servers
        .addresses
        .iter()
        .map(|address| format!("server {address}; "))
        .collect();
    let text = format!(
        "{main}
http {{
  {temporary}
  access_log off;
  keepalive_requests 1000000000;
  upstream shop {{ {method} {list} }}
  server {{ listen {listen}; location / {{ proxy_pass http://shop; }} }}
}}
",
        main = nginx::main_context(&folder, 1),
        temporary = nginx::temporary_paths(&folder),
    );
    let path = folder.join("nginx.conf");
    std::fs::write(&path, text)?;
    let mut command = Command::new(nginx::program()?);
    command.arg("-p").arg(&folder).arg("-c").arg(path);
    command.args(["-e", "stderr"]);
    Ok(Row {
        name: name.to_owned(),
        command,
        listen,
    })
}

fn with_haproxy(method: &str, servers: &Servers, scratch: &Path) -> Result<Row> {
    let [listen] = free_addresses()?;
    let list: String = servers
        .addresses
        .iter()
        .enumerate()
        .map(|(number, address)| format!("  server s{number} {address}\n"))
        .collect();
    let text = format!(
        "global
  nbthread 1
  maxconn 8192
defaults
  mode http
  timeout client 60s
  timeout server 60s
  timeout connect 5s
frontend web
  bind {listen}
  default_backend shop
backend shop
  balance {method}
{list}"
    );
    let path = scratch.join(format!("haproxy{}.cfg", listen.port()));
    std::fs::write(&path, text)?;
    let mut command = Command::new(haproxy::program()?);
    command.arg("-db").arg("-f").arg(path);
    Ok(Row {
        name: format!("HAProxy, {method}"),
        command,
        listen,
    })
}
