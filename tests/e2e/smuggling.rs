//! Request smuggling: whatever a client sends, in front of a second request that a rule denies. What is ambiguous is refused and the
//! connection ends; or the server gets the one reading that the proxy has taken, which is asserted byte by byte. Never does a server see
//! the second request.
//!
//! (RFC 9112 sections 2.2, 3, 6, 7.1 and 11.2; RFC 9113 section 8.) What is no HTTP at all is in [`crate::malformed`], HTTP/2 in
//! [`crate::smuggling_http2`].

use std::time::Duration;

use evenkeel_tests::{Cluster, Host, Proxy, Request, both_hosts, doubles};

both_hosts!(
    transfer_codings,
    lengths,
    chunks,
    trailers,
    targets_and_hosts,
    versions_and_upgrades,
    a_response_with_more_than_it_may_have_is_nobody_elses,
);

/// What becomes of a request.
#[derive(Debug, Clone)]
enum Outcome {
    /// An error or no word at all; no whole request reaches the server, and the connection ends without a word on the next.
    Refused,
    /// The proxy's own answer; the server hears nothing, and the connection may go on.
    Answered(u16),
    /// The server gets exactly this, but for `x-forwarded-proto: http`; with the connection's next request the proxy does as it likes.
    Forwarded(String),
}
use Outcome::{Answered, Refused};

struct Row {
    what: &'static str,
    bytes: Vec<u8>,
    sidecar: Outcome,
    envoy: Outcome,
}

fn row(what: &'static str, bytes: impl AsRef<[u8]>, outcome: Outcome) -> Row {
    apart(what, bytes, outcome.clone(), outcome)
}

/// Where the two hosts differ.
fn apart(what: &'static str, bytes: impl AsRef<[u8]>, sidecar: Outcome, envoy: Outcome) -> Row {
    Row {
        what,
        bytes: bytes.as_ref().to_vec(),
        sidecar,
        envoy,
    }
}

/// A `POST` with these lines in its head.
fn post(lines: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: t\r\n{lines}\r\n\r\n{body}")
}

/// What the server gets of a `POST`.
fn posted(lines: &str, body: &str) -> Outcome {
    let lines = match lines {
        "" => String::new(),
        lines => format!("{lines}\r\n"),
    };
    Outcome::Forwarded(format!("POST / HTTP/1.1\r\nhost: t\r\n{lines}\r\n{body}"))
}

/// What the server gets of a chunked `POST` of these chunks.
fn posted_chunks(chunks: &str) -> Outcome {
    posted("transfer-encoding: chunked", chunks)
}

/// What the server gets of a `GET`.
fn got(target: &str, lines: &str) -> Outcome {
    Outcome::Forwarded(format!("GET {target} HTTP/1.1\r\n{lines}\r\n\r\n"))
}

/// Behind every row: who reads the row another way finds a request that the proxy would have denied.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: t\r\n\r\n";
const DENIED: u16 = 403;
/// How long an answer may take; some rows have a second request that is never answered.
const PATIENCE: Duration = Duration::from_secs(10);
const SECOND_ANSWER: Duration = Duration::from_secs(1);

/// In front of a server that keeps what it gets, with one path that nobody may reach.
pub(crate) fn proxy(web: &doubles::Double, host: Host) -> Proxy {
    // Without what the proxy tells of the client a request is as short as it was. (Envoy cannot do without X-Forwarded-Proto.)
    let policy = "\
request_headers: {remove: [X-Real-IP, X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Port, X-Request-Id]}
routes: [{match: {path: /hidden}, deny: true}, {pool: web}]
pools: {web: {servers: [{address: '@web'}]}}";
    Cluster::new().server(web).policy(policy).on(host)
}

#[track_caller]
fn check(host: Host, rows: &[Row]) {
    let web = doubles::recorder("web");
    let proxy = proxy(&web, host);
    let mut wrong = Vec::new();
    for row in rows {
        web.forget();
        let expected = match host {
            Host::Sidecar => &row.sidecar,
            Host::Envoy => &row.envoy,
        };
        if let Err(error) = outcome(&proxy, &web, &row.bytes, expected) {
            wrong.push(format!("{}: {error}", row.what));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    web.forget();
    assert_eq!(proxy.get("/").status, 200);
    assert_eq!(web.requests().len(), 1);
}

fn outcome(
    proxy: &Proxy,
    web: &doubles::Double,
    bytes: &[u8],
    expected: &Outcome,
) -> Result<(), String> {
    let mut connection = proxy.connect();
    connection.patience(PATIENCE);
    // Refused at its first bytes, the rest may find nobody.
    connection
        .send_bytes(&[bytes, HIDDEN.as_bytes()].concat())
        .ok();
    let method = if bytes.starts_with(b"HEAD") {
        "HEAD"
    } else {
        "GET"
    };
    let status = connection
        .response(method)
        .map_or(0, |response| response.status);
    let next = if matches!(expected, Refused) {
        let more = connection.finish().map_err(|error| error.to_string())?;
        if !more.is_empty() {
            return Err(format!("{status}, then {}", String::from_utf8_lossy(&more)));
        }
        0
    } else {
        connection.patience(SECOND_ANSWER);
        let next = connection.response("GET");
        next.map_or(0, |response| response.status)
    };
    let seen = web.requests_text();
    let said = || Err(format!("{status}, then {next}; the server got {seen:#?}"));
    // Whatever it is, it is the proxy's own refusal.
    if next != 0 && next < 400 {
        return said();
    }
    match expected {
        Refused if (status == 0 || status >= 400) && seen.is_empty() => Ok(()),
        Answered(own) if status == *own && seen.is_empty() => Ok(()),
        Outcome::Forwarded(whole) if status == 200 => {
            let seen = seen.iter();
            let seen: Vec<String> = seen
                .map(|request| request.replacen("x-forwarded-proto: http\r\n", "", 1))
                .collect();
            match seen == [whole.as_str()] {
                true => Ok(()),
                false => Err(format!("the server got {seen:#?}, not {whole:?}")),
            }
        }
        _ => said(),
    }
}

fn transfer_codings(host: Host) {
    let empty = "0\r\n\r\n";
    let none = || posted_chunks(empty);
    let mut rows: Vec<Row> = [
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding:\x0bchunked",
        "Transfer-Encoding: ",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        " Transfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\n ,identity",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Content-Length: abc\r\nTransfer-Encoding: chunked",
        "Foo\r\nTransfer-Encoding: chunked",
    ]
    .map(|lines| row(lines, post(lines, empty), Refused))
    .into();
    // Beside a length, chunked counts, and the connection ends with the answer (RFC 9112 section 6.1); Envoy refuses.
    let length = HIDDEN.len();
    let whole = format!("{length:x}\r\n{HIDDEN}\r\n0\r\n\r\n");
    #[rustfmt::skip]
    rows.extend([
        apart("a length, then chunked", post("Content-Length: 5\r\nTransfer-Encoding: chunked", empty), none(), Refused),
        apart("chunked, then a length", post("Transfer-Encoding: chunked\r\nContent-Length: 5", empty), none(), Refused),
        apart("CL.TE: the length takes the next request in", post(&format!("Content-Length: {}\r\nTransfer-Encoding: chunked", 5 + length), empty), none(), Refused),
        apart("TE.CL: the length ends before a request in a chunk", post("Transfer-Encoding: chunked\r\nContent-Length: 4", &whole), posted_chunks(&whole), Refused),
        apart("chunked beside a length that is none", post("Transfer-Encoding: chunked\r\nContent-Length: abc", empty), none(), Refused),
        row("chunked in capitals", post("Transfer-Encoding: CHUNKED", empty), none()),
        row("a tab before it", post("Transfer-Encoding:\tchunked", empty), none()),
        row("a space behind it", post("Transfer-Encoding: chunked ", empty), none()),
        row("behind a bare LF", post("X: a\nTransfer-Encoding: chunked", empty), posted("x: a\r\ntransfer-encoding: chunked", empty)),
        apart("behind a bare CR", post("X: a\rTransfer-Encoding: chunked", empty), Refused, posted("x: aTransfer-Encoding: chunked\r\ncontent-length: 0", "")),
        apart("on a folded line", post("Transfer-Encoding:\r\n chunked", empty), Refused, none()),
        apart("with an underscore it is none, and does not go on", post("Transfer_Encoding: chunked", empty), posted("", ""), posted("content-length: 0", "")),
        row("named in Connection", post("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked", empty), none()),
    ]);
    check(host, &rows);
}

fn lengths(host: Host) {
    let body = "hello";
    let five = || posted("content-length: 5", body);
    let mut rows: Vec<Row> = [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 5",
        "Content-Length: 5, 6",
        "Content-Length: 5,",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 5 5",
        "Content-Length: 0x5",
        "Content-Length: 5.0",
        "Content-Length: abc",
        "Content-Length: ",
        "Content-Length: 99999999999999999999",
        "Content-Length : 5",
        "Content-Length\t: 5",
        "Content-Length\0: 5",
        "Content-Length: 5\0",
        "Content-Length: 5\r\n 0",
        "X: a\0b\r\nContent-Length: 5",
        "X\0Y: a\r\nContent-Length: 5",
    ]
    .map(|lines| row(lines, post(lines, body), Refused))
    .into();
    #[rustfmt::skip]
    rows.extend([
        apart("twice the same", post("Content-Length: 5\r\nContent-Length: 5", body), five(), Refused),
        row("a space behind it", post("Content-Length: 5 ", body), five()),
        row("zeros before it", post("Content-Length: 005", body), posted("content-length: 005", body)),
        row("behind a bare LF", post("X: a\nContent-Length: 5", body), posted("x: a\r\ncontent-length: 5", body)),
        row("before a bare LF", post("Content-Length: 5\nX: b", body), posted("content-length: 5\r\nx: b", body)),
        apart("behind a bare CR", post("X: a\rContent-Length: 5", ""), Refused, posted("x: aContent-Length: 5\r\ncontent-length: 0", "")),
        apart("on a folded line", post("Content-Length:\r\n 5", body), Refused, five()),
        apart("behind a folded line", post("X: a\r\n b\r\nContent-Length: 5", body), Refused, posted("x: a b\r\ncontent-length: 5", body)),
        apart("with an underscore it is none, and does not go on", post("Content_Length: 33", ""), posted("", ""), posted("content-length: 0", "")),
        apart("named in Connection", post("Connection: Content-Length\r\nContent-Length: 5", body), five(), posted_chunks("5\r\nhello\r\n0\r\n\r\n")),
        row("of a GET", "GET / HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello", got("/", "host: t\r\ncontent-length: 5").with("hello")),
        row("of a HEAD", "HEAD / HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello", Outcome::Forwarded("HEAD / HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\n\r\nhello".into())),
        row("a GET in chunks", "GET / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", got("/", "host: t\r\ntransfer-encoding: chunked").with("3\r\nabc\r\n0\r\n\r\n")),
    ]);
    check(host, &rows);
}

impl Outcome {
    /// The same with a body.
    fn with(self, body: &str) -> Self {
        match self {
            Self::Forwarded(head) => Self::Forwarded(head + body),
            other => other,
        }
    }
}

fn chunks(host: Host) {
    let abc = || posted_chunks("3\r\nabc\r\n0\r\n\r\n");
    let chunked = |body: &str| post("Transfer-Encoding: chunked", body);
    let mut rows: Vec<Row> = [
        ("a bare LF in an extension", "3;a\nbc\r\nabc\r\n0\r\n\r\n"),
        ("a bare CR in an extension", "3;a\rbc\r\nabc\r\n0\r\n\r\n"),
        ("a space before the size", " 3\r\nabc\r\n0\r\n\r\n"),
        (
            "a size beyond all numbers",
            "10000000000000003\r\nabc\r\n0\r\n\r\n",
        ),
        ("a size with 0x", "0x3\r\nabc\r\n0\r\n\r\n"),
        ("a negative size", "-3\r\nabc\r\n0\r\n\r\n"),
        ("a size with a plus", "+3\r\nabc\r\n0\r\n\r\n"),
        ("a size with an underscore", "0_3\r\nabc\r\n0\r\n\r\n"),
        ("junk behind the size", "3z\r\nabc\r\n0\r\n\r\n"),
        ("no size", "\r\nabc\r\n0\r\n\r\n"),
        ("a bare LF behind the size", "3\nabc\r\n0\r\n\r\n"),
        ("a bare CR behind the size", "3\rabc\r\n0\r\n\r\n"),
        ("no line end behind a chunk", "3\r\nabc0\r\n\r\n"),
        ("junk behind a chunk", "3\r\nabcXX0\r\n\r\n"),
        ("a size that is too large", "5\r\nabc\r\n0\r\n\r\n"),
        ("bare LFs at the end", "3\r\nabc\r\n0\n\n"),
        ("no last chunk", "3\r\nabc\r\n"),
    ]
    .map(|(what, body)| row(what, chunked(body), Refused))
    .into();
    let long = format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(20_000));
    #[rustfmt::skip]
    rows.extend([
        row("plain", chunked("3\r\nabc\r\n0\r\n\r\n"), abc()),
        row("an extension", chunked("3;name=value\r\nabc\r\n0\r\n\r\n"), abc()),
        row("a quoted extension", chunked("3;name=\"a;b\"\r\nabc\r\n0;x\r\n\r\n"), abc()),
        row("a line end within quotes ends the line", chunked("3;name=\"\r\nabc\r\n0\r\n\r\n\"\r\n"), abc()),
        row("a NUL in an extension", chunked("3;a\0b\r\nabc\r\n0\r\n\r\n"), abc()),
        row("a space before an extension", chunked("3 ;a=b\r\nabc\r\n0\r\n\r\n"), abc()),
        row("a space behind the size", chunked("3 \r\nabc\r\n0\r\n\r\n"), abc()),
        row("zeros before the size", chunked("00000000000000000003\r\nabc\r\n0\r\n\r\n"), abc()),
        apart("20,000 bytes of extension", chunked(&long), Refused, abc()),
        apart("digits behind a space", chunked("3 3\r\nabc\r\n0\r\n\r\n"), Refused, abc()),
        apart("a size that is too small", chunked("2\r\nabc\r\n0\r\n\r\n"), Refused, posted_chunks("2\r\nab\r\n0\r\n\r\n")),
        apart("a bare LF behind a chunk", chunked("3\r\nabc\n0\r\n\r\n"), Refused, abc()),
        row("a bare LF for the last line", chunked("3\r\nabc\r\n0\r\n\n"), abc()),
    ]);
    check(host, &rows);
}

fn trailers(host: Host) {
    let with = |names: &str, trailers: &str| {
        post(
            &format!("Transfer-Encoding: chunked\r\nTrailer: {names}"),
            &format!("3\r\nabc\r\n0\r\n{trailers}\r\n"),
        )
    };
    let left = |names: &str, trailers: &str| {
        let body = format!("3\r\nabc\r\n0\r\n{trailers}\r\n");
        posted(
            &format!("trailer: {names}\r\ntransfer-encoding: chunked"),
            &body,
        )
    };
    let names = "X-Sum, Content-Length, Transfer-Encoding, Host, Authorization, Cookie, X-Real-IP, X_Real_IP, X-Forwarded-For, Forwarded, X-Gateway-Destination-Endpoint";
    let lines: String = names
        .split(", ")
        .map(|name| format!("{name}: 1\r\n"))
        .collect();
    #[rustfmt::skip]
    let rows = [
        row("one that is welcome", with("X-Sum", "X-Sum: 1\r\n"), left("X-Sum", "x-sum: 1\r\n")),
        row("names that only a head may have", with(names, &lines), left(names, "x-sum: 1\r\n")),
        row("a name that is none", with("X Y", "X Y: 1\r\n"), Refused),
        row("a request in place of one", with("X", HIDDEN), Refused),
    ];
    check(host, &rows);
}

fn targets_and_hosts(host: Host) {
    let get = |target: &str, lines: &str| format!("GET {target} HTTP/1.1\r\n{lines}\r\n\r\n");
    let real = || got("/x", "host: real");
    #[rustfmt::skip]
    let rows = [
        row("an authority in the target wins", get("http://real/x", "Host: other"), real()),
        apart("the same without a Host", get("http://real/x", ""), Refused, real()),
        apart("a user in it", get("http://a@real/x", "Host: other"), Refused, real()),
        apart("another scheme", get("https://real/x", "Host: other"), real(), Refused),
        apart("a scheme that is not ours", get("ftp://real/x", "Host: other"), real(), Refused),
        row("a target without a host", get("http:///x", "Host: other"), Refused),
        row("rules look at the path of such a target", get("http://real/hidden", "Host: other"), Answered(DENIED)),
        row("a host and a port for a target", get("real:80", "Host: real:80"), Refused),
        row("an asterisk for a target", get("*", "Host: t"), Refused),
        row("two slashes begin no authority", get("//real/x", "Host: t"), got("/real/x", "host: t")),
        apart("a fragment", get("/x#y", "Host: t"), got("/x", "host: t"), Refused),
        row("no Host", get("/", "X: a"), Refused),
        row("an empty Host", get("/", "Host:"), got("/", "host: ")),
        apart("two Hosts", get("/", "Host: a\r\nHost: b"), Refused, Answered(400)),
        apart("two Hosts that are the same", get("/", "Host: a\r\nHost: a"), Refused, Answered(400)),
        row("two Hosts in a line", get("/", "Host: a, b"), Refused),
        row("a path in Host", get("/", "Host: a/b"), Refused),
        row("a space in Host", get("/", "Host: a b"), Refused),
        row("a space behind Host", get("/", "Host : a"), Refused),
        row("a space before Host", get("/", " Host: a"), Refused),
        apart("a user in Host", get("/", "Host: a@b"), Refused, Answered(400)),
        apart("a port that is none", get("/", "Host: a:80b"), Refused, Answered(400)),
        apart("a port beyond all ports", get("/", "Host: a:99999"), Refused, Answered(400)),
        apart("Host named in Connection", get("/", "Host: t\r\nConnection: Host"), got("/", "host: t"), Refused),
        row("CONNECT", "CONNECT t:80 HTTP/1.1\r\nHost: t\r\n\r\n", Refused),
    ];
    check(host, &rows);
}

fn versions_and_upgrades(host: Host) {
    let plain = || got("/", "host: t");
    let five = || posted("content-length: 5", "hello");
    let upgrade = |protocol: &str| {
        format!(
            "GET / HTTP/1.1\r\nHost: t\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
        )
    };
    #[rustfmt::skip]
    let rows = [
        row("nothing is upgraded to h2c", upgrade("h2c"), plain()),
        apart("nor to anything but WebSocket", upgrade("TLS/1.0"), plain(), Refused),
        apart("nor to one of two", upgrade("websocket, h2c"), plain(), Refused),
        apart("chunked in HTTP/1.0", "POST / HTTP/1.0\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused, posted_chunks("0\r\n\r\n")),
        row("a length in HTTP/1.0", "POST / HTTP/1.0\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello", five()),
        row("HTTP/1.0 that is kept alive", "POST / HTTP/1.0\r\nHost: t\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", five()),
        row("HTTP/0.9", "GET /\r\n", Refused),
        apart("HTTP/1.2", "GET / HTTP/1.2\r\nHost: t\r\n\r\n", Refused, plain()),
        row("bare LFs throughout", "GET / HTTP/1.1\nHost: t\n\n", plain()),
        row("a bare CR behind the request line", "GET / HTTP/1.1\rHost: t\r\n\r\n", Refused),
        row("empty lines before it", "\r\n\r\nGET / HTTP/1.1\r\nHost: t\r\n\r\n", plain()),
        apart("two spaces in the request line", "GET  / HTTP/1.1\r\nHost: t\r\n\r\n", Refused, plain()),
        apart("a tab in the request line", "GET\t/ HTTP/1.1\r\nHost: t\r\n\r\n", Refused, plain()),
        apart("a space behind the request line", "GET / HTTP/1.1 \r\nHost: t\r\n\r\n", Refused, plain()),
    ];
    check(host, &rows);
}

/// A server that says more than its answer's framing allows, in the form of another answer: no later request may get that one.
fn a_response_with_more_than_it_may_have_is_nobody_elses(host: Host) {
    for (double, method) in [
        ("no-content", "GET"),
        ("not-modified", "GET"),
        ("too-long", "GET"),
        ("too-long", "HEAD"),
        ("two-framings", "GET"),
    ] {
        let web = doubles::overflows(double);
        let proxy = Cluster::new()
            .server(&web)
            .pool("", &[(double, "")])
            .on(host);
        for _ in 0..4 {
            let request = Request::new(method, "/");
            let mut connection = proxy.connect();
            connection.patience(SECOND_ANSWER);
            for _ in 0..3 {
                let Ok(response) = connection.exchange(&request) else {
                    break;
                };
                let length = response.header("content-length");
                assert_ne!(length.as_deref(), Some("6"), "{double}: {response:?}");
                assert!(
                    !response.text().contains("stolen"),
                    "{double}: {response:?}"
                );
            }
        }
    }
}
