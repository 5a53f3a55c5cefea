//! The choices of a real nginx while servers die, fall sick and come back: `max_fails` and `fail_timeout`, no difference.
//!
//! Both balancers have the same pools before the same servers, and are asked the same in the same order. What is compared is
//! everything but two things that are other here on purpose: when all servers of a pool are banned (nginx has nobody for
//! `fail_timeout` then, whoever is back), so one server never fails; and the last second of a ban, because nginx counts in whole seconds: a
//! ban of 3 s ends there between 3 and 4 s after the failure, here after 3 s.
//!
//! # Why time passes as it does
//! Rounds come in groups. A group is over before the first ban of it can be, and the next begins when the last one must be. A machine
//! that stands still for so long that this is not so gets another try.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use evenkeel_policy::random::Sequence;
use evenkeel_tests::{Cluster, Connection, Host, Nginx, Proxy, Request, Server, both_hosts, ports};

both_hosts!(servers_that_die_and_come_back_are_left_out_and_asked_as_in_nginx);

const NODES: usize = 4;
/// Who never fails.
const STEADY: usize = NODES - 1;
const POOLS: usize = 20;
/// nginx's line, and ours; the first two may have backups.
const METHODS: [(&str, &str); 5] = [
    ("", "round_robin"),
    ("least_conn;", "least_conn"),
    ("hash $request_uri;", "hash"),
    ("hash $request_uri consistent;", "hash_consistent"),
    ("ip_hash;", "ip_hash"),
];
const GROUPS: usize = 5;
const ROUNDS: usize = 3;
/// Requests to a pool in a round: few enough that our filter asks about every one, whatever the tick ([`AttemptsWatch`] asks about 16).
///
/// [`AttemptsWatch`]: ../../plugin/policy/src/upstream/attempts_watch.rs
const REQUESTS: usize = 7;
const FAIL_TIMEOUT: Duration = Duration::from_secs(3);
/// From the last request of a group to the next group, at least: the ban, the second that nginx does not see, and some.
const REST: Duration = Duration::from_millis(4_200);
/// Runs of the script on a machine that stands still.
const TRIES: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Well,
    /// Nothing listens.
    Dead,
    /// It answers 503, which counts as a failure here.
    Sick,
}

/// A web node that may be killed and started again.
struct Node {
    place: usize,
    address: SocketAddr,
    condition: Condition,
    /// `None` while it is dead.
    nginx: Option<Nginx>,
}

impl Node {
    fn new(place: usize) -> Self {
        let mut node = Self {
            place,
            address: ports::free(),
            condition: Condition::Dead,
            nginx: None,
        };
        node.become_so(Condition::Well);
        node
    }

    fn become_so(&mut self, condition: Condition) {
        if self.condition == Condition::Sick
            && let Some(nginx) = &self.nginx
        {
            nginx.get_well();
        }
        self.condition = condition;
        if condition == Condition::Dead {
            self.nginx = None;
            return;
        }
        let (place, address) = (self.place, self.address);
        let block = format!(
            "server {{ listen {address}; access_log off; location / {{\n\
             if (-f @site/../sick) {{ return 503; }} return 200 n{place}; }} }}\n"
        );
        let nginx = self
            .nginx
            .get_or_insert_with(|| Nginx::with(&format!("n{place}"), address, &block));
        if condition == Condition::Sick {
            nginx.fall_sick();
        }
    }
}

/// The same pools in both: lines of nginx's configuration, and ours.
struct Pools {
    upstreams: String,
    locations: String,
    routes: String,
    pools: String,
}

impl Pools {
    fn random(nodes: &[Node], random: &mut Sequence) -> Self {
        let mut all = Self {
            upstreams: String::new(),
            locations: String::new(),
            routes: String::new(),
            pools: String::new(),
        };
        for pool in 0..POOLS {
            all.push(pool, nodes, random);
        }
        all
    }

    /// Every third pool that may has its steady server as a backup.
    fn push(&mut self, pool: usize, nodes: &[Node], random: &mut Sequence) {
        let method = pool % METHODS.len();
        let has_backup = method < 2 && pool % 3 == 2;
        let (method, balance) = METHODS[method];
        let (mut theirs, mut ours) = (String::new(), String::new());
        for node in nodes {
            let (weight, max_fails) = (1 + random.below(5), 1 + random.below(3));
            let (word, key) = match has_backup && node.place == STEADY {
                true => ("backup", ", backup: true"),
                false => ("", ""),
            };
            let (address, seconds) = (node.address, FAIL_TIMEOUT.as_secs());
            writeln!(theirs, "server {address} weight={weight} max_fails={max_fails} fail_timeout={seconds}s {word};").unwrap();
            writeln!(ours, "      - {{address: '{address}', weight: {weight}, max_fails: {max_fails}, fail_timeout: {seconds}s{key}}}").unwrap();
        }
        writeln!(self.upstreams, "upstream p{pool} {{ {method}\n{theirs}}}").unwrap();
        writeln!(
            self.locations,
            "location /p{pool}/ {{ proxy_pass http://p{pool}; }}"
        )
        .unwrap();
        writeln!(
            self.routes,
            "  - {{match: {{path_prefix: /p{pool}/}}, pool: p{pool}}}"
        )
        .unwrap();
        writeln!(
            self.pools,
            "  p{pool}:\n    balance: {balance}\n    retries: {}\n    \
             retry_on: [connect-failure, reset-before-response, 503]\n    servers:\n{ours}",
            NODES - 1
        )
        .unwrap();
    }
}

struct Stage {
    nodes: Vec<Node>,
    nginx: Nginx,
    proxy: Proxy,
}

impl Stage {
    fn new(host: Host, random: &mut Sequence) -> Self {
        let nodes: Vec<Node> = (0..NODES).map(Node::new).collect();
        let pools = Pools::random(&nodes, random);
        let address = ports::free();
        let blocks = format!(
            "{}server {{ listen {address}; access_log off; proxy_buffering off; proxy_next_upstream error timeout http_503;\n\
             set_real_ip_from 127.0.0.1; real_ip_header X-Forwarded-For; {} }}\n",
            pools.upstreams, pools.locations
        );
        let nginx = Nginx::with("nginx-balancer", address, &blocks);
        let policy = format!(
            "real_ip: {{trusted: [127.0.0.1]}}\nroutes:\n{}pools:\n{}",
            pools.routes, pools.pools
        );
        Self {
            nodes,
            nginx,
            proxy: Cluster::new().policy(&policy).on(host),
        }
    }

    /// Each node but the steady one may change.
    fn change(&mut self, random: &mut Sequence) {
        for node in self.nodes.iter_mut().take(STEADY) {
            let condition = match random.below(8) {
                0 => Condition::Dead,
                1 => Condition::Sick,
                2..4 => Condition::Well,
                _ => continue,
            };
            node.become_so(condition);
        }
    }

    /// Who answered each request of a round, over all pools.
    fn ask(address: SocketAddr) -> Vec<String> {
        let mut connection = Connection::open(address).unwrap();
        let name = |number: usize| {
            let (pool, client) = (number / REQUESTS, number % REQUESTS);
            let request = Request::get(&format!("/p{pool}/{client}"))
                .header("X-Forwarded-For", format!("192.0.{client}.1"));
            let response = connection.exchange(&request).unwrap();
            format!("p{pool} {} {}", response.status, response.text())
        };
        (0..POOLS * REQUESTS).map(name).collect()
    }
}

/// The whole script; how many answers were compared, or `None` if this machine was too slow for a comparison to mean anything.
fn play(host: Host, seed: u64) -> Option<usize> {
    let mut random = Sequence::new(seed);
    let mut stage = Stage::new(host, &mut random);
    let mut compared = 0;
    for group in 0..GROUPS {
        let begin = Instant::now();
        for round in 0..ROUNDS {
            stage.change(&mut random);
            let expected = Stage::ask(stage.nginx.address());
            let found = Stage::ask(stage.proxy.address);
            if begin.elapsed() >= FAIL_TIMEOUT {
                return None;
            }
            let conditions: Vec<_> = stage.nodes.iter().map(|node| node.condition).collect();
            let differences: Vec<String> = (expected.iter().zip(&found))
                .filter(|(expected, found)| expected != found)
                .map(|(expected, found)| format!("nginx {expected}, here {found}"))
                .collect();
            assert!(
                differences.is_empty(),
                "group {group}, round {round}, {conditions:?}, seed {seed}: {differences:#?}"
            );
            assert!(expected.iter().all(|answer| answer.contains(" 200 n")));
            compared += found.len();
        }
        std::thread::sleep(REST);
    }
    Some(compared)
}

fn servers_that_die_and_come_back_are_left_out_and_asked_as_in_nginx(host: Host) {
    let seeds = 1..=TRIES as u64;
    let compared = seeds.into_iter().find_map(|seed| play(host, seed));
    assert_eq!(compared, Some(GROUPS * ROUNDS * POOLS * REQUESTS));
}
