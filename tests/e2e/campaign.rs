//! One server at a time killed, hung, stalled or answering 503, under load: nobody's GET fails, none takes longer than it may, and
//! checks take the server out and back in time.
//!
//! The long form (`EVENKEEL_SOAK`) does each 20 times, and prints the median and the maximum.

use std::time::{Duration, Instant};

use evenkeel_tests::{
    Cluster, Host, Load, Nginx, Proxy, Report, Request, Server, both_hosts, eventually, nginx,
};

both_hosts!(
    a_killed_server_fails_no_get,
    a_hung_server_fails_no_get,
    a_server_that_stalls_for_a_second_fails_no_get,
    a_server_that_answers_503_fails_no_get,
);

const PATIENCE: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(500);
const TIMEOUT: Duration = Duration::from_millis(250);
const FALL: u32 = 3;
const RISE: u32 = 2;
/// Longest silence of a server before the next is tried.
const FIRST_BYTE: Duration = Duration::from_secs(2);
const ATTEMPTS: u32 = 3;
/// What a machine that does other things as well may add to what checks may take.
const SLACK: Duration = Duration::from_millis(800);
const STALL: Duration = Duration::from_secs(1);

fn runs() -> usize {
    if std::env::var_os("EVENKEEL_SOAK").is_some() {
        20
    } else {
        1
    }
}

/// Three servers that are checked, two workers, and a load of GETs.
struct Scene {
    victim: Nginx,
    proxy: Proxy,
    _others: [Nginx; 2],
}

/// What one run took.
#[derive(Debug, Clone, Copy)]
struct Run {
    out: Duration,
    back: Duration,
    slowest: Duration,
}

impl Scene {
    fn new(host: Host) -> Self {
        let servers = ["a", "b", "c"].map(nginx);
        let pool = ["a", "b", "c"].map(|name| (name, ""));
        let keys = "retries: 2; retry_on: [connect-failure, reset-before-response, 503]; \
                    health: {path: /health, interval: 500ms, timeout: 250ms, rise: 2, fall: 3}";
        let mut cluster = Cluster::new().workers(2);
        for server in &servers {
            cluster = cluster.server(server);
        }
        let proxy = cluster
            .top("timeouts: {connect: 1s, response: 2s}")
            .pool(keys, &pool)
            .on(host);
        let [victim, b, c] = servers;
        let scene = Self {
            victim,
            proxy,
            _others: [b, c],
        };
        scene.until_up_is(1);
        scene
    }

    /// Waits for what checks say of the victim; how long that took.
    #[track_caller]
    fn until_up_is(&self, expected: u64) -> Duration {
        let start = Instant::now();
        let target = match self.proxy.host {
            Host::Sidecar => "/metrics",
            Host::Envoy => "/stats?usedonly&filter=server_a_up$",
        };
        eventually(&format!("the victim's up is {expected}"), PATIENCE, || {
            let text = self.proxy.admin_get(target).text();
            let line = text.lines().find(|line| line.contains("server_a_up"));
            let value = line.and_then(|line| line.rsplit([' ', ':']).next()?.parse().ok());
            if value == Some(expected) {
                Ok(())
            } else {
                Err(value)
            }
        });
        start.elapsed()
    }

    fn load(&self) -> evenkeel_tests::load::Running {
        let load = Load::new(16).per_second(400).request(Request::get("/page"));
        let running = load.start(self.proxy.address);
        eventually("the load flows", PATIENCE, || {
            let answered = running.answered();
            (answered > 50).then_some(()).ok_or(answered)
        });
        running
    }
}

/// Breaks the victim and mends it, again and again: no GET may fail or take longer than `slowest_max`.
#[track_caller]
fn check(
    host: Host,
    what: &str,
    slowest_max: Duration,
    break_it: fn(&mut Nginx),
    mend_it: fn(&mut Nginx),
) {
    let mut scene = Scene::new(host);
    let mut done = Vec::new();
    for _ in 0..runs() {
        let load = scene.load();
        break_it(&mut scene.victim);
        let out = scene.until_up_is(0);
        mend_it(&mut scene.victim);
        let back = scene.until_up_is(1);
        let report = load.stop();
        hold_to(&report, slowest_max);
        let (fall, rise) = (bound(FALL), bound(RISE));
        assert!(out <= fall + SLACK, "{what}: out after {out:?}");
        assert!(back <= rise + SLACK, "{what}: back after {back:?}");
        done.push(Run {
            out,
            back,
            slowest: report.slowest,
        });
    }
    let told = |name: &str, of: fn(&Run) -> Duration| {
        let mut all: Vec<Duration> = done.iter().map(of).collect();
        all.sort_unstable();
        let (median, most) = (all[all.len() / 2], all[all.len() - 1]);
        println!(
            "{host:?}, {what}, {} runs: {name} median {median:?}, maximum {most:?}",
            all.len()
        );
    };
    told("out", |run| run.out);
    told("back", |run| run.back);
    told("slowest GET", |run| run.slowest);
}

#[track_caller]
fn hold_to(report: &Report, slowest_max: Duration) {
    report.assert_no_failure();
    assert!(report.slowest <= slowest_max, "{:?}", report.slowest);
}

/// The bound that is stated for so many checks in a row.
fn bound(checks: u32) -> Duration {
    INTERVAL * checks * 11 / 10 + TIMEOUT + Duration::from_millis(100)
}

/// The bound that is stated for a GET, whatever happens to one server.
fn get_max() -> Duration {
    FIRST_BYTE * ATTEMPTS + Duration::from_secs(1)
}

fn a_killed_server_fails_no_get(host: Host) {
    let mend = |victim: &mut Nginx| *victim = Nginx::start_at("a", victim.address());
    check(host, "killed", get_max(), Nginx::kill, mend);
}

fn a_hung_server_fails_no_get(host: Host) {
    let (hang, go_on) = (
        |victim: &mut Nginx| victim.hang(),
        |victim: &mut Nginx| victim.go_on(),
    );
    check(host, "hung", get_max(), hang, go_on);
}

fn a_server_that_answers_503_fails_no_get(host: Host) {
    let (sick, well) = (
        |victim: &mut Nginx| victim.fall_sick(),
        |victim: &mut Nginx| victim.get_well(),
    );
    check(host, "503", get_max(), sick, well);
}

/// Whoever asked it waits that long: it answers in the end, so it is not asked again elsewhere.
fn a_server_that_stalls_for_a_second_fails_no_get(host: Host) {
    let scene = Scene::new(host);
    for _ in 0..runs() {
        let load = scene.load();
        scene.victim.hang();
        load.during(STALL);
        scene.victim.go_on();
        load.during(STALL);
        hold_to(&load.stop(), STALL + Duration::from_secs(1));
    }
}
