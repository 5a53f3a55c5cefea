//! Request smuggling from HTTP/2: heads and bodies that would be two requests, or none, once they are written as HTTP/1.1 to a server. Sent
//! as raw frames, because no client library would. What is refused costs its stream or its connection (RFC 9113 section 8.1.1).

use std::time::Duration;

use evenkeel_tests::{Connection, Host, Proxy, both_hosts, doubles, eventually};

use crate::smuggling::proxy;

both_hosts!(
    what_would_be_something_else_in_http1_reaches_no_server,
    what_is_clear_reaches_the_server_as_it_is_meant,
);

const PATIENCE: Duration = Duration::from_secs(10);
/// Preface and empty settings.
const BEGINNING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

type Fields<'a> = &'a [(&'a str, &'a str)];
type Owned<'a> = Vec<(&'a str, &'a str)>;

/// The pseudo-headers of a plain request.
const PLAIN: [(&str, &str); 4] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "t"),
];
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nhost: t\r\n\r\n";

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [
        length[1], length[2], length[3], kind, flags, 0, 0, 0, stream,
    ];
    [&head, payload].concat()
}

/// A literal of HPACK without Huffman coding and without indexing (RFC 7541 section 6.2.2).
fn literal(text: &str, out: &mut Vec<u8>) {
    match u8::try_from(text.len()) {
        Ok(length @ 0..=126) => out.push(length),
        Ok(length) => out.extend([127, length - 127]),
        Err(_) => panic!("{text} is too long for a row"),
    }
    out.extend_from_slice(text.as_bytes());
}

fn request(stream: u8, fields: Fields<'_>, body: Option<&str>) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        literal(name, &mut block);
        literal(value, &mut block);
    }
    let Some(body) = body else {
        return frame(HEADERS, END_HEADERS | END_STREAM, stream, &block);
    };
    let head = frame(HEADERS, END_HEADERS, stream, &block);
    [head, frame(DATA, END_STREAM, stream, body.as_bytes())].concat()
}

/// What the server got of a request, without the one that follows it on the same connection; whether that one is answered, or the
/// connection ended, is waited for.
fn seen(
    proxy: &Proxy,
    web: &doubles::Double,
    fields: Fields<'_>,
    body: Option<&str>,
) -> Vec<String> {
    web.forget();
    let mut connection = Connection::open(proxy.address).unwrap();
    let last: Vec<(&str, &str)> = PLAIN
        .into_iter()
        .map(|(name, value)| {
            if name == ":path" {
                (name, "/last")
            } else {
                (name, value)
            }
        })
        .collect();
    let bytes = [
        BEGINNING.to_vec(),
        request(1, fields, body),
        request(3, &last, None),
    ];
    connection.send_bytes(&bytes.concat()).ok();
    eventually("the end of it", PATIENCE, || {
        let seen = web.requests_text();
        let is_last = |request: &String| request.contains(" /last ");
        let is_over =
            seen.iter().any(is_last) || connection.is_closed_within(Duration::from_millis(20));
        is_over.then_some(()).ok_or(seen)
    });
    let seen = web.requests_text().into_iter();
    seen.filter(|request| !request.contains(" /last "))
        .map(|request| request.replacen("x-forwarded-proto: http\r\n", "", 1))
        .collect()
}

/// The plain request with these fields besides, or in the place of its own.
fn with<'a>(fields: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut all: Vec<(&str, &str)> = PLAIN
        .into_iter()
        .filter(|(name, _)| !fields.iter().any(|(field, _)| field == name))
        .collect();
    let is_pseudo = |(name, _): &&(&str, &str)| name.starts_with(':');
    all.extend(fields.iter().filter(is_pseudo));
    all.extend(fields.iter().filter(|field| !is_pseudo(field)));
    all
}

fn what_would_be_something_else_in_http1_reaches_no_server(host: Host) {
    let hidden = format!("/ HTTP/1.1\r\nhost: t\r\n\r\n{HIDDEN}");
    let method = format!("GET / HTTP/1.1\r\nhost: t\r\n\r\n{HIDDEN}");
    let value = format!("1\r\n\r\n{HIDDEN}");
    let name = "x: 1\r\n\r\nget /hidden HTTP/1.1\r\ny";
    let authority = format!("t\r\n\r\n{HIDDEN}");
    #[rustfmt::skip]
    let rows: Vec<(&str, Owned<'_>, Option<&str>)> = vec![
        ("a coding", with(&[("transfer-encoding", "chunked")]), Some("0\r\n\r\n")),
        ("Connection", with(&[("connection", "close")]), None),
        ("Keep-Alive", with(&[("keep-alive", "timeout=5")]), None),
        ("Proxy-Connection", with(&[("proxy-connection", "keep-alive")]), None),
        ("Upgrade", with(&[("upgrade", "h2c")]), None),
        ("TE that is not `trailers`", with(&[("te", "gzip")]), None),
        ("a body shorter than its length", with(&[("content-length", "10")]), Some("hello")),
        ("a body longer than its length", with(&[("content-length", "3")]), Some("hello")),
        ("a length, and no body", with(&[("content-length", "5")]), None),
        ("two lengths", with(&[("content-length", "5"), ("content-length", "6")]), Some("hello")),
        ("a length that is none", with(&[("content-length", "+5")]), Some("hello")),
        ("a capital in a name", with(&[("X-A", "1")]), None),
        ("a space in a name", with(&[("x a", "1")]), None),
        ("a colon in a name", with(&[("x:a", "1")]), None),
        ("a line end in a name", with(&[(name, "1")]), None),
        ("an empty name", with(&[("", "1")]), None),
        ("a line end in a value", with(&[("x-a", &value)]), None),
        ("a bare LF in a value", with(&[("x-a", "1\ny: 2")]), None),
        ("a bare CR in a value", with(&[("x-a", "1\ry: 2")]), None),
        ("a NUL in a value", with(&[("x-a", "1\0y")]), None),
        ("a line end in the path", with(&[(":path", &hidden)]), None),
        ("a space in the path", with(&[(":path", "/a b")]), None),
        ("a path that is none", with(&[(":path", "a")]), None),
        ("an empty path", with(&[(":path", "")]), None),
        ("an asterisk", with(&[(":path", "*")]), None),
        ("a line end in the method", with(&[(":method", &method)]), None),
        ("a space in the method", with(&[(":method", "GET /hidden")]), None),
        ("a line end in the authority", with(&[(":authority", &authority)]), None),
        ("a list for an authority", with(&[(":authority", "a,b")]), None),
        ("a user in the authority", with(&[(":authority", "a@b")]), None),
        ("a path in the authority", with(&[(":authority", "a/b")]), None),
        ("a port that is none", with(&[(":authority", "a:80b")]), None),
        ("two paths", with(&[(":path", "/"), (":path", "/hidden")]), None),
        ("two methods", with(&[(":method", "GET"), (":method", "POST")]), None),
        ("two authorities", with(&[(":authority", "a"), (":authority", "b")]), None),
        ("no path", PLAIN.into_iter().filter(|(name, _)| *name != ":path").collect(), None),
        ("no method", PLAIN.into_iter().filter(|(name, _)| *name != ":method").collect(), None),
        ("an unknown pseudo-header", with(&[(":hidden", "1")]), None),
        ("a pseudo-header of responses", with(&[(":status", "200")]), None),
        ("a pseudo-header behind a header", [&PLAIN[..3], &[("x-a", "1"), (":authority", "t")]].concat(), None),
        ("two Hosts", with(&[("host", "a"), ("host", "b")]), None),
        ("CONNECT", vec![(":method", "CONNECT"), (":authority", "t:80")], None),
    ];
    let web = doubles::recorder("web");
    let proxy = proxy(&web, host);
    let mut wrong = Vec::new();
    for (what, fields, body) in rows {
        let seen = seen(&proxy, &web, &fields, body);
        if !seen.is_empty() {
            wrong.push(format!("{what}: the server got {seen:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn what_is_clear_reaches_the_server_as_it_is_meant(host: Host) {
    let web = doubles::recorder("web");
    let proxy = proxy(&web, host);
    #[rustfmt::skip]
    let rows: Vec<(&str, Owned<'_>, Option<&str>, &str)> = vec![
        ("a length", with(&[("content-length", "5")]), Some("hello"), "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\n\r\nhello"),
        ("no length", with(&[]), Some("hello"), "POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        ("the authority wins over Host", with(&[("host", "other")]), Some("hello"), "POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        ("with an underscore it is no length", with(&[("content_length", "1")]), Some("hello"), "POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        ("a denied path", with(&[(":path", "/hidden")]), None, ""),
        ("a denied path, spelt otherwise", with(&[(":path", "//x/../%68idden")]), None, ""),
    ];
    for (what, fields, body, expected) in rows {
        let seen = seen(&proxy, &web, &fields, body);
        assert_eq!(sorted(&seen.concat()), sorted(expected), "{what}");
    }
}

/// The header lines in an order that does not matter.
fn sorted(request: &str) -> String {
    let (head, body) = request.split_once("\r\n\r\n").unwrap_or_default();
    let mut lines: Vec<&str> = head.split("\r\n").skip(1).collect();
    lines.sort_unstable();
    let first = head.split("\r\n").next().unwrap_or_default();
    format!("{first}\r\n{}\r\n\r\n{body}", lines.join("\r\n"))
}
