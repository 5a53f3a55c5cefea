//! Servers that fall sick and get well: taken out and back within the stated bounds, by checks and by what requests find out.
//!
//! A pool that is checked says so on the admin port: each check that changes anything is there at once.

use std::time::{Duration, Instant};

use evenkeel_tests::{
    Cluster, Host, Load, Nginx, Proxy, Request, Server, both_hosts, doubles, eventually, nginx,
    ports,
};

both_hosts!(
    a_server_that_is_killed_is_taken_out_and_back_in_time,
    a_server_that_hangs_is_taken_out_and_back_in_time,
    a_server_that_answers_503_is_taken_out_and_back_in_time,
    a_body_without_the_expected_text_is_a_failed_check,
    without_health_no_checks_are_sent,
    one_worker_of_four_checks,
    a_health_endpoint_that_never_ends_is_bounded,
    when_checks_say_that_all_are_down_the_client_is_told_at_once,
    a_server_that_fails_requests_is_left_out_and_probed,
    when_all_servers_have_failed_whoever_is_back_answers,
    bad_answers_eject_a_server,
);

const PATIENCE: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(500);
const TIMEOUT: Duration = Duration::from_millis(250);
const FALL: u32 = 3;
const RISE: u32 = 2;
/// What a machine that does other things as well may add.
const SLACK: Duration = Duration::from_millis(800);

/// Checks of `/health` with the intervals above, and further keys.
fn health(more: &str) -> String {
    format!("health: {{path: /health, interval: 500ms, timeout: 250ms, rise: 2, fall: 3{more}}}")
}

/// The bound that is stated for so many checks in a row.
fn bound(checks: u32) -> Duration {
    INTERVAL * checks * 11 / 10 + TIMEOUT + Duration::from_millis(100)
}

/// Two servers `a` and `b` that are checked.
fn checked(host: Host, a: &Nginx, b: &Nginx, more: &str) -> Proxy {
    let keys = format!("{}; retries: 1", health(more));
    let pool = [("a", "max_fails: 0"), ("b", "max_fails: 0")];
    let proxy = Cluster::new()
        .workers(2)
        .server(a)
        .server(b)
        .top("timeouts: {response: 1s}")
        .pool(&keys, &pool)
        .on(host);
    for id in ["a", "b"] {
        proxy.until_up_is(id, 1);
    }
    proxy
}

/// Every worker has had the time to read the news.
fn answers(proxy: &Proxy) -> Vec<String> {
    let mut names: Vec<String> = (0..16).map(|_| proxy.get("/name").text()).collect();
    names.sort();
    names.dedup();
    names
}

type Break = fn(&mut Nginx);
type Mend = fn(Nginx) -> Nginx;

/// Breaks `a`, mends it, and holds the checks to their bounds.
#[track_caller]
fn check(proxy: &Proxy, mut a: Nginx, (cause, break_it, mend_it): (&str, Break, Mend)) {
    break_it(&mut a);
    let down = proxy.until_up_is("a", 0);
    assert!(down <= bound(FALL) + SLACK, "down after {down:?}");
    eventually("nobody is sent to it", PATIENCE, || {
        let names = answers(proxy);
        (names == ["b"]).then_some(()).ok_or(names)
    });
    let _a = mend_it(a);
    let up = proxy.until_up_is("a", 1);
    assert!(up <= bound(RISE) + SLACK, "up after {up:?}");
    eventually("requests are sent to it again", PATIENCE, || {
        let names = answers(proxy);
        (names == ["a", "b"]).then_some(()).ok_or(names)
    });
    let turned = |to: &str| proxy.metric(&format!("server_a_to_{to}_total"));
    assert_eq!(turned(&format!("down_{cause}")), Some(1));
    assert_eq!(turned("up_checks"), Some(1));
    let output = proxy.child.output();
    for line in ["pool web: server a is down: ", "pool web: server a is up: "] {
        let count = output.matches(line).count();
        assert_eq!(count, 1, "{line}");
    }
    println!(
        "{:?}: {cause}: down after {down:?}, up after {up:?}",
        proxy.host
    );
}

fn a_server_that_is_killed_is_taken_out_and_back_in_time(host: Host) {
    let (a, b) = (nginx("a"), nginx("b"));
    let proxy = checked(host, &a, &b, "");
    let load = Load::new(8).per_second(200).start(proxy.address);
    let mend = |a: Nginx| Nginx::start_at("a", a.address());
    check(&proxy, a, ("connect", |a| a.kill(), mend));
    load.stop().assert_no_failure();
}

fn a_server_that_hangs_is_taken_out_and_back_in_time(host: Host) {
    let (a, b) = (nginx("a"), nginx("b"));
    let proxy = checked(host, &a, &b, "");
    let mend = |a: Nginx| {
        a.go_on();
        a
    };
    check(&proxy, a, ("timeout", |a| a.hang(), mend));
}

fn a_server_that_answers_503_is_taken_out_and_back_in_time(host: Host) {
    let (a, b) = (nginx("a"), nginx("b"));
    let proxy = checked(host, &a, &b, "");
    let mend = |a: Nginx| {
        a.get_well();
        a
    };
    check(&proxy, a, ("status", |a| a.fall_sick(), mend));
}

fn a_body_without_the_expected_text_is_a_failed_check(host: Host) {
    let (a, b) = (nginx("a"), nginx("b"));
    let keys = format!("{}; retries: 1", health(", body: 'well with a'"));
    let cluster = Cluster::new().server(&a).server(&b);
    let proxy = cluster.pool(&keys, &[("a", ""), ("b", "")]).on(host);
    proxy.until_up_is("b", 0);
    proxy.until_up_is("a", 1);
    eventually("nobody is sent to b", PATIENCE, || {
        let names = answers(&proxy);
        (names == ["a"]).then_some(()).ok_or(names)
    });
    assert_eq!(proxy.metric("server_b_to_down_body_total"), Some(1));
}

fn without_health_no_checks_are_sent(host: Host) {
    let (a, b) = (doubles::recorder("a"), nginx("b"));
    let cluster = Cluster::new().workers(2).server(&a).server(&b);
    let proxy = cluster.pool("", &[("a", ""), ("b", "")]).on(host);
    let load = Load::new(2).per_second(20).start(proxy.address);
    load.during(Duration::from_secs(3));
    load.stop().assert_no_failure();
    let requests = a.requests_text();
    assert!(!requests.is_empty());
    assert!(
        requests
            .iter()
            .all(|request| !request.contains("evenkeel-check")),
        "{requests:?}"
    );
}

/// Checks that a server has seen.
fn checks(server: &doubles::Double) -> usize {
    let requests = server.requests_text();
    let checks = requests
        .iter()
        .filter(|request| request.contains("evenkeel-check"));
    checks.count()
}

fn one_worker_of_four_checks(host: Host) {
    let a = doubles::recorder("a");
    let keys = "health: {path: '/up?full=1', interval: 200ms, host: shop.example}";
    let cluster = Cluster::new().workers(4).server(&a);
    let proxy = cluster.pool(keys, &[("a", "")]).on(host);
    proxy.until_up_is("a", 1);
    // Every worker has something to do.
    let load = Load::new(32).per_second(400).start(proxy.address);
    let (start, before) = (Instant::now(), checks(&a));
    load.during(Duration::from_secs(4));
    let (sent, took) = (checks(&a) - before, start.elapsed());
    load.stop().assert_no_failure();
    let planned = took.as_secs_f64() / 0.2;
    // Jitter takes a tenth of the interval away at most; a late machine may lose some.
    let expected = planned * 0.6..=planned * 1.2 + 2.0;
    assert!(expected.contains(&(sent as f64)), "{sent} in {took:?}");
    let requests = a.requests_text();
    let check = requests
        .iter()
        .find(|request| request.contains("evenkeel-check"))
        .unwrap();
    assert!(check.starts_with("GET /up?full=1 HTTP/1.1\r\n"), "{check}");
    assert!(
        check.to_lowercase().contains("\r\nhost: shop.example\r\n"),
        "{check}"
    );
    for name in ["x-gateway-destination-endpoint", "x-evenkeel-pool"] {
        assert!(!check.to_lowercase().contains(name), "{check}");
    }
}

fn a_health_endpoint_that_never_ends_is_bounded(host: Host) {
    let (pours, streams, b) = (
        doubles::pours("pours"),
        doubles::streams_for_ever("streams"),
        nginx("b"),
    );
    let pool = [("pours", ""), ("streams", ""), ("b", "")];
    let keys = format!("{}; retries: 2", health(""));
    let cluster = Cluster::new().server(&pours).server(&streams).server(&b);
    let proxy = cluster.pool(&keys, &pool).on(host);
    // Our own proxy cuts a long body, and judges what there is; Envoy breaks it off.
    let broken: &[&str] = match host {
        Host::Sidecar => &["streams"],
        Host::Envoy => &["pours", "streams"],
    };
    for id in broken {
        proxy.until_up_is(id, 0);
        let broken = proxy.metric(&format!("server_{id}_to_down_broken_total"));
        assert_eq!(broken, Some(1), "{id}");
    }
    let before = pours.connections();
    eventually("checks go on", PATIENCE, || {
        let more = pours.connections() - before;
        (more >= 5).then_some(()).ok_or(more)
    });
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.child.id())).unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak_kib < 400 << 10, "{peak_kib} KiB");
}

fn when_checks_say_that_all_are_down_the_client_is_told_at_once(host: Host) {
    let a = nginx("a");
    a.fall_sick();
    let cluster = Cluster::new().server(&a);
    let proxy = cluster.pool(&health(""), &[("a", "")]).on(host);
    assert_eq!(proxy.get("/name").text(), "a", "servers start up");
    proxy.until_up_is("a", 0);
    eventually("no server is left", PATIENCE, || {
        let response = proxy.get("/name");
        let told = response.header("retry-after").is_some();
        (response.status == 503 && told)
            .then_some(())
            .ok_or(response)
    });
    a.get_well();
    proxy.until_up_is("a", 1);
    eventually("it is there again", PATIENCE, || {
        let response = proxy.get("/name");
        (response.status == 200).then_some(()).ok_or(response)
    });
}

/// nginx's `max_fails` and `fail_timeout`.
fn a_server_that_fails_requests_is_left_out_and_probed(host: Host) {
    let broken = doubles::hangs_up("broken");
    let b = nginx("b");
    let pool = [("broken", "fail_timeout: 2s"), ("b", "")];
    let cluster = Cluster::new().server(&broken).server(&b);
    let proxy = cluster.pool("retries: 1", &pool).on(host);
    let start = Instant::now();
    let load = Load::new(4).per_second(100).start(proxy.address);
    load.during(Duration::from_secs(7));
    load.stop().assert_no_failure();
    // One failure, then a probe in each two seconds; requests that were on their way at the same time may have failed as well.
    let probes = start.elapsed().as_secs() / 2;
    let seen = broken.requests().len() as u64;
    assert!((2..=1 + probes + 16).contains(&seen), "{seen} requests");
    assert_eq!(
        proxy.metric("server_broken_to_banned_failures_total"),
        Some(1)
    );
    let output = proxy.child.output();
    assert!(
        output.contains("pool web: server broken is banned: 1 failed within 2000 ms"),
        "{output}"
    );
}

/// nginx answers 502 for ten seconds here.
fn when_all_servers_have_failed_whoever_is_back_answers(host: Host) {
    let (a, b) = (ports::free(), ports::free());
    let cluster = Cluster::new()
        .name("a", &a.to_string())
        .name("b", &b.to_string());
    let proxy = cluster.pool("", &[("a", ""), ("b", "")]).on(host);
    for _ in 0..8 {
        assert!(proxy.get("/name").status >= 502);
    }
    let _b = Nginx::start_at("b", b);
    let start = Instant::now();
    assert_eq!(proxy.get("/name").text(), "b");
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(proxy.sequence(10), ["b"; 10]);
}

fn bad_answers_eject_a_server(host: Host) {
    let (a, b) = (nginx("a"), nginx("b"));
    let passive = "passive: {statuses: [500], failures: 3, ejection: 3s, share_max: 50}";
    let cluster = Cluster::new().server(&a).server(&b);
    let proxy = cluster.pool(passive, &[("a", ""), ("b", "")]).on(host);
    // Both answer 500 here, but only one may be ejected.
    for _ in 0..12 {
        assert_eq!(proxy.get("/500").status, 500);
    }
    let ejected = |id: &str| proxy.metric(&format!("server_{id}_to_ejected_failures_total"));
    let mut out = Vec::new();
    eventually("one is ejected", PATIENCE, || {
        out = ["a", "b"]
            .into_iter()
            .filter(|id| ejected(id).is_some())
            .collect();
        (out.len() == 1).then_some(()).ok_or(out.clone())
    });
    let left = if out[0] == "a" { "b" } else { "a" };
    assert_eq!(proxy.sequence(6), [left; 6]);
    eventually("it is back", PATIENCE, || {
        let names = answers(&proxy);
        (names.len() == 2).then_some(()).ok_or(names)
    });
    assert_eq!(proxy.exchange(&Request::get("/name")).status, 200);
}
