//! Which server answers: nginx's sequence with one worker, exact shares with several, backup and down.

use std::collections::BTreeMap;

use evenkeel_tests::cluster::sequence;
use evenkeel_tests::{Cluster, Connection, Host, Load, Nginx, Request, Server, both_hosts, nginx};

both_hosts!(
    round_robin_chooses_in_the_order_that_nginx_chooses,
    least_conn_chooses_in_the_order_that_nginx_chooses,
    ip_hash_chooses_the_servers_that_nginx_chooses,
    four_workers_give_every_server_its_share,
    random_two_uses_every_server,
    backup_serves_only_when_the_others_are_gone,
    down_serves_never,
    steering_headers_of_clients_are_ignored,
);

const NAMES: [&str; 3] = ["a", "b", "c"];

fn three() -> [Nginx; 3] {
    NAMES.map(nginx)
}

/// nginx, with these parameters for its servers, in front of the same servers.
fn reference(method: &str, servers: &[Nginx], parameters: &[&str]) -> Nginx {
    let lines = servers.iter().zip(parameters);
    let lines: String = lines
        .map(|(server, parameter)| {
            format!("server {} {parameter} max_fails=0;\n", server.address())
        })
        .collect();
    Nginx::balancer(&format!("{method}\n{lines}"))
}

fn cluster(servers: &[Nginx]) -> Cluster {
    servers
        .iter()
        .fold(Cluster::new(), |cluster, server| cluster.server(server))
}

fn round_robin_chooses_in_the_order_that_nginx_chooses(host: Host) {
    let servers = three();
    for weights in [[5, 3, 1], [1, 1, 1], [4, 3, 2], [1, 2, 7]] {
        let parameters = weights.map(|weight| format!("weight={weight}"));
        let nginx = reference("", &servers, &parameters.each_ref().map(String::as_str));
        let keys = weights.map(|weight| format!("weight: {weight}"));
        let pool = [
            ("a", keys[0].as_str()),
            ("b", keys[1].as_str()),
            ("c", keys[2].as_str()),
        ];
        let proxy = cluster(&servers)
            .pool("balance: round_robin", &pool)
            .on(host);
        let expected = sequence(nginx.address(), 40);
        assert_eq!(proxy.sequence(40), expected, "weights {weights:?}");
    }
}

/// Some requests are held open (`/held` trickles), so that the counts differ; the order in which the following ones
/// go to the servers is then the method's own.
fn least_conn_chooses_in_the_order_that_nginx_chooses(host: Host) {
    let servers = three();
    let nginx = reference("least_conn;", &servers, &["weight=3", "weight=2", ""]);
    let pool = [("a", "weight: 3"), ("b", "weight: 2"), ("c", "")];
    let proxy = cluster(&servers)
        .pool("balance: least_conn", &pool)
        .on(host);
    let expected = held_pattern(nginx.address());
    assert_eq!(held_pattern(proxy.address), expected);
}

fn held_pattern(address: std::net::SocketAddr) -> Vec<String> {
    let mut held = Vec::new();
    let mut chosen = sequence(address, 4);
    for _ in 0..5 {
        let mut connection = Connection::open(address).unwrap();
        connection.send(&Request::get("/held")).unwrap();
        assert_eq!(connection.head().unwrap().status, 200);
        held.push(connection);
        chosen.extend(sequence(address, 5));
    }
    chosen
}

fn ip_hash_chooses_the_servers_that_nginx_chooses(host: Host) {
    let servers = three();
    let nginx = reference("ip_hash;", &servers, &["", "weight=2", ""]);
    let pool = [("a", ""), ("b", "weight: 2"), ("c", "")];
    let proxy = cluster(&servers)
        .policy("real_ip: {trusted: [127.0.0.1]}\n")
        .pool("balance: ip_hash", &pool)
        .on(host);
    let clients = [
        "192.168.139.1",
        "192.168.139.200",
        "192.168.1.102",
        "10.10.10.2",
        "203.0.113.7",
        "8.8.8.8",
    ];
    let six = ["2001:db8::1", "2001:db8::2", "fe80::1"];
    for client in clients.into_iter().chain(six) {
        let request = Request::get("/name").header("X-Forwarded-For", client);
        let expected = Connection::open(nginx.address())
            .unwrap()
            .exchange(&request)
            .unwrap();
        assert_eq!(
            proxy.exchange(&request).text(),
            expected.text(),
            "client {client}"
        );
    }
}

fn four_workers_give_every_server_its_share(host: Host) {
    let servers = three();
    let pool = [("a", "weight: 5"), ("b", "weight: 3"), ("c", "weight: 2")];
    let proxy = cluster(&servers).workers(4).pool("", &pool).on(host);
    let report = Load::new(64).requests(8_000).run(proxy.address);
    report.assert_no_failure();
    for (server, share) in [("a", 4_000), ("b", 2_400), ("c", 1_600)] {
        let answered = report.by_server.get(server).copied().unwrap_or_default();
        let off = answered.abs_diff(share);
        assert!(
            off * 100 <= share,
            "{server} answered {answered}, its share is {share}: {report:?}"
        );
    }
}

fn random_two_uses_every_server(host: Host) {
    let servers = three();
    let proxy = cluster(&servers)
        .pool("balance: random_two", &NAMES.map(|name| (name, "")))
        .on(host);
    let mut count = BTreeMap::new();
    for name in proxy.sequence(300) {
        *count.entry(name).or_insert(0) += 1;
    }
    assert!(
        count.len() == 3 && count.values().all(|count| *count > 30),
        "{count:?}"
    );
}

fn backup_serves_only_when_the_others_are_gone(host: Host) {
    let [mut a, mut b, c] = three();
    // Who is back is used at once only if his failures do not count.
    let pool = [
        ("a", "max_fails: 0"),
        ("b", "max_fails: 0"),
        ("c", "backup: true"),
    ];
    let proxy = Cluster::new()
        .server(&a)
        .server(&b)
        .server(&c)
        .pool("retries: 2", &pool)
        .on(host);
    assert!(proxy.sequence(20).iter().all(|name| name != "c"));
    a.kill();
    assert!(proxy.sequence(20).iter().all(|name| name == "b"));
    b.kill();
    assert!(proxy.sequence(20).iter().all(|name| name == "c"));
    let _b = Nginx::start_at("b", b.address());
    assert!(proxy.sequence(20).iter().all(|name| name == "b"));
}

fn down_serves_never(host: Host) {
    let [mut a, b, c] = three();
    let pool = [("a", ""), ("b", "down: true"), ("c", "")];
    let proxy = Cluster::new()
        .server(&a)
        .server(&b)
        .server(&c)
        .pool("retries: 2", &pool)
        .on(host);
    assert_eq!(proxy.sequence(6), ["a", "c", "a", "c", "a", "c"]);
    a.kill();
    assert!(proxy.sequence(10).iter().all(|name| name == "c"));
    assert!(
        b.seen().is_empty(),
        "a server that is down was asked: {:?}",
        b.seen()
    );
}

fn steering_headers_of_clients_are_ignored(host: Host) {
    let [a, b, c] = three();
    let pool = [("a", ""), ("b", ""), ("c", "down: true")];
    let proxy = Cluster::new()
        .server(&a)
        .server(&b)
        .server(&c)
        .pool("", &pool)
        .on(host);
    let mut answers = Vec::new();
    for _ in 0..6 {
        let request = Request::get("/headers")
            .header("x-gateway-destination-endpoint", c.address().to_string())
            .header("X-Evenkeel-Pool", "nowhere")
            .header("x-envoy-original-dst-host", c.address().to_string())
            .header("x-envoy-retry-on", "5xx")
            .header("x-envoy-max-retries", "9");
        let response = proxy.exchange(&request);
        assert_eq!(response.status, 200, "{}", response.text());
        let told = response.json();
        for field in [
            "steering",
            "pool",
            "retry-on",
            "max-retries",
            "original-dst",
        ] {
            assert_eq!(told[field], "", "{field} reached the server: {told}");
        }
        answers.push(told["server"].as_str().unwrap().to_owned());
    }
    assert_eq!(answers, ["a", "b", "a", "b", "a", "b"]);
    assert!(c.seen().is_empty());
}
