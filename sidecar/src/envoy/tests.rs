//! The text of `envoy.yaml`, as far as it can be held to something without Envoy; tests/e2e runs the real one on it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use super::*;

const FILE: &str = "
listeners:
  - {name: web, bind: 127.0.0.1:8080}
  - {name: web6, bind: '[::1]:8081', accept: balanced}
admin: {bind: 0.0.0.0:8404}
workers: 2
timeouts: {response: 60s, idle: 75s, tunnel: 1h, connect: 250ms}
limits: {header_bytes: 64KiB, headers: 100, body_bytes: 1MiB, connections: 5000}
access_log: {path: stdout, format: json}
policy:
  request_headers: {set: {X-Note: \"it's \\\"quoted\\\" % $$ é\"}}
  routes:
    - {match: {path_prefix: /api}, pool: api}
    - {pool: shop}
  pools:
    api: {servers: [{address: 10.0.0.9:80}], timeouts: {connect: 2s, response: 300s}}
    shop:
      servers:
        - {address: 10.0.0.1:80, weight: 5}
        - {address: '[fd00::2]:80', backup: true}
        - {address: 10.0.0.3:80, down: true}
";

fn config() -> Config {
    Config::parse(Path::new("evenkeel.yaml"), FILE).unwrap()
}

/// The rendered file, read back by a YAML parser.
fn rendered() -> Value {
    let text = render(&config(), Path::new("/somewhere/evenkeel.wasm")).unwrap();
    crate::config::locate::Tree::parse(&text)
        .unwrap_or_else(|(at, why)| panic!("{at:?}: {why}\n{text}"))
        .to_json()
}

fn manager(file: &Value, listener: usize) -> &Value {
    &file["static_resources"]["listeners"][listener]["filter_chains"][0]["filters"][0]["typed_config"]
}

#[test]
fn the_file_is_yaml_and_the_filter_gets_the_policy_unchanged() {
    let file = rendered();
    let filters = manager(&file, 0)["http_filters"].as_array().unwrap();
    let names: Vec<_> = filters
        .iter()
        .map(|filter| filter["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "legal-trailers",
            "envoy.filters.http.buffer",
            "evenkeel",
            "envoy.filters.http.router"
        ]
    );
    let text = filters[2]["typed_config"]["config"]["configuration"]["value"]
        .as_str()
        .unwrap();
    let given: Value = serde_json::from_str(text).unwrap();
    assert_eq!(given["policy"], config().policy_json);
    assert_eq!(
        (&given["listener"]["name"], &given["schema"]),
        (&Value::from("web"), &Value::from(1))
    );
    assert_eq!(manager(&file, 1)["stat_prefix"], "web6");
    assert_eq!(
        file["static_resources"]["listeners"][1]["connection_balance_config"]["exact_balance"],
        Value::Object(serde_json::Map::new())
    );
}

#[test]
fn timeouts_and_limits_are_those_of_the_file() {
    let file = rendered();
    let manager = manager(&file, 0);
    assert_eq!(
        manager["stream_idle_timeout"], "300s",
        "the larger of every response and idle"
    );
    assert_eq!(
        manager["common_http_protocol_options"]["idle_timeout"],
        "75s"
    );
    assert_eq!(manager["max_request_headers_kb"], 64);
    let routes = manager["route_config"]["virtual_hosts"][0]["routes"]
        .as_array()
        .unwrap();
    let silences: Vec<_> = routes
        .iter()
        .map(|route| {
            route["route"]["retry_policy"]["per_try_idle_timeout"]
                .as_str()
                .unwrap()
        })
        .collect();
    assert_eq!(silences, ["3600s", "300s", "60s"]);
    assert!(routes.iter().all(
        |route| route["route"]["cluster_header"] == "x-evenkeel-pool"
            && route["route"]["timeout"] == "0s"
    ));
    assert_eq!(
        file["admin"]["address"]["socket_address"]["address"], "127.0.0.1",
        "never beyond this machine"
    );
}

#[test]
fn every_pool_is_two_clusters_with_the_right_servers() {
    let file = rendered();
    let clusters = file["static_resources"]["clusters"].as_array().unwrap();
    let names: Vec<_> = clusters
        .iter()
        .map(|cluster| cluster["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["api", "api.check", "shop", "shop.check"]);
    assert_eq!(
        (
            &clusters[0]["connect_timeout"],
            &clusters[2]["connect_timeout"]
        ),
        (&Value::from("2s"), &Value::from("0.250s"))
    );
    let shop = &clusters[2]["load_assignment"]["endpoints"];
    let address = |value: &Value| value["endpoint"]["address"]["socket_address"]["address"].clone();
    assert_eq!(
        (&shop[0]["priority"], &shop[1]["priority"]),
        (&Value::from(0), &Value::from(1))
    );
    assert_eq!(
        (
            address(&shop[0]["lb_endpoints"][0]),
            address(&shop[1]["lb_endpoints"][0])
        ),
        (Value::from("10.0.0.1"), Value::from("fd00::2"))
    );
    assert_eq!(shop[0]["lb_endpoints"][1]["health_status"], "UNHEALTHY");
    let checks = &clusters[3]["load_assignment"]["endpoints"];
    assert_eq!(
        (
            checks.as_array().unwrap().len(),
            checks[0]["lb_endpoints"].as_array().unwrap().len()
        ),
        (1, 3)
    );
    assert!(
        checks[0]["lb_endpoints"]
            .as_array()
            .unwrap()
            .iter()
            .all(|endpoint| endpoint["health_status"].is_null())
    );
}

/// What is said of the file with each of these in the place of what it has; nothing: it is rendered.
#[track_caller]
fn check_refusal(changes: &[(&str, &str)], said: &str) {
    let mut file = FILE.to_owned();
    for (what, with) in changes {
        assert!(file.contains(what), "{what}");
        file = file.replacen(what, with, 1);
    }
    let config = Config::parse(Path::new("evenkeel.yaml"), &file).unwrap();
    let found = render(&config, Path::new("/w.wasm"));
    let found = found.map_or_else(|error| error.to_string(), |_| String::new());
    assert!(
        found.starts_with(said) && found.is_empty() == said.is_empty(),
        "{changes:?}: {found:?}"
    );
}

#[test]
fn rules_on_the_socket_are_refused_behind_the_proxy_protocol() {
    let behind = (
        "bind: 127.0.0.1:8080}",
        "bind: 127.0.0.1:8080, proxy_protocol: {from: [10.0.0.0/8]}}",
    );
    let of =
        |whose: &str| format!("{{path_prefix: /api, client: {{in: [10.0.0.0/8], of: {whose}}}}}");
    let rule = "{path_prefix: /api}";
    for (whose, said) in [
        ("tcp_peer", "policy.routes: "),
        ("peer", ""),
        ("client", ""),
    ] {
        check_refusal(&[behind, (rule, &of(whose))], said);
        check_refusal(&[(rule, &of(whose))], "");
    }
    // Under `not` it is a rule on the socket all the same.
    let not = format!("{{not: {}}}", of("tcp_peer"));
    check_refusal(&[behind, (rule, &not)], "policy.routes: ");
}

#[test]
fn what_envoy_routes_by_cannot_be_removed() {
    let set = "set: {X-Note";
    for (with, said) in [
        (
            "remove: [x-forwarded-proto], set: {X-Note",
            "policy.request_headers: ",
        ),
        (
            "set: {X-Forwarded-Proto: '', X-Note",
            "policy.request_headers: ",
        ),
        ("set: {X-Forwarded-Proto: https, X-Note", ""),
        ("remove: [X-Forwarded-Host], set: {X-Note", ""),
    ] {
        check_refusal(&[(set, with)], said);
    }
}

#[test]
fn a_body_limit_that_envoy_does_not_know_is_refused() {
    let mut config = config();
    config.limits.body_bytes = 1 << 33;
    let said = render(&config, Path::new("/x.wasm"))
        .unwrap_err()
        .to_string();
    assert!(said.starts_with("limits.body_bytes: "), "{said}");
}

#[test]
fn the_file_is_for_its_owner_only_and_is_replaced_whole() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("new").join("envoy");
    for _ in 0..2 {
        let written = write(&config(), b"\0asm", &target).unwrap();
        assert_eq!(
            std::fs::metadata(&written.envoy_yaml)
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o600
        );
        assert!(written.wasm.is_absolute() && std::fs::read(&written.wasm).unwrap() == b"\0asm");
        assert_eq!(std::fs::read_dir(&target).unwrap().count(), 2);
        assert!(
            std::fs::read_to_string(&written.envoy_yaml)
                .unwrap()
                .contains(written.wasm.to_str().unwrap())
        );
    }
}

#[test]
fn a_check_that_only_a_bridge_can_make_is_refused_by_name() {
    for (kind, check) in [
        ("tcp", "tcp: {}"),
        ("mysql", "mysql: {user: evenkeel}"),
        ("redis", "redis: {role: master}"),
    ] {
        let with = format!("api: {{health: {{{check}}}, servers:");
        let file = FILE.replace("api: {servers:", &with);
        let config = Config::parse(Path::new("evenkeel.yaml"), &file).unwrap();
        let error = render(&config, Path::new("/w.wasm")).unwrap_err();
        let said = error.to_string();
        let key = format!("policy.pools.api.health.{kind}: ");
        assert!(said.starts_with(&key) && said.contains("bridge"), "{said}");
    }
}

#[test]
fn a_pool_that_leaves_the_choice_to_envoy_is_one_cluster_of_names() {
    let file = FILE.replace(
        "api: {servers: [{address: 10.0.0.9:80}], timeouts: {connect: 2s, response: 300s}}",
        "api: {balance: envoy, resolve: 7s, servers: [{address: 'Web.Test:81', weight: 4}, {address: 10.0.0.9:80}, {address: 'gone.test:80', down: true}]}",
    );
    let config = Config::parse(Path::new("evenkeel.yaml"), &file).unwrap();
    let text = render(&config, Path::new("/w.wasm")).unwrap();
    let file = crate::config::locate::Tree::parse(&text).unwrap().to_json();
    let clusters = file["static_resources"]["clusters"].as_array().unwrap();
    let names: Vec<_> = clusters.iter().map(|cluster| &cluster["name"]).collect();
    assert_eq!(names, ["api", "shop", "shop.check"]);
    let api = &clusters[0];
    assert_eq!(
        (&api["type"], &api["dns_refresh_rate"]),
        (&Value::from("STRICT_DNS"), &Value::from("7s"))
    );
    assert!(api["load_balancing_policy"].is_null());
    let endpoints = api["load_assignment"]["endpoints"][0]["lb_endpoints"].as_array();
    let told: Vec<_> = endpoints
        .unwrap()
        .iter()
        .map(|endpoint| {
            let address = &endpoint["endpoint"]["address"]["socket_address"];
            (
                address["address"].as_str().unwrap(),
                address["port_value"].as_u64().unwrap(),
                endpoint["load_balancing_weight"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(told, [("10.0.0.9", 80, 1), ("web.test", 81, 4)]);
    let routes = &manager(&file, 0)["route_config"]["virtual_hosts"][0]["routes"];
    let predicate = &routes[1]["route"]["retry_policy"]["retry_host_predicate"][0]["name"];
    assert_eq!(predicate, "envoy.retry_host_predicates.previous_hosts");
}
