//! What many, slow or leaving clients cost: memory, descriptors, counts that must come back to nothing.

use std::time::Duration;

use evenkeel_tests::{
    Cluster, Connection, Host, Load, Proxy, Request, both_hosts, eventually, nginx,
};

both_hosts!(
    requests_that_clients_abandon_leave_no_count_behind,
    short_connections_are_all_served,
);

/// Clients that ask for much and read nothing.
const SLOW_CLIENTS: usize = 40;
/// What the sidecar may hold for them: a few buffers each, not their 10 MiB each.
const MEMORY_KIB_MAX: u64 = 200 << 10;

/// With least_conn, a count that leaked would keep a server from being chosen.
fn requests_that_clients_abandon_leave_no_count_behind(host: Host) {
    let (a, b) = (nginx("a"), nginx("b"));
    let cluster = Cluster::new().server(&a).server(&b);
    let proxy = cluster
        .pool("balance: least_conn", &[("a", ""), ("b", "")])
        .on(host);
    for _ in 0..21 {
        let mut connection = proxy.connect();
        connection.send(&Request::get("/held")).unwrap();
        assert_eq!(connection.head().unwrap().status, 200);
    }
    // One of the two was abandoned once more often than the other; no trace of that may be left.
    eventually("both are chosen in turn", Duration::from_secs(10), || {
        let names = proxy.sequence(10);
        let in_turn = names.windows(2).all(|two| two[0] != two[1]);
        if in_turn { Ok(()) } else { Err(names) }
    });
}

fn short_connections_are_all_served(host: Host) {
    let web = nginx("web");
    let proxy = Cluster::new()
        .workers(2)
        .server(&web)
        .pool("", &[("web", "")])
        .on(host);
    let close = Request::get("/name").header("Connection", "close");
    let report = Load::new(16)
        .requests(3_000)
        .request(close)
        .run(proxy.address);
    report.assert_no_failure();
}

fn status(proxy: &Proxy, key: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", proxy.child.id())).unwrap();
    let line = text.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn descriptors(proxy: &Proxy) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", proxy.child.id()))
        .unwrap()
        .count()
}

#[test]
fn clients_that_read_nothing_cost_little_memory() {
    let web = nginx("web");
    let proxy = Cluster::new()
        .workers(2)
        .server(&web)
        .pool("", &[("web", "")])
        .on(Host::Sidecar);
    let mut slow: Vec<Connection> = (0..SLOW_CLIENTS).map(|_| proxy.connect()).collect();
    for connection in &mut slow {
        connection.send(&Request::get("/big.bin")).unwrap();
    }
    for connection in &mut slow {
        assert_eq!(connection.head().unwrap().status, 200);
    }
    assert_eq!(proxy.get("/name").text(), "web");
    let peak = status(&proxy, "VmHWM:");
    assert!(
        peak < MEMORY_KIB_MAX,
        "{peak} KiB for {SLOW_CLIENTS} clients"
    );
}

#[test]
fn descriptors_are_given_back() {
    let web = nginx("web");
    let proxy = Cluster::new()
        .workers(2)
        .server(&web)
        .pool("", &[("web", "")])
        .on(Host::Sidecar);
    proxy.sequence(10);
    let before = descriptors(&proxy);
    for _ in 0..3 {
        Load::new(64)
            .requests(640)
            .run(proxy.address)
            .assert_no_failure();
    }
    // What stays are idle connections to the one server: for each worker, at most as many as it ever had clients at once.
    eventually("descriptors come back", Duration::from_secs(20), || {
        let now = descriptors(&proxy);
        (now <= before + 128).then_some(()).ok_or(now)
    });
}

#[test]
fn traffic_does_not_make_memory_grow() {
    let web = nginx("web");
    let proxy = Cluster::new()
        .workers(2)
        .server(&web)
        .pool("", &[("web", "")])
        .on(Host::Sidecar);
    let round = || {
        Load::new(16)
            .requests(5_000)
            .run(proxy.address)
            .assert_no_failure();
        status(&proxy, "VmRSS:")
    };
    let warm = (0..2).map(|_| round()).max().unwrap();
    let later = (0..3).map(|_| round()).max().unwrap();
    assert!(
        later < warm + (8 << 10),
        "{warm} KiB, and {later} KiB after 15,000 more requests"
    );
}
