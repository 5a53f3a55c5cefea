//! The choices of a real nginx on random pools, one by one: no difference.
//!
//! A handful of processes serve all cases of a scenario: one nginx is every web node, another has an upstream for every pool and
//! chooses first; then the proxy is asked the same in the same order. Requests of a connection are sent in
//! batches, each beginning before the answers to those before it are read, so that thousands take seconds.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use evenkeel_tests::{Cluster, Connection, Host, Nginx, Proxy, Request, Server, both_hosts, ports};

both_hosts!(
    round_robin_takes_the_turns_that_nginx_takes,
    hashed_keys_go_where_nginx_sends_them,
    ketama_keys_go_where_nginx_sends_them,
    keys_of_several_parts_are_those_of_nginx,
    addresses_of_clients_go_where_nginx_sends_them,
    backup_and_down_serve_when_they_do_in_nginx,
    least_conn_weighs_the_held_as_nginx_does,
);

/// Web nodes, each a listener that says its name.
const NODES: usize = 12;
/// Requests that are sent before their answers are read.
const BATCH: usize = 64;
/// Differences that are shown.
const SHOWN_MAX: usize = 10;

/// SplitMix64: the same cases in every run.
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Up,
    Down,
    Backup,
}

/// One pool, as both configurations say it.
struct Pool {
    /// A line of nginx's `upstream`: `ip_hash;`, or nothing.
    nginx: &'static str,
    /// Keys of ours.
    keys: &'static str,
    servers: Vec<(usize, u64, State)>,
}

impl Pool {
    /// Two to six servers of weights below `weights`, at least one of them up; `states` draws what the others are.
    fn random(
        draws: &mut Draws,
        (nginx, keys): (&'static str, &'static str),
        weights: u64,
        states: impl Fn(u64) -> State,
    ) -> Self {
        let (count, first) = (2 + draws.below(5), draws.below(NODES as u64));
        let up = draws.below(count);
        let server = |place: u64, draws: &mut Draws| {
            let state = if place == up {
                State::Up
            } else {
                states(draws.below(100))
            };
            (
                ((first + place) % NODES as u64) as usize,
                1 + draws.below(weights),
                state,
            )
        };
        Self {
            nginx,
            keys,
            servers: (0..count).map(|place| server(place, draws)).collect(),
        }
    }

    /// Two are up, and seldom hit: most keys end where tries end, and go by turns.
    fn nearly_all_down((nginx, keys): (&'static str, &'static str)) -> Self {
        let server = |node: usize| match node {
            0 | 1 => (node, 1 + node as u64, State::Up),
            _ => (node, 8, State::Down),
        };
        Self {
            nginx,
            keys,
            servers: (0..8).map(server).collect(),
        }
    }
}

fn always_up(_: u64) -> State {
    State::Up
}

fn three_in_ten_down(percent: u64) -> State {
    if percent < 30 { State::Down } else { State::Up }
}

/// The web nodes, an nginx in front of them, and the proxy in front of them.
struct Stage {
    _nodes: Nginx,
    nginx: Nginx,
    proxy: Proxy,
}

impl Stage {
    /// A request for `/p7/…` is one for pool 7.
    fn new(host: Host, pools: &[Pool]) -> Self {
        let addresses: Vec<SocketAddr> = (0..NODES).map(|_| ports::free()).collect();
        let node = |(place, address): (usize, &SocketAddr)| {
            format!(
                "server {{ listen {address}; access_log off; location / {{ return 200 n{place}; }}\n\
                 location ~ /held$ {{ limit_rate 2k; alias @site/held.bin; }} }}\n"
            )
        };
        let blocks: String = addresses.iter().enumerate().map(node).collect();
        let nodes = Nginx::with("nodes", addresses[0], &blocks);
        let (mut upstreams, mut locations) = (String::new(), String::new());
        let mut policy = String::from("real_ip: {trusted: [127.0.0.1]}\nroutes:\n");
        let mut ours = String::from("pools:\n");
        for (place, pool) in pools.iter().enumerate() {
            let mut lines = String::new();
            write!(
                ours,
                "  p{place}:\n    retries: 0\n    {}\n    servers:\n",
                pool.keys
            )
            .unwrap();
            for (node, weight, state) in &pool.servers {
                let (word, key) = match state {
                    State::Up => ("", ""),
                    State::Down => ("down", ", down: true"),
                    State::Backup => ("backup", ", backup: true"),
                };
                writeln!(
                    lines,
                    "server {} weight={weight} max_fails=0 {word};",
                    addresses[*node]
                )
                .unwrap();
                writeln!(
                    ours,
                    "      - {{address: '{}', weight: {weight}{key}}}",
                    addresses[*node]
                )
                .unwrap();
            }
            writeln!(
                upstreams,
                "upstream p{place} {{ {}\n{lines} keepalive 8; }}",
                pool.nginx
            )
            .unwrap();
            writeln!(
                locations,
                "location /p{place}/ {{ proxy_pass http://p{place}; }}"
            )
            .unwrap();
            writeln!(
                policy,
                "  - {{match: {{path_prefix: /p{place}/}}, pool: p{place}}}"
            )
            .unwrap();
        }
        let address = ports::free();
        let nginx = Nginx::with(
            "nginx-balancer",
            address,
            &format!(
                "{upstreams}server {{ listen {address}; access_log off; set_real_ip_from 127.0.0.1;\n\
                 real_ip_header X-Forwarded-For; proxy_http_version 1.1; proxy_set_header Connection '';\n\
                 proxy_buffering off; {locations} }}\n"
            ),
        );
        let proxy = Cluster::new().policy(&format!("{policy}{ours}")).on(host);
        Self {
            _nodes: nodes,
            nginx,
            proxy,
        }
    }

    /// Asks both, and says where they differ.
    #[track_caller]
    fn check(&self, requests: &[Request]) {
        let (expected, found) = (
            names(self.nginx.address(), requests),
            names(self.proxy.address, requests),
        );
        let differences: Vec<String> = requests
            .iter()
            .zip(expected.iter().zip(&found))
            .filter(|(_, (expected, found))| expected != found)
            .map(|(request, (expected, found))| {
                format!(
                    "{} {:?}: nginx {expected}, here {found}",
                    request.target, request.headers
                )
            })
            .collect();
        let shown = &differences[..differences.len().min(SHOWN_MAX)];
        assert!(
            differences.is_empty(),
            "{} of {} differ: {shown:#?}",
            differences.len(),
            requests.len()
        );
        let served: std::collections::BTreeSet<&String> = expected.iter().collect();
        assert!(served.len() > 1, "{served:?}");
    }
}

/// Who answered each request, of one connection.
fn names(address: SocketAddr, requests: &[Request]) -> Vec<String> {
    let mut connection = Connection::open(address).unwrap();
    let mut names = Vec::with_capacity(requests.len());
    for batch in requests.chunks(BATCH) {
        let bytes: Vec<u8> = batch.iter().flat_map(Request::head_bytes).collect();
        connection.send_bytes(&bytes).unwrap();
        for request in batch {
            let response = connection
                .response("GET")
                .unwrap_or_else(|error| panic!("{}: {error}", request.target));
            assert_eq!(
                response.status,
                200,
                "{}: {}",
                request.target,
                response.text()
            );
            names.push(response.text());
        }
    }
    names
}

fn round_robin_takes_the_turns_that_nginx_takes(host: Host) {
    let draws = &mut Draws(1);
    let pools: Vec<Pool> = (0..200)
        .map(|_| Pool::random(draws, ("", "balance: round_robin"), 20, always_up))
        .collect();
    let requests: Vec<Request> = (0..200)
        .flat_map(|_| (0..200).map(|pool| Request::get(&format!("/p{pool}/"))))
        .collect();
    Stage::new(host, &pools).check(&requests);
}

/// Random targets, some with a query, some with what has to be escaped, some with what nginx would tidy up.
fn target(draws: &mut Draws, pool: usize) -> String {
    const PIECES: [&str; 16] = [
        "index.php",
        "a",
        "b%20c",
        "%e4%b8%ad",
        "images/",
        "?id=",
        "&x=y",
        "0",
        "~user",
        "x.css",
        "-",
        "_",
        "+",
        "=",
        "%2B",
        "longer-than-the-others",
    ];
    let mut target = format!("/p{pool}/{}", draws.below(1_000_000));
    for _ in 0..draws.below(5) {
        target.push_str(PIECES[draws.below(16) as usize]);
    }
    target
}

/// Pools for keys, some of whose servers are down.
fn pools_for_keys(draws: &mut Draws, methods: (&'static str, &'static str)) -> Vec<Pool> {
    let mut pools = vec![
        Pool::random(draws, methods, 1, always_up),
        Pool::random(draws, methods, 9, always_up),
    ];
    pools.extend((0..5).map(|_| Pool::random(draws, methods, 9, three_in_ten_down)));
    pools.push(Pool::nearly_all_down(methods));
    pools
}

/// 2,000 keys.
fn keys_are_where_nginx_has_them(host: Host, methods: (&'static str, &'static str), seed: u64) {
    let draws = &mut Draws(seed);
    let pools = pools_for_keys(draws, methods);
    let requests: Vec<Request> = (0..2_000)
        .map(|at| Request::get(&target(draws, at % pools.len())))
        .collect();
    Stage::new(host, &pools).check(&requests);
}

fn hashed_keys_go_where_nginx_sends_them(host: Host) {
    keys_are_where_nginx_has_them(host, ("hash $request_uri;", "balance: hash"), 2);
}

fn ketama_keys_go_where_nginx_sends_them(host: Host) {
    keys_are_where_nginx_has_them(
        host,
        ("hash $request_uri consistent;", "balance: hash_consistent"),
        3,
    );
}

/// 1,000 addresses of IPv4 and 1,000 of IPv6, half of them of few networks.
fn addresses_of_clients_go_where_nginx_sends_them(host: Host) {
    let draws = &mut Draws(4);
    let pools = pools_for_keys(draws, ("ip_hash;", "balance: ip_hash"));
    let request = |at: usize, draws: &mut Draws| {
        let bits = draws.next();
        let narrow = at % 4 < 2;
        let client = if at.is_multiple_of(2) {
            let address = bits as u32;
            Ipv4Addr::from(if narrow {
                0xc0a8_0000 | address & 0x3ff
            } else {
                address
            })
            .to_string()
        } else {
            let high = if narrow {
                0x2001_0db8_0000_0000
            } else {
                draws.next()
            };
            Ipv6Addr::from(u128::from(high) << 64 | u128::from(bits)).to_string()
        };
        Request::get(&format!("/p{}/", draws.below(8))).header("X-Forwarded-For", client)
    };
    let requests: Vec<Request> = (0..2_000).map(|at| request(at, draws)).collect();
    Stage::new(host, &pools).check(&requests);
}

/// The same header, cookie, parameter, host and address in one key, each missing at times.
fn keys_of_several_parts_are_those_of_nginx(host: Host) {
    let draws = &mut Draws(8);
    let methods = (
        "hash $http_x_user-$cookie_sid-$arg_id@$host:$remote_addr consistent;",
        "balance: hash_consistent\n    hash_key: '$header(X-User)-$cookie(sid)-$query(id)@$host:$client_ip'",
    );
    let pools = [
        Pool::random(draws, methods, 5, always_up),
        Pool::random(draws, methods, 5, three_in_ten_down),
    ];
    let request = |at: usize, draws: &mut Draws| {
        let mut number = || draws.below(100);
        let query = ["", "?id=", "?x=1&id=7", "?id=%207&id=8", "?idx=1"][at % 5];
        let mut request = Request::get(&format!("/p{}/{}{query}", at % 2, number()));
        if !at.is_multiple_of(3) {
            request = request.header("X-User", format!("user {}", number()));
        }
        if !at.is_multiple_of(7) {
            request = request.header("Cookie", format!("other=1; sid=s{}; sid=second", number()));
        }
        let client = Ipv4Addr::new(198, 51, 100, u8::try_from(number()).unwrap());
        request
            .header("Host", format!("WWW{}.example.org:8080", number() % 9))
            .header("X-Forwarded-For", client.to_string())
    };
    let requests: Vec<Request> = (0..1_000).map(|at| request(at, draws)).collect();
    Stage::new(host, &pools).check(&requests);
}

/// One listener is 10,000 servers, 127.1.0.0 and following, and says which one was asked. The first request finds a ring of
/// 1.6 million points to be built, within the time that a filter has for a request.
#[test]
fn ten_thousand_servers_are_on_the_ring_where_nginx_has_them() {
    let port = ports::free().port();
    let servers: Vec<SocketAddr> = (0..10_000_u32)
        .map(|server| SocketAddr::from((Ipv4Addr::from(0x7f01_0000 + server), port)))
        .collect();
    let node =
        format!("server {{ listen 0.0.0.0:{port}; access_log off; return 200 $server_addr; }}\n");
    let _node = Nginx::with("node", SocketAddr::from((Ipv4Addr::LOCALHOST, port)), &node);
    let (mut lines, mut ours) = (String::new(), String::new());
    for (place, server) in servers.iter().enumerate() {
        let (word, key) = if place % 3 == 0 {
            ("down", ", down: true")
        } else {
            ("", "")
        };
        writeln!(lines, "server {server} max_fails=0 {word};").unwrap();
        writeln!(ours, "      - {{address: '{server}'{key}}}").unwrap();
    }
    let nginx = Nginx::balancer(&format!("hash $request_uri consistent; {lines}"));
    let proxy = Cluster::new()
        .policy(&format!("routes: [{{pool: big}}]\npools:\n  big:\n    balance: hash_consistent\n    servers:\n{ours}"))
        .on(Host::Sidecar);
    let draws = &mut Draws(7);
    let requests: Vec<Request> = (0..500).map(|_| Request::get(&target(draws, 0))).collect();
    // A filter that takes too long is interrupted, and its request answered with 503.
    names(proxy.address, &requests[..1]);
    let (expected, found) = (
        names(nginx.address(), &requests),
        names(proxy.address, &requests),
    );
    assert_eq!(found, expected);
}

fn backup_and_down_serve_when_they_do_in_nginx(host: Host) {
    let draws = &mut Draws(5);
    let states = |percent: u64| match percent {
        0..40 => State::Down,
        40..70 => State::Backup,
        _ => State::Up,
    };
    let mut pools: Vec<Pool> = (0..40)
        .map(|place| {
            let methods = if place % 2 == 0 {
                ("", "balance: round_robin")
            } else {
                ("least_conn;", "balance: least_conn")
            };
            Pool::random(draws, methods, 9, states)
        })
        .collect();
    // In every fourth pool the primaries are down: backups serve.
    for pool in pools.iter_mut().step_by(4) {
        let up = pool
            .servers
            .iter_mut()
            .filter(|(_, _, state)| *state == State::Up);
        up.for_each(|(_, _, state)| *state = State::Down);
        if !pool
            .servers
            .iter()
            .any(|(_, _, state)| *state == State::Backup)
        {
            let last = pool.servers.last_mut().unwrap();
            last.2 = State::Backup;
        }
        if pool
            .servers
            .iter()
            .all(|(_, _, state)| *state == State::Backup)
        {
            pool.servers[0].2 = State::Down;
        }
    }
    let requests: Vec<Request> = (0..50)
        .flat_map(|_| (0..40).map(|pool| Request::get(&format!("/p{pool}/"))))
        .collect();
    Stage::new(host, &pools).check(&requests);
}

/// Requests are held open, so that the counts of servers differ; where the following go is then the method's own.
fn least_conn_weighs_the_held_as_nginx_does(host: Host) {
    let draws = &mut Draws(6);
    let pools: Vec<Pool> = (0..12)
        .map(|_| {
            Pool::random(
                draws,
                ("least_conn;", "balance: least_conn"),
                6,
                three_in_ten_down,
            )
        })
        .collect();
    let stage = Stage::new(host, &pools);
    let held = |address: SocketAddr| {
        let mut held = Vec::new();
        let mut chosen = Vec::new();
        for _ in 0..5 {
            for pool in 0..pools.len() {
                let mut connection = Connection::open(address).unwrap();
                connection
                    .send(&Request::get(&format!("/p{pool}/held")))
                    .unwrap();
                assert_eq!(connection.head().unwrap().status, 200);
                held.push(connection);
                let requests: Vec<Request> = (0..6)
                    .map(|_| Request::get(&format!("/p{pool}/")))
                    .collect();
                chosen.push(names(address, &requests).join(" "));
            }
        }
        chosen
    };
    let (expected, found) = (held(stage.nginx.address()), held(stage.proxy.address));
    assert_eq!(found, expected);
}
