//! Servers that misbehave: what the client is told, and that it is told soon.

use std::time::{Duration, Instant};

use evenkeel_tests::cluster::Server;
use evenkeel_tests::{
    Cluster, Connection, Host, Request, both_hosts, doubles, eventually, nginx, php,
};

/// Longest wait for a proxy that was just started.
const PATIENCE: Duration = Duration::from_secs(20);

both_hosts!(
    a_server_that_never_answers_is_given_up,
    a_server_that_cannot_be_reached_is_given_up,
    a_server_that_hangs_up_is_reported,
    a_server_that_does_not_speak_http_is_reported,
    a_truncated_response_does_not_look_complete,
    a_pool_whose_servers_are_all_down_gets_503,
    a_response_that_stalls_is_cut,
    a_response_that_trickles_is_not,
    an_answer_before_the_upload_ends_reaches_the_client,
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
        // Not ready, and rightly so: it is asked until it answers.
        .start(host);
    let response = eventually("it answers", PATIENCE, || {
        Connection::open(proxy.address).and_then(|mut client| client.get("/"))
    });
    assert_eq!(response.status, 503);
    assert!(response.header("retry-after").is_some(), "{response:?}");
    assert_eq!(web.connections(), 0);
}

fn a_response_that_stalls_is_cut(host: Host) {
    let double = doubles::stalls("stalls");
    let proxy = alone(&double, host);
    let start = Instant::now();
    let whole = proxy.connect().get("/");
    assert!(whole.is_err(), "{whole:?}");
    assert!(
        start.elapsed() < Duration::from_secs(15),
        "{:?}",
        start.elapsed()
    );
}

/// `response` is the longest silence, never a total.
fn a_response_that_trickles_is_not(host: Host) {
    let shop = php("shop");
    let proxy = alone(&shop, host);
    let response = proxy.get("/sse.php?n=6");
    assert!(response.text().ends_with("data: 5"), "{}", response.text());
}

/// The server refuses a large body at once; the client, still sending, gets to read that.
fn an_answer_before_the_upload_ends_reaches_the_client(host: Host) {
    let web = nginx("web");
    let proxy = Cluster::new()
        .server(&web)
        .pool("", &[("web", "")])
        .on(host);
    let mut connection = proxy.connect();
    let head = Request::new("POST", "/small")
        .header("Content-Length", (8 << 20).to_string())
        .head_bytes();
    connection.send_bytes(&head).unwrap();
    for _ in 0..16 {
        connection.send_bytes(&[b'x'; 4 << 10]).ok();
    }
    assert_eq!(connection.response("POST").unwrap().status, 413);
}
