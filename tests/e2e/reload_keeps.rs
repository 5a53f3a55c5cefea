//! What a reload keeps: what is in flight, who is at its bound, who failed, who is down, who has just come back.
//!
//! Only our own proxy reloads: what `evenkeel envoy` makes is read once.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use evenkeel_tests::guests::Guest;
use evenkeel_tests::{
    Cluster, Connection, Host, Load, Nginx, Proxy, Request, Server, busy, doubles, eventually,
    nginx,
};
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than others need to take a VM for dead.
const SEVERAL_TICKS: Duration = Duration::from_millis(2_500);

/// Reloads with another policy, and waits until it is in force.
#[track_caller]
fn reload(proxy: &Proxy) {
    in_force_after(proxy, Proxy::reload_changed);
}

#[track_caller]
fn in_force_after(proxy: &Proxy, act: impl Fn(&Proxy)) {
    let generation = || proxy.admin_get("/api/state").json()["config"]["generation"].as_u64();
    let before = generation();
    act(proxy);
    eventually("the new generation serves", PATIENCE, || {
        let now = generation();
        (now > before).then_some(()).ok_or(now)
    });
}

/// A request on a connection of its own, answered with this status or not at all.
fn ask(proxy: &Proxy, target: &str) -> JoinHandle<u16> {
    let (address, target) = (proxy.address, target.to_owned());
    std::thread::spawn(move || {
        let mut connection = Connection::open(address).unwrap();
        connection
            .get(&target)
            .map_or(0, |response| response.status)
    })
}

/// What happens again and again for some time.
#[track_caller]
fn throughout(time: Duration, mut look: impl FnMut()) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        look();
    }
}

#[test]
fn a_bound_holds_through_reloads_for_as_long_as_requests_take() {
    let web = busy("web");
    let proxy = Cluster::new()
        .workers(2)
        .server(&web)
        .pool("", &[("web", "max_conns: 3")])
        .on(Host::Sidecar);
    let mut tunnel = proxy.connect();
    let upgrade = Request::get("/ws")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket");
    tunnel.send(&upgrade).unwrap();
    let held = [(); 2].map(|()| ask(&proxy, "/?ms=12000"));
    eventually("three at once", PATIENCE, || {
        (web.now() == 3).then_some(()).ok_or(web.now())
    });
    for _ in 0..3 {
        reload(&proxy);
        throughout(SEVERAL_TICKS, || {
            let status = proxy.get("/?ms=0").status;
            assert_eq!(status, 503);
        });
    }
    assert_eq!((web.now(), web.most()), (3, 3));
    for held in held {
        assert_eq!(held.join().unwrap(), 200);
    }
    drop(tunnel);
    eventually("all three places are free", PATIENCE, || {
        let held = [(); 3].map(|()| ask(&proxy, "/?ms=500"));
        let statuses = held.map(|held| held.join().unwrap());
        (statuses == [200; 3]).then_some(()).ok_or(statuses)
    });
    assert_eq!(web.most(), 3);
}

#[test]
fn a_bound_holds_in_a_storm_of_reloads() {
    let (a, b) = (busy("a"), busy("b"));
    let proxy = Cluster::new()
        .workers(2)
        .server(&a)
        .server(&b)
        .pool(
            "queue: {length: 1000, timeout: 20s}",
            &[("a", "max_conns: 4"), ("b", "max_conns: 2")],
        )
        .on(Host::Sidecar);
    let request = Request::get("/?ms=40");
    let load = Load::new(16).request(request).start(proxy.address);
    for _ in 0..12 {
        reload(&proxy);
        load.during(Duration::from_millis(150));
    }
    load.stop().assert_no_failure();
    assert_eq!((a.most(), b.most()), (4, 2));
    assert_eq!((a.now(), b.now()), (0, 0));
}

#[test]
fn requests_in_flight_count_for_the_new_configuration() {
    let (a, b) = (busy("a"), busy("b"));
    let cluster = Cluster::new().server(&a).server(&b);
    let mut proxy = cluster
        .pool("balance: least_conn", &[("a", "")])
        .on(Host::Sidecar);
    let mut held: Vec<_> = (0..4).map(|_| ask(&proxy, "/?ms=6000")).collect();
    eventually("four at once", PATIENCE, || {
        (a.now() == 4).then_some(()).ok_or(a.now())
    });
    proxy.rewrite(|before| {
        let pool = [("a", ""), ("b", "")];
        before.policy("").pool("balance: least_conn", &pool)
    });
    reload(&proxy);
    for at in 1..=4 {
        held.push(ask(&proxy, "/?ms=4000"));
        eventually("the idle one is preferred", PATIENCE, || {
            (b.now() == at).then_some(()).ok_or(b.now())
        });
    }
    assert_eq!((a.now(), b.now()), (4, 4));
    for held in held {
        assert_eq!(held.join().unwrap(), 200);
    }
    // At rest everything is 0 again: turns are taken.
    eventually("both are equally idle", PATIENCE, || {
        let mut names = proxy.sequence(4);
        names.sort();
        (names == ["a", "a", "b", "b"]).then_some(()).ok_or(names)
    });
}

#[test]
fn who_was_left_out_for_failures_stays_left_out() {
    let (a, b) = (doubles::hangs_up("a"), nginx("b"));
    let pool = [("a", "max_fails: 1, fail_timeout: 60s"), ("b", "")];
    let cluster = Cluster::new().server(&a).server(&b);
    let proxy = cluster.pool("retries: 1", &pool).on(Host::Sidecar);
    assert_eq!(proxy.sequence(4), ["b"; 4]);
    let seen = a.requests().len();
    assert_eq!(seen, 1);
    for _ in 0..3 {
        reload(&proxy);
        assert_eq!(proxy.sequence(6), ["b"; 6]);
    }
    assert_eq!(a.requests().len(), seen);
}

const CHECKS: &str =
    "health: {path: /health, interval: 300ms, timeout: 250ms, rise: 2, fall: 2}; retries: 0";

#[test]
fn who_is_down_stays_down_without_a_request_lost() {
    let (mut a, b) = (nginx("a"), nginx("b"));
    let pool = [("a", "max_fails: 0"), ("b", "max_fails: 0")];
    let cluster = Cluster::new().workers(2).server(&a).server(&b);
    let proxy = cluster.pool(CHECKS, &pool).on(Host::Sidecar);
    proxy.until_up_is("a", 1);
    a.kill();
    proxy.until_up_is("a", 0);
    eventually("both workers know", PATIENCE, || {
        let all_well = (0..16).all(|_| proxy.get("/name").status == 200);
        all_well.then_some(()).ok_or(())
    });
    // Without retries: one request to `a` would fail.
    let load = Load::new(8).per_second(400).start(proxy.address);
    for _ in 0..5 {
        reload(&proxy);
        load.during(Duration::from_millis(400));
    }
    let report = load.stop();
    report.assert_no_failure();
    assert!(report.answered > 100, "{report:?}");
    let lines = proxy.child.output();
    let told = lines.matches("pool web: server a is down: ").count();
    assert_eq!(told, 1, "{lines}");
    let _a = Nginx::start_at("a", a.address());
    proxy.until_up_is("a", 1);
}

#[test]
fn a_slow_start_is_neither_begun_anew_nor_cut_short() {
    let (mut a, b) = (nginx("a"), nginx("b"));
    let pool = [
        ("a", "max_fails: 0, slow_start: 60s"),
        ("b", "max_fails: 0"),
    ];
    let cluster = Cluster::new().server(&a).server(&b);
    let proxy = cluster.pool(CHECKS, &pool).on(Host::Sidecar);
    proxy.until_up_is("a", 1);
    // Who was never down starts with all of its weight, after a reload as before.
    let share = |proxy: &Proxy| {
        let names = proxy.sequence(200);
        names.iter().filter(|name| *name == "a").count()
    };
    reload(&proxy);
    assert_eq!(share(&proxy), 100);
    a.kill();
    proxy.until_up_is("a", 0);
    let a = Nginx::start_at("a", a.address());
    proxy.until_up_is("a", 1);
    let risen = Instant::now();
    eventually("it has a small share", PATIENCE, || {
        let share = share(&proxy);
        (share > 0 && share < 50).then_some(()).ok_or(share)
    });
    eventually("its share grows", PATIENCE, || {
        let share = share(&proxy);
        (share >= 40).then_some(()).ok_or(share)
    });
    let before = share(&proxy);
    reload(&proxy);
    let after = share(&proxy);
    assert!(
        risen.elapsed() < Duration::from_secs(50),
        "too slow to tell"
    );
    assert!(
        after + 5 >= before && after < 100,
        "{before} of 200 became {after}"
    );
    drop(a);
}

#[test]
fn a_filter_that_dies_of_its_new_configuration_does_so_where_nobody_is_served() {
    let web = busy("web");
    let guest = Guest::from_text(
        r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_context_create") (param i32 i32))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 0))
        (func (export "proxy_on_configure") (param i32) (param $size i32) (result i32)
          (if (local.get $size) (then unreachable)) (i32.const 1)))"#,
    );
    let path = guest.path();
    let filters = format!(
        "filters: [{{path: '{}', configuration: ''}}]",
        path.display()
    );
    let cluster = Cluster::new().workers(2).server(&web).top(&filters);
    let proxy = cluster.pool("", &[("web", "")]).on(Host::Sidecar);
    let held = [(); 4].map(|()| ask(&proxy, "/?ms=2500"));
    eventually("four at once", PATIENCE, || {
        (web.now() == 4).then_some(()).ok_or(web.now())
    });
    let file = proxy.directory.path().join("evenkeel.yaml");
    let good = std::fs::read_to_string(&file).unwrap();
    let bad = good.replace("configuration: ''", "configuration: 'die'");
    assert_ne!(good, bad);
    std::fs::write(&file, bad).unwrap();
    proxy.signal(Signal::HUP);
    eventually("the reload is refused", PATIENCE, || {
        let failed = proxy.metric("evenkeel_reloads_failed_total");
        (failed == Some(1)).then_some(()).ok_or(failed)
    });
    assert_eq!(proxy.metric("evenkeel_filter_failures_total"), Some(0));
    for held in held {
        assert_eq!(held.join().unwrap(), 200);
    }
    std::fs::write(&file, good).unwrap();
    reload(&proxy);
    assert_eq!(proxy.get("/?ms=0").status, 200);
}

#[test]
fn a_filter_whose_configuration_is_the_same_goes_on() {
    let web = nginx("web");
    let proxy = Cluster::new()
        .workers(2)
        .server(&web)
        .pool("", &[("web", "")])
        .on(Host::Sidecar);
    let configured = || proxy.metric("evenkeel_configurations_total");
    eventually("both workers are configured", PATIENCE, || {
        (configured() == Some(2)).then_some(()).ok_or(configured())
    });
    for _ in 0..3 {
        in_force_after(&proxy, |proxy| proxy.signal(Signal::HUP));
        assert_eq!(proxy.get("/").status, 200);
    }
    assert_eq!(configured(), Some(2));
    reload(&proxy);
    assert_eq!(proxy.get("/").status, 200);
    // Both workers, and whoever tried it out.
    assert!(configured() > Some(3), "{:?}", configured());
}
