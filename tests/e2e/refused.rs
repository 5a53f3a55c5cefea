//! Requests that no filter ever sees: each is a line in the access log with its reason, and counts in the metrics.

use std::time::Duration;

use evenkeel_tests::http2::{Http2, block_on};
use evenkeel_tests::{Cluster, Connection, Host, Proxy, Request, doubles, eventually};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(10);
/// Preface and empty settings of an HTTP/2 client.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// A whole `GET /` on stream 1: every field from HPACK's static table, but for `:authority: t`.
const HTTP2_GET: &[u8] = b"\0\0\x06\x01\x05\0\0\0\x01\x82\x84\x86\x41\x01t";
const HTTP2_PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0pingpong";

fn proxy(top: &str) -> (Proxy, doubles::Double) {
    let web = doubles::recorder("web");
    let cluster = Cluster::new().server(&web).top(top);
    (cluster.pool("", &[("web", "")]).on(Host::Sidecar), web)
}

/// The only line there is.
#[track_caller]
fn only_line(proxy: &Proxy, what: &str) -> Value {
    let lines = eventually(&format!("{what}: a line"), PATIENCE, || {
        let lines = proxy.access_log();
        if lines.is_empty() {
            Err(lines)
        } else {
            Ok(lines)
        }
    });
    assert_eq!(lines.len(), 1, "{what}: {lines:#?}");
    serde_json::from_str(&lines[0]).unwrap_or_else(|error| panic!("{what}: {error}: {lines:#?}"))
}

fn metric(proxy: &Proxy, name: &str) -> u64 {
    let text = proxy.admin_get("/metrics").text();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("no {name} in\n{text}"))
}

/// What a client sends, what happens to its connection then, and what its line says.
struct Row {
    what: &'static str,
    bytes: Vec<u8>,
    leaves: bool,
    status: u16,
    error: &'static str,
    details: &'static str,
}

#[track_caller]
fn check(proxy: &Proxy, row: &Row) {
    let what = row.what;
    let before = metric(proxy, "evenkeel_requests_total");
    std::fs::write(proxy.access_log_path(), "").unwrap();
    let mut client = proxy.connect();
    let peer = client.local();
    client.send_bytes(&row.bytes).unwrap();
    if row.leaves {
        drop(client);
    } else {
        if row.bytes.starts_with(b"PRI") {
            client.patience(PATIENCE);
        } else {
            assert_eq!(client.response("GET").unwrap().status, row.status, "{what}");
        }
        assert!(client.is_closed_within(PATIENCE), "{what}: stays open");
    }
    let line = only_line(proxy, what);
    let protocol = if row.bytes.starts_with(b"PRI") {
        "HTTP/2"
    } else {
        "HTTP/1.1"
    };
    for (key, expected) in [
        ("client_ip", Value::from("127.0.0.1")),
        ("peer", peer.to_string().into()),
        ("listener", "web".into()),
        ("protocol", protocol.into()),
        ("status", row.status.into()),
        ("error", row.error.into()),
    ] {
        assert_eq!(line[key], expected, "{what}: {key} of {line}");
    }
    let details = line["details"].as_str().unwrap_or_default();
    assert!(details.contains(row.details), "{what}: {line}");
    assert_eq!(
        metric(proxy, "evenkeel_requests_total"),
        before + 1,
        "{what}"
    );
}

#[test]
fn every_refused_head_has_a_line_that_says_why() {
    let large = Request::get("/").header("X-Large", vec![b'x'; 200 << 10]);
    let many = (0..120).fold(Request::get("/"), |request, at| {
        request.header(&format!("X-{at}"), "1")
    });
    let row = |what, bytes: &[u8], status, error, details| Row {
        what,
        bytes: bytes.to_vec(),
        leaves: false,
        status,
        error,
        details,
    };
    let leaves = |row| Row {
        leaves: true,
        ..row
    };
    let target = Request::get(&format!("/{}", "x".repeat(70_000))).head_bytes();
    let stream_0 = [HTTP2, b"\0\0\x01\0\x01\0\0\0\0x"].concat();
    #[rustfmt::skip]
    let rows = [
        row("no request line", b"GARBAGE\r\n\r\n", 400, "bad_request", "invalid"),
        row("bytes of TLS", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n", 400, "bad_request", "method"),
        row("a version of the future", b"GET / HTTP/9.1\r\nHost: t\r\n\r\n", 400, "bad_request", "version"),
        row("a name with a space", b"GET / HTTP/1.1\r\nHo st: t\r\n\r\n", 400, "bad_request", "header"),
        row("two lengths", b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", 400, "bad_request", "content-length"),
        row("one large header", &large.head_bytes(), 431, "head_too_large", "too large"),
        row("many headers", &many.head_bytes(), 431, "head_too_large", "too large"),
        row("a long target", &target, 414, "uri_too_long", "too long"),
        row("half a head", b"GET / HTTP/1.1\r\nHost: t\r\nX-", 408, "request_timeout", "in time"),
        leaves(row("half a head, and gone", b"GET / HTTP/1.1\r\nHo", 0, "request_incomplete", "closed")),
        row("data on stream 0", &stream_0, 0, "bad_request", "protocol error"),
    ];
    // hyper's limit of a target is 64 KiB, so the head must be allowed more.
    let top = "limits: {header_bytes: 128KiB}\ntimeouts: {client_header: 1s}";
    let (proxy, web) = proxy(top);
    let failed = rows.iter().filter(|row| !row.leaves).count() as u64;
    for row in &rows {
        check(&proxy, row);
    }
    assert_eq!(metric(&proxy, "evenkeel_connections_failed_total"), failed);
    assert_eq!(
        metric(&proxy, "evenkeel_responses_total{class=\"4xx\"}"),
        rows.iter().filter(|row| row.status >= 400).count() as u64
    );
    assert_eq!(web.requests_text(), Vec::<String>::new());
}

#[test]
fn the_second_request_of_a_connection_is_refused_with_a_line_too() {
    let (proxy, _web) = proxy("");
    let mut client = proxy.connect();
    assert_eq!(client.get("/fine").unwrap().status, 200);
    client.send_bytes(b"GET /\x01 HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(client.response("GET").unwrap().status, 400);
    let lines = eventually("two lines", PATIENCE, || {
        let lines = proxy.access_log();
        if lines.len() >= 2 {
            Ok(lines)
        } else {
            Err(lines)
        }
    });
    let statuses: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["status"].clone())
        .collect();
    assert_eq!(statuses, [200, 400]);
}

#[test]
fn a_connection_without_a_word_has_no_line() {
    let (proxy, _web) = proxy("timeouts: {client_header: 1s}");
    let mut silent = proxy.connect();
    drop(proxy.connect());
    assert!(silent.is_closed_within(PATIENCE));
    proxy.get("/last");
    assert_eq!(only_line(&proxy, "the request")["path"], "/last");
    assert_eq!(metric(&proxy, "evenkeel_connections_failed_total"), 1);
}

/// Its connection stays for a moment, lest a reset overtakes the answer: longer than a head may take here.
#[test]
fn who_was_refused_and_stays_is_counted_once() {
    let (proxy, _web) = proxy("timeouts: {client_header: 1s}");
    let mut client = proxy.connect();
    client.send_bytes(b"GARBAGE\r\n\r\n").unwrap();
    assert_eq!(client.response("GET").unwrap().status, 400);
    eventually("the connection is gone", PATIENCE, || {
        let state = proxy.admin_get("/api/state").json();
        if state["connections"]["open"] == 0 {
            Ok(())
        } else {
            Err(state)
        }
    });
    assert_eq!(metric(&proxy, "evenkeel_connections_failed_total"), 1);
    only_line(&proxy, "refused");
}

#[test]
fn the_combined_format_has_a_line_for_them_too() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("combined.log");
    let top = format!(
        "access_log: {{path: '{}', format: combined}}",
        file.display()
    );
    let (proxy, _web) = proxy(&top);
    let mut client = proxy.connect();
    client.send_bytes(b"GARBAGE\r\n\r\n").unwrap();
    assert_eq!(client.response("GET").unwrap().status, 400);
    let line = eventually("the line", PATIENCE, || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        if text.ends_with('\n') {
            Ok(text)
        } else {
            Err(text)
        }
    });
    assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
    assert!(line.ends_with("] \"-\" 400 0 \"-\" \"-\"\n"), "{line}");
}

#[test]
fn a_large_http2_head_is_refused_with_a_line() {
    let (proxy, web) = proxy("limits: {header_bytes: 32KiB}");
    let path = format!("/{}", "x".repeat(40 << 10));
    let (status, _) = block_on(async {
        let client = Http2::open(proxy.address).await;
        client.exchange("GET", &path, Vec::new()).await.unwrap()
    });
    assert_eq!(status, 431);
    let line = only_line(&proxy, "too large");
    assert_eq!(
        (&line["status"], &line["error"], &line["protocol"]),
        (&431.into(), &"head_too_large".into(), &"HTTP/2".into()),
        "{line}"
    );
    assert_eq!(web.requests_text(), Vec::<String>::new());
}

/// `client_header` bounds the reading of heads. What else an idle HTTP/2 client sends is none.
#[test]
fn an_idle_http2_client_that_pings_is_left_alone() {
    let (proxy, _web) = proxy("timeouts: {client_header: 1s, idle: 60s}");
    let mut client = Connection::open(proxy.address).unwrap();
    client.send_bytes(&[HTTP2, HTTP2_GET].concat()).unwrap();
    only_line(&proxy, "the request");
    client.send_bytes(HTTP2_PING).unwrap();
    assert!(!client.is_closed_within(Duration::from_millis(2_500)));
    assert_eq!(metric(&proxy, "evenkeel_connections_failed_total"), 0);
}
