//! SIGHUP: the new configuration serves, no request is lost, and a broken one changes nothing.

use std::time::Duration;

use evenkeel_tests::{Cluster, Host, Load, eventually, nginx};
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_reload_under_load_fails_nothing() {
    let (a, b) = (nginx("a"), nginx("b"));
    let cluster = Cluster::new().workers(2).server(&a).server(&b);
    let mut proxy = cluster.clone().pool("", &[("a", "")]).on(Host::Sidecar);
    let load = Load::new(32).start(proxy.address);
    for round in 0..6 {
        let name = if round % 2 == 0 { "b" } else { "a" };
        proxy.rewrite(|before| before.policy("").pool("", &[(name, "")]));
        proxy.signal(Signal::HUP);
        eventually("the new server answers", PATIENCE, || {
            match proxy.get("/name").text() {
                text if text == name => Ok(()),
                text => Err(text),
            }
        });
        load.during(Duration::from_millis(300));
    }
    let report = load.stop();
    report.assert_no_failure();
    assert!(report.by_server.len() == 2, "{report:?}");
}

#[test]
fn a_broken_configuration_changes_nothing() {
    let (a, b) = (nginx("a"), nginx("b"));
    let mut proxy = Cluster::new()
        .server(&a)
        .server(&b)
        .pool("", &[("a", "")])
        .on(Host::Sidecar);
    let version = proxy.admin_get("/api/state").json()["config"]["generation"].clone();
    for broken in [
        "pools: {web: {servers: []}}",
        "no: such key",
        "routes: [{pool: nowhere}]",
        "}{",
    ] {
        proxy.rewrite(|before| before.policy(broken));
        proxy.signal(Signal::HUP);
        eventually("the refusal is logged", PATIENCE, || {
            let output = proxy.child.output();
            output.contains("evenkeel.yaml").then_some(()).ok_or(output)
        });
        assert_eq!(proxy.sequence(5), ["a"; 5]);
    }
    assert_eq!(
        proxy.admin_get("/api/state").json()["config"]["generation"],
        version
    );
    proxy.rewrite(|before| before.policy("").pool("", &[("b", "")]));
    proxy.signal(Signal::HUP);
    eventually("a good one is taken", PATIENCE, || {
        match proxy.get("/name").text() {
            text if text == "b" => Ok(()),
            text => Err(text),
        }
    });
}

#[test]
fn exchanges_that_began_before_a_reload_end_well() {
    let (a, b) = (nginx("a"), nginx("b"));
    let mut proxy = Cluster::new()
        .server(&a)
        .server(&b)
        .pool("", &[("a", "")])
        .on(Host::Sidecar);
    let mut slow = proxy.connect();
    slow.send_bytes(b"GET /big.bin HTTP/1.1\r\nHost: t\r\n\r\n")
        .unwrap();
    assert_eq!(slow.head().unwrap().status, 200);
    let first = slow.exactly(1 << 20).unwrap();
    proxy.rewrite(|before| before.policy("").pool("", &[("b", "")]));
    proxy.signal(Signal::HUP);
    eventually("the new server answers", PATIENCE, || {
        match proxy.get("/name").text() {
            text if text == "b" => Ok(()),
            text => Err(text),
        }
    });
    let big = a.big();
    let rest = slow.exactly(big.len() - first.len()).unwrap();
    assert!([first, rest].concat() == big);
    assert_eq!(slow.get("/name").unwrap().text(), "b");
}
