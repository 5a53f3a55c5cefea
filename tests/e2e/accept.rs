//! How connections spread over workers, and what happens when there are too many of them.

use std::time::Duration;

use evenkeel_tests::{Cluster, Connection, Host, Request, eventually, nginx};
use serde_json::Value;

/// Open client connections of each worker, as the admin port tells.
fn open_per_worker(state: &Value) -> Vec<u64> {
    let workers = state["workers"]
        .as_array()
        .unwrap_or_else(|| panic!("no workers in {state}"));
    workers
        .iter()
        .filter_map(|worker| worker["connections"].as_u64())
        .collect()
}

#[test]
fn balanced_spreads_long_connections_evenly() {
    let web = nginx("web");
    let cluster = Cluster::new()
        .workers(4)
        .server(&web)
        .listener("accept: balanced");
    let proxy = cluster.pool("", &[("web", "")]).on(Host::Sidecar);
    let mut held: Vec<Connection> = (0..64).map(|_| proxy.connect()).collect();
    for connection in &mut held {
        assert_eq!(connection.get("/name").unwrap().status, 200);
    }
    eventually(
        "64 open connections, evenly",
        Duration::from_secs(5),
        || {
            let state = proxy.admin_get("/api/state").json();
            let open = open_per_worker(&state);
            let (min, max) = (open.iter().min().copied(), open.iter().max().copied());
            match (min, max) {
                (Some(min), Some(max)) if open.iter().sum::<u64>() == 64 && max * 4 <= min * 5 => {
                    Ok(())
                }
                _ => Err(open),
            }
        },
    );
}

#[test]
fn connections_over_the_limit_are_turned_away_and_room_is_used_again() {
    let web = nginx("web");
    let cluster = Cluster::new().server(&web).top("limits: {connections: 20}");
    let proxy = cluster.pool("", &[("web", "")]).on(Host::Sidecar);
    let mut held: Vec<Connection> = (0..20).map(|_| proxy.connect()).collect();
    for connection in &mut held {
        assert_eq!(connection.get("/name").unwrap().status, 200);
    }
    let mut extra = proxy.connect();
    extra.patience(Duration::from_millis(500));
    assert!(extra.get("/name").is_err(), "a 21st connection was served");
    // Those that are in go on.
    assert_eq!(held[3].get("/name").unwrap().status, 200);
    drop(held);
    eventually("room again", Duration::from_secs(10), || {
        proxy.connect().exchange(&Request::get("/name")).map(drop)
    });
}

#[test]
fn idle_and_slow_clients_are_disconnected() {
    let web = nginx("web");
    let cluster = Cluster::new()
        .server(&web)
        .top("timeouts: {client_header: 1s, idle: 1s}");
    let proxy = cluster.pool("", &[("web", "")]).on(Host::Sidecar);
    let mut idle = proxy.connect();
    assert_eq!(idle.get("/name").unwrap().status, 200);
    let mut slow = proxy.connect();
    slow.send_bytes(b"GET /name HTTP/1.1\r\nHost: t\r\nX-Slow: ")
        .unwrap();
    let mut mute = proxy.connect();
    for (what, connection) in [
        ("idle", &mut idle),
        ("slow", &mut slow),
        ("mute", &mut mute),
    ] {
        assert!(
            connection.is_closed_within(Duration::from_secs(10)),
            "{what} connection stays open"
        );
    }
}
