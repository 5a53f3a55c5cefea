//! Limits of routes, counted over all workers: how often, how many at a time, and who waits for his turn.

use std::time::{Duration, Instant};

use evenkeel_tests::{
    Busy, Cluster, Connection, Host, Proxy, Request, both_hosts, busy, eventually,
};

both_hosts!(
    a_rate_holds_for_all_workers_together,
    who_is_early_waits_for_his_turn,
    only_so_many_are_in_flight_at_a_time,
);

const PATIENCE: Duration = Duration::from_secs(20);

fn before(web: &Busy, workers: usize, limits: &str, limit: &str, host: Host) -> Proxy {
    let policy = format!(
        "real_ip: {{trusted: 127.0.0.1}}\nlimits: {{{limits}}}\nroutes: [{{match: {{path_prefix: /limited}}, limit: {limit}, pool: web}}, {{pool: web}}]\npools: {{web: {{servers: [{{address: '@web'}}]}}}}"
    );
    Cluster::new()
        .workers(workers)
        .server(web)
        .policy(&policy)
        .on(host)
}

/// A request of a client, on a connection of its own: the status, and what is said of coming again.
fn ask(proxy: &Proxy, target: &str, client: &str) -> (u16, Option<String>) {
    let mut connection = Connection::open(proxy.address).unwrap();
    let request = Request::get(target).header("X-Forwarded-For", client);
    let response = connection.exchange(&request).unwrap();
    (response.status, response.header("retry-after"))
}

fn a_rate_holds_for_all_workers_together(host: Host) {
    let web = busy("web");
    let limits = "often: {rate: 1r/m, burst: 4, nodelay: true}";
    let proxy = before(&web, 3, limits, "often", host);
    for client in ["192.0.2.1", "192.0.2.2"] {
        let statuses: Vec<(u16, Option<String>)> =
            (0..20).map(|_| ask(&proxy, "/limited", client)).collect();
        let (let_in, kept_out) = statuses.split_at(5);
        assert!(
            let_in.iter().all(|(status, _)| *status == 200),
            "{statuses:?}"
        );
        for (status, retry_after) in kept_out {
            assert_eq!(*status, 429, "{statuses:?}");
            let seconds: u32 = retry_after.as_deref().unwrap().parse().unwrap();
            assert!((1..=63).contains(&seconds), "{seconds}");
        }
    }
    assert_eq!(ask(&proxy, "/", "192.0.2.1").0, 200, "no limit there");
    let limited = web
        .targets()
        .iter()
        .filter(|target| *target == "/limited")
        .count();
    assert_eq!(limited, 10);
}

fn who_is_early_waits_for_his_turn(host: Host) {
    let web = busy("web");
    let limits = "steady: {rate: 5r/s, burst: 3}";
    let proxy = before(&web, 2, limits, "[steady]", host);
    let start = Instant::now();
    let mut waited: Vec<(u16, Duration)> = std::thread::scope(|scope| {
        let ask = || {
            let (status, _) = ask(&proxy, "/limited", "192.0.2.1");
            (status, start.elapsed())
        };
        let asked: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    });
    waited.sort_by_key(|(_, elapsed)| *elapsed);
    // The first at once, the others each 200 ms after the one before, and not much earlier: the first may itself have been late.
    assert!(
        waited.iter().all(|(status, _)| *status == 200),
        "{waited:?}"
    );
    let first = waited[0].1;
    for (place, (_, elapsed)) in waited.iter().enumerate().skip(1) {
        let least = Duration::from_millis(200) * u32::try_from(place).unwrap();
        assert!(*elapsed + first >= least, "{waited:?}");
    }
    // Who goes away while he waits is forgotten.
    for _ in 0..3 {
        let mut gone = Connection::open(proxy.address).unwrap();
        let request = Request::get("/limited").header("X-Forwarded-For", "192.0.2.9");
        gone.send_bytes(&request.head_bytes()).unwrap();
    }
    assert_eq!(ask(&proxy, "/", "192.0.2.1").0, 200);
}

fn only_so_many_are_in_flight_at_a_time(host: Host) {
    let web = busy("web");
    let proxy = before(&web, 2, "few: {in_flight: 2, status: 503}", "few", host);
    let mut held: Vec<Connection> = (0..2)
        .map(|_| {
            let mut connection = Connection::open(proxy.address).unwrap();
            let request = Request::get("/limited?ms=60000").header("X-Forwarded-For", "192.0.2.1");
            connection.send_bytes(&request.head_bytes()).unwrap();
            connection
        })
        .collect();
    eventually("two in flight", PATIENCE, || {
        let now = web.now();
        (now == 2).then_some(()).ok_or(now)
    });
    for _ in 0..4 {
        let (status, retry_after) = ask(&proxy, "/limited", "192.0.2.1");
        assert_eq!((status, retry_after.as_deref()), (503, Some("1")));
        assert_eq!(
            ask(&proxy, "/limited", "192.0.2.2").0,
            200,
            "another client"
        );
    }
    // Who goes away gives his place back.
    drop(held.pop());
    eventually("a place is free", PATIENCE, || {
        let (status, _) = ask(&proxy, "/limited", "192.0.2.1");
        (status == 200).then_some(()).ok_or(status)
    });
}
