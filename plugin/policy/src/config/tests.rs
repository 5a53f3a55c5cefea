//! What configurations are accepted, and what is said of those that are not.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::exchange::Action;
use crate::routing::RequestView;

pub(super) fn shop() -> Value {
    json!({"pools": {"shop": {"servers": [{"address": "10.0.0.1:80"}]}}, "routes": [{"pool": "shop"}]})
}

pub(super) fn config(policy: Value) -> Result<Config, ConfigError> {
    Config::from_document(&Document::from_value(policy)?)
}

#[track_caller]
pub(super) fn refused(policy: Value, path: &str, said: &str) {
    let error = config(policy.clone()).expect_err("refused");
    assert_eq!(error.path, path, "{error}");
    assert!(
        error.message.contains(said),
        "{error}: expected it to say {said:?}"
    );
    let text = Document::from_json(policy.to_string().as_bytes())
        .and_then(|document| Config::from_document(&document));
    assert_eq!(text.expect_err("refused as text too"), error);
}

/// The shop with one key of its pool set.
pub(super) fn with_pool_key(key: &str, value: Value) -> Value {
    let mut policy = shop();
    policy["pools"]["shop"][key] = value;
    policy
}

pub(super) fn with_server_key(key: &str, value: Value) -> Value {
    let mut policy = shop();
    policy["pools"]["shop"]["servers"][0][key] = value;
    policy
}

/// The pool of a request, by the rules of the configuration.
fn pool_of(config: &Config, host: &str, path: &str, method: &str) -> Option<usize> {
    let view = RequestView {
        host: host.as_bytes(),
        method: method.as_bytes(),
        path: path.as_bytes(),
        query: b"",
        client: None,
        peer: None,
        tcp_peer: None,
        pairs: &std::iter::empty(),
    };
    match config.rules[config.router.route(&view)?].action {
        Action::Pool { pool, .. } => Some(pool),
        _ => None,
    }
}

pub(super) fn with_match(value: Value) -> Value {
    let mut policy = shop();
    policy["routes"][0]["match"] = value;
    policy
}

#[test]
fn the_reference_configuration_without_what_is_not_served_is_accepted() {
    let config = config(json!({
        "real_ip": {"trusted": ["192.168.139.131", "10.0.0.0/8"], "header": "X-Forwarded-For", "recursive": true},
        "request_headers": {"set": {"X-Real-IP": "$client_ip", "X-Powered-By": ""}},
        "routes": [
            {"match": {"host": ["www.server01.com", "*.cdn.com"], "path_prefix": ["/static", "/images"], "path_suffix": [".jpg", ".css"], "method": ["GET"]}, "pool": "static"},
            {"match": {"path_regex": "^/v[0-9]/"}, "pool": "static"},
            {"pool": "shop"},
        ],
        "pools": {
            "static": {"balance": "least_conn", "servers": [{"address": "[2001:db8::1]:80", "id": "s1"}]},
            "shop": {
                "mode": "http",
                "balance": "round_robin",
                "servers": [
                    {"address": "192.168.139.128:80", "weight": 5},
                    {"address": "192.168.139.129:80", "weight": 3, "max_conns": 0, "slow_start": "0s", "backup": false, "down": false, "id": "web2"},
                    {"address": "192.168.139.130:80", "backup": true, "down": true, "max_fails": 0, "fail_timeout": "0s"},
                ],
                "panic_below": 0,
                "proxy_protocol": "v2",
                "retries": 2,
                "keepalive": {"per_worker": 64, "idle": "60s", "requests": 10_000},
                "timeouts": {"connect": "2s", "response": "300s"},
            },
        },
    }))
    .expect("accepted");
    let names: Vec<&str> = config.pools.iter().map(|pool| pool.name.as_str()).collect();
    assert_eq!(names, ["shop", "static"], "in the order of their names");
    let shop = &config.pools[0];
    let ids: Vec<&str> = shop
        .servers
        .iter()
        .map(|server| server.id.as_str())
        .collect();
    assert_eq!(ids, ["192.168.139.128:80", "web2", "192.168.139.130:80"]);
    assert_eq!(
        (
            shop.servers[0].weight,
            shop.servers[1].weight,
            shop.servers[2].weight
        ),
        (5, 3, 1)
    );
    assert_eq!(
        (shop.servers[2].tier, shop.servers[2].admin),
        (Tier::Backup, AdminState::Down)
    );
    assert_eq!(
        shop.keepalive,
        Keepalive {
            per_worker: 64,
            idle: Duration::from_secs(60),
            requests: 10_000
        }
    );
    assert_eq!(shop.timeouts.response, Some(Duration::from_secs(300)));
    assert_eq!(config.pools[1].retries, 2, "unless stated");
    assert_eq!(pool_of(&config, "a.cdn.com", "/x.css", "GET"), Some(1));
    assert_eq!(pool_of(&config, "a.cdn.com", "/v1/x", "POST"), Some(1));
    assert_eq!(pool_of(&config, "a.cdn.com", "/x.php", "GET"), Some(0));
    let words = "host www.server01.com or *.cdn.com, path /static* or /images* or *.jpg or *.css, method GET";
    assert_eq!(
        config.routes[0],
        RouteSummary {
            condition: words.to_owned(),
            action: "pool static".to_owned(),
            pool: "static".to_owned()
        }
    );
    assert_eq!(config.pool_index("static"), Some(1));
    assert_eq!(config.pool_index("none"), None);
}

#[test]
fn an_empty_policy_routes_nothing() {
    let config = config(json!({})).expect("accepted");
    assert_eq!(pool_of(&config, "h", "/", "GET"), None);
}

#[test]
fn wrong_shapes_are_told_in_plain_words() {
    refused(json!({"poools": {}}), "poools", "did you mean `pools`?");
    refused(
        json!({"zzzzzzzz": {}}),
        "zzzzzzzz",
        "known here: real_ip, request_headers, response_headers, limits, routes, pools",
    );
    refused(
        with_server_key("wieght", json!(5)),
        "pools.shop.servers[0].wieght",
        "unknown key `wieght`; did you mean `weight`?",
    );
    refused(
        with_pool_key("sevrers", json!([])),
        "pools.shop.sevrers",
        "did you mean `servers`?",
    );
    refused(
        with_server_key("weight", json!("5")),
        "pools.shop.servers[0].weight",
        "expected a whole number from 0 up, found string \"5\"",
    );
    refused(
        with_server_key("weight", json!(-1)),
        "pools.shop.servers[0].weight",
        "expected a whole number",
    );
    refused(
        with_server_key("weight", json!(1.5)),
        "pools.shop.servers[0].weight",
        "expected a whole number",
    );
    refused(
        with_server_key("backup", json!("yes")),
        "pools.shop.servers[0].backup",
        "expected a boolean",
    );
    refused(
        with_pool_key("servers", json!("10.0.0.1:80")),
        "pools.shop.servers",
        "expected a list",
    );
    refused(
        with_pool_key("servers", json!([{"weight": 1}])),
        "pools.shop.servers[0]",
        "the key `address` is required",
    );
    refused(
        json!({"pools": {"shop": 5}}),
        "pools.shop",
        "expected a mapping",
    );
    refused(
        json!({"routes": [{"match": {}}]}),
        "routes[0]",
        "`pool`, `redirect`, `respond` or `deny`",
    );
    refused(
        with_match(json!({"host": 5})),
        "routes[0].match.host",
        "expected a string or a list of strings",
    );
    refused(
        with_match(json!({"host": [5]})),
        "routes[0].match.host[0]",
        "expected a string",
    );
    refused(json!([]), "", "");
    let twice = Document::from_json(br#"{"pools": {"a": {}, "a": {}}}"#).expect_err("refused");
    assert_eq!(
        (twice.path.as_str(), twice.message.as_str()),
        ("pools", "`a` is there twice")
    );
    assert!(Document::from_json(b"{} {}").is_err());
    assert!(Document::from_json(b"{").is_err());
}

#[test]
fn wrong_pools_are_refused() {
    refused(
        json!({"pools": {"evenkeel-x": {"servers": []}}}),
        "pools.evenkeel-x",
        "reserved",
    );
    refused(
        json!({"pools": {"session-store": {"servers": []}}}),
        "pools.session-store",
        "reserved",
    );
    refused(
        json!({"pools": {"a b": {"servers": []}}}),
        "pools.a b",
        "expected a name",
    );
    refused(
        json!({"pools": {"a": {}}}),
        "pools.a.servers",
        "at least one server",
    );
    refused(
        with_pool_key("servers", json!([])),
        "pools.shop.servers",
        "at least one server",
    );
    refused(
        with_server_key("backup", json!(true)),
        "pools.shop.servers",
        "not a backup",
    );
    refused(
        with_server_key("weight", json!(0)),
        "pools.shop.servers[0].weight",
        "down: true",
    );
    refused(
        with_server_key("weight", json!(65_536)),
        "pools.shop.servers[0].weight",
        "1 to 65535",
    );
    refused(
        with_server_key("id", json!("a.b")),
        "pools.shop.servers[0].id",
        "expected a name",
    );
    refused(
        with_server_key("address", json!("web1")),
        "pools.shop.servers[0].address",
        "name:port",
    );
    refused(
        with_pool_key("resolve", json!("100ms")),
        "pools.shop.resolve",
        "at least 1s",
    );
    refused(
        with_pool_key("retries", json!(8)),
        "pools.shop.retries",
        "expected 0 to 7, found 8",
    );
    refused(
        with_pool_key("balance", json!("round_robbin")),
        "pools.shop.balance",
        "did you mean `round_robin`?",
    );
    refused(
        with_pool_key("balance", json!("best")),
        "pools.shop.balance",
        "known: round_robin",
    );
    refused(
        with_pool_key("keepalive", json!({"idle": "soon"})),
        "pools.shop.keepalive.idle",
        "expected a duration",
    );
    refused(
        with_pool_key("keepalive", json!({"requests": 0})),
        "pools.shop.keepalive.requests",
        "expected 1",
    );
    refused(
        with_pool_key("timeouts", json!({"connect": "0s"})),
        "pools.shop.timeouts.connect",
        "more than 0",
    );
    let same_address = json!([{"address": "10.0.0.1:80"}, {"address": "10.0.0.1:80", "id": "b"}]);
    refused(
        with_pool_key("servers", same_address),
        "pools.shop.servers[1].address",
        "twice",
    );
    let same_id =
        json!([{"address": "10.0.0.1:80", "id": "b"}, {"address": "10.0.0.2:80", "id": "b"}]);
    refused(
        with_pool_key("servers", same_id),
        "pools.shop.servers[1].id",
        "twice",
    );
    let backup_of_ip_hash = json!({"balance": "ip_hash", "servers": [{"address": "10.0.0.1:80"}, {"address": "10.0.0.2:80", "backup": true}]});
    refused(
        json!({"pools": {"shop": backup_of_ip_hash}}),
        "pools.shop.servers[1].backup",
        "`ip_hash` knows no backup",
    );
    let many: Vec<Value> = (0..=SERVERS_MAX)
        .map(|port| json!({"address": format!("10.0.0.1:{}", port + 1)}))
        .collect();
    refused(
        with_pool_key("servers", json!(many)),
        "pools.shop.servers",
        "at most 10000",
    );
}

#[test]
fn what_is_not_served_yet_is_refused_by_name() {
    let pool_keys = [
        ("sticky", json!({"mode": "session"})),
        ("protocol", json!("mysql")),
        ("role", json!("writer")),
        ("greeting_timeout", json!("5s")),
        ("writer_wait", json!("10s")),
        ("on_down", json!("close")),
        ("mode", json!("tcp")),
    ];
    for (key, value) in pool_keys {
        refused(
            with_pool_key(key, value),
            &format!("pools.shop.{key}"),
            "understood, but not served by this version",
        );
    }
}

#[test]
fn wrong_routes_are_refused() {
    let mut policy = shop();
    policy["routes"][0]["pool"] = json!("shpo");
    refused(
        policy,
        "routes[0].pool",
        "no pool is named `shpo`; did you mean `shop`?",
    );
    refused(
        with_match(json!({"host": []})),
        "routes[0].match.host",
        "expected 1 to",
    );
    for host in ["a:80", "*", "*.", "a*.b", "", "ä.de", "a b", ".a"] {
        refused(
            with_match(json!({"host": host})),
            "routes[0].match.host",
            "expected",
        );
    }
    refused(
        with_match(json!({"host": ["ok", "a:80"]})),
        "routes[0].match.host[1]",
        "without port",
    );
    refused(
        with_match(json!({"path": "x"})),
        "routes[0].match.path",
        "begins with `/`",
    );
    refused(
        with_match(json!({"path_prefix": "/x?y"})),
        "routes[0].match.path_prefix",
        "no query",
    );
    refused(
        with_match(json!({"path_suffix": ""})),
        "routes[0].match.path_suffix",
        "end of a path",
    );
    refused(
        with_match(json!({"path_regex": "("})),
        "routes[0].match.path_regex",
        "regular expression",
    );
    refused(
        with_match(json!({"path_regex": "(x{900}){900}"})),
        "routes[0].match.path_regex",
        "regular expression",
    );
    refused(
        with_match(json!({"method": "get"})),
        "routes[0].match.method",
        "in capitals",
    );
}

#[test]
fn all_routes_together_are_bounded() {
    let hosts: Vec<String> = (0..MATCH_VALUES_MAX)
        .map(|index| format!("h{index}"))
        .collect();
    refused(
        json!({"pools": shop()["pools"], "routes": [
            {"match": {"host": hosts}, "pool": "shop"},
            {"match": {"path": "/x"}, "pool": "shop"},
        ]}),
        "routes",
        "values in all matches",
    );
    let regexes: Vec<String> = (0..=REGEXES_MAX)
        .map(|index| format!("^/{index}"))
        .collect();
    refused(
        with_match(json!({"path_regex": regexes})),
        "routes",
        "regular expressions",
    );
}

#[test]
fn wrong_headers_and_networks_are_refused() {
    let set = |name: &str, value: &str| json!({"request_headers": {"set": {name: value}}});
    refused(
        set("X-A", "$client_pi"),
        "request_headers.set.X-A",
        "did you mean `$client_ip`?",
    );
    refused(
        set("X A", "x"),
        "request_headers.set.X A",
        "name of a header",
    );
    refused(
        set(":path", "x"),
        "request_headers.set.:path",
        "name of a header",
    );
    refused(
        set("Content-Length", "5"),
        "request_headers.set.Content-Length",
        "not for configuration",
    );
    refused(
        set("x-evenkeel-pool", "5"),
        "request_headers.set.x-evenkeel-pool",
        "not for configuration",
    );
    refused(
        set("Host", ""),
        "request_headers.set.Host",
        "cannot be removed",
    );
    refused(
        json!({"request_headers": {"set": {"X-A": "1", "x-a": "2"}}}),
        "request_headers.set.x-a",
        "twice",
    );
    refused(json!({"real_ip": {}}), "real_ip.trusted", "at least one");
    refused(
        json!({"real_ip": {"trusted": ["10.0.0.0/33"]}}),
        "real_ip.trusted[0]",
        "10.0.0.0/8",
    );
    refused(
        json!({"real_ip": {"trusted": "me"}}),
        "real_ip.trusted[0]",
        "expected an address",
    );
    refused(
        json!({"real_ip": {"trusted": "10.0.0.1", "header": "a b"}}),
        "real_ip.header",
        "name of a header",
    );
}

#[test]
fn paths_are_seen_from_further_out() {
    let error = |path: &str| ConfigError::new(path, "wrong");
    assert_eq!(
        error("pools.a").within("policy").to_string(),
        "policy.pools.a: wrong"
    );
    assert_eq!(
        error("[0]").within("routes").to_string(),
        "routes[0]: wrong"
    );
    assert_eq!(error("").within("policy").to_string(), "policy: wrong");
    assert_eq!(error("").to_string(), "wrong");
}

#[test]
fn any_json_gives_an_answer() {
    use proptest::prelude::*;
    let keys = proptest::sample::select(vec![
        "pools", "a", "servers", "address", "routes", "match", "host", "real_ip", "weight",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        ".{0,6}".prop_map(Value::from)
    ];
    let json = leaf.prop_recursive(6, 40, 5, move |inner| {
        let map = proptest::collection::vec((keys.clone(), inner.clone()), 0..5);
        prop_oneof![
            proptest::collection::vec(inner, 0..4).prop_map(Value::from),
            map.prop_map(|pairs| pairs
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect::<serde_json::Map<_, _>>()
                .into()),
        ]
    });
    proptest!(|(value in json)| { drop(config(value)); });
}

#[test]
fn large_clusters_are_accepted() {
    let pool = |servers: u32| {
        let servers = (0..servers).map(|server| {
            let [_, _, third, fourth] = server.to_be_bytes();
            json!({"address": format!("10.1.{third}.{fourth}:80")})
        });
        json!({"balance": "least_time", "servers": servers.collect::<Vec<_>>()})
    };
    for (pools, servers) in [(1, 10_000), (1_000, 10)] {
        let named = (0..pools).map(|name| (format!("pool{name}"), pool(servers)));
        let named: serde_json::Map<String, Value> = named.collect();
        let policy = json!({"pools": named, "routes": [{"pool": "pool0"}]});
        let config = Config::from_document(&Document::from_value(policy).unwrap()).unwrap();
        let counted: usize = config.pools.iter().map(|pool| pool.servers.len()).sum();
        assert_eq!((config.pools.len(), counted), (pools, 10_000));
    }
}
