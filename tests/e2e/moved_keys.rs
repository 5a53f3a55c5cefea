//! A reload that adds or removes a server moves the keys that it must, and no more than is stated.
//!
//! The methods themselves are held to it in `plugin/policy` (`balance/movement.rs`); here it is the whole road: the file, the
//! reload, new VMs' tables. A new VM knows nothing of the old one's, so whatever stays where it was does so because of ids and addresses.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use evenkeel_tests::{Cluster, Connection, Host, Nginx, Proxy, eventually, ports};
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(20);
const KEYS: usize = 1_000;
/// The server that comes and goes; it stands in the middle of the file.
const NEW: usize = 10;
/// What a method may move besides the keys that come to the new server or leave it, in a hundred of all.
const METHODS: [(&str, usize); 4] = [
    ("hash_consistent", 0),
    ("rendezvous", 0),
    ("maglev", 4),
    // As in nginx, nearly all: it counts servers.
    ("hash", 100),
];

/// Pools of these servers, one for each method, at `/METHOD/`.
fn pools(cluster: Cluster, addresses: &[SocketAddr], servers: &[usize]) -> Cluster {
    let (mut routes, mut pools) = (String::from("routes:\n"), String::from("pools:\n"));
    for (method, _) in METHODS {
        writeln!(
            routes,
            "  - {{match: {{path_prefix: /{method}/}}, pool: {method}}}"
        )
        .unwrap();
        writeln!(
            pools,
            "  {method}:\n    balance: {method}\n    hash_key: $uri\n    servers:"
        )
        .unwrap();
        for server in servers {
            let address = addresses[*server];
            writeln!(pools, "      - {{address: '{address}', id: n{server}}}").unwrap();
        }
    }
    cluster.policy(&format!("{routes}{pools}"))
}

/// Where the keys of a method are.
fn servers_of_keys(proxy: &Proxy, method: &str) -> Vec<String> {
    let mut connection = Connection::open(proxy.address).unwrap();
    let server = |key: usize| {
        let response = connection.get(&format!("/{method}/page/{key}")).unwrap();
        assert_eq!(response.status, 200, "{method}: {}", response.text());
        response.text()
    };
    (0..KEYS).map(server).collect()
}

fn all(proxy: &Proxy) -> Vec<Vec<String>> {
    let of = |(method, _): (&str, usize)| servers_of_keys(proxy, method);
    METHODS.into_iter().map(of).collect()
}

#[track_caller]
fn reload(proxy: &mut Proxy, addresses: &[SocketAddr], servers: &[usize]) {
    let generation = |proxy: &Proxy| {
        let state = proxy.admin_get("/api/state").json();
        state["config"]["generation"].as_u64().unwrap()
    };
    let before = generation(proxy);
    proxy.rewrite(|cluster| pools(cluster, addresses, servers));
    proxy.signal(Signal::HUP);
    eventually("it is reloaded", PATIENCE, || match generation(proxy) {
        same if same == before => Err(same),
        _ => Ok(()),
    });
}

#[track_caller]
fn check(before: &[Vec<String>], after: &[Vec<String>]) {
    let new = format!("n{NEW}");
    // What an eleventh server of the same weight has to have, give or take what a thousand keys are unevenly spread.
    let share = KEYS / (NEW + 1);
    for ((method, besides), (before, after)) in METHODS.iter().zip(before.iter().zip(after)) {
        let moves = before.iter().zip(after).filter(|(from, to)| from != to);
        let (own, others): (Vec<_>, Vec<_>) = moves.partition(|(_, to)| **to == new);
        let (own, others) = (own.len(), others.len());
        println!("{method}: {own} of {KEYS} keys to the new server, {others} between others");
        assert!(others * 100 <= KEYS * besides, "{method}: {others}");
        let fair = share * 4 / 10..=share * 16 / 10;
        assert!(fair.contains(&own), "{method}: {own}");
    }
}

#[test]
fn a_server_that_comes_with_a_reload_takes_its_share_and_gives_it_back() {
    let addresses: Vec<SocketAddr> = (0..=NEW).map(|_| ports::free()).collect();
    let node = |(place, address): (usize, &SocketAddr)| {
        format!(
            "server {{ listen {address}; access_log off; location / {{ return 200 n{place}; }} }}\n"
        )
    };
    let blocks: String = addresses.iter().enumerate().map(node).collect();
    let _nodes = Nginx::with("nodes", addresses[0], &blocks);
    let ten: Vec<usize> = (0..NEW).collect();
    let mut proxy = pools(Cluster::new(), &addresses, &ten).on(Host::Sidecar);
    let before = all(&proxy);
    let eleven = [0, 1, 2, 3, NEW, 4, 5, 6, 7, 8, 9];
    reload(&mut proxy, &addresses, &eleven);
    let after = all(&proxy);
    check(&before, &after);
    reload(&mut proxy, &addresses, &ten);
    assert_eq!(all(&proxy), before, "everybody is where he was");
}
