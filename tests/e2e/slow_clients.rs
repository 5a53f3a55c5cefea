//! Clients that are slow or send too much: heads and bodies that do not come, bodies beyond the limit. Each costs the proxy little, and is
//! told so.

use std::time::{Duration, Instant};

use evenkeel_tests::{Cluster, Connection, Host, Proxy, Request, both_hosts, doubles, nginx};

both_hosts!(
    a_head_that_trickles_is_late_after_a_time_in_all,
    a_body_that_stops_coming_is_late,
    a_body_over_the_limit_is_refused_and_reaches_nobody_whole,
);

const PATIENCE: Duration = Duration::from_secs(20);
/// A second, but for what Envoy's clock, which is read once a round of its loop, may be behind.
const NOT_BEFORE: Duration = Duration::from_millis(800);
/// Longer than any of these clients may take, and shorter than what the other timeouts allow.
const SOON: Duration = Duration::from_secs(10);

fn proxy(web: &doubles::Double, top: &str, host: Host) -> Proxy {
    let cluster = Cluster::new().server(web).top(top);
    cluster.pool("", &[("web", "")]).on(host)
}

/// Envoy knows one silence for all of an exchange, the larger of `response` and `idle`.
fn body_timeout(host: Host) -> &'static str {
    match host {
        Host::Sidecar => "timeouts: {client_body: 1s, response: 60s, idle: 60s}",
        Host::Envoy => "timeouts: {client_body: 1s, response: 1s, idle: 1s}",
    }
}

/// Each byte is in time, the whole is not.
fn a_head_that_trickles_is_late_after_a_time_in_all(host: Host) {
    let web = doubles::recorder("web");
    let proxy = proxy(&web, "timeouts: {client_header: 1s, idle: 60s}", host);
    let mut client = proxy.connect();
    let start = Instant::now();
    let mut bytes = Request::get("/")
        .header("X-Slow", vec![b'x'; 1_000])
        .head_bytes()
        .into_iter();
    client.patience(Duration::from_millis(100));
    let status = loop {
        let byte = bytes.next().unwrap();
        if client.send_bytes(&[byte]).is_err() {
            break 0;
        }
        match client.response("GET") {
            Ok(response) => break response.status,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break 0,
        }
    };
    assert!(matches!(status, 408 | 0), "{status}");
    assert!(start.elapsed() >= NOT_BEFORE && start.elapsed() < SOON);
    assert!(client.is_closed_within(PATIENCE));
    assert_eq!(web.requests_text(), Vec::<String>::new());
}

fn a_body_that_stops_coming_is_late(host: Host) {
    let web = doubles::recorder("web");
    let proxy = proxy(&web, body_timeout(host), host);
    for framing in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        for begun in ["", "5\r\nhello\r\n"] {
            let mut client = proxy.connect();
            let start = Instant::now();
            let head = format!("POST / HTTP/1.1\r\nHost: t\r\n{framing}\r\n\r\n{begun}");
            client.send_bytes(head.as_bytes()).unwrap();
            client.patience(PATIENCE);
            let status = client.response("POST").unwrap().status;
            assert_eq!(status, 408, "{framing}, {begun:?}");
            assert!(start.elapsed() >= NOT_BEFORE && start.elapsed() < SOON);
            assert!(client.is_closed_within(PATIENCE), "{framing}, {begun:?}");
        }
    }
    assert_eq!(web.requests_text(), Vec::<String>::new());
    // It was nobody else's fault.
    assert_eq!(proxy.get("/").status, 200);
}

/// The silence counts, as in nginx, not the whole.
#[test]
fn a_body_that_comes_slowly_is_taken() {
    let web = doubles::recorder("web");
    let proxy = proxy(&web, body_timeout(Host::Sidecar), Host::Sidecar);
    let mut client = proxy.connect();
    let head = "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 8\r\n\r\n";
    client.send_bytes(head.as_bytes()).unwrap();
    for byte in b"tortoise" {
        client.patience(Duration::from_millis(300));
        assert!(client.head().is_err(), "no answer before the body is there");
        client.send_bytes(&[*byte]).unwrap();
    }
    client.patience(PATIENCE);
    assert_eq!(client.response("POST").unwrap().status, 200);
    assert!(web.requests_text()[0].ends_with("\r\n\r\ntortoise"));
}

/// A server that takes no body is not the client's fault, however much of the body is still to come.
#[test]
fn a_server_that_takes_no_body_is_late_itself() {
    let web = nginx("web");
    let cluster = Cluster::new()
        .server(&web)
        .top("timeouts: {client_body: 1s, response: 2s}");
    let proxy = cluster.pool("retries: 0", &[("web", "")]).on(Host::Sidecar);
    web.hang();
    let mut client = Connection::open(proxy.address).unwrap();
    let length = 64 << 20;
    let head = format!("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n");
    client.send_bytes(head.as_bytes()).unwrap();
    // As much as goes; the proxy stops taking it when the server does.
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..length / piece.len() {
        if client.send_bytes(&piece).is_err() {
            break;
        }
    }
    let answer = client.response("POST").map(|response| response.status);
    web.go_on();
    assert_eq!(answer.unwrap(), 504);
}

fn a_body_over_the_limit_is_refused_and_reaches_nobody_whole(host: Host) {
    let web = doubles::recorder("web");
    let proxy = proxy(&web, "limits: {body_bytes: 64KiB}", host);
    let small = Request::new("POST", "/").body(vec![b'x'; 60_000]);
    assert_eq!(proxy.exchange(&small).status, 200);
    let large = Request::new("POST", "/").body(vec![b'x'; 70_000]);
    assert_eq!(proxy.exchange(&large).status, 413);
    let mut client = proxy.connect();
    let head = "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send_bytes(head.as_bytes()).unwrap();
    let chunk = [&b"2710\r\n"[..], &[b'x'; 10_000], b"\r\n"].concat();
    for _ in 0..7 {
        client.send_bytes(&chunk).ok();
    }
    client.patience(PATIENCE);
    assert_eq!(client.response("POST").unwrap().status, 413);
    assert_eq!(web.requests().len(), 1);
}
