//! SIGTERM: nothing that has begun is lost, nothing new is taken, and a second one ends it now.

use std::time::{Duration, Instant};

use evenkeel_tests::{Cluster, Connection, Host, Load, Request, eventually, nginx, php};
use rustix::process::Signal;

#[test]
fn draining_loses_nothing_that_has_begun() {
    let (web, shop) = (nginx("web"), php("shop"));
    let policy = "\
routes: [{match: {path: /sleep.php}, pool: shop}, {pool: web}]
pools: {web: {servers: [{address: '@web'}]}, shop: {servers: [{address: '@shop'}]}}";
    let mut proxy = Cluster::new()
        .workers(2)
        .server(&web)
        .server(&shop)
        .policy(policy)
        .on(Host::Sidecar);
    let mut idle = proxy.connect();
    assert_eq!(idle.get("/name").unwrap().status, 200);
    let mut slow: Vec<Connection> = (0..4).map(|_| proxy.connect()).collect();
    for connection in &mut slow {
        connection.send(&Request::get("/sleep.php?s=3")).unwrap();
    }
    let mut download = proxy.connect();
    download.send(&Request::get("/big.bin")).unwrap();
    assert_eq!(download.head().unwrap().status, 200);
    proxy.signal(Signal::TERM);
    eventually(
        "new connections are not taken",
        Duration::from_secs(5),
        || {
            let refused = Connection::open(proxy.address).and_then(|mut new| new.get("/name"));
            refused.is_err().then_some(()).ok_or("still served")
        },
    );
    assert!(
        idle.is_closed_within(Duration::from_secs(5)),
        "an idle connection is kept while draining"
    );
    let big = web.big();
    assert!(download.exactly(big.len()).unwrap() == big);
    for connection in &mut slow {
        let response = connection.response("GET").unwrap();
        assert_eq!((response.status, response.text().as_str()), (200, "slept"));
        assert!(response.closes(), "{response:?}");
    }
    let start = Instant::now();
    assert_eq!(proxy.wait(Duration::from_secs(20)).code(), Some(0));
    assert!(
        start.elapsed() < Duration::from_secs(15),
        "it waited for nothing: {:?}",
        start.elapsed()
    );
}

/// A client whose connection is told to close after the answer opens no new one here; it must have had every answer.
#[test]
fn draining_under_load_answers_every_request_it_took() {
    let web = nginx("web");
    let mut proxy = Cluster::new()
        .workers(2)
        .server(&web)
        .pool("", &[("web", "")])
        .on(Host::Sidecar);
    let load = Load::new(32).start(proxy.address);
    eventually("the load flows", Duration::from_secs(20), || {
        (load.answered() > 1_000).then_some(()).ok_or(())
    });
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.wait(Duration::from_secs(40)).code(), Some(0));
    let report = load.stop();
    // After the end every new connection is refused. One whose handshake ends between the last look into the queue and
    // the close of the socket is reset by the kernel; nobody had taken it. Nothing else may be cut.
    let is_cut = |reason: &&String| {
        let not_taken = reason.contains("refused")
            || reason.contains("reset by peer") && reason.contains("a new connection");
        !not_taken
    };
    let cut: Vec<_> = report.reasons.iter().filter(is_cut).collect();
    assert!(cut.is_empty(), "{cut:#?}");
}

#[test]
fn a_second_term_ends_it_now() {
    let shop = php("shop");
    let mut proxy = Cluster::new()
        .server(&shop)
        .pool("", &[("shop", "")])
        .on(Host::Sidecar);
    let mut slow = proxy.connect();
    slow.send(&Request::get("/sleep.php?s=20")).unwrap();
    eventually("the request is under way", Duration::from_secs(5), || {
        proxy.signal(Signal::TERM);
        Connection::open(proxy.address)
            .is_err()
            .then_some(())
            .ok_or("still listening")
    });
    proxy.signal(Signal::TERM);
    proxy.wait(Duration::from_secs(5));
}

#[test]
fn draining_ends_after_its_time_whatever_is_open() {
    let shop = php("shop");
    let cluster = Cluster::new().server(&shop).top("timeouts: {drain: 2s}");
    let mut proxy = cluster.pool("", &[("shop", "")]).on(Host::Sidecar);
    let mut slow = proxy.connect();
    slow.send(&Request::get("/sse.php?n=60")).unwrap();
    assert_eq!(slow.head().unwrap().status, 200);
    proxy.signal(Signal::TERM);
    proxy.wait(Duration::from_secs(10));
}
