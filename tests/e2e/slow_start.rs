//! `slow_start`: the share of a server that was down grows linearly, and that of one that was not does not.

use std::time::{Duration, Instant};

use evenkeel_tests::{Cluster, Host, Proxy, Server, both_hosts, eventually, nginx};

both_hosts!(a_server_that_was_down_gets_its_share_little_by_little);

const PATIENCE: Duration = Duration::from_secs(20);
const SLOW_START: Duration = Duration::from_secs(8);
/// When the checks say that it is back, and when the test sees that: it may begin so much earlier or later. Of later most is the
/// next tick's, some is a busy machine's.
const EARLIER: Duration = Duration::from_millis(200);
const LATER: Duration = Duration::from_millis(800);
const REQUESTS: usize = 100;

/// Percent of the requests that go to `a`.
fn share(proxy: &Proxy) -> usize {
    let names = proxy.sequence(REQUESTS);
    names.iter().filter(|name| *name == "a").count() * 100 / REQUESTS
}

/// What `a`, with a part of its weight, has beside `b`, with all of the same weight: percent.
fn expected(since: Duration) -> f64 {
    let part = (since.as_secs_f64() / SLOW_START.as_secs_f64()).min(1.0);
    100.0 * part / (1.0 + part)
}

#[track_caller]
fn is_whole(proxy: &Proxy, when: &str) {
    let share = share(proxy);
    assert!((49..=51).contains(&share), "{when}: {share} %");
}

fn a_server_that_was_down_gets_its_share_little_by_little(host: Host) {
    let (a, b) = (nginx("a"), nginx("b"));
    let keys = "health: {path: /health, interval: 200ms, timeout: 200ms, rise: 2, fall: 2}";
    let pool = [("a", "slow_start: 8s"), ("b", "")];
    let proxy = Cluster::new()
        .server(&a)
        .server(&b)
        .pool(keys, &pool)
        .on(host);
    is_whole(&proxy, "at the start");
    proxy.until_up_is(a.name(), 1);
    is_whole(&proxy, "when it was found well");
    a.fall_sick();
    proxy.until_up_is(a.name(), 0);
    eventually("a is left out", PATIENCE, || match share(&proxy) {
        0 => Ok(()),
        share => Err(share),
    });
    a.get_well();
    proxy.until_up_is(a.name(), 1);
    let back = Instant::now();
    let mut seen = Vec::new();
    // Ends: time passes.
    while back.elapsed() < SLOW_START + LATER {
        let before = back.elapsed();
        let share = share(&proxy) as f64;
        let after = back.elapsed();
        seen.push((before, share));
        let least = expected(before.saturating_sub(LATER)) - 2.0;
        let most = expected(after + EARLIER) + 2.0;
        assert!(
            (least..=most).contains(&share),
            "{least}..{most}: {seen:.1?}"
        );
    }
    let steps = seen.iter().filter(|(_, share)| (5.0..45.0).contains(share));
    assert!(
        steps.count() >= 10,
        "it was looked at too seldom: {seen:.1?}"
    );
    is_whole(&proxy, "when it is over");
    if host == Host::Sidecar {
        let generation = |proxy: &Proxy| {
            let state = proxy.admin_get("/api/state").json();
            state["config"]["generation"].as_u64().unwrap()
        };
        let before = generation(&proxy);
        proxy.reload_changed();
        eventually("it is reloaded", PATIENCE, || match generation(&proxy) {
            same if same == before => Err(same),
            _ => Ok(()),
        });
        is_whole(&proxy, "after a reload");
    }
}
