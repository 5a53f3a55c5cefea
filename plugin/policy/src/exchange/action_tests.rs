//! What routes do besides sending requests to pools, and the path that is sent.

use serde_json::{Value, json};

use super::tests::{Pair, decide, policy, shop};
use super::*;
use crate::routing::PathFault;

/// The shop with these routes before its own.
fn with_routes(mut routes: Value) -> Value {
    let mut document = shop();
    let more = document["routes"].as_array().unwrap().clone();
    routes.as_array_mut().unwrap().extend(more);
    document["routes"] = routes;
    document
}

/// A request of this target: the answer as status, reason, headers and body, or the path that is sent to a server.
fn outcome(document: &Value, target: &'static [u8], headers: &[Pair]) -> String {
    let mut policy = policy(document.clone());
    let mut pairs: Vec<Pair> = vec![(":path", target)];
    pairs.extend(headers);
    let (decided, lines) = decide(&mut policy, "192.0.2.1:1", &pairs);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match decided.decision {
        Decision::Answered(_) => {
            let reply = policy.reply();
            let headers = reply.headers.iter();
            let headers: Vec<String> = headers
                .map(|(name, value)| format!("{}: {}", text(name), text(value)))
                .collect();
            assert!(
                lines.iter().all(|line| line.ends_with(" removed")),
                "{lines:?}"
            );
            format!(
                "{} {} {headers:?} {:?}",
                reply.status,
                reply.why,
                text(&reply.body)
            )
        }
        Decision::Steered { .. } => {
            let sent = lines.iter().find_map(|line| line.strip_prefix(":path: "));
            sent.map_or_else(|| text(target), str::to_owned)
        }
        other => format!("{other:?}"),
    }
}

#[track_caller]
fn check(document: &Value, target: &'static str, expected: &str) {
    assert_eq!(
        outcome(document, target.as_bytes(), &[]),
        expected,
        "{target}"
    );
}

#[test]
fn the_normal_form_is_matched_and_sent() {
    let document = with_routes(json!([
        {"match": {"path_prefix": "/admin"}, "deny": true},
        {"match": {"path": "/é x"}, "respond": {"status": 204}},
    ]));
    let denied = r#"403 denied ["content-type: text/plain", "x-evenkeel-error: denied"] "this request is not allowed\n""#;
    for target in [
        "/admin",
        "//admin/x",
        "/x/../admin",
        "/%61dmin",
        "/./admin?x",
        "/x/%2e%2E/admin",
        "/admin/../admin",
    ] {
        check(&document, target, denied);
    }
    check(&document, "/%C3%a9%20x", r#"204 respond [] """#);
    check(&document, "/admin/../x?a=//", "/x?a=//");
    check(&document, "/a//b%7e", "/a/b~");
    check(&document, "/x?q=%", "/x?q=%");
    let refused = |fault: PathFault| {
        let headers = r#"["content-type: text/plain", "x-evenkeel-error: bad_path"]"#;
        format!("400 bad_path {headers} \"{fault}\\n\"")
    };
    check(&document, "/..", &refused(PathFault::AboveRoot));
    check(&document, "/a%2fb", &refused(PathFault::EncodedSlash));
    check(&document, "/a%00", &refused(PathFault::ControlByte));
    check(&document, "/a%", &refused(PathFault::BrokenPercent));
    check(&document, "a", &refused(PathFault::NotRooted));
}

/// Two lines of Host come as a list in some hosts; rules would see another host than a server does.
#[test]
fn a_host_that_is_none_is_refused() {
    let document = with_routes(json!([
        {"match": {"host": "admin.example"}, "deny": true},
    ]));
    let mut heads: Vec<Vec<Pair>> = Vec::new();
    for host in [
        "admin.example,b",
        "a@admin.example",
        "admin.example:80b",
        "admin.example:99999",
        "a/b",
    ] {
        heads.push(vec![(":path", b"/"), (":authority", host.as_bytes())]);
    }
    for head in heads {
        let mut policy = policy(document.clone());
        let (decided, _) = decide(&mut policy, "192.0.2.1:1", &head);
        assert_eq!(
            decided.decision,
            Decision::Answered(Answered::BadHost),
            "{head:?}"
        );
        assert_eq!(
            (policy.reply().status, policy.reply().why),
            (400, "bad_host")
        );
    }
}

#[test]
fn redirects_and_responses_have_variables() {
    let document = with_routes(json!([
        {"match": {"path": "/old"}, "redirect": {"location": "/new?$query", "status": 308}},
        {"match": {"path_prefix": "/secure"}, "redirect": "https://$host$uri"},
        {"match": {"path": "/ping"}, "respond": {"body": "pong\n", "headers": {"X-Client": "$client_ip"}}},
        {"match": {"path": "/page"}, "respond": {"status": 410, "body": "<p>", "headers": {"Content-Type": "text/html"}}},
    ]));
    check(
        &document,
        "/old?a=b",
        r#"308 redirect ["location: /new?a=b"] """#,
    );
    check(
        &document,
        "//secure/%7e?a",
        r#"302 redirect ["location: https://shop.example/secure/~?a"] """#,
    );
    check(
        &document,
        "/ping",
        r#"200 respond ["x-client: 192.0.2.1", "content-type: text/plain; charset=utf-8"] "pong\n""#,
    );
    check(
        &document,
        "/page",
        r#"410 respond ["content-type: text/html"] "<p>""#,
    );
}

#[test]
fn servers_get_the_path_as_it_is_rewritten() {
    let document = with_routes(json!([
        {"match": {"path_prefix": "/api"}, "pool": "shop", "rewrite": {"prefix": "/api", "to": "/"}},
        {"match": {"path_regex": "^/p/"}, "pool": "shop", "rewrite": {"regex": "^/p/([0-9]+)$", "to": "/p.php?id=$1"}},
        {"match": {"path_prefix": "/up"}, "pool": "shop", "rewrite": {"regex": "^/up/(.*)$", "to": "/$1/../../.."}},
        {"match": {"path_prefix": "/Any", "ignore_case": true}, "pool": "shop", "rewrite": {"prefix": "/any", "to": "/x"}},
    ]));
    check(&document, "/api/a?b=c", "/a?b=c");
    check(&document, "/api", "/");
    check(&document, "/p/7?a=b", "/p.php?id=7&a=b");
    check(&document, "/p/x", "/p/x");
    check(&document, "/aNY/y", "/x/y");
    assert!(outcome(&document, b"/up/a", &[]).starts_with("400 bad_path"));
}

#[test]
fn routes_look_at_whose_address_it_is() {
    let mut document = with_routes(json!([
        {"match": {"path": "/admin", "not": {"client": {"in": "10.0.0.0/8", "of": "tcp_peer"}}}, "deny": 404},
        {"match": {"client": "203.0.113.0/24"}, "deny": 429},
    ]));
    document["real_ip"] = json!({"trusted": "192.0.2.1"});
    let from = |client: &'static [u8]| [("x-forwarded-for", client)];
    assert!(outcome(&document, b"/admin", &from(b"10.0.0.1")).starts_with("404 denied"));
    assert!(outcome(&document, b"/", &from(b"203.0.113.9")).starts_with("429 denied"));
    assert_eq!(outcome(&document, b"/", &from(b"203.0.114.9")), "/");
    let mut policy = policy(document);
    assert!(policy.needs_tcp_peer());
    let pairs: [(&[u8], &[u8]); 3] = [
        (b":path", b"/admin"),
        (b":method", b"GET"),
        (b":authority", b"shop.example"),
    ];
    let head = Head {
        peer: "203.0.114.9:1".parse().ok(),
        tcp_peer: "10.0.0.1:1".parse().ok(),
        pairs: pairs.iter().copied(),
    };
    let mut edits = Edits::default();
    let mut random = crate::random::Sequence::new(1);
    let (admission, mut alone) = (crate::limits::Admission::Ask, super::tests::Alone);
    let decided = policy.decide(&head, &mut random, &mut edits, admission, &mut alone);
    assert!(
        matches!(decided.decision, Decision::Steered { .. }),
        "{decided:?}"
    );
}

#[test]
fn the_headers_of_responses_are_known_with_the_request() {
    let mut document = with_routes(json!([{"match": {"path": "/ping"}, "respond": {}}]));
    document["response_headers"] = json!({
        "set": {"Strict-Transport-Security": "max-age=1", "X-Id": "$request_id", "Server": ""}, "add": {"Link": "<$path>"}, "remove": ["X-Powered-By"],
    });
    for target in [&b"/ping"[..], b"/x", b"/off"] {
        let mut policy = policy(document.clone());
        let (_, lines) = decide(&mut policy, "192.0.2.1:1", &[(":path", target)]);
        let edits = policy.take_response_edits().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let found: Vec<String> = edits
            .iter()
            .map(|edit| match edit {
                Edit::Set { name, value } => format!("{}={}", text(name), text(value).len()),
                Edit::Add { name, value } => format!("{}+{}", text(name), text(value)),
                Edit::Remove { name } => format!("{}-", text(name)),
            })
            .collect();
        let link = format!("link+<{}>", text(target));
        let expected = [
            "server-",
            "x-powered-by-",
            "strict-transport-security=9",
            "x-id=32",
            &link,
        ];
        assert_eq!(found, expected, "{lines:?}");
        assert!(policy.take_response_edits().is_none(), "once");
    }
}

/// Says always the same, and what it is asked.
struct Strict(crate::limits::Admitted, Vec<String>);

impl Surroundings for Strict {
    fn admit(
        &mut self,
        wanted: &[crate::limits::Wanted<'_>],
        _random: &mut crate::random::Sequence,
    ) -> crate::limits::Admitted {
        let asked = wanted.iter();
        let asked = asked.map(|wanted| {
            format!(
                "{}={}",
                wanted.limit.name,
                String::from_utf8_lossy(wanted.key)
            )
        });
        self.1.extend(asked);
        self.0.clone()
    }

    fn choose(
        &mut self,
        pool: &mut crate::upstream::Pool,
        facts: &crate::balance::Facts<'_>,
        random: &mut crate::random::Sequence,
    ) -> crate::upstream::Chosen {
        super::tests::Alone.choose(pool, facts, random)
    }
}

#[test]
fn limits_are_asked_with_the_keys_of_the_request() {
    use crate::limits::{Admission, Admitted, Refusal};
    let mut document = with_routes(json!([]));
    document["limits"] = json!({
        "a": {"rate": "1r/s"}, "b": {"in_flight": 2, "key": "$cookie(sid)"}, "c": {"rate": "1r/s", "key": "$host$path"},
    });
    document["routes"][1]["limit"] = json!(["c", "b", "a"]);
    let mut policy = policy(document);
    let pairs: [(&[u8], &[u8]); 3] = [
        (b":path", b"/x"),
        (b":method", b"GET"),
        (b":authority", b"shop.example"),
    ];
    let head = Head {
        peer: "192.0.2.1:1".parse().ok(),
        tcp_peer: None,
        pairs: pairs.iter().copied(),
    };
    let mut decide = |admission, answer| {
        let mut strict = Strict(answer, Vec::new());
        let mut random = crate::random::Sequence::new(1);
        let mut edits = Edits::default();
        let decided = policy.decide(&head, &mut random, &mut edits, admission, &mut strict);
        (decided.decision, strict.1, policy.reply().clone())
    };
    let why = Refusal::Rate { retry_after_s: 7 };
    let (decision, asked, reply) = decide(Admission::Ask, Admitted::Refused { why, status: 429 });
    assert_eq!(decision, Decision::Answered(Answered::Limited(why)));
    assert_eq!(
        asked,
        ["c=shop.example/x", "a=192.0.2.1"],
        "an empty key is not limited"
    );
    assert_eq!(reply.status, 429);
    assert!(
        reply
            .headers
            .contains(&(b"retry-after".to_vec(), b"7".to_vec()))
    );
    let (decision, _, _) = decide(Admission::Ask, Admitted::Delayed { ms: 5 });
    assert_eq!(decision, Decision::Delayed { ms: 5 });
    let (decision, asked, _) = decide(Admission::Granted, Admitted::Delayed { ms: 5 });
    assert!(matches!(decision, Decision::Steered { .. }) && asked.is_empty());
}
