//! Large pools: ten thousand servers in one, and a thousand pools of ten, answer soon, are all used, and can be reloaded.
//!
//! The servers are real addresses of one nginx, which says at which of them it was reached. Bounds are those of a debug build on a busy
//! machine; `bench large` measures the real ones.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use evenkeel_host::Process;
use evenkeel_tests::filter_alone::FilterAlone;
use evenkeel_tests::{
    Cluster, Connection, Host, Load, Nginx, Proxy, Server, both_hosts, eventually, ports,
};
use rustix::process::Signal;
use serde_json::{Value, json};

const SERVERS: usize = 10_000;
const POOLS: usize = 1_000;
/// 1 s in a release build on a machine of its own.
const FIRST_ANSWER_MAX: Duration = Duration::from_secs(20);
const GUEST_BYTES_MAX: usize = 64 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

/// A server at every address of the loopback network.
fn everywhere() -> Nginx {
    let address = ports::free();
    let port = address.port();
    let here =
        format!("server {{ listen 0.0.0.0:{port}; location / {{ return 200 $server_addr; }} }}");
    Nginx::with("everywhere", address, &here)
}

fn ip(server: usize) -> Ipv4Addr {
    let byte = |number: usize| u8::try_from(number + 1).unwrap();
    Ipv4Addr::new(127, byte(0), byte(server / 250), byte(server % 250))
}

/// So many pools of the same size; all but the first have a path.
fn policy(pools: usize, balance: &str, port: u16) -> Value {
    let each = SERVERS / pools;
    let mut by_name = serde_json::Map::new();
    let mut routes = Vec::new();
    for pool in 0..pools {
        let servers = (pool * each..(pool + 1) * each)
            .map(|server| json!({"address": SocketAddr::from((ip(server), port)).to_string()}));
        let servers: Vec<Value> = servers.collect();
        let name = format!("p{pool}");
        if pool > 0 {
            routes.push(json!({"match": {"path_prefix": [format!("/{pool}/")]}, "pool": name}));
        }
        by_name.insert(name, json!({"balance": balance, "servers": servers}));
    }
    routes.push(json!({"pool": "p0"}));
    json!({"routes": routes, "pools": by_name})
}

/// Starts it, and waits for the first answer, which comes in time.
fn start(host: Host, policy: &Value) -> Proxy {
    let cluster = Cluster::new().workers(2).policy(&format!("{policy}\n"));
    let began = Instant::now();
    let proxy = cluster.start(host);
    let address = proxy.address;
    eventually("the first answer", PATIENCE, || {
        match Connection::open(address).and_then(|mut connection| connection.get("/")) {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let took = began.elapsed();
    assert!(took < FIRST_ANSWER_MAX, "{took:?}");
    proxy
}

fn ten_thousand_servers_of_one_pool_answer_and_are_reloaded(host: Host) {
    let everywhere = everywhere();
    let policy = policy(1, "least_conn", everywhere.address().port());
    let proxy = start(host, &policy);
    // Two workers at most begin with the same server.
    let answers: BTreeSet<String> = proxy.sequence(300).into_iter().collect();
    assert!(answers.len() >= 150, "{} servers", answers.len());
    let metrics = if host == Host::Sidecar {
        "/metrics"
    } else {
        "/stats"
    };
    eventually("the pool's metrics are told", PATIENCE, || {
        let text = proxy.admin_get(metrics).text();
        let is_told = text.contains("evenkeel_pool_p0_requests_total");
        assert!(!text.contains("evenkeel_pool_p0_server_"), "of each server");
        is_told.then_some(()).ok_or("not yet")
    });
    if host == Host::Envoy {
        return;
    }
    let load = Load::new(8).per_second(200).start(proxy.address);
    proxy.signal(Signal::HUP);
    eventually("the reload is in force", PATIENCE, || {
        let generation = proxy.admin_get("/api/state").json()["config"]["generation"].clone();
        (generation == 2).then_some(()).ok_or(generation)
    });
    load.during(Duration::from_millis(300));
    load.stop().assert_no_failure();
}

fn a_thousand_pools_of_ten_answer_each_with_its_own(host: Host) {
    let everywhere = everywhere();
    let policy = policy(POOLS, "round_robin", everywhere.address().port());
    let proxy = start(host, &policy);
    let mut connection = proxy.connect();
    for pool in [1, 2, 499, 500, 999] {
        let own: BTreeSet<String> = (pool * 10..pool * 10 + 10)
            .map(|server| ip(server).to_string())
            .collect();
        let answers: BTreeSet<String> = (0..10)
            .map(|_| connection.get(&format!("/{pool}/")).unwrap().text())
            .collect();
        assert_eq!(answers, own, "pool {pool}");
    }
}

both_hosts!(
    ten_thousand_servers_of_one_pool_answer_and_are_reloaded,
    a_thousand_pools_of_ten_answer_each_with_its_own,
);

#[test]
fn the_memory_of_a_vm_stays_bounded_whatever_the_method() {
    let module = FilterAlone::compile(evenkeel::embedded::FILTER).unwrap();
    let path = |number: usize| format!("/{}/", number % POOLS);
    for (pools, balance) in [
        (1, "round_robin"),
        (1, "hash_consistent"),
        (1, "maglev"),
        (1, "least_time"),
        (POOLS, "hash_consistent"),
    ] {
        let process = Process::new();
        let vm = FilterAlone::start(&module, &process, &policy(pools, balance, 80)).unwrap();
        for number in 0..2 * POOLS {
            let path = path(number);
            let request = [
                (":authority", "www.example.com"),
                (":path", path.as_str()),
                (":method", "GET"),
                (":scheme", "http"),
            ];
            let mut sent = vm.request(&request).unwrap().unwrap();
            sent.answer().unwrap();
            sent.finish();
        }
        vm.tick();
        let bytes = vm.memory_bytes().unwrap();
        assert!(bytes <= GUEST_BYTES_MAX, "{pools} × {balance}: {bytes}");
    }
}
