//! `panic_below`: when too few servers are well for what there is to do, all are used.

use std::time::Duration;

use evenkeel_tests::{Cluster, Host, Proxy, Server, both_hosts, eventually, nginx};

both_hosts!(fewer_well_than_stated_and_all_are_used);

const PATIENCE: Duration = Duration::from_secs(20);

/// Exactly these answer. Whoever is sick answers requests all the same here: only the path of checks fails.
#[track_caller]
fn used(proxy: &Proxy, names: &[&str]) {
    eventually(&format!("{names:?} answer"), PATIENCE, || {
        let mut answered = proxy.sequence(4 * names.len());
        answered.sort();
        answered.dedup();
        (answered == names).then_some(()).ok_or(answered)
    });
}

fn fewer_well_than_stated_and_all_are_used(host: Host) {
    let servers = ["a", "b", "c", "d"].map(nginx);
    let mut cluster = Cluster::new();
    for server in &servers {
        cluster = cluster.server(server);
    }
    let keys = "panic_below: 50; health: {path: /health, interval: 200ms, timeout: 200ms, rise: 2, fall: 2}";
    let pool = servers.each_ref().map(|server| (server.name(), ""));
    let proxy = cluster.pool(keys, &pool).on(host);
    used(&proxy, &["a", "b", "c", "d"]);
    // How many of four are sick, and who is used then: half is not fewer than half.
    let rows: [(usize, &[&str]); 6] = [
        (1, &["b", "c", "d"]),
        (2, &["c", "d"]),
        (3, &["a", "b", "c", "d"]),
        (4, &["a", "b", "c", "d"]),
        (3, &["a", "b", "c", "d"]),
        (2, &["c", "d"]),
    ];
    let mut sick = 0;
    for (count, names) in rows {
        for server in &servers[sick.min(count)..sick.max(count)] {
            let up = if count > sick {
                server.fall_sick();
                0
            } else {
                server.get_well();
                1
            };
            proxy.until_up_is(server.name(), up);
        }
        sick = count;
        used(&proxy, names);
    }
}
