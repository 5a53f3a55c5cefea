//! Configurations that are wrong: one clear message that says where, the right exit code, nothing half-started.

use std::net::TcpListener;
use std::process::{Command, Output};
use std::time::Duration;

use evenkeel_tests::guests::{self, Guest};
use evenkeel_tests::{Cluster, Connection, Host, peers, ports};
use tempfile::TempDir;

/// Runs `evenkeel <command> -c FILE` on this text.
fn evenkeel(command: &str, yaml: &str) -> Output {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("evenkeel.yaml");
    std::fs::write(&path, yaml).unwrap();
    // A configuration that is taken by mistake would run for ever.
    let mut run = Command::new("timeout");
    run.arg("20")
        .arg(peers::evenkeel())
        .arg(command)
        .arg("-c")
        .arg(&path);
    if command == "envoy" {
        run.arg("-o").arg(directory.path().join("out"));
    }
    run.output().unwrap()
}

/// The text, where its fault is, the key's path, and words that the message must have.
type Row<'a> = (String, &'a str, &'a str, &'a str);

/// Each is refused at the right place with exit code 2 by every command, and no port was opened for it.
#[track_caller]
fn check(rows: &[Row]) {
    let mut faults = Vec::new();
    for (yaml, at, key, words) in rows {
        let bind = ports::free();
        let text = yaml.replace("@bind", &bind.to_string());
        for command in ["check", "run", "envoy"] {
            let output = evenkeel(command, &text);
            let message = String::from_utf8_lossy(&output.stderr).into_owned();
            let place = format!("evenkeel.yaml:{at}");
            let parts = [place.as_str(), key, words];
            let missing: Vec<_> = parts
                .into_iter()
                .filter(|part| !message.contains(part))
                .collect();
            if output.status.code() != Some(2) || !missing.is_empty() {
                let code = output.status.code();
                let shown: String = text.chars().take(600).collect();
                faults.push(format!(
                    "{command}: exit {code:?}, not said: {missing:?}, said: {message}\n{shown}"
                ));
            }
        }
    }
    assert!(
        faults.is_empty(),
        "{} faults\n{}",
        faults.len(),
        faults.join("\n")
    );
}

/// A configuration with this `policy`, whose first line is line 4.
fn policy(yaml: &str) -> String {
    let lines: String = yaml.lines().map(|line| format!("  {line}\n")).collect();
    format!("listeners:\n  - bind: '@bind'\npolicy:\n{lines}")
}

#[test]
fn a_wrong_policy_is_refused_with_its_place() {
    let rows = [
        (
            "pools:\n  web:\n    balanse: fair\n    servers: [{address: '127.0.0.1:1'}]",
            "6:",
            "policy.pools.web.balanse",
            "balance",
        ),
        (
            "pools:\n  web:\n    servers:\n      - {address: '127.0.0.1:1', weight: 0}",
            "7:",
            "policy.pools.web.servers[0].weight",
            "down",
        ),
        (
            "pools:\n  web:\n    servers:\n      - {address: '127.0.0.1:1', weight: heavy}",
            "7:",
            "policy.pools.web.servers[0].weight",
            "",
        ),
        (
            "pools:\n  web:\n    servers:\n      - {address: '127.0.0.1:1', weight: 65536}",
            "7:",
            "policy.pools.web.servers[0].weight",
            "65535",
        ),
        (
            "pools:\n  web:\n    servers:\n      - {address: '300.0.0.1:80'}",
            "7:",
            "policy.pools.web.servers[0].address",
            "300.0.0.1",
        ),
        (
            "pools:\n  web:\n    servers:\n      - {address: '127.0.0.1'}",
            "7:",
            "policy.pools.web.servers[0].address",
            "port",
        ),
        (
            "pools:\n  web:\n    servers: []",
            "6:",
            "policy.pools.web.servers",
            "",
        ),
        (
            "pools:\n  web:\n    servers: [{address: '127.0.0.1:1', id: x}, {address: '127.0.0.1:2', id: x}]",
            "6:",
            "policy.pools.web.servers[1]",
            "x",
        ),
        (
            "pools:\n  web:\n    servers: [{address: '127.0.0.1:1'}, {address: '127.0.0.1:1'}]",
            "6:",
            "policy.pools.web.servers[1]",
            "127.0.0.1:1",
        ),
        (
            "pools:\n  'we b':\n    servers: [{address: '127.0.0.1:1'}]",
            "5:",
            "policy.pools",
            "we b",
        ),
        (
            "pools:\n  session-store:\n    servers: [{address: '127.0.0.1:1'}]",
            "5:",
            "policy.pools",
            "reserved",
        ),
        (
            "routes:\n  - {pool: shop}\npools:\n  web: {servers: [{address: '127.0.0.1:1'}]}",
            "5:",
            "policy.routes[0].pool",
            "shop",
        ),
        (
            "routes:\n  - {match: {hots: x}, pool: web}\npools:\n  web: {servers: [{address: '127.0.0.1:1'}]}",
            "5:",
            "policy.routes[0].match.hots",
            "host",
        ),
        (
            "pools:\n  web:\n    mode: tcp\n    servers: [{address: '127.0.0.1:1'}]",
            "6:",
            "policy.pools.web.mode",
            "not served",
        ),
        (
            "pools:\n  web:\n    balance: fastest\n    servers: [{address: '127.0.0.1:1'}]",
            "6:",
            "policy.pools.web.balance",
            "fastest",
        ),
        (
            "pools:\n  web:\n    sticky: {mode: session}\n    servers: [{address: '127.0.0.1:1'}]",
            "6:",
            "policy.pools.web.sticky",
            "not served",
        ),
        (
            "real_ip: {trusted: [10.0.0.0/33]}\npools:\n  web: {servers: [{address: '127.0.0.1:1'}]}",
            "4:",
            "policy.real_ip.trusted[0]",
            "10.0.0.0/33",
        ),
    ];
    check(&rows.map(|(yaml, at, key, words)| (policy(yaml), at, key, words)));
}

#[test]
fn a_wrong_frame_is_refused_with_its_place() {
    let pools =
        "policy: {pools: {web: {servers: [{address: '127.0.0.1:1'}]}}, routes: [{pool: web}]}\n";
    let rows = [
        (
            "listeners:\n  - {bind: '@bind'}\nworkesr: 2\n",
            "3:",
            "workesr",
            "workers",
        ),
        (
            "listeners:\n  - {bind: nowhere}\n",
            "2:",
            "listeners[0].bind",
            "nowhere",
        ),
        (
            "listeners:\n  - {bind: '@bind', accept: fair}\n",
            "2:",
            "listeners[0].accept",
            "balanced",
        ),
        (
            "listeners:\n  - {bind: '@bind', mode: tcp, pool: web}\n",
            "2:",
            "listeners[0].mode",
            "not served",
        ),
        (
            "listeners:\n  - {bind: '@bind', tls: {cert: /nowhere.pem, key: /nowhere.key}}\n",
            "2:",
            "listeners[0].tls.cert",
            "/nowhere.pem",
        ),
        (
            "listeners:\n  - {bind: '@bind'}\n  - {bind: '@bind'}\n",
            "3:",
            "listeners[1]",
            "",
        ),
        ("listeners:\n  - {name: a}\n", "2:", "listeners[0]", "bind"),
        (
            "listeners:\n  - {bind: '@bind'}\ntimeouts: {connect: 5}\n",
            "3:",
            "timeouts.connect",
            "10s",
        ),
        (
            "listeners:\n  - {bind: '@bind'}\ntimeouts: {connect: soon}\n",
            "3:",
            "timeouts.connect",
            "soon",
        ),
        (
            "listeners:\n  - {bind: '@bind'}\nlimits: {header_bytes: much}\n",
            "3:",
            "limits.header_bytes",
            "much",
        ),
        (
            "listeners:\n  - {bind: '@bind'}\nsession_store: {ack: replica}\n",
            "3:",
            "session_store.ack",
            "not served",
        ),
        (
            "listeners:\n  - {bind: '@bind'}\naccess_log: {format: xml}\n",
            "3:",
            "access_log.format",
            "combined",
        ),
    ];
    check(&rows.map(|(yaml, at, key, words)| (format!("{yaml}{pools}"), at, key, words)));
}

#[test]
fn text_that_is_not_yaml_is_refused_with_its_place() {
    let laughs = "a: &a [x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\n\
        c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]\nd: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c]\n\
        e: &e [*d, *d, *d, *d, *d, *d, *d, *d, *d]\nf: &f [*e, *e, *e, *e, *e, *e, *e, *e, *e]\n\
        g: &g [*f, *f, *f, *f, *f, *f, *f, *f, *f]\nh: &h [*g, *g, *g, *g, *g, *g, *g, *g, *g]\n";
    let deep = format!("listeners: {}1{}\n", "[".repeat(5_000), "]".repeat(5_000));
    let texts = ["listeners: [\n  }\n", "", "- 1\n- 2\n", &deep, laughs];
    check(&texts.map(|text| (text.to_owned(), "", "", "")));
}

#[test]
fn a_missing_file_and_a_wrong_command_line_exit_with_2() {
    for arguments in [
        &["run", "-c", "/nowhere/evenkeel.yaml"][..],
        &["run"],
        &["fly"],
        &["check", "-c"],
    ] {
        let output = Command::new(peers::evenkeel())
            .args(arguments)
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert!(!message.is_empty());
    }
}

#[test]
fn a_port_in_use_exits_with_1_and_leaves_nothing_open() {
    let (free, taken) = (ports::free(), ports::free());
    let _holder = TcpListener::bind(taken).unwrap();
    let yaml = format!(
        "listeners:\n  - {{name: one, bind: '{free}'}}\n  - {{name: two, bind: '{taken}'}}\n\
         policy: {{pools: {{web: {{servers: [{{address: '127.0.0.1:1'}}]}}}}, routes: [{{pool: web}}]}}\n"
    );
    let output = evenkeel("run", &yaml);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains(&taken.to_string()), "{message}");
    assert!(Connection::open(free).is_err());
    assert_eq!(
        evenkeel("check", &yaml).status.code(),
        Some(0),
        "check opens no port"
    );
}

/// The key path of the filter, and what is wrong with it.
#[track_caller]
fn check_filter(guest: &Guest, words: &str) {
    let bind = ports::free();
    let yaml = format!(
        "listeners:\n  - {{bind: '{bind}'}}\nfilters:\n  - path: '{}'\n\
         policy: {{pools: {{web: {{servers: [{{address: '127.0.0.1:1'}}]}}}}, routes: [{{pool: web}}]}}\n",
        guest.path().display()
    );
    let output = evenkeel("run", &yaml);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(
        message.contains(guest.path().to_str().unwrap()),
        "{message}"
    );
    assert!(message.contains(words), "{words:?} is not in: {message}");
    assert!(Connection::open(bind).is_err());
}

#[test]
fn a_filter_that_is_none_is_refused() {
    check_filter(&guests::not_wasm(), "");
    check_filter(&guests::missing_import(), "proxy_make_coffee");
    check_filter(&guests::no_marker(), "");
    check_filter(&guests::refuses_configuration(), "");
}

#[test]
fn a_good_configuration_is_explained() {
    let cluster = Cluster::new()
        .name("web", "127.0.0.1:1")
        .pool("", &[("web", "weight: 3")]);
    let output = evenkeel("check", &cluster.yaml("127.0.0.1:2", "/dev/null"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{text} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        text.contains("web") && text.contains("round_robin"),
        "{text}"
    );
}

/// JSON is a subset of YAML: a configuration in JSON runs.
#[test]
fn a_configuration_in_json_runs() {
    let web = evenkeel_tests::nginx("web");
    let proxy = Cluster::new().server(&web).pool("", &[("web", "")]);
    let json = format!(
        r#"{{"pools": {{"web": {{"servers": [{{"address": "{}"}}]}}}}, "routes": [{{"pool": "web"}}]}}"#,
        evenkeel_tests::Server::address(&web)
    );
    let proxy = proxy.policy(&json).on(Host::Sidecar);
    assert_eq!(proxy.get("/name").text(), "web");
    let start = std::time::Instant::now();
    drop(proxy);
    assert!(start.elapsed() < Duration::from_secs(5));
}
