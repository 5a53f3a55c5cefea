//! The choices of a real HAProxy under scripted concurrency: requests are held open and let go, and who gets the next is asked of
//! both. No difference.
//!
//! `first` fills servers up to their limits, in their order. HAProxy's `leastconn` (`lb_fwlc.c`) takes the lowest
//! `(in flight + 1) · 4096 / weight`, an idle server before all others: that is `never_queue`'s rule here. Among equals HAProxy takes
//! turns and `never_queue` the first, so the script never asks while two are equal; from there both have the same servers busy.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use evenkeel_policy::random::Sequence;
use evenkeel_tests::child::Child;
use evenkeel_tests::{Cluster, Connection, Host, Nginx, Proxy, Request, eventually, peers, ports};
use tempfile::TempDir;

/// Random scripts of each method.
const SCRIPTS: u64 = 6;
/// Requests that are sent in one script.
const REQUESTS: usize = 40;
const HELD_MAX: usize = 20;
const PATIENCE: Duration = Duration::from_secs(20);

/// What a server has: its weight, and how many it may serve at once (0: any number).
#[derive(Debug, Clone, Copy)]
struct Share {
    weight: usize,
    max_conns: usize,
}

/// HAProxy and evenkeel before the same servers.
struct Stage {
    haproxy: SocketAddr,
    statistics: SocketAddr,
    proxy: Proxy,
    _children: (Nginx, Child, TempDir),
}

impl Stage {
    fn new(shares: &[Share], (theirs, ours): (&str, &str)) -> Self {
        let addresses: Vec<SocketAddr> = shares.iter().map(|_| ports::free()).collect();
        let node = |(place, address): (usize, &SocketAddr)| {
            format!(
                "server {{ listen {address}; access_log off;\n\
                 location = /held {{ add_header X-Node {place}; limit_rate 2k; alias @site/held.bin; }} }}\n"
            )
        };
        let blocks: String = addresses.iter().enumerate().map(node).collect();
        let nodes = Nginx::with("nodes", addresses[0], &blocks);
        let (haproxy, statistics) = (ports::free(), ports::free());
        let (mut lines, mut servers) = (String::new(), String::new());
        for (place, (address, share)) in addresses.iter().zip(shares).enumerate() {
            let Share { weight, max_conns } = share;
            lines += &format!("  server n{place} {address} weight {weight} maxconn {max_conns}\n");
            let weight = if *weight > 1 {
                format!(", weight: {weight}")
            } else {
                String::new()
            };
            servers += &format!(
                "      - {{id: n{place}, address: '{address}', max_conns: {max_conns}{weight}}}\n"
            );
        }
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("haproxy.cfg");
        let text = format!(
            "global\n  nbthread 1\n  maxconn 1000\ndefaults\n  mode http\n  timeout client 60s\n  timeout server 60s\n  \
             timeout connect 5s\n  option http-no-delay\nfrontend web\n  bind {haproxy}\n  default_backend web\nbackend web\n  balance {theirs}\n{lines}\
             listen statistics\n  bind {statistics}\n  stats enable\n  stats uri /statistics\n"
        );
        std::fs::write(&path, text).unwrap();
        let mut command = Command::new(peers::need("haproxy"));
        command.arg("-db").arg("-f").arg(&path);
        let child = Child::start("haproxy", &command, &directory.path().join("output.log"));
        eventually("HAProxy listens", PATIENCE, || {
            Connection::open(statistics).map(drop)
        });
        let proxy = Cluster::new()
            .policy(&format!(
                "routes: [{{pool: web}}]\npools:\n  web:\n    balance: {ours}\n    retries: 0\n    servers:\n{servers}"
            ))
            .on(Host::Sidecar);
        Self {
            haproxy,
            statistics,
            proxy,
            _children: (nodes, child, directory),
        }
    }

    /// Both have noticed that so many are held, and no more.
    #[track_caller]
    fn settled(&self, held: usize) {
        eventually(&format!("HAProxy holds {held}"), PATIENCE, || {
            let mut connection = Connection::open(self.statistics).unwrap();
            let text = connection.get("/statistics;csv").unwrap().text();
            let backend = text.lines().find(|line| line.starts_with("web,BACKEND,"));
            let now = backend.and_then(|line| line.split(',').nth(4)?.parse().ok());
            if now == Some(held) { Ok(()) } else { Err(now) }
        });
        eventually(&format!("evenkeel holds {held}"), PATIENCE, || {
            let state = self.proxy.admin_get("/api/state").json();
            let servers = state["pools"][0]["servers"].as_array().unwrap().clone();
            let now = servers
                .iter()
                .filter_map(|server| server["in_flight"].as_u64())
                .sum::<u64>();
            if now == held as u64 { Ok(()) } else { Err(now) }
        });
    }
}

/// A request that is held, and the server that has it.
fn hold(address: SocketAddr) -> (Connection, usize) {
    let mut connection = Connection::open(address).unwrap();
    connection.send(&Request::get("/held")).unwrap();
    let head = connection.head().unwrap();
    let node = head.header("x-node").expect("a server's own answer");
    (connection, node.parse().unwrap())
}

/// Who of the held is let go, so that no more than `idle_max` servers have nothing to do.
fn release(
    nodes: &[usize],
    busy: &[usize],
    idle_max: usize,
    random: &mut Sequence,
) -> Option<usize> {
    let idle = busy.iter().filter(|busy| **busy == 0).count();
    let held = nodes.iter().enumerate();
    let may_go = held.filter(|(_, node)| busy[**node] > 1 || idle < idle_max);
    let may_go: Vec<usize> = may_go.map(|(which, _)| which).collect();
    let drawn = random.below(may_go.len().max(1) as u64);
    may_go.get(usize::try_from(drawn).unwrap()).copied()
}

/// Holds and lets go at random; `may_ask` says of what servers have whether the next choice is a matter of the rule alone.
fn check(
    shares: &[Share],
    methods: (&str, &str),
    seed: u64,
    may_ask: impl Fn(&[Share], &[usize]) -> bool,
) {
    let stage = Stage::new(shares, methods);
    let mut random = Sequence::new(seed);
    let mut held: Vec<[Connection; 2]> = Vec::new();
    let mut nodes: Vec<usize> = Vec::new();
    let mut busy = vec![0; shares.len()];
    // Among several that are idle, who is next is a matter of turns: then everybody has one to begin with, and one is idle at most.
    let turns = methods.0 == "leastconn";
    let idle_max = if turns { 1 } else { shares.len() };
    let mut first: [Vec<(Connection, usize)>; 2] = Default::default();
    if turns {
        for (address, all) in [stage.haproxy, stage.proxy.address]
            .into_iter()
            .zip(&mut first)
        {
            all.extend(shares.iter().map(|_| hold(address)));
            all.sort_by_key(|(_, node)| *node);
        }
        let [theirs, ours] = first;
        for ((theirs, their_node), (ours, our_node)) in theirs.into_iter().zip(ours) {
            assert_eq!(their_node, our_node, "each idle server has one");
            busy[our_node] += 1;
            nodes.push(our_node);
            held.push([theirs, ours]);
        }
    }
    let mut asked = 0;
    // Ends: where nobody can be asked one is let go, until one is idle; that one is the next by any rule.
    for _ in 0..REQUESTS * 10 {
        if asked == REQUESTS {
            break;
        }
        if may_ask(shares, &busy) && held.len() < HELD_MAX && random.below(3) > 0 {
            let (theirs, their_node) = hold(stage.haproxy);
            let (ours, our_node) = hold(stage.proxy.address);
            assert_eq!(
                our_node, their_node,
                "request {asked}, in flight {busy:?}, {shares:?}, seed {seed}"
            );
            busy[our_node] += 1;
            nodes.push(our_node);
            held.push([theirs, ours]);
            asked += 1;
        } else if let Some(which) = release(&nodes, &busy, idle_max, &mut random) {
            busy[nodes.swap_remove(which)] -= 1;
            held.swap_remove(which)
                .into_iter()
                .for_each(Connection::break_off);
            stage.settled(held.len());
        }
    }
    assert_eq!(asked, REQUESTS, "questions that were asked");
}

#[test]
fn first_fills_servers_as_haproxy_does() {
    for seed in 0..SCRIPTS {
        let mut random = Sequence::new(seed);
        let shares: Vec<Share> = (0..3 + random.below(3))
            .map(|_| Share {
                weight: 1,
                max_conns: 1 + usize::try_from(random.below(4)).unwrap(),
            })
            .collect();
        // When all are full, both would have it wait.
        check(&shares, ("first", "first"), seed, |shares, busy| {
            let mut both = shares.iter().zip(busy);
            both.any(|(share, busy)| *busy < share.max_conns)
        });
    }
}

#[test]
fn never_queue_takes_the_least_busy_as_haproxys_leastconn_does() {
    for seed in 0..SCRIPTS {
        let mut random = Sequence::new(100 + seed);
        let shares: Vec<Share> = (0..3 + random.below(3))
            .map(|_| Share {
                weight: 1 + usize::try_from(random.below(40)).unwrap(),
                max_conns: 0,
            })
            .collect();
        check(
            &shares,
            ("leastconn", "never_queue"),
            seed,
            |shares, busy| {
                // HAProxy's keys, with which it counts in whole numbers, and ours, which are fractions: one is the least by both.
                let theirs = |(share, busy): (&Share, &usize)| match busy {
                    0 => 0,
                    _ => (busy + 1) * 4096 / (share.weight * 16),
                };
                let mut keys: Vec<usize> = shares.iter().zip(busy).map(theirs).collect();
                keys.sort_unstable();
                keys[0] < keys[1]
            },
        );
    }
}
