//! What servers are told, beyond the defaults.

use serde_json::json;

use super::tests::{Pair, decide, policy, shop};

/// The lines about `header` of a request from `peer`.
#[track_caller]
fn check(
    document: &serde_json::Value,
    peer: &str,
    headers: &[Pair],
    header: &str,
    expected: &[&str],
) {
    let (_, lines) = decide(&mut policy(document.clone()), peer, headers);
    let about = |line: &&String| {
        let rest = line.strip_prefix(header);
        rest.is_some_and(|rest| rest.starts_with(": ") || rest.starts_with(' '))
    };
    let found: Vec<&String> = lines.iter().filter(about).collect();
    assert_eq!(found, expected, "{headers:?} of {peer}");
}

#[test]
fn forwarded_is_sent_when_asked_for() {
    let mut document = shop();
    document["real_ip"] =
        json!({"trusted": ["10.0.0.0/8", "2001:db8:1::/48"], "header": "Forwarded"});
    let line: [Pair; 2] = [("forwarded", b"for=1.1.1.1"), (":scheme", b"https")];
    check(
        &document,
        "192.0.2.1:1",
        &line,
        "forwarded",
        &["forwarded removed"],
    );
    check(&document, "10.0.0.1:1", &line, "forwarded", &[]);
    check(
        &document,
        "10.0.0.1:1",
        &line,
        "x-real-ip",
        &["x-real-ip: 1.1.1.1"],
    );
    document["request_headers"] = json!({"forwarded": true});
    let own = "for=192.0.2.1;host=shop.example;proto=https";
    let expected = ["forwarded removed", &format!("forwarded: {own}")];
    check(&document, "192.0.2.1:1", &line, "forwarded", &expected);
    let own = "forwarded: for=1.1.1.1, for=10.0.0.1;host=shop.example;proto=https";
    check(&document, "10.0.0.1:1", &line, "forwarded", &[own]);
    let port: [Pair; 1] = [(":authority", b"shop.example:81")];
    let own = "forwarded: for=\"[2001:db8:1::1]\";host=\"shop.example:81\";proto=http";
    check(&document, "[2001:db8:1::1]:1", &port, "forwarded", &[own]);
    check(
        &document,
        "a socket's path",
        &line,
        "forwarded",
        &["forwarded removed"],
    );
}

#[test]
fn excepted_peers_are_not_appended() {
    let mut document = shop();
    document["real_ip"] = json!({"trusted": "10.0.0.0/8"});
    document["request_headers"] =
        json!({"except": ["10.0.0.1", "192.0.2.0/24"], "forwarded": true});
    let line: [Pair; 1] = [("x-forwarded-for", b"1.1.1.1")];
    let name = "x-forwarded-for";
    check(&document, "10.0.0.1:1", &line, name, &[]);
    check(
        &document,
        "10.0.0.2:1",
        &line,
        name,
        &["x-forwarded-for: 1.1.1.1, 10.0.0.2"],
    );
    check(
        &document,
        "192.0.2.1:1",
        &line,
        name,
        &["x-forwarded-for removed"],
    );
    check(&document, "192.0.2.1:1", &[], name, &[]);
    check(&document, "192.0.2.1:1", &[], "forwarded", &[]);
    check(
        &document,
        "198.51.100.1:1",
        &line,
        name,
        &["x-forwarded-for: 198.51.100.1"],
    );
}

#[test]
fn headers_are_added_beside_those_that_came() {
    let mut document = shop();
    document["request_headers"] =
        json!({"add": {"Via": "1.1 evenkeel"}, "remove": ["Accept-Encoding", "X-Forwarded-Proto"]});
    let headers: [Pair; 3] = [
        ("via", b"1.1 other"),
        ("accept-encoding", b"br"),
        ("x-forwarded-proto", b"gopher"),
    ];
    let peer = "192.0.2.1:1";
    check(
        &document,
        peer,
        &headers,
        "via",
        &["via added: 1.1 evenkeel"],
    );
    check(
        &document,
        peer,
        &headers,
        "accept-encoding",
        &["accept-encoding removed"],
    );
    check(
        &document,
        peer,
        &headers,
        "x-forwarded-proto",
        &["x-forwarded-proto removed"],
    );
    check(&document, peer, &[], "x-forwarded-proto", &[]);
}

#[test]
fn with_the_proxy_protocol_the_peer_is_the_client() {
    let mut document = shop();
    document["real_ip"] = json!({"trusted": "10.0.0.0/8", "header": "proxy_protocol"});
    let line: [Pair; 1] = [("x-forwarded-for", b"1.1.1.1")];
    check(
        &document,
        "10.0.0.1:1",
        &line,
        "x-real-ip",
        &["x-real-ip: 10.0.0.1"],
    );
    check(
        &document,
        "192.0.2.1:1",
        &line,
        "x-real-ip",
        &["x-real-ip: 192.0.2.1"],
    );
}

/// Every name of the checklist, spelt with underscores too, from a stranger.
#[test]
fn no_name_of_the_checklist_passes_from_a_stranger() {
    for name in [
        "x-real-ip",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-server",
        "forwarded",
        "x-client-ip",
        "cf-connecting-ip",
        "true-client-ip",
        "x-original-url",
        "x-rewrite-url",
        "x-request-id",
        "proxy",
    ] {
        for spelling in [name.to_owned(), name.replace('-', "_")] {
            let spelling: &'static str = spelling.leak();
            let (_, lines) = decide(
                &mut policy(shop()),
                "192.0.2.1:1",
                &[(spelling, b"spoofed")],
            );
            let gone = |line: &String| {
                let rest = line.strip_prefix(spelling);
                rest.is_some_and(|rest| rest == " removed" || rest.starts_with(": "))
            };
            assert!(lines.iter().any(gone), "{spelling}: {lines:?}");
            assert!(
                !lines.iter().any(|line| line.contains("spoofed")),
                "{lines:?}"
            );
        }
    }
}
