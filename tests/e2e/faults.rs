//! Servers that misbehave: what the client is told, and that it is told soon.

use std::time::{Duration, Instant};

use evenkeel_tests::cluster::Server;
use evenkeel_tests::{Cluster, Host, both_hosts, doubles};

both_hosts!(
    a_server_that_never_answers_is_given_up,
    a_server_that_cannot_be_reached_is_given_up,
    a_server_that_hangs_up_is_reported,
    a_server_that_does_not_speak_http_is_reported,
    a_truncated_response_does_not_look_complete,
    a_pool_whose_servers_are_all_down_gets_503,
);

/// The proxy in front of just this server, with short timeouts.
fn alone(server: &dyn Server, host: Host) -> evenkeel_tests::Proxy {
    Cluster::new()
        .server(server)
        .top("timeouts: {connect: 1s, response: 2s}")
        .pool("", &[(server.name(), "")])
        .on(host)
}

#[track_caller]
fn check(host: Host, server: &dyn Server, statuses: &[u16], error: &str) {
    let proxy = alone(server, host);
    let start = Instant::now();
    let response = proxy.get("/");
    assert!(
        statuses.contains(&response.status),
        "{} {}",
        response.status,
        response.text()
    );
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    if host == Host::Sidecar {
        assert_eq!(response.status, statuses[0]);
        assert_eq!(
            response.header("x-evenkeel-error").as_deref(),
            Some(error),
            "{}",
            response.text()
        );
    }
}

fn a_server_that_never_answers_is_given_up(host: Host) {
    check(host, &doubles::silent("silent"), &[504], "response_timeout");
}

fn a_server_that_cannot_be_reached_is_given_up(host: Host) {
    check(
        host,
        &doubles::unreachable(),
        &[504, 503],
        "upstream_connect_timeout",
    );
}

fn a_server_that_hangs_up_is_reported(host: Host) {
    check(
        host,
        &doubles::hangs_up("broken"),
        &[502, 503],
        "upstream_reset",
    );
}

fn a_server_that_does_not_speak_http_is_reported(host: Host) {
    check(
        host,
        &doubles::babbles("mail"),
        &[502, 503],
        "upstream_reset",
    );
}

fn a_truncated_response_does_not_look_complete(host: Host) {
    let double = doubles::truncates("short");
    let proxy = alone(&double, host);
    let mut connection = proxy.connect();
    let whole = connection.get("/");
    assert!(whole.is_err(), "{whole:?}");
}

fn a_pool_whose_servers_are_all_down_gets_503(host: Host) {
    let web = doubles::recorder("web");
    let proxy = Cluster::new()
        .server(&web)
        .pool("", &[("web", "down: true")])
        .on(host);
    let response = proxy.get("/");
    assert_eq!(response.status, 503);
    assert!(response.header("retry-after").is_some(), "{response:?}");
    assert_eq!(web.connections(), 0);
}
