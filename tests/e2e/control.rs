//! What an operator changes while requests flow: `evenkeel ctl`, and the admin API under it.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use evenkeel_tests::{
    Cluster, Connection, Host, Load, Nginx, Proxy, Request, Response, Server, both_hosts,
    eventually, nginx, peers, php, ports,
};
use rustix::process::Signal;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);
/// A change counts within this time.
const EFFECT_MAX: Duration = Duration::from_secs(1);
/// How long a server must get nothing, to count as left alone.
const QUIET: Duration = Duration::from_millis(300);

fn ctl(proxy: &Proxy, line: &str) -> Output {
    let mut command = Command::new(peers::evenkeel());
    command.args(["ctl", "--admin", &proxy.admin.to_string()]);
    command.args(line.split(' ')).output().unwrap()
}

/// Runs `evenkeel ctl` and wants it to succeed; what it said.
#[track_caller]
fn done(proxy: &Proxy, line: &str) -> String {
    let output = ctl(proxy, line);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "ctl {line}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `evenkeel ctl` and wants this exit code, with these words.
#[track_caller]
fn fails(proxy: &Proxy, line: &str, code: i32, words: &str) {
    let output = ctl(proxy, line);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "ctl {line}: {error}");
    assert!(error.contains(words), "ctl {line}: {error}");
}

/// A server of pool `web` as the admin API tells it.
#[track_caller]
fn server(proxy: &Proxy, id: &str) -> Value {
    let told = proxy.admin_get("/api/pools/web").json();
    let servers = told["servers"].as_array().unwrap();
    let found = servers.iter().find(|server| server["id"] == id);
    found.unwrap_or_else(|| panic!("no {id} in {told}")).clone()
}

/// Waits until a server gets no more requests, and says when the last one may have come.
#[track_caller]
fn left_alone(proxy: &Proxy, id: &str) {
    let start = Instant::now();
    // Ends with a quiet time, or with the test.
    loop {
        let before = server(proxy, id)["requests"].clone();
        let at = start.elapsed();
        std::thread::sleep(QUIET);
        if server(proxy, id)["requests"] == before {
            assert!(at < EFFECT_MAX, "{id} was asked for {at:?}");
            return;
        }
        assert!(at < PATIENCE, "{id} is asked on and on");
    }
}

/// Waits until a server gets requests, at most as long as a change may take.
#[track_caller]
fn used(proxy: &Proxy, id: &str) {
    let before = server(proxy, id)["requests"].clone();
    eventually(&format!("{id} is asked"), EFFECT_MAX, || {
        let now = server(proxy, id)["requests"].clone();
        (now != before).then_some(()).ok_or(now)
    });
}

#[test]
fn every_change_counts_within_a_second_and_fails_nobody() {
    let (a, b, c) = (nginx("a"), nginx("b"), nginx("c"));
    let cluster = Cluster::new().workers(2).server(&a).server(&b).server(&c);
    let proxy = cluster.pool("", &[("a", ""), ("b", "")]).on(Host::Sidecar);
    let load = Load::new(16).per_second(800).start(proxy.address);
    used(&proxy, "a");

    assert!(done(&proxy, "drain web/a").contains("web/a: drain"));
    left_alone(&proxy, "a");
    eventually("its idle connections are closed", PATIENCE, || {
        let idle = server(&proxy, "a")["idle_connections"].clone();
        (idle == 0).then_some(()).ok_or(idle)
    });
    done(&proxy, "ready web/a");
    used(&proxy, "a");
    done(&proxy, "maint web/b");
    left_alone(&proxy, "b");
    done(&proxy, "ready web/b");
    used(&proxy, "b");

    done(&proxy, &format!("add web/c {} --weight 2", c.address()));
    used(&proxy, "c");
    done(&proxy, "weight 5 web/a web/b");
    assert_eq!(server(&proxy, "a")["weight"], 5);
    done(&proxy, "remove web/b");
    eventually("c and a answer alone", EFFECT_MAX, || {
        let names = proxy.sequence(70);
        let count = |name: &str| names.iter().filter(|answered| *answered == name).count();
        let counts = (count("a"), count("b"), count("c"));
        // 5 to 2, among the requests of others.
        let is_so = counts.1 == 0 && counts.0 > counts.2 && counts.2 > 0;
        is_so.then_some(()).ok_or(counts)
    });
    let told = proxy.admin_get("/api/pools/web").json().to_string();
    assert!(!told.contains("\"b\""), "{told}");
    done(&proxy, &format!("add web/b {}", b.address()));
    used(&proxy, "b");
    done(&proxy, "remove web/c");
    load.during(Duration::from_secs(6));
    let report = load.stop();
    report.assert_no_failure();
    assert_eq!(report.by_server.len(), 3, "{report:?}");
}

#[test]
fn what_is_in_flight_on_a_drained_server_ends_and_is_told_until_then() {
    let (slow, web) = (php("slow"), nginx("web"));
    let cluster = Cluster::new().server(&slow).server(&web);
    let proxy = cluster
        .pool("", &[("slow", ""), ("web", "")])
        .on(Host::Sidecar);
    let mut held = proxy.connect();
    held.send(&Request::get("/sleep.php?s=3")).unwrap();
    eventually("it is in flight", PATIENCE, || {
        let in_flight = server(&proxy, "slow")["in_flight"].clone();
        (in_flight == 1).then_some(()).ok_or(in_flight)
    });
    assert_eq!(
        done(&proxy, "drain web/slow"),
        "web/slow: drain, weight 1, 1 in flight\n"
    );
    let shown = done(&proxy, "show web/slow");
    assert!(
        shown.contains("web/slow") && shown.contains("drain"),
        "{shown}"
    );
    assert_eq!(held.response("GET").unwrap().text(), "slept");
    eventually("nothing is in flight", PATIENCE, || {
        let server = server(&proxy, "slow");
        (server["in_flight"] == 0 && server["idle_connections"] == 0)
            .then_some(())
            .ok_or(server)
    });
    eventually("nobody else gets there", EFFECT_MAX, || {
        let names = proxy.sequence(10);
        (names == ["web"; 10]).then_some(()).ok_or(names)
    });
}

#[test]
fn changes_outlive_a_reload_and_ready_returns_to_the_file() {
    let (a, b, c) = (nginx("a"), nginx("b"), nginx("c"));
    let cluster = Cluster::new().workers(2).server(&a).server(&b).server(&c);
    let mut proxy = cluster.pool("", &[("a", ""), ("b", "")]).on(Host::Sidecar);
    done(&proxy, "maint web/a");
    done(&proxy, &format!("add web/c {}", c.address()));
    left_alone(&proxy, "a");
    let load = Load::new(8).per_second(400).start(proxy.address);
    let before = server(&proxy, "a")["requests"].clone();
    proxy.rewrite(|before| before.policy("").pool("", &[("a", "weight: 7"), ("b", "")]));
    proxy.signal(Signal::HUP);
    eventually("the new file counts", PATIENCE, || {
        let server = server(&proxy, "a");
        (server["weight"] == 7).then_some(()).ok_or(server)
    });
    load.during(Duration::from_secs(1));
    load.stop().assert_no_failure();
    let now = server(&proxy, "a");
    assert_eq!(
        (&now["state"], &now["requests"]),
        (&Value::from("maint"), &before)
    );
    used_by_requests(&proxy, &["b", "c"]);
    // The file takes the server away: the change about it is forgotten, what was added stays.
    proxy.rewrite(|before| before.policy("").pool("", &[("b", "")]));
    proxy.signal(Signal::HUP);
    eventually("a is gone", PATIENCE, || {
        let told = proxy.admin_get("/api/pools/web").json().to_string();
        (!told.contains("\"a\"")).then_some(()).ok_or(told)
    });
    used_by_requests(&proxy, &["b", "c"]);
    proxy.rewrite(|before| {
        before
            .policy("")
            .pool("", &[("a", "down: true"), ("b", "")])
    });
    proxy.signal(Signal::HUP);
    eventually("a is back, as the file has it", PATIENCE, || {
        let told = proxy.admin_get("/api/pools/web").json().to_string();
        told.contains("\"down\"").then_some(()).ok_or(told)
    });
    assert!(done(&proxy, "ready web/a").contains("web/a: down"));
    used_by_requests(&proxy, &["b", "c"]);
}

/// Exactly these answer, in some order.
#[track_caller]
fn used_by_requests(proxy: &Proxy, names: &[&str]) {
    eventually(&format!("{names:?} answer"), EFFECT_MAX, || {
        let mut answered = proxy.sequence(4 * names.len());
        answered.sort();
        answered.dedup();
        (answered == names).then_some(()).ok_or(answered)
    });
}

#[test]
fn a_filter_that_is_started_anew_knows_what_was_changed() {
    let guest = evenkeel_tests::guests::poison();
    let (a, b) = (nginx("a"), nginx("b"));
    let cluster = Cluster::new().server(&a).server(&b).top(&guest.filters());
    let proxy = cluster.pool("", &[("a", ""), ("b", "")]).on(Host::Sidecar);
    done(&proxy, "drain web/a");
    left_alone(&proxy, "a");
    proxy.signal(Signal::HUP);
    for _ in 0..50 {
        assert_eq!(proxy.get("/name").text(), "b");
    }
}

#[test]
fn wrong_commands_say_what_is_wrong() {
    let a = nginx("a");
    let proxy = Cluster::new()
        .server(&a)
        .pool("", &[("a", "")])
        .on(Host::Sidecar);
    fails(&proxy, "drain web/x", 2, "no such server: pool web has a");
    fails(&proxy, "drain shop/a", 2, "no such pool: shop");
    fails(&proxy, "drain web", 2, "POOL/SERVER");
    fails(&proxy, "weight 0 web/a", 2, "1..");
    fails(&proxy, "weight 70000 web/a", 2, "70000");
    fails(&proxy, "add web/b nowhere", 2, "address");
    fails(
        &proxy,
        &format!("add web/b {}", a.address()),
        1,
        "a has this address",
    );
    fails(&proxy, "add web/a 127.0.0.1:9", 1, "the file has a at");
    fails(&proxy, "show nowhere", 2, "no such pool");
    let output = Command::new(peers::evenkeel())
        .args(["ctl", "--admin", &ports::refusing().to_string(), "show"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no proxy"));
}

fn ask(proxy: &Proxy, request: Request) -> Response {
    Connection::open(proxy.admin)
        .unwrap()
        .exchange(&request)
        .unwrap()
}

#[test]
fn pages_of_others_and_broken_bodies_change_nothing() {
    let (a, b) = (nginx("a"), nginx("b"));
    let cluster = Cluster::new().server(&a).server(&b);
    let proxy = cluster.pool("", &[("a", ""), ("b", "")]).on(Host::Sidecar);
    let target = "/api/pools/web/servers/a";
    let drain = "{\"state\": \"drain\"}";
    let json = ("content-type", "application/json");
    let huge = format!("{{\"state\": \"{}\"}}", "x".repeat(17 << 10));
    type Row<'a> = (&'a [(&'a str, &'a str)], &'a str, u16);
    let rows: [Row<'_>; 8] = [
        (&[], drain, 403),
        (&[("content-type", "text/plain")], drain, 403),
        (&[json, ("origin", "http://evil.example")], drain, 403),
        (&[json], "{\"state\": \"gone\"}", 400),
        (&[json], "{\"state\": \"drain\", \"more\": 1}", 400),
        (&[json], "{\"weight\": 0}", 400),
        (&[json], "{", 400),
        (&[json], &huge, 413),
    ];
    for (headers, body, status) in rows {
        let mut request = Request::new("POST", target).body(body);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        request = request.header("host", proxy.admin.to_string());
        let told = ask(&proxy, request);
        assert_eq!(told.status, status, "{headers:?} {}", told.text());
    }
    let evil = Request::new("POST", target)
        .body(drain)
        .header("host", "evil.example");
    assert_eq!(ask(&proxy, evil.header(json.0, json.1)).status, 403);
    assert_eq!(server(&proxy, "a")["state"], "ready");
    assert_eq!(server(&proxy, "a")["weight"], 1);
}

both_hosts!(
    a_status_of_retry_on_is_another_servers_turn,
    a_status_of_retry_on_is_told_when_nobody_is_left,
);

/// Answers everything so.
fn answering(name: &str, status: u16) -> Nginx {
    let address = ports::free();
    let block =
        format!("server {{ listen {address}; location / {{ return {status} '{name}'; }} }}\n");
    Nginx::with(name, address, &block)
}

const RETRY_ON: &str = "retries: 2; retry_on: [connect-failure, reset-before-response, 503, 504]";

fn a_status_of_retry_on_is_another_servers_turn(host: Host) {
    let (web, ill, worse) = (nginx("web"), answering("ill", 503), answering("worse", 500));
    let cluster = Cluster::new().server(&web).server(&ill).server(&worse);
    let proxy = cluster
        .clone()
        .pool(RETRY_ON, &[("ill", "max_fails: 0"), ("web", "")])
        .on(host);
    let load = Load::new(4).requests(200).run(proxy.address);
    load.assert_no_failure();
    assert_eq!(load.by_server.len(), 1, "{load:?}");
    // A request that may have done something is not repeated.
    let posted = [(); 4].map(|()| {
        proxy
            .exchange(&Request::new("POST", "/name").body("x"))
            .status
    });
    assert!(posted.contains(&503), "{posted:?}");
    drop(proxy);
    // A client cannot ask for it.
    let proxy = cluster
        .pool("retries: 2", &[("worse", "max_fails: 0"), ("web", "")])
        .on(host);
    let statuses = [(); 6].map(|()| {
        let request = Request::get("/name")
            .header("x-envoy-retry-on", "5xx,retriable-status-codes")
            .header("x-envoy-retriable-status-codes", "500")
            .header("x-envoy-max-retries", "3");
        proxy.exchange(&request).status
    });
    assert!(
        statuses.contains(&500) && statuses.contains(&200),
        "{statuses:?}"
    );
}

fn a_status_of_retry_on_is_told_when_nobody_is_left(host: Host) {
    let (one, two) = (answering("one", 503), answering("two", 504));
    let cluster = Cluster::new().server(&one).server(&two);
    let pool = [("one", "max_fails: 0"), ("two", "max_fails: 0")];
    let proxy = cluster.pool(RETRY_ON, &pool).on(host);
    for _ in 0..6 {
        let told = proxy.get("/name");
        // The last one's own answer, as it is.
        let told = (told.status, told.text());
        let known = [(503, "one".to_owned()), (504, "two".to_owned())];
        assert!(known.contains(&told), "{told:?}");
    }
}

#[test]
fn not_ready_while_a_pool_that_is_routed_to_has_nobody() {
    let a = nginx("a");
    let proxy = Cluster::new()
        .server(&a)
        .pool("", &[("a", "")])
        .on(Host::Sidecar);
    assert_eq!(proxy.admin_get("/readyz").status, 200);
    done(&proxy, "maint web/a");
    let told = proxy.admin_get("/readyz");
    assert_eq!(told.status, 503);
    assert!(told.text().contains("pool web"), "{}", told.text());
    eventually("clients are told", EFFECT_MAX, || {
        let told = proxy.get("/name");
        let after = told.header("retry-after").unwrap_or_default();
        (told.status == 503 && after == "5")
            .then_some(())
            .ok_or(told.text())
    });
    done(&proxy, "ready web/a");
    assert_eq!(proxy.admin_get("/readyz").status, 200);
}
