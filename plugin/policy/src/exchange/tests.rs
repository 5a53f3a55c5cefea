//! Requests from head to end, as a host would tell of them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::balance::Facts;
use crate::config::{Config, Document};
use crate::limits::{Admission, Admitted, Wanted};
use crate::random::Sequence;
use crate::upstream::{Chosen, InFlight, Pool, SharedData, Slots, Written};

pub(super) fn policy(document: Value) -> Policy {
    let config = Config::from_document(&Document::from_value(document).unwrap()).unwrap();
    Policy::new(&config, &mut InFlight::default(), 0)
}

fn servers() -> Value {
    json!([{"address": "10.0.0.1:80", "id": "a"}, {"address": "10.0.0.2:80", "id": "b"}, {"address": "10.0.0.3:80", "id": "c"}])
}

pub(super) fn shop() -> Value {
    json!({
        "routes": [{"match": {"path_prefix": "/off"}, "pool": "off"}, {"match": {"host": "shop.example"}, "pool": "shop"}],
        "pools": {"shop": {"servers": servers()}, "off": {"servers": [{"address": "10.0.0.9:80", "down": true}]}},
    })
}

pub(super) type Pair = (&'static str, &'static [u8]);
const HEAD: [Pair; 4] = [
    (":authority", b"shop.example"),
    (":path", b"/x"),
    (":method", b"GET"),
    (":scheme", b"http"),
];

/// A VM alone, in which everything is admitted.
pub(super) struct Alone;

impl Surroundings for Alone {
    fn admit(&mut self, _wanted: &[Wanted<'_>], _random: &mut Sequence) -> Admitted {
        Admitted::Yes(Vec::new())
    }

    fn choose(&mut self, pool: &mut Pool, facts: &Facts<'_>, random: &mut Sequence) -> Chosen {
        let choices = pool.choose(facts, random);
        if choices.is_empty() {
            Chosen::Nobody
        } else {
            Chosen::Servers(choices)
        }
    }
}

/// Ids that were made are all alike.
fn without_made_id(line: String) -> String {
    match line.split_once(": ") {
        Some((name @ ("x-request-id" | "x-id"), id))
            if id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
        {
            format!("{name}: made")
        }
        _ => line,
    }
}

/// Decides about a request with these headers beside the usual ones; returns the changes as lines.
pub(super) fn decide(policy: &mut Policy, peer: &str, headers: &[Pair]) -> (Decided, Vec<String>) {
    decide_in(&mut Alone, policy, peer, headers)
}

fn decide_in(
    around: &mut impl Surroundings,
    policy: &mut Policy,
    peer: &str,
    headers: &[Pair],
) -> (Decided, Vec<String>) {
    let pairs: Vec<(&[u8], &[u8])> = HEAD
        .iter()
        .filter(|(name, _)| headers.iter().all(|(other, _)| other != name))
        .chain(headers)
        .map(|(name, value)| (name.as_bytes(), *value))
        .collect();
    let head = Head {
        peer: peer.parse().ok(),
        tcp_peer: None,
        pairs: pairs.iter().copied(),
    };
    let mut edits = Edits::default();
    edits.set(b"left", b"over");
    let decided = policy.decide(
        &head,
        &mut Sequence::new(1),
        &mut edits,
        Admission::Ask,
        around,
    );
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let line = |edit: Edit<'_>| match edit {
        Edit::Set { name, value } => format!("{}: {}", text(name), text(value)),
        Edit::Add { name, value } => format!("{} added: {}", text(name), text(value)),
        Edit::Remove { name } => format!("{} removed", text(name)),
    };
    (
        decided,
        edits.iter().map(line).map(without_made_id).collect(),
    )
}

const STEERED: [&str; 4] = [
    "x-gateway-destination-endpoint: 10.0.0.1:80,10.0.0.2:80,10.0.0.3:80",
    "x-evenkeel-pool: shop",
    "x-envoy-retry-on: connect-failure,refused-stream,reset",
    "x-envoy-max-retries: 2",
];

#[track_caller]
pub(super) fn check(document: Value, peer: &str, headers: &[Pair], expected: &[&str]) {
    let (decided, lines) = decide(&mut policy(document), peer, headers);
    assert!(
        matches!(decided.decision, Decision::Steered { .. }),
        "{decided:?}"
    );
    let expected: Vec<&str> = expected.iter().chain(&STEERED).copied().collect();
    assert_eq!(lines, expected);
}

#[test]
fn a_strangers_word_goes_no_further() {
    let headers: [Pair; 12] = [
        ("x-real-ip", b"6.6.6.6"),
        ("x-forwarded-for", b"6.6.6.6"),
        ("x-forwarded-proto", b"https"),
        ("x-forwarded-host", b"evil"),
        ("forwarded", b"for=6.6.6.6"),
        ("x_real_ip", b"6.6.6.6"),
        ("proxy", b"http://evil"),
        ("x-gateway-destination-endpoint", b"10.0.0.3:80"),
        ("x-evenkeel-pool", b"off"),
        ("x-envoy-retry-on", b"5xx"),
        ("proxy", b"again"),
        ("x-other", b"\xff\xfe"),
    ];
    let expected = [
        "forwarded removed",
        "x_real_ip removed",
        "proxy removed",
        "x-real-ip: 192.0.2.1",
        "x-forwarded-for: 192.0.2.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: shop.example",
        "x-forwarded-port: 80",
        "x-request-id: made",
    ];
    check(shop(), "192.0.2.1:4711", &headers, &expected);
    let expected = [
        "x-real-ip: 192.0.2.1",
        "x-forwarded-for: 192.0.2.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: shop.example",
        "x-forwarded-port: 80",
        "x-request-id: made",
    ];
    check(shop(), "[::ffff:192.0.2.1]:4711", &[], &expected);
    let expected = [
        "x-real-ip: 2001:db8::1",
        "x-forwarded-for: 2001:db8::1",
        "x-forwarded-proto: https",
        "x-forwarded-host: shop.example",
        "x-forwarded-port: 443",
        "x-request-id: made",
    ];
    check(
        shop(),
        "[2001:db8::1]:4711",
        &[(":scheme", b"https")],
        &expected,
    );
    let expected = [
        "x-real-ip removed",
        "x-forwarded-proto: http",
        "x-forwarded-host: shop.example",
        "x-forwarded-port: 80",
        "x-request-id: made",
    ];
    check(
        shop(),
        "a socket without address",
        &[(":scheme", b"weird")],
        &expected,
    );
}

#[test]
fn a_trusted_peer_is_believed_and_the_hop_that_was_there_is_appended() {
    let mut document = shop();
    document["real_ip"] = json!({"trusted": "10.0.0.0/8"});
    let headers: [Pair; 8] = [
        ("x-forwarded-for", b"6.6.6.6"),
        ("x-forwarded-for", b"1.1.1.1, 10.0.0.5"),
        ("x-forwarded-proto", b"https"),
        ("x-forwarded-host", b"www.example.org"),
        ("x_forwarded_for", b"7.7.7.7"),
        ("x-real-ip", b"8.8.8.8"),
        ("x-request-id", b"abc"),
        ("x-forwarded-port", b"8443"),
    ];
    let expected = [
        "x_forwarded_for removed",
        "x-real-ip: 1.1.1.1",
        "x-forwarded-for: 6.6.6.6, 1.1.1.1, 10.0.0.5, 10.0.0.7",
    ];
    check(document.clone(), "10.0.0.7:1", &headers, &expected);
    document["real_ip"]["header"] = json!("CF-Connecting-IP");
    let expected = [
        "x-real-ip: 1.2.3.4",
        "x-forwarded-for: 10.0.0.7",
        "x-forwarded-proto: http",
        "x-forwarded-host: shop.example",
        "x-forwarded-port: 80",
        "x-request-id: made",
    ];
    check(
        document.clone(),
        "10.0.0.7:1",
        &[("cf-connecting-ip", b"1.2.3.4")],
        &expected,
    );
    let expected = [
        "cf-connecting-ip removed",
        "x-real-ip: 192.0.2.1",
        "x-forwarded-for: 192.0.2.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: shop.example",
        "x-forwarded-port: 80",
        "x-request-id: made",
    ];
    check(
        document,
        "192.0.2.1:1",
        &[("cf-connecting-ip", b"1.2.3.4")],
        &expected,
    );
}

#[test]
fn configured_headers_come_over_the_defaults() {
    let mut document = shop();
    document["request_headers"] = json!({"set": {
        "X-Real-IP": "$client_ip", "X-Forwarded-For": "", "X-Id": "$request_id", "X-Gone": "", "Host": "inner", "Forwarded": "host=$host",
    }});
    let headers: [Pair; 3] = [
        ("x-gone", b"1"),
        ("x-forwarded-for", b"6.6.6.6"),
        ("x-request-id", b"abc"),
    ];
    let expected = [
        "x-gone removed",
        "x-forwarded-for removed",
        "x-forwarded-proto: http",
        "x-forwarded-host: shop.example",
        "x-forwarded-port: 80",
        "x-request-id: made",
        "forwarded: host=shop.example",
        "host: inner",
        "x-id: made",
        "x-real-ip: 192.0.2.1",
    ];
    check(document.clone(), "192.0.2.1:1", &headers, &expected);
    let (_, lines) = decide(&mut policy(document.clone()), "192.0.2.1:1", &[]);
    assert!(
        !lines.iter().any(|line| line.contains("removed")),
        "{lines:?}"
    );
    document["real_ip"] = json!({"trusted": "192.0.2.1"});
    let (_, lines) = decide(&mut policy(document), "192.0.2.1:1", &headers);
    assert!(lines.contains(&"x-id: abc".to_owned()), "{lines:?}");
}

#[test]
fn only_what_may_be_repeated_is_retried_after_it_was_sent() {
    for (method, repeatable) in [
        ("GET", true),
        ("HEAD", true),
        ("PUT", true),
        ("DELETE", true),
        ("POST", false),
        ("PATCH", false),
        ("get", false),
    ] {
        let (_, lines) = decide(
            &mut policy(shop()),
            "192.0.2.1:1",
            &[(":method", method.as_bytes())],
        );
        let expected = if repeatable {
            STEERED[2]
        } else {
            "x-envoy-retry-on: connect-failure,refused-stream,reset-before-request"
        };
        assert!(
            lines.iter().any(|line| line == expected),
            "{method}: {lines:?}"
        );
    }
}

/// The same key, whatever else the request says, has the same server; other keys have others.
#[test]
fn the_key_of_a_pool_says_the_server() {
    let mut document = shop();
    document["pools"]["shop"]["balance"] = json!("hash_consistent");
    document["pools"]["shop"]["hash_key"] = json!("$header(X-User)");
    let mut policy = policy(document);
    let mut steer = |user: &'static [u8], path: &'static [u8]| {
        let (_, lines) = decide(
            &mut policy,
            "192.0.2.1:1",
            &[("x-user", user), (":path", path)],
        );
        let steering = lines
            .into_iter()
            .find(|line| line.starts_with("x-gateway-destination-endpoint"));
        steering.unwrap()
    };
    let users: [&[u8]; 12] = [
        b"ann", b"bob", b"cid", b"dan", b"eve", b"fay", b"guy", b"hal", b"ida", b"joe", b"kim",
        b"lea",
    ];
    let servers: BTreeSet<String> = users
        .into_iter()
        .map(|user| {
            let lists = [b"/a", b"/b", b"/c"].map(|path| steer(user, path));
            assert!(lists.iter().all(|list| *list == lists[0]), "{lists:?}");
            let [list, ..] = lists;
            list.split(',').next().unwrap().to_owned()
        })
        .collect();
    assert_eq!(servers.len(), 3, "{servers:?}");
    let mut without_key: Vec<String> = (0..3).map(|_| steer(b"", b"/a")).collect();
    without_key.dedup();
    assert_eq!(without_key.len(), 3, "no key: by turns, {without_key:?}");
}

/// A VM whose host chooses.
struct HostChooses;

impl Surroundings for HostChooses {
    fn admit(&mut self, _wanted: &[Wanted<'_>], _random: &mut Sequence) -> Admitted {
        Admitted::Yes(Vec::new())
    }

    fn choose(&mut self, _: &mut Pool, _: &Facts<'_>, _: &mut Sequence) -> Chosen {
        Chosen::ByHost
    }
}

#[test]
fn where_the_host_chooses_no_server_is_named_and_a_clients_word_is_none() {
    let mut policy = policy(shop());
    let headers: [Pair; 1] = [("x-gateway-destination-endpoint", b"10.0.0.3:80")];
    let (decided, lines) = decide_in(&mut HostChooses, &mut policy, "192.0.2.1:1", &headers);
    assert_eq!(decided.decision, Decision::Routed { pool: 1 });
    let named = |line: &String| line.starts_with("x-gateway-destination-endpoint");
    let named: Vec<_> = lines.iter().filter(|line| named(line)).collect();
    assert_eq!(named, ["x-gateway-destination-endpoint removed"]);
    for line in &STEERED[1..] {
        assert!(lines.iter().any(|found| found == line), "{line}: {lines:?}");
    }
}

#[test]
fn requests_without_route_or_server_are_not_steered() {
    let mut policy = policy(shop());
    let (decided, _) = decide(&mut policy, "192.0.2.1:1", &[(":authority", b"other")]);
    assert_eq!(decided.decision, Decision::NoRoute);
    assert_eq!((policy.take_no_route(), policy.take_no_route()), (1, 0));
    let (decided, _) = decide(&mut policy, "192.0.2.1:1", &[(":path", b"/off")]);
    assert_eq!(decided.decision, Decision::NoServer { pool: 0 });
    let mut words = Vec::new();
    policy.explain(&decided, &mut words);
    assert_eq!(
        String::from_utf8(words).unwrap(),
        "pool off: no server is eligible"
    );
    let mut edits = Edits::default();
    let head = Head {
        peer: None,
        tcp_peer: None,
        pairs: std::iter::empty(),
    };
    assert_eq!(
        policy
            .decide(
                &head,
                &mut Sequence::new(1),
                &mut edits,
                Admission::Ask,
                &mut Alone
            )
            .decision,
        Decision::NoRoute
    );
}

#[test]
fn the_reasons_are_told_when_asked_for() {
    let mut policy = policy(shop());
    let (decided, lines) = decide(&mut policy, "192.0.2.1:1", &[("x-evenkeel-explain", b"1")]);
    assert_eq!(decided.explain, Explain::Asked);
    assert_eq!(lines[0], "x-evenkeel-explain removed");
    let mut words = b"left over".to_vec();
    policy.explain(&decided, &mut words);
    assert_eq!(
        String::from_utf8(words).unwrap(),
        "pool shop: round_robin chose a of 3; next b, c"
    );
    assert_eq!(
        decide(&mut policy, "192.0.2.1:1", &[]).0.explain,
        Explain::NotAsked
    );
}

/// A request in a pool of `balance`, and its list.
fn begun(policy: &mut Policy) -> (Exchange, Vec<usize>) {
    let (decided, _) = decide(policy, "192.0.2.1:1", &[]);
    let Decision::Steered { pool, choices } = decided.decision else {
        panic!("{decided:?}")
    };
    (
        Exchange::begun(policy, pool, choices),
        choices.iter().collect(),
    )
}

fn in_flight(policy: &Policy) -> [u32; 3] {
    [0, 1, 2].map(|server| policy.pools()[1].in_flight(server))
}

#[test]
fn a_request_is_in_flight_on_the_first_then_on_the_one_that_answered_and_ends_once() {
    let mut policy = policy(shop());
    let (mut exchange, list) = begun(&mut policy);
    assert_eq!((list, in_flight(&policy)), (vec![0, 1, 2], [1, 0, 0]));
    let answer = Answer {
        attempts: 3,
        last: LastAttempt::Answered,
    };
    assert_eq!(
        exchange.answered(&mut policy, Some(answer), 0),
        Some((1, [0, 2]))
    );
    assert_eq!(in_flight(&policy), [0, 0, 1]);
    assert_eq!(
        exchange.answered(&mut policy, Some(answer), 0),
        None,
        "an informational response came before"
    );
    assert_eq!(exchange.finish(&mut policy), Some((1, 2)));
    assert_eq!(exchange.finish(&mut policy), None);
    assert_eq!(exchange.answered(&mut policy, Some(answer), 0), None);
    assert_eq!(in_flight(&policy), [0, 0, 0]);
    let mut failures = Vec::new();
    policy.pools_mut()[1]
        .take_counters(|server, counters| failures.push((server, counters.failures)));
    assert_eq!(failures, [(0, 1), (1, 1)]);
}

#[test]
fn whatever_the_host_tells_nothing_stays_in_flight() {
    let told = [0, 1, 2, 3, 4, u64::MAX].map(|attempts| {
        Some(Answer {
            attempts,
            last: LastAttempt::Failed,
        })
    });
    for answer in told.into_iter().chain([None]) {
        let mut policy = policy(shop());
        let (mut exchange, _) = begun(&mut policy);
        exchange.answered(&mut policy, answer, 0);
        assert_eq!(in_flight(&policy).iter().sum::<u32>(), 1, "{answer:?}");
        exchange.finish(&mut policy);
        assert_eq!(in_flight(&policy), [0, 0, 0], "{answer:?}");
    }
    let mut policy = policy(shop());
    let (mut exchange, _) = begun(&mut policy);
    exchange.finish(&mut policy);
    assert_eq!(in_flight(&policy), [0, 0, 0], "without a response");
    assert_eq!(Exchange::default().finish(&mut policy), None);
}

/// nginx with three equal servers and the first dead (max_fails=0): A fails over to B, then C, then A again to C …
#[test]
fn servers_that_stood_in_take_their_turn() {
    let mut policy = policy(shop());
    let mut answered_by = String::new();
    for _ in 0..60 {
        let (mut exchange, list) = begun(&mut policy);
        let attempts = if list[0] == 0 { 2 } else { 1 };
        answered_by.push(char::from(b'a' + u8::try_from(list[attempts - 1]).unwrap()));
        exchange.answered(
            &mut policy,
            Some(Answer {
                attempts: attempts as u64,
                last: LastAttempt::Answered,
            }),
            0,
        );
        exchange.finish(&mut policy);
    }
    let of_b = answered_by.matches('b').count();
    assert_eq!((of_b, answered_by.len() - of_b), (30, 30), "{answered_by}");
}

/// Shared data that holds nothing.
struct Nothing;

impl SharedData for Nothing {
    fn get(&mut self, _key: &[u8], _value: &mut Vec<u8>) -> Option<u32> {
        None
    }

    fn set(&mut self, _key: &[u8], _value: &[u8], _cas: u32) -> Written {
        Written::Failed
    }
}

#[test]
fn only_an_answer_of_the_first_server_itself_is_timed() {
    let answer = |attempts, last| Some(Answer { attempts, last });
    let (answered, failed) = (LastAttempt::Answered, LastAttempt::Failed);
    for (told, timed) in [
        (answer(1, answered), true),
        (answer(1, failed), false),
        (answer(2, answered), false),
        (None, false),
    ] {
        let mut document = shop();
        document["pools"]["shop"]["balance"] = json!("least_time");
        document["pools"]["shop"]["servers"][0]["weight"] = json!(10);
        document["pools"]["shop"]["servers"][0]["max_fails"] = json!(0);
        let mut policy = policy(document);
        let at = |policy: &mut Policy, now_us| {
            policy.pools_mut()[1].read_others(now_us, &Slots::new(1), &mut Nothing);
        };
        at(&mut policy, 60_000_000);
        let (mut exchange, list) = begun(&mut policy);
        assert_eq!(list, [0, 1, 2]);
        exchange.answered(&mut policy, told, 60_300_000);
        exchange.finish(&mut policy);
        at(&mut policy, 61_000_000);
        // Ten times as heavy, but 300 ms slow: last. Of unknown speed: first.
        let list = begun(&mut policy).1;
        assert_eq!(list[if timed { 2 } else { 0 }], 0, "{told:?}: {list:?}");
    }
}
