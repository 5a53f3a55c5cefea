//! What routes and headers are accepted, and what is said of those that are not.

use serde_json::{Value, json};

use super::tests::{config, refused, shop, with_match};

/// The shop with a route of these keys.
fn with_route(route: Value) -> Value {
    let mut policy = shop();
    policy["routes"] = json!([route]);
    policy
}

#[track_caller]
fn accepted(route: Value, condition: &str, action: &str) {
    let config =
        config(with_route(route.clone())).unwrap_or_else(|error| panic!("{route}: {error}"));
    let found = (
        config.routes[0].condition.as_str(),
        config.routes[0].action.as_str(),
    );
    assert_eq!(found, (condition, action));
}

#[test]
fn matches_and_actions_are_told_in_words() {
    accepted(
        json!({"match": {"host_regex": "^a", "header": {"X-A": [1, "2"], "X-B": true, "X-C": 3}, "query": {"q": {"prefix": "a", "regex": ["b", "c"]}}}, "deny": true}),
        "host ~^a, header X-A = 1 or 2, header X-B present, header X-C = 3, query q ^ a or ~ b or ~ c",
        "deny 403",
    );
    accepted(
        json!({"match": {"client": {"in": ["10.0.0.0/8", "::1"], "of": "tcp_peer"}, "not": [{"path": "/x"}, {"method": "PUT", "header": {"X-A": false}}], "ignore_case": true}, "deny": 404}),
        "tcp_peer in 10.0.0.0/8 or ::1, not (path /x), not (method PUT, header X-A absent), case apart",
        "deny 404",
    );
    accepted(
        json!({"match": {"client": "10.0.0.1"}, "redirect": {"location": "/x", "status": 301}}),
        "client in 10.0.0.1",
        "redirect 301 /x",
    );
    accepted(
        json!({"redirect": "$scheme://$host/"}),
        "",
        "redirect 302 $scheme://$host/",
    );
    accepted(json!({"respond": {"body": "ok"}}), "", "respond 200");
    accepted(
        json!({"pool": "shop", "rewrite": {"prefix": "/a", "to": "/b"}}),
        "",
        "pool shop, /a rewritten to /b",
    );
}

#[test]
fn values_that_no_request_can_have_are_refused() {
    for path in ["/a/../b", "/a//b", "/.", "/a%2fb", "/a%0", "/a%00"] {
        for key in ["path", "path_prefix"] {
            let key_path = format!("routes[0].match.{key}");
            refused(with_match(json!({key: path})), &key_path, "");
        }
    }
    refused(
        with_match(json!({"path_suffix": "%2F"})),
        "routes[0].match.path_suffix",
        "percent-encoded slash",
    );
    refused(
        with_match(json!({"path_suffix": ";x"})),
        "routes[0].match.path_suffix",
        "end of a path",
    );
    let header = |value: Value| with_match(json!({"header": value}));
    refused(
        header(json!({"X A": "1"})),
        "routes[0].match.header.X A",
        "name of a header",
    );
    refused(
        header(json!({"Host": "1"})),
        "routes[0].match.header.Host",
        "`host`",
    );
    refused(
        header(json!({"X-A": []})),
        "routes[0].match.header.X-A",
        "at least one",
    );
    refused(
        header(json!({"X-A": {}})),
        "routes[0].match.header.X-A",
        "`exact`",
    );
    refused(
        header(json!({"X-A": {"regexp": "a"}})),
        "routes[0].match.header.X-A.regexp",
        "did you mean `regex`?",
    );
    refused(
        header(json!({"X-A": {"regex": "("}})),
        "routes[0].match.header.X-A.regex",
        "regular expression",
    );
    refused(
        header(json!({"X-A": -1})),
        "routes[0].match.header.X-A",
        "a string, a list of strings",
    );
    refused(
        with_match(json!({"query": {"": "1"}})),
        "routes[0].match.query.",
        "name of a parameter",
    );
    let client = |value: Value| with_match(json!({"client": value}));
    refused(client(json!([])), "routes[0].match.client", "at least one");
    refused(
        client(json!(["10.0.0.0/8", "x"])),
        "routes[0].match.client[1]",
        "expected an address",
    );
    refused(
        client(json!({"in": "10.0.0.1", "of": "pear"})),
        "routes[0].match.client.of",
        "did you mean `peer`?",
    );
    refused(
        client(json!({"of": "peer"})),
        "routes[0].match.client",
        "the key `in` is required",
    );
    refused(
        client(json!(5)),
        "routes[0].match.client",
        "a network, a list of networks or a mapping",
    );
    let not = |value: Value| with_match(json!({"not": value}));
    refused(not(json!({})), "routes[0].match.not", "every request");
    refused(
        not(json!([{"path": "/x"}, {"not": {"path": "/y"}}])),
        "routes[0].match.not[1].not",
        "within `not`",
    );
    refused(
        not(json!({"pth": "/x"})),
        "routes[0].match.not.pth",
        "did you mean `path`?",
    );
    refused(
        with_match(json!({"host_regex": "("})),
        "routes[0].match.host_regex",
        "regular expression",
    );
}

#[test]
fn a_route_does_one_thing() {
    refused(
        with_route(json!({})),
        "routes[0]",
        "expected what becomes of the request",
    );
    refused(
        with_route(json!({"pool": "shop", "respond": {}})),
        "routes[0]",
        "found `pool` and `respond`",
    );
    refused(
        with_route(json!({"deny": true, "redirect": "/"})),
        "routes[0]",
        "`redirect` and `deny`",
    );
    refused(
        with_route(json!({"deny": false})),
        "routes[0].deny",
        "expected `true`",
    );
    refused(
        with_route(json!({"deny": 200})),
        "routes[0].deny",
        "400 to 599",
    );
    refused(
        with_route(json!({"deny": "yes"})),
        "routes[0].deny",
        "`true` or a status",
    );
    let rewrite = |rewrite: Value| with_route(json!({"pool": "shop", "rewrite": rewrite}));
    refused(
        with_route(json!({"deny": true, "rewrite": {"prefix": "/", "to": "/"}})),
        "routes[0].rewrite",
        "`deny`",
    );
    refused(
        rewrite(json!({"to": "/"})),
        "routes[0].rewrite",
        "either `prefix` or `regex`",
    );
    refused(
        rewrite(json!({"prefix": "/", "regex": "x", "to": "/"})),
        "routes[0].rewrite",
        "either",
    );
    refused(
        rewrite(json!({"prefix": "/"})),
        "routes[0].rewrite",
        "the key `to` is required",
    );
    refused(
        rewrite(json!({"prefix": "/", "to": "x"})),
        "routes[0].rewrite.to",
        "begins with `/`",
    );
    refused(
        rewrite(json!({"regex": "(", "to": "/"})),
        "routes[0].rewrite.regex",
        "regular expression",
    );
    refused(
        rewrite(json!({"regex": "a", "to": "/$1"})),
        "routes[0].rewrite.to",
        "a group",
    );
    let redirect = |redirect: Value| with_route(json!({"redirect": redirect}));
    refused(
        redirect(json!({"location": "/", "status": 304})),
        "routes[0].redirect.status",
        "301, 302, 303, 307 or 308",
    );
    refused(
        redirect(json!("//evil")),
        "routes[0].redirect",
        "expected a location",
    );
    refused(
        redirect(json!("javascript:x")),
        "routes[0].redirect",
        "expected a location",
    );
    refused(
        redirect(json!("https://$hots/")),
        "routes[0].redirect",
        "did you mean `$host`?",
    );
    refused(
        redirect(json!({"locaton": "/"})),
        "routes[0].redirect.locaton",
        "did you mean `location`?",
    );
    let respond = |respond: Value| with_route(json!({"respond": respond}));
    refused(
        respond(json!({"status": 100})),
        "routes[0].respond.status",
        "200 to 599",
    );
    refused(
        respond(json!({"status": 204, "body": "x"})),
        "routes[0].respond.body",
        "no body",
    );
    refused(
        respond(json!({"body": "x".repeat(70_000)})),
        "routes[0].respond.body",
        "at most 65536",
    );
    refused(
        respond(json!({"headers": {"Content-Length": "1"}})),
        "routes[0].respond.headers.Content-Length",
        "not for configuration",
    );
    refused(
        respond(json!({"headers": {"X-A": "1", "x-a": "1"}})),
        "routes[0].respond.headers.x-a",
        "twice",
    );
    refused(
        with_route(json!({"pool": "shop", "limit": "login"})),
        "routes[0].limit",
        "no limit is named `login`",
    );
}

#[test]
fn a_header_stands_in_one_list() {
    let request = |headers: Value| json!({"request_headers": headers});
    let response = |headers: Value| json!({"response_headers": headers});
    let add = json!({"set": {"X-A": "1"}, "add": {"x-a": "2"}});
    refused(
        request(add.clone()),
        "request_headers.add.x-a",
        "stands under `set`, too",
    );
    refused(
        response(add),
        "response_headers.add.x-a",
        "stands under `set`, too",
    );
    refused(
        request(json!({"set": {"X-A": "1"}, "remove": ["X-B", "X-a"]})),
        "request_headers.remove[1]",
        "under `set`",
    );
    refused(
        request(json!({"remove": ["a", "A"]})),
        "request_headers.remove[1]",
        "twice",
    );
    refused(
        request(json!({"remove": "host"})),
        "request_headers.remove",
        "cannot be removed",
    );
    refused(
        request(json!({"add": {"Host": "a"}})),
        "request_headers.add.Host",
        "one Host",
    );
    refused(
        request(json!({"add": {"X-A": ""}})),
        "request_headers.add.X-A",
        "a value to add",
    );
    refused(
        request(json!({"except": []})),
        "request_headers.except",
        "at least one",
    );
    refused(
        request(json!({"except": ["x"]})),
        "request_headers.except[0]",
        "expected an address",
    );
    refused(
        request(json!({"forwarded": true, "set": {"Forwarded": "x"}})),
        "request_headers.forwarded",
        "one of the two",
    );
    refused(
        response(json!({"set": {"Transfer-Encoding": "x"}})),
        "response_headers.set.Transfer-Encoding",
        "not for configuration",
    );
    refused(
        response(json!({"except": []})),
        "response_headers.except",
        "unknown key",
    );
    refused(
        response(json!({"set": {"X-A": "$x"}})),
        "response_headers.set.X-A",
        "no variable",
    );
}
