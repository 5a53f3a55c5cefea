//! `max_conns` over all workers, and those who wait: what the servers themselves counted is what counts.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use evenkeel_tests::{
    Busy, Cluster, Connection, Host, Load, Proxy, Request, Response, both_hosts, busy, eventually,
    guests, nginx,
};

both_hosts!(
    servers_never_have_more_than_they_take,
    one_too_many_is_told_to_come_again,
    who_waits_is_served_in_order,
    who_waits_for_too_long_is_told_so,
    only_so_many_may_wait,
    who_goes_away_leaves_the_line,
    workers_take_turns_by_who_has_waited_longest,
    all_places_are_free_after_a_storm,
    only_servers_without_a_bound_stand_by,
    a_killed_server_costs_no_get_while_others_have_room,
    bounds_hold_in_a_storm_of_failures,
);

const PATIENCE: Duration = Duration::from_secs(20);

/// A proxy before one server.
fn before(web: &Busy, workers: usize, max_conns: usize, keys: &str, host: Host) -> Proxy {
    Cluster::new()
        .workers(workers)
        .server(web)
        .pool(keys, &[("web", &format!("max_conns: {max_conns}"))])
        .on(host)
}

/// A request on a connection of its own, and how long its answer took.
fn ask(proxy: &Proxy, target: &str) -> JoinHandle<(Response, Duration)> {
    let (address, target) = (proxy.address, target.to_owned());
    std::thread::spawn(move || {
        let start = Instant::now();
        let mut connection = Connection::open(address).unwrap();
        let response = connection.get(&target);
        let response = response.unwrap_or_else(|error| panic!("{target}: {error}"));
        (response, start.elapsed())
    })
}

#[track_caller]
fn has(web: &Busy, count: usize) {
    eventually(&format!("{count} requests at once"), PATIENCE, || {
        let now = web.now();
        (now == count).then_some(()).ok_or(now)
    });
}

/// A metric of the filter.
fn metric(proxy: &Proxy, name: &str) -> Option<u64> {
    let path = match proxy.host {
        Host::Sidecar => "/metrics",
        Host::Envoy => "/stats/prometheus",
    };
    let text = proxy.admin_get(path).text();
    let line = text.lines().find(|line| {
        let metric = line.split([' ', '{']).next().unwrap_or_default();
        !line.starts_with('#') && metric.ends_with(name)
    });
    line?.rsplit(' ').next()?.parse().ok()
}

#[track_caller]
fn waiting(proxy: &Proxy, count: u64) {
    eventually(&format!("{count} wait"), PATIENCE, || {
        let length = metric(proxy, "evenkeel_pool_web_queue_length").unwrap_or(0);
        (length == count).then_some(()).ok_or(length)
    });
}

#[track_caller]
fn turned_away(response: &Response, why: &str) {
    let said = response.header("x-evenkeel-error");
    assert_eq!((response.status, said.as_deref()), (503, Some(why)));
    assert!(response.header("retry-after").is_some());
}

/// Exactly so many requests are served at once, and not one more.
#[track_caller]
fn takes_exactly(proxy: &Proxy, web: &Busy, count: usize) {
    has(web, 0);
    let held: Vec<_> = (0..count).map(|_| ask(proxy, "/?ms=1500")).collect();
    has(web, count);
    let more = ask(proxy, "/?ms=0");
    for held in held {
        assert_eq!(held.join().unwrap().0.status, 200);
    }
    let (more, _) = more.join().unwrap();
    assert!(matches!(more.status, 200 | 503), "{}", more.status);
    assert!(web.most() <= count, "{} of {count}", web.most());
}

fn servers_never_have_more_than_they_take(host: Host) {
    let (a, b) = (busy("a"), busy("b"));
    let proxy = Cluster::new()
        .workers(4)
        .server(&a)
        .server(&b)
        .pool(
            "queue: {length: 1000, timeout: 30s}",
            &[("a", "max_conns: 3"), ("b", "max_conns: 2, weight: 3")],
        )
        .on(host);
    let load = Load::new(60).requests(3_000);
    let report = load.request(Request::get("/?ms=5")).run(proxy.address);
    report.assert_no_failure();
    assert_eq!((a.most(), b.most()), (3, 2));
    assert_eq!(a.targets().len() + b.targets().len(), 3_000);
    assert_eq!((a.now(), b.now()), (0, 0));
    waiting(&proxy, 0);
}

fn one_too_many_is_told_to_come_again(host: Host) {
    let web = busy("web");
    let proxy = before(&web, 2, 2, "", host);
    let held = [ask(&proxy, "/?ms=1500"), ask(&proxy, "/?ms=1500")];
    has(&web, 2);
    turned_away(&proxy.get("/?ms=0"), "max_conns");
    for held in held {
        assert_eq!(held.join().unwrap().0.status, 200);
    }
    eventually("there is room again", PATIENCE, || {
        match proxy.get("/").status {
            200 => Ok(()),
            status => Err(status),
        }
    });
    assert_eq!(web.most(), 2);
}

fn who_waits_is_served_in_order(host: Host) {
    let web = busy("web");
    let proxy = before(&web, 1, 1, "queue: {length: 10, timeout: 30s}", host);
    let mut asked = vec![ask(&proxy, "/first?ms=4000")];
    has(&web, 1);
    for at in 0..6 {
        asked.push(ask(&proxy, &format!("/{at}?ms=10")));
        waiting(&proxy, at + 1);
    }
    let mut longest = Duration::ZERO;
    for asked in asked {
        let (response, time) = asked.join().unwrap();
        assert_eq!(response.status, 200);
        longest = longest.max(time);
    }
    let expected: Vec<_> = (0..6).map(|at| format!("/{at}?ms=10")).collect();
    assert_eq!(web.targets()[1..], expected);
    assert_eq!(web.most(), 1);
    // By messages, not by ticks: those would be 250 ms for each of them.
    assert!(longest < Duration::from_millis(5_200), "{longest:?}");
    waiting(&proxy, 0);
    assert_eq!(metric(&proxy, "evenkeel_pool_web_waited_total"), Some(6));
}

fn who_waits_for_too_long_is_told_so(host: Host) {
    let web = busy("web");
    let proxy = before(&web, 2, 1, "queue: {length: 10, timeout: 1s}", host);
    let held = ask(&proxy, "/?ms=3000");
    has(&web, 1);
    for asked in [(); 3].map(|()| ask(&proxy, "/late?ms=0")) {
        let (response, time) = asked.join().unwrap();
        turned_away(&response, "queue_timeout");
        let within = Duration::from_secs(1)..Duration::from_millis(1_700);
        assert!(within.contains(&time), "{time:?}");
    }
    assert_eq!(held.join().unwrap().0.status, 200);
    assert_eq!(web.targets().len(), 1);
    waiting(&proxy, 0);
    assert_eq!(
        metric(&proxy, "evenkeel_pool_web_queue_timeouts_total"),
        Some(3)
    );
    if host == Host::Sidecar {
        let late = proxy.access_log();
        let late = late.iter().filter(|line| line.contains("queue_timeout"));
        assert_eq!(late.count(), 3);
    }
}

fn only_so_many_may_wait(host: Host) {
    let web = busy("web");
    let proxy = before(&web, 4, 1, "queue: {length: 3, timeout: 30s}", host);
    let held = ask(&proxy, "/?ms=2500");
    has(&web, 1);
    let line = [(); 3].map(|()| ask(&proxy, "/?ms=10"));
    waiting(&proxy, 3);
    for _ in 0..8 {
        turned_away(&proxy.get("/?ms=0"), "queue_full");
    }
    for asked in line.into_iter().chain([held]) {
        assert_eq!(asked.join().unwrap().0.status, 200);
    }
    assert_eq!(web.most(), 1);
}

fn who_goes_away_leaves_the_line(host: Host) {
    let web = busy("web");
    let proxy = before(&web, 2, 1, "queue: {length: 2, timeout: 30s}", host);
    let held = ask(&proxy, "/held?ms=3000");
    has(&web, 1);
    let gone = [(); 2].map(|()| {
        let mut connection = proxy.connect();
        connection.send(&Request::get("/gone?ms=10")).unwrap();
        connection
    });
    waiting(&proxy, 2);
    drop(gone);
    waiting(&proxy, 0);
    let stays = ask(&proxy, "/stays?ms=10");
    assert_eq!(held.join().unwrap().0.status, 200);
    assert_eq!(stays.join().unwrap().0.status, 200);
    assert_eq!(web.targets(), ["/held?ms=3000", "/stays?ms=10"]);
}

fn workers_take_turns_by_who_has_waited_longest(host: Host) {
    let web = busy("web");
    let proxy = before(&web, 4, 2, "queue: {length: 100, timeout: 60s}", host);
    let held = [ask(&proxy, "/?ms=2500"), ask(&proxy, "/?ms=2500")];
    has(&web, 2);
    // Twelve that came earlier, then twelve that came later, over all workers.
    let early: Vec<_> = (0..12).map(|_| ask(&proxy, "/early?ms=40")).collect();
    waiting(&proxy, 12);
    let late: Vec<_> = (0..12).map(|_| ask(&proxy, "/late?ms=40")).collect();
    waiting(&proxy, 24);
    for asked in early.into_iter().chain(late).chain(held) {
        assert_eq!(asked.join().unwrap().0.status, 200);
    }
    let order = web.targets();
    let is_late = |target: &String| target.starts_with("/late");
    let overtook = order[2..14].iter().filter(|target| is_late(target)).count();
    assert!(
        overtook <= 2,
        "{overtook} came before their turn: {order:?}"
    );
    assert_eq!(web.most(), 2);
}

fn all_places_are_free_after_a_storm(host: Host) {
    let (web, guest) = (busy("web"), guests::poison());
    let mut cluster = Cluster::new().workers(2).server(&web);
    if host == Host::Sidecar {
        cluster = cluster.top(&guest.filters());
    }
    let pool = [("web", "max_conns: 4")];
    let proxy = cluster
        .pool("queue: {length: 100, timeout: 300ms}", &pool)
        .on(host);
    let load = Load::new(8)
        .request(Request::get("/?ms=3"))
        .start(proxy.address);
    for round in 0..12 {
        let gone: Vec<Connection> = (0..6)
            .map(|at| {
                let mut connection = proxy.connect();
                let request = match at {
                    0 => Request::get("/?ms=20000"),
                    1 => Request::get("/ws")
                        .header("Connection", "Upgrade")
                        .header("Upgrade", "websocket"),
                    2 => Request::get("/reset?ms=1"),
                    3 => Request::get("/?ms=20000").header("X-Poison", "1"),
                    _ => Request::get("/?ms=30"),
                };
                connection.send(&request).unwrap();
                connection
            })
            .collect();
        if round % 4 == 1 && host == Host::Sidecar {
            proxy.reload_changed();
        }
        load.during(Duration::from_millis(120));
        drop(gone);
    }
    let report = load.stop();
    assert!(report.answered > 20, "{report:?}");
    has(&web, 0);
    waiting(&proxy, 0);
    // Not what it counted so far: a server learns a little later than the proxy that a client went away.
    web.forget();
    eventually("all places are free", PATIENCE, || {
        has(&web, 0);
        let held: Vec<_> = (0..4).map(|_| ask(&proxy, "/?ms=700")).collect();
        let statuses: Vec<_> = held
            .into_iter()
            .map(|held| held.join().unwrap().0.status)
            .collect();
        (statuses == [200; 4]).then_some(()).ok_or(statuses)
    });
    takes_exactly(&proxy, &web, 4);
}

#[test]
fn a_reload_forgets_nobody_who_waits() {
    let web = busy("web");
    let keys = "queue: {length: 10, timeout: 4s}";
    let proxy = before(&web, 2, 1, keys, Host::Sidecar);
    let held = ask(&proxy, "/?ms=2500");
    has(&web, 1);
    let line = [(); 4].map(|()| ask(&proxy, "/?ms=10"));
    waiting(&proxy, 4);
    proxy.reload_changed();
    for asked in line.into_iter().chain([held]) {
        let (response, time) = asked.join().unwrap();
        assert_eq!(response.status, 200);
        assert!(time < Duration::from_secs(4), "{time:?}");
    }
    assert_eq!(web.most(), 1);
}

fn only_servers_without_a_bound_stand_by(host: Host) {
    let (small, other, large) = (busy("small"), busy("other"), busy("large"));
    let proxy = Cluster::new()
        .server(&small)
        .server(&other)
        .server(&large)
        .pool(
            "retries: 2",
            &[
                ("small", "max_conns: 1"),
                ("other", "max_conns: 1"),
                ("large", ""),
            ],
        )
        .on(host);
    for _ in 0..6 {
        proxy.get("/reset?ms=0");
    }
    assert_eq!((small.most(), other.most()), (1, 1));
    // Whoever fails is left out for a while; while all are, all are tried.
    assert!(large.targets().len() >= 3, "{:?}", large.targets());
}

fn a_killed_server_costs_no_get_while_others_have_room(host: Host) {
    let (mut a, b, c) = (nginx("a"), nginx("b"), nginx("c"));
    let keys = "max_conns: 30, fail_timeout: 1s";
    let proxy = Cluster::new()
        .workers(2)
        .server(&a)
        .server(&b)
        .server(&c)
        .pool("retries: 1", &[("a", keys), ("b", keys), ("c", keys)])
        .on(host);
    let load = Load::new(8).per_second(400).start(proxy.address);
    load.during(Duration::from_millis(500));
    a.kill();
    // Banned, and probed when that is over, again and again.
    load.during(Duration::from_secs(4));
    let report = load.stop();
    report.assert_no_failure();
    assert!(report.by_server.len() == 3, "{report:?}");
}

fn bounds_hold_in_a_storm_of_failures(host: Host) {
    let (a, b) = (busy("a"), busy("b"));
    let proxy = Cluster::new()
        .workers(2)
        .server(&a)
        .server(&b)
        .pool(
            "retries: 1; queue: {length: 1000, timeout: 30s}",
            &[
                ("a", "max_conns: 6, max_fails: 0"),
                ("b", "max_conns: 4, max_fails: 0"),
            ],
        )
        .on(host);
    // With all that room, who fails is tried elsewhere.
    for _ in 0..4 {
        proxy.get("/reset?ms=0");
    }
    assert_eq!((a.targets().len(), b.targets().len()), (4, 4));
    let good = Load::new(3).request(Request::get("/?ms=4"));
    let good = good.start(proxy.address);
    for clients in [1, 3, 12] {
        let bad = Load::new(clients).request(Request::get("/reset?ms=4"));
        let bad = bad.start(proxy.address);
        good.during(Duration::from_millis(1_200));
        bad.stop();
    }
    good.stop().assert_no_failure();
    assert!(a.most() <= 6 && b.most() <= 4, "{} {}", a.most(), b.most());
    a.forget();
    b.forget();
    eventually("no place is lost", PATIENCE, || {
        let full = Load::new(24).request(Request::get("/?ms=20"));
        full.requests(400).run(proxy.address).assert_no_failure();
        let most = (a.most(), b.most());
        (most == (6, 4)).then_some(()).ok_or(most)
    });
    assert_eq!((a.now(), b.now()), (0, 0));
}
