//! A filter that traps or never returns takes nobody else down.

use std::time::{Duration, Instant};

use evenkeel_tests::{Cluster, Connection, Host, Load, Proxy, Request, eventually, guests, nginx};

/// How long the poison is fed: the short form in `make test`, the long one in `make soak`.
fn time() -> Duration {
    let soak = std::env::var("EVENKEEL_SOAK").as_deref() == Ok("1");
    Duration::from_secs(if soak { 60 } else { 15 })
}

/// One bad request a second; how many there were.
fn feed(proxy: &Proxy, header: &str, statuses: &[u16], time: Duration) -> u32 {
    let start = Instant::now();
    let mut fed = 0;
    while start.elapsed() < time {
        let request = Request::get("/name").header(header, "1");
        // The bad request itself may be answered 503, or cut.
        if let Ok(response) =
            Connection::open(proxy.address).and_then(|mut new| new.exchange(&request))
        {
            assert!(
                statuses.contains(&response.status),
                "{} {}",
                response.status,
                response.text()
            );
        }
        fed += 1;
        std::thread::sleep((Duration::from_secs(1) * fed).saturating_sub(start.elapsed()));
    }
    fed
}

#[test]
fn one_poison_request_a_second_costs_the_others_nothing() {
    let (web, guest) = (nginx("web"), guests::poison());
    let cluster = Cluster::new().workers(2).server(&web).top(&guest.filters());
    let proxy = cluster.pool("", &[("web", "")]).on(Host::Sidecar);
    let load = Load::new(64).per_second(1_000).start(proxy.address);
    let fed = feed(&proxy, "x-poison", &[503], time());
    let report = load.stop();
    let all = report.answered + report.failed;
    assert!(
        u64::from(fed) * 500 < all,
        "the load was not put on: {all} requests in {:?}",
        time()
    );
    assert!(
        report.failed * 1_000 <= all,
        "{} of {all} failed: {:#?}",
        report.failed,
        report.reasons
    );
}

#[test]
fn a_poisoned_request_gets_503_and_says_why() {
    let (web, guest) = (nginx("web"), guests::poison());
    let proxy = Cluster::new()
        .server(&web)
        .top(&guest.filters())
        .pool("", &[("web", "")])
        .on(Host::Sidecar);
    let response = proxy.exchange(&Request::get("/name").header("x-poison", "1"));
    assert_eq!(response.status, 503);
    assert_eq!(
        response.header("x-evenkeel-error").as_deref(),
        Some("filter_failed")
    );
    eventually("a new VM serves", Duration::from_secs(5), || {
        match proxy.get("/name").status {
            200 => Ok(()),
            status => Err(status),
        }
    });
    eventually("the server saw it", Duration::from_secs(5), || {
        (!web.seen().is_empty()).then_some(()).ok_or("nothing")
    });
}

#[test]
fn a_response_that_has_begun_outlives_its_filter() {
    let (web, guest) = (nginx("web"), guests::poison());
    let proxy = Cluster::new()
        .server(&web)
        .top(&guest.filters())
        .pool("", &[("web", "")])
        .on(Host::Sidecar);
    let mut download = proxy.connect();
    download.send(&Request::get("/big.bin")).unwrap();
    assert_eq!(download.head().unwrap().status, 200);
    let first = download.exactly(1 << 20).unwrap();
    proxy.exchange(&Request::get("/name").header("x-poison", "1"));
    let big = web.big();
    let rest = download.exactly(big.len() - first.len()).unwrap();
    assert!([first, rest].concat() == big);
}

#[test]
fn a_filter_that_never_returns_is_interrupted() {
    let (web, guest) = (nginx("web"), guests::endless());
    let cluster = Cluster::new().workers(2).server(&web).top(&guest.filters());
    let proxy = cluster.pool("", &[("web", "")]).on(Host::Sidecar);
    let start = Instant::now();
    let response = proxy.exchange(&Request::get("/name").header("x-endless", "1"));
    assert_eq!(response.status, 503, "{}", response.text());
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    eventually("both workers serve", Duration::from_secs(10), || {
        let report = Load::new(16).requests(200).run(proxy.address);
        (report.failed == 0).then_some(()).ok_or(report.reasons)
    });
}
