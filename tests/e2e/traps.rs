//! The filter itself traps: what it had counted is right again within five ticks.
//!
//! Another filter's trap is another VM's: see `poison`. Here it is the VM that chooses servers, and what it had in flight
//! stays behind in shared data, in a slot whose beat stands still.

use std::time::{Duration, Instant};

use evenkeel::embedded::FILTER;
use evenkeel_tests::trapping::{poison, trapping};
use evenkeel_tests::{
    Cluster, Connection, Host, Nginx, Proxy, Request, Server, both_hosts, busy, eventually, nginx,
    ports,
};

both_hosts!(
    servers_are_as_busy_as_they_are_five_ticks_after_a_trap,
    places_are_free_five_ticks_after_a_trap,
);

const PATIENCE: Duration = Duration::from_secs(20);
const TICK: Duration = Duration::from_millis(250);
/// A VM is first missed within a tick, and counts for five more.
const STILL: Duration = TICK.saturating_mul(6);
/// What a busy machine may add, and how long it takes to ask.
const SLACK: Duration = Duration::from_millis(1_500);
const WORKERS: usize = 2;

/// How many VMs have died here, or were started in Envoy, which starts a new one when the next request comes.
fn vms(proxy: &Proxy) -> u64 {
    let suffix = match proxy.host {
        Host::Sidecar => "filter_failures_total",
        Host::Envoy => "wasm.envoy.wasm.runtime.v8.created",
    };
    proxy.metric(suffix).unwrap_or(0)
}

/// Kills the VM of one worker; when that was. The other one goes on, and has to find out.
#[track_caller]
fn kill(proxy: &Proxy) -> Instant {
    let before = vms(proxy);
    assert_eq!(proxy.exchange(&poison()).status, 503);
    let dead = Instant::now();
    eventually("a VM has died", PATIENCE, || {
        names(proxy, 4);
        let now = vms(proxy);
        (now == before + 1).then_some(()).ok_or((before, now))
    });
    dead
}

/// So many answers on connections of their own, which all workers get some of.
fn names(proxy: &Proxy, count: usize) -> Vec<String> {
    let name = |_| {
        let answer = Connection::open(proxy.address).and_then(|mut new| new.get("/name"));
        answer.map_or_else(|error| error.to_string(), |response| response.text())
    };
    (0..count).map(name).collect()
}

fn servers_are_as_busy_as_they_are_five_ticks_after_a_trap(host: Host) {
    let (executable, a) = (trapping(FILTER), nginx("a"));
    let address = ports::free();
    let proxy = Cluster::new()
        .binary(&executable.path)
        .workers(WORKERS)
        .server(&a)
        .name("b", &address.to_string())
        .pool(
            "balance: least_conn; retries: 1",
            &[("a", ""), ("b", "max_fails: 0")],
        )
        .on(host);
    // b refuses, so all of them are a's.
    let held: Vec<Connection> = (0..12)
        .map(|_| {
            let mut connection = proxy.connect();
            connection.send(&Request::get("/held")).unwrap();
            assert_eq!(connection.head().unwrap().status, 200);
            connection
        })
        .collect();
    let b = Nginx::start_at("b", address);
    assert_eq!(b.address(), address);
    eventually("b is less busy", PATIENCE, || {
        let names = names(&proxy, 12);
        (names == ["b"; 12]).then_some(()).ok_or(names)
    });
    let dead = kill(&proxy);
    held.into_iter().for_each(Connection::break_off);
    eventually("both are as idle as they are", PATIENCE, || {
        // A worker that knows takes them in turns, and one that does not takes b.
        let names = names(&proxy, 24);
        let of_a = names.iter().filter(|name| *name == "a").count();
        (10..=14).contains(&of_a).then_some(()).ok_or(names)
    });
    let took = dead.elapsed();
    println!("{host:?}: counts are right {took:.2?} after the trap");
    assert!(took < STILL + SLACK, "{took:?}");
}

fn places_are_free_five_ticks_after_a_trap(host: Host) {
    const PLACES: usize = 6;
    let (executable, web) = (trapping(FILTER), busy("web"));
    let proxy = Cluster::new()
        .binary(&executable.path)
        .workers(WORKERS)
        .server(&web)
        .pool("", &[("web", "max_conns: 6")])
        .on(host);
    let hold = |ms: u32| {
        let mut connection = proxy.connect();
        let request = Request::get(&format!("/?ms={ms}"));
        connection.send(&request).map(|()| connection)
    };
    let held: Vec<Connection> = (0..PLACES).map(|_| hold(20_000).unwrap()).collect();
    eventually("all places are taken", PATIENCE, || {
        (web.now() == PLACES).then_some(()).ok_or(web.now())
    });
    assert_eq!(proxy.get("/").status, 503);
    let dead = kill(&proxy);
    held.into_iter().for_each(Connection::break_off);
    eventually("all places are free", PATIENCE, || {
        let asked: Vec<_> = (0..PLACES).map(|_| hold(150)).collect();
        let statuses: Vec<u16> = asked
            .into_iter()
            .filter_map(|asked| Some(asked.ok()?.response("GET").ok()?.status))
            .collect();
        (statuses == [200; PLACES]).then_some(()).ok_or(statuses)
    });
    let took = dead.elapsed();
    println!("{host:?}: places are free {took:.2?} after the trap");
    assert!(took < STILL + SLACK, "{took:?}");
}
