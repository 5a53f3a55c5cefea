//! Requests that are not HTTP: 400, or 431 when they are too large; the connection ends, and no server hears of it. Those that could be
//! read in two ways are in [`crate::smuggling`].

use std::time::Duration;

use evenkeel_tests::{Cluster, Connection, Host, Request, both_hosts, doubles};

both_hosts!(
    malformed_requests_are_refused_and_reach_no_server,
    oversized_heads_are_refused_and_reach_no_server,
    random_bytes_hurt_nobody,
);

/// What the client sends, and why it is wrong.
const MALFORMED: &[(&str, &[u8])] = &[
    ("not HTTP", b"hello\r\n\r\n"),
    (
        "a TLS hello",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ),
    ("no version", b"GET /\r\n\r\n"),
    (
        "a bare word for a header",
        b"GET / HTTP/1.1\r\nHost: t\r\nnonsense\r\n\r\n",
    ),
    (
        "a header without a name",
        b"GET / HTTP/1.1\r\nHost: t\r\n: 1\r\n\r\n",
    ),
    (
        "a control character in the method",
        b"G\x01T / HTTP/1.1\r\nHost: t\r\n\r\n",
    ),
    (
        "a space in the target",
        b"GET /a b HTTP/1.1\r\nHost: t\r\n\r\n",
    ),
];

fn malformed_requests_are_refused_and_reach_no_server(host: Host) {
    let web = doubles::recorder("web");
    let proxy = Cluster::new()
        .server(&web)
        .pool("", &[("web", "")])
        .on(host);
    let mut wrong = Vec::new();
    for (what, bytes) in MALFORMED {
        let outcome = refused(proxy.connect(), bytes, &[400, 501, 505]);
        wrong.extend(outcome.err().map(|error| format!("{what}: {error}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(web.requests_text(), Vec::<String>::new());
    assert_eq!(proxy.get("/").status, 200);
}

fn refused(mut connection: Connection, bytes: &[u8], statuses: &[u16]) -> Result<(), String> {
    connection.patience(Duration::from_secs(5));
    connection
        .send_bytes(bytes)
        .map_err(|error| error.to_string())?;
    match connection.response("GET") {
        Ok(response) if statuses.contains(&response.status) => {}
        Ok(response) => return Err(format!("answered {} {}", response.status, response.text())),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            return Err("no answer".into());
        }
        // Closed without a word: nothing was let through, which is what counts.
        Err(_) => return Ok(()),
    }
    match connection.is_closed_within(Duration::from_secs(5)) {
        true => Ok(()),
        false => Err("the connection stays open".into()),
    }
}

fn oversized_heads_are_refused_and_reach_no_server(host: Host) {
    let web = doubles::recorder("web");
    let cluster = Cluster::new()
        .server(&web)
        .top("limits: {header_bytes: 32KiB, headers: 50}");
    let proxy = cluster.pool("", &[("web", "")]).on(host);
    let large = Request::get("/")
        .header("X-Large", vec![b'x'; 40 << 10])
        .head_bytes();
    let target = Request::get(&format!("/{}", "x".repeat(40 << 10))).head_bytes();
    let many = (0..60).fold(Request::get("/"), |request, at| {
        request.header(&format!("X-{at}"), "1")
    });
    for (what, bytes) in [
        ("one large header", large),
        ("a long target", target),
        ("many headers", many.head_bytes()),
    ] {
        let outcome = refused(proxy.connect(), &bytes, &[431, 414]);
        assert!(outcome.is_ok(), "{what}: {outcome:?}");
    }
    assert_eq!(web.requests().len(), 0);
    assert_eq!(
        proxy
            .exchange(&Request::get("/").header("X-Fine", vec![b'x'; 16 << 10]))
            .status,
        200
    );
}

fn random_bytes_hurt_nobody(host: Host) {
    let web = doubles::recorder("web");
    let proxy = Cluster::new()
        .server(&web)
        .pool("", &[("web", "")])
        .on(host);
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let beginnings: [&[u8]; 5] = [
        b"",
        b"GET ",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: t\r\n",
        b"\x16\x03\x01",
    ];
    for round in 0..200 {
        let length = 20 + (next() % 600) as usize;
        let mut bytes = beginnings[round % beginnings.len()].to_vec();
        bytes.extend((0..length).map(|_| next() as u8));
        bytes.extend_from_slice(b"\r\n\r\n");
        let mut connection = proxy.connect();
        connection.send_bytes(&bytes).ok();
        if round % 20 == 0 {
            connection.is_closed_within(Duration::from_millis(100));
        }
    }
    assert_eq!(web.requests_text(), Vec::<String>::new());
    assert_eq!(proxy.get("/").status, 200);
}
