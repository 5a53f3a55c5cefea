//! One server at a time killed, hung, slow or answering 503, under load: nobody's GET fails, none takes longer than it may, and
//! checks take the server out and back in time.
//!
//! The long form (`EVENKEEL_SOAK`) does each 20 times, the short one once. Both print the median, the maximum, and how many took longer than
//! the bound that is stated. What the proxy needs is the median: that has to be within the bound. Not all of a single run is the
//! proxy's (a server that gets no CPU for [`TIMEOUT`] has failed a check), so that a maximum has [`SLACK`] on top.

use std::time::Duration;

use evenkeel_tests::{
    Busy, Cluster, Host, Load, Nginx, Proxy, Report, Request, Server, both_hosts, busy, eventually,
    nginx,
};

both_hosts!(
    a_killed_server_fails_no_get,
    a_hung_server_fails_no_get,
    a_slow_server_fails_no_get,
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
/// What a machine that does other things as well may add to what checks may take: no bound that is stated has it.
const SLACK: Duration = Duration::from_millis(800);
const SLOW: Duration = Duration::from_secs(1);
/// How long a broken server stays so once it is out: whoever was sent to it before must have gone elsewhere by then.
const BROKEN: Duration = FIRST_BYTE;

fn runs() -> usize {
    if std::env::var_os("EVENKEEL_SOAK").is_some() {
        20
    } else {
        1
    }
}

/// The bound that is stated for so many checks in a row.
fn checks_max(count: u32) -> Duration {
    INTERVAL * count * 11 / 10 + TIMEOUT + Duration::from_millis(100)
}

/// The bound that is stated for a GET, whatever happens to one server.
fn get_max() -> Duration {
    FIRST_BYTE * ATTEMPTS + Duration::from_secs(1)
}

/// A server that breaks, and how.
struct Fault<V> {
    name: &'static str,
    break_it: fn(&mut V),
    mend_it: fn(&mut V),
    /// What the slowest GET takes at least, if this is what it says, and at most.
    slowest: (Duration, Duration),
}

/// Three servers that are checked, two workers, and a load of GETs. Without `max_fails`: nothing but checks takes a server out, and the
/// next run finds nobody banned for what the last one did.
struct Scene<V> {
    victim: V,
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

impl<V: Server> Scene<V> {
    fn new(host: Host, victim: V) -> Self {
        let others = ["b", "c"].map(nginx);
        let keys = "retries: 2; retry_on: [connect-failure, reset-before-response, 503]; \
                    health: {path: /health, interval: 500ms, timeout: 250ms, rise: 2, fall: 3}";
        let mut cluster = Cluster::new().workers(2).server(&victim);
        for server in &others {
            cluster = cluster.server(server);
        }
        let proxy = cluster
            .top("timeouts: {connect: 1s, response: 2s}")
            .pool(keys, &["a", "b", "c"].map(|name| (name, "max_fails: 0")))
            .on(host);
        proxy.until_up_is("a", 1);
        Self {
            victim,
            proxy,
            _others: others,
        }
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

    #[track_caller]
    fn run(&mut self, fault: &Fault<V>) -> Run {
        let load = self.load();
        (fault.break_it)(&mut self.victim);
        let out = self.proxy.until_up_is("a", 0);
        load.during(BROKEN);
        (fault.mend_it)(&mut self.victim);
        let back = self.proxy.until_up_is("a", 1);
        let report = load.stop();
        self.hold_to(&report, fault);
        Run {
            out,
            back,
            slowest: report.slowest,
        }
    }

    #[track_caller]
    fn hold_to(&self, report: &Report, fault: &Fault<V>) {
        report.assert_no_failure();
        let (least, most) = fault.slowest;
        let slowest = report.slowest;
        assert!(slowest >= least, "{slowest:?}: nobody was sent to it");
        assert!(slowest <= most, "{slowest:?}");
    }
}

/// Breaks the victim and mends it, again and again: no GET may fail or take longer than it may.
#[track_caller]
fn check<V: Server>(host: Host, victim: V, fault: &Fault<V>) {
    let mut scene = Scene::new(host, victim);
    let done: Vec<Run> = (0..runs()).map(|_| scene.run(fault)).collect();
    let told = |what: &str, bound: Duration, of: fn(&Run) -> Duration| {
        let mut all: Vec<Duration> = done.iter().map(of).collect();
        all.sort_unstable();
        let (median, most) = (all[all.len() / 2], all[all.len() - 1]);
        let over = all.iter().filter(|took| **took > bound).count();
        println!(
            "{host:?}, {}, {} runs: {what} median {median:.2?}, maximum {most:.2?}; bound {bound:.2?}, {over} over it",
            fault.name,
            all.len()
        );
        (median, most)
    };
    let out = told("out", checks_max(FALL), |run| run.out);
    let back = told("back", checks_max(RISE), |run| run.back);
    told("slowest GET", fault.slowest.1, |run| run.slowest);
    for ((median, most), checks) in [(out, FALL), (back, RISE)] {
        assert!(most <= checks_max(checks) + SLACK, "{most:?}: {done:#?}");
        let is_median = done.len() > 1;
        assert!(
            !is_median || median <= checks_max(checks),
            "{median:?}: {done:#?}"
        );
    }
}

fn a_killed_server_fails_no_get(host: Host) {
    let fault = Fault {
        name: "killed",
        break_it: Nginx::kill,
        mend_it: |victim| *victim = Nginx::start_at("a", victim.address()),
        slowest: (Duration::ZERO, get_max()),
    };
    check(host, nginx("a"), &fault);
}

fn a_hung_server_fails_no_get(host: Host) {
    let fault = Fault {
        name: "hung",
        break_it: |victim: &mut Nginx| victim.hang(),
        mend_it: |victim| victim.go_on(),
        slowest: (FIRST_BYTE, get_max()),
    };
    check(host, nginx("a"), &fault);
}

fn a_server_that_answers_503_fails_no_get(host: Host) {
    let fault = Fault {
        name: "503",
        break_it: |victim: &mut Nginx| victim.fall_sick(),
        mend_it: |victim| victim.get_well(),
        slowest: (Duration::ZERO, get_max()),
    };
    check(host, nginx("a"), &fault);
}

/// Whoever asked it waits that long: it answers in the end, so it is not asked again elsewhere.
fn a_slow_server_fails_no_get(host: Host) {
    let fault = Fault {
        name: "slow (1 s)",
        break_it: |victim: &mut Busy| victim.slow_down(SLOW),
        mend_it: |victim| victim.slow_down(Duration::ZERO),
        slowest: (SLOW, SLOW + Duration::from_secs(1)),
    };
    check(host, busy("a"), &fault);
}
