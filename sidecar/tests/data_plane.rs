//! The data plane in one process, against servers made of bare sockets: faults that a real server does not produce on demand.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use evenkeel::config::Config;
use evenkeel::run::{RunOptions, Running, start};

const PATIENCE: Duration = Duration::from_secs(20);

/// A server that does `serve` with each connection and its number.
fn server(
    serve: impl Fn(TcpStream, usize) + Send + Sync + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let (counting, serve) = (Arc::clone(&count), Arc::new(serve));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (number, serve) = (counting.fetch_add(1, Ordering::SeqCst), Arc::clone(&serve));
            std::thread::spawn(move || serve(stream.unwrap(), number));
        }
    });
    (address, count)
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// Reads one request head; `false` at the end of the connection.
fn read_head(stream: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return false,
        }
    }
    true
}

fn answer(stream: &mut TcpStream, body: &str) {
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
}

fn proxy(servers: &[SocketAddr], more: &str) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("evenkeel.yaml");
    let servers: String = servers
        .iter()
        .map(|address| format!("{{address: '{address}'}}, "))
        .collect();
    let text = format!(
        "listeners: [{{name: web, bind: '127.0.0.1:0'}}]\nworkers: 1\n{more}\n\
         policy: {{routes: [{{pool: p}}], pools: {{p: {{retries: 2, servers: [{servers}]}}}}}}\n"
    );
    std::fs::write(&path, text).unwrap();
    let config = Config::load(&path).unwrap_or_else(|faults| panic!("{faults}"));
    start(config, RunOptions::default()).unwrap()
}

fn connect(running: &Running) -> TcpStream {
    let stream = TcpStream::connect(running.addresses()[0].1).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends bytes on a new connection and reads until the proxy closes it.
#[track_caller]
fn exchange(running: &Running, request: &str) -> String {
    let mut stream = connect(running);
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).unwrap();
    String::from_utf8_lossy(&response).into_owned()
}

fn get(running: &Running) -> String {
    exchange(
        running,
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    )
}

#[test]
fn a_server_that_refuses_is_passed_over() {
    let (alive, _) = server(|mut stream, _| {
        while read_head(&mut stream) {
            answer(&mut stream, "alive");
        }
    });
    let running = proxy(&[nobody(), alive], "");
    for _ in 0..6 {
        let response = get(&running);
        assert!(
            response.starts_with("HTTP/1.1 200") && response.ends_with("alive"),
            "{response}"
        );
    }
    running.stop();
}

#[test]
fn a_connection_that_the_server_closed_when_it_was_used_again_fails_no_get() {
    // Answers once, and hangs up on the second request without a word.
    let (server, connections) = server(|mut stream, _| {
        if read_head(&mut stream) {
            answer(&mut stream, "once");
        }
        read_head(&mut stream);
    });
    let running = proxy(&[server], "");
    for expected in 1..=4 {
        let response = get(&running);
        assert!(response.ends_with("once"), "{response}");
        assert_eq!(connections.load(Ordering::SeqCst), expected);
    }
    running.stop();
}

#[test]
fn a_post_is_not_sent_twice() {
    let (server, connections) = server(|mut stream, _| {
        read_head(&mut stream);
    });
    let running = proxy(&[server], "");
    let response = exchange(
        &running,
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi",
    );
    assert!(response.starts_with("HTTP/1.1 502"), "{response}");
    assert!(
        response.contains("x-evenkeel-error: upstream_reset"),
        "{response}"
    );
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    running.stop();
}

#[test]
fn a_silent_server_is_given_up_after_its_time() {
    let (server, _) = server(|mut stream, _| {
        read_head(&mut stream);
        std::thread::park();
    });
    let running = proxy(&[server], "timeouts: {response: 500ms}");
    let start = Instant::now();
    let response = get(&running);
    assert!(response.starts_with("HTTP/1.1 504"), "{response}");
    assert!(
        response.contains("x-evenkeel-error: response_timeout"),
        "{response}"
    );
    assert!(
        start.elapsed() >= Duration::from_millis(500),
        "{:?}",
        start.elapsed()
    );
    running.stop();
}

#[test]
fn what_is_not_a_request_reaches_nobody_and_closes_the_connection() {
    let (server, connections) = server(|mut stream, _| {
        while read_head(&mut stream) {
            answer(&mut stream, "reached");
        }
    });
    let running = proxy(&[server], "limits: {header_bytes: 16KiB, body_bytes: 10}");
    let long = format!(
        "GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n",
        "y".repeat(40_000)
    );
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nhost: a b\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nhost: a\r\n bad: x\r\n\r\n", "400"),
        (
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
            "400",
        ),
        (
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n",
            "400",
        ),
        ("CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n", "405"),
        (
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 11\r\n\r\n",
            "413",
        ),
        (&long, "431"),
    ] {
        let response = exchange(&running, request);
        assert!(
            response.starts_with(&format!("HTTP/1.1 {status}")),
            "{request:.60}: {response}"
        );
    }
    assert_eq!(connections.load(Ordering::SeqCst), 0);
    running.stop();
}

#[test]
fn stopping_waits_for_what_has_begun() {
    let (server, connections) = server(|mut stream, _| {
        read_head(&mut stream);
        // The page takes its time.
        std::thread::sleep(Duration::from_millis(700));
        answer(&mut stream, "late");
    });
    let running = proxy(&[server], "");
    let mut stream = connect(&running);
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .unwrap();
    let start = Instant::now();
    while connections.load(Ordering::SeqCst) == 0 && start.elapsed() < PATIENCE {
        std::thread::yield_now();
    }
    running.stop();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.ends_with("late"), "{response}");
    assert!(response.contains("connection: close"), "{response}");
}

#[test]
fn an_upgrade_becomes_a_tunnel() {
    let (server, _) = server(|mut stream, _| {
        read_head(&mut stream);
        let head = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nfirst";
        stream.write_all(head).unwrap();
        let mut buffer = [0; 64];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            stream.write_all(&buffer[..length]).unwrap();
        }
    });
    let running = proxy(&[server], "");
    let mut stream = connect(&running);
    stream
        .write_all(
            b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        )
        .unwrap();
    assert!(read_head(&mut stream));
    let mut first = [0; 5];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"first");
    stream.write_all(b"ping").unwrap();
    let mut echo = [0; 4];
    stream.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"ping");
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
    running.stop();
}
