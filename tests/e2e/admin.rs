//! The admin port: alive, ready, metrics, and the state as JSON.

use std::time::Duration;

use evenkeel_tests::{Cluster, Connection, Host, Request, nginx};
use rustix::process::Signal;

#[test]
fn alive_ready_and_then_draining() {
    let (web, shop) = (nginx("web"), evenkeel_tests::php("shop"));
    let policy = "\
routes: [{match: {path: /sleep.php}, pool: shop}, {pool: web}]
pools: {web: {servers: [{address: '@web'}]}, shop: {servers: [{address: '@shop'}]}}";
    let mut proxy = Cluster::new()
        .server(&web)
        .server(&shop)
        .policy(policy)
        .on(Host::Sidecar);
    assert_eq!(proxy.admin_get("/healthz").status, 200);
    assert_eq!(proxy.admin_get("/readyz").status, 200);
    let mut slow = proxy.connect();
    slow.send(&Request::get("/sleep.php?s=3")).unwrap();
    proxy.signal(Signal::TERM);
    evenkeel_tests::eventually("not ready while draining", Duration::from_secs(2), || {
        let ready = Connection::open(proxy.admin).and_then(|mut admin| admin.get("/readyz"));
        match ready.map(|response| response.status) {
            Ok(503) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert_eq!(slow.response("GET").unwrap().status, 200);
    assert_eq!(proxy.wait(Duration::from_secs(20)).code(), Some(0));
}

#[test]
fn metrics_count_what_was_served() {
    let web = nginx("web");
    let proxy = Cluster::new()
        .server(&web)
        .pool("", &[("web", "")])
        .on(Host::Sidecar);
    proxy.sequence(25);
    proxy.get("/500");
    evenkeel_tests::eventually("the counters show it", Duration::from_secs(5), || {
        let response = proxy.admin_get("/metrics");
        let text = response.text();
        let counts = text
            .lines()
            .any(|line| line.starts_with("evenkeel") && line.ends_with(" 26"))
            || text
                .lines()
                .any(|line| line.starts_with("evenkeel") && line.ends_with(" 25"));
        counts.then_some(()).ok_or(text)
    });
}

/// Every line is a comment or `name{labels} number`.
#[test]
fn metrics_are_in_prometheus_format() {
    let web = nginx("web");
    let proxy = Cluster::new()
        .server(&web)
        .pool("", &[("web", "")])
        .on(Host::Sidecar);
    proxy.sequence(3);
    let response = proxy.admin_get("/metrics");
    assert!(
        response
            .header("content-type")
            .is_some_and(|kind| kind.starts_with("text/plain"))
    );
    let text = response.text();
    assert!(text.lines().count() > 5, "{text}");
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
        assert!(value.parse::<f64>().is_ok(), "{line:?}");
        assert!(
            name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_'),
            "{line:?}"
        );
    }
}

#[test]
fn the_state_names_listeners_pools_and_servers() {
    let (a, b) = (nginx("a"), nginx("b"));
    let cluster = Cluster::new().workers(2).server(&a).server(&b);
    let proxy = cluster
        .pool("", &[("a", "weight: 2"), ("b", "backup: true")])
        .on(Host::Sidecar);
    proxy.sequence(5);
    let response = proxy.admin_get("/api/state");
    assert_eq!(
        response.header("content-type").as_deref(),
        Some("application/json")
    );
    let state = response.json().to_string();
    for part in ["\"web\"", "\"a\"", "\"b\"", "workers", "listeners", "pools"] {
        assert!(state.contains(part), "{part} is not in {state}");
    }
}

#[test]
fn anything_else_is_refused() {
    let web = nginx("web");
    let proxy = Cluster::new()
        .server(&web)
        .pool("", &[("web", "")])
        .on(Host::Sidecar);
    assert_eq!(proxy.admin_get("/nothing").status, 404);
    let posted = Connection::open(proxy.admin)
        .unwrap()
        .exchange(&Request::new("POST", "/healthz").body("x"));
    assert_eq!(posted.unwrap().status, 405);
    let mut garbage = Connection::open(proxy.admin).unwrap();
    garbage.send_bytes(b"\x00\x01\x02\r\n\r\n").unwrap();
    assert!(garbage.is_closed_within(Duration::from_secs(15)));
    assert_eq!(proxy.admin_get("/healthz").status, 200);
}
