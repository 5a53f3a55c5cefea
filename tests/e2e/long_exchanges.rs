//! Exchanges that take long: a page that thinks for 45 s, events for 90 s. All at once, so that they cost 90 s once.

use std::thread;
use std::time::{Duration, Instant};

use evenkeel_tests::{Cluster, Host, Proxy, Request, php};

const THINKS_SECONDS: u64 = 45;
const EVENTS: usize = 90;

#[test]
fn slow_pages_and_event_streams_are_left_alone() {
    let mut hosts = vec![Host::Sidecar];
    if Host::Envoy.available() {
        hosts.push(Host::Envoy);
    }
    let exchanges: [fn(&Proxy); 2] = [a_page_that_thinks, a_stream_of_events];
    thread::scope(|scope| {
        for &host in &hosts {
            for exchange in exchanges {
                scope.spawn(move || {
                    // A server each: one of PHP's workers may accept two connections and serve the second after the first.
                    let shop = php("shop");
                    let cluster = Cluster::new().server(&shop);
                    exchange(&cluster.pool("", &[("shop", "")]).on(host));
                });
            }
        }
    });
}

fn a_page_that_thinks(proxy: &Proxy) {
    let start = Instant::now();
    let mut connection = proxy.connect();
    connection.patience(Duration::from_secs(70));
    connection
        .send(&Request::get(&format!("/sleep.php?s={THINKS_SECONDS}")))
        .unwrap();
    let response = connection.response("GET").unwrap();
    assert_eq!(
        (response.status, response.text().as_str()),
        (200, "slept"),
        "{:?}",
        proxy.host
    );
    assert!(start.elapsed() >= Duration::from_secs(THINKS_SECONDS));
}

/// Every event arrives when it is sent, not when the stream ends.
fn a_stream_of_events(proxy: &Proxy) {
    let start = Instant::now();
    let mut connection = proxy.connect();
    connection
        .send(&Request::get(&format!("/sse.php?n={EVENTS}")))
        .unwrap();
    let head = connection.head().unwrap();
    assert_eq!(
        head.header("content-type").as_deref(),
        Some("text/event-stream;charset=UTF-8")
    );
    let mut events = 0;
    let mut latest = Duration::ZERO;
    let mut text = String::new();
    while let Some(chunk) = connection.chunk().unwrap() {
        text.push_str(&String::from_utf8_lossy(&chunk));
        while let Some(end) = text.find("\n\n") {
            assert_eq!(
                text.drain(..end + 2).as_str(),
                format!("data: {events}\n\n")
            );
            let due = Duration::from_secs(events as u64);
            latest = latest.max(start.elapsed().saturating_sub(due));
            events += 1;
        }
    }
    assert_eq!(events, EVENTS, "{:?}", proxy.host);
    assert!(
        latest < Duration::from_secs(10),
        "{:?}: an event was {latest:?} late",
        proxy.host
    );
}
