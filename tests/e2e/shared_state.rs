//! What the filter's VMs tell each other through shared data, on both hosts: changes of servers, load, and who is alive.
//!
//! A test reads and writes the records as their other users do. In our own proxy it runs in this process, and hands out what its
//! filters share; in Envoy a guest in front of the filter, with the filter's `vm_id`, does it on request.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use evenkeel::config::Config;
use evenkeel::run::{self, RunOptions};
use evenkeel_policy::config::Tier;
use evenkeel_policy::contract::VM_ID;
use evenkeel_policy::upstream::{
    AdminChange, Layout, LoadEntry, LoadRecord, Member, Members, id_hash,
};
use evenkeel_tests::guests::{self, Guest};
use evenkeel_tests::{
    Cluster, Connection, Host, Load, Proxy, Request, Server, both_hosts, busy, doubles, eventually,
    php, ports,
};
use tempfile::TempDir;

both_hosts!(
    a_change_of_members_counts_within_two_ticks_and_fails_nobody,
    what_one_worker_has_in_flight_keeps_the_others_away,
    a_dead_vm_counts_for_five_ticks_and_its_slot_begins_anew,
    the_checks_of_a_dead_vm_go_on_in_another,
    hostile_records_are_passed_over,
    nothing_is_in_flight_after_a_storm,
);

const PATIENCE: Duration = Duration::from_secs(20);
/// How often a VM looks.
const TICK: Duration = Duration::from_millis(250);
/// What a busy machine may add.
const SLACK: Duration = Duration::from_millis(1_500);
/// More slots than these tests have workers.
const SLOTS_LOOKED_AT: u32 = 8;

/// A proxy, and what its filters share.
struct Scene {
    address: SocketAddr,
    admin: SocketAddr,
    proxy: Running,
    _files: (TempDir, Guest),
}

enum Running {
    Here(Option<run::Running>),
    Envoy(Box<Proxy>),
}

impl Scene {
    fn new(host: Host, cluster: Cluster) -> Self {
        let guest = guests::shared_data();
        let folder = TempDir::new().unwrap();
        // What is open when a test ends need not be waited for.
        let cluster = cluster.top("timeouts: {drain: 1s}");
        if host == Host::Envoy {
            let cluster = cluster
                .top(&guest.filters())
                .in_envoy("vm_id: \"guest-0\"", &format!("vm_id: \"{VM_ID}\""));
            let proxy = cluster.on(host);
            return Self {
                address: proxy.address,
                admin: proxy.admin,
                proxy: Running::Envoy(Box::new(proxy)),
                _files: (folder, guest),
            };
        }
        let admin = ports::free();
        let (path, log) = (folder.path().join("e.yaml"), folder.path().join("log"));
        let text = cluster.yaml(&admin.to_string(), log.to_str().unwrap());
        std::fs::write(&path, text).unwrap();
        let load = move || Config::load(&path).map_err(|faults| faults.to_string());
        let config = load().unwrap_or_else(|faults| panic!("{faults}"));
        let options = RunOptions {
            load: Some(Box::new(load)),
            ..RunOptions::default()
        };
        let running = run::start(config, options).unwrap();
        Self {
            address: running.addresses()[0].1,
            admin,
            proxy: Running::Here(Some(running)),
            _files: (folder, guest),
        }
    }

    fn get(&self, key: &str) -> Option<Vec<u8>> {
        match &self.proxy {
            Running::Here(running) => {
                let process = running.as_ref().unwrap().process();
                Some(process.shared_data(VM_ID, key.as_bytes())?.0)
            }
            Running::Envoy(proxy) => {
                let answer = proxy.exchange(&Request::get("/").header("x-shared-key", key));
                (answer.status == 200).then_some(answer.body)
            }
        }
    }

    #[track_caller]
    fn set(&self, key: &str, value: &[u8]) {
        match &self.proxy {
            Running::Here(running) => {
                let process = running.as_ref().unwrap().process();
                assert!(process.set_shared_data(VM_ID, key.as_bytes(), value, 0));
            }
            Running::Envoy(proxy) => {
                let hex = value.iter().fold(String::new(), |mut hex, byte| {
                    write!(hex, "{byte:02x}").unwrap();
                    hex
                });
                let request = Request::get("/").header("x-shared-key", key);
                let answer = proxy.exchange(&request.header("x-shared-value", hex));
                assert_eq!(answer.status, 200, "{key}");
            }
        }
    }

    fn members(&self, version: u64, members: &[(&dyn Server, u16, AdminChange)]) {
        let servers = members.iter().map(|(server, weight, admin)| Member {
            id: server.name().to_owned(),
            address: Some(server.address()),
            weight: Some(*weight),
            admin: *admin,
            tier: Tier::Primary,
        });
        let servers = servers.collect();
        self.set(
            "evenkeel/web/members",
            &Members { version, servers }.encode(),
        );
    }

    /// The owner of a slot: `None` while nobody ever had it, 0 while it is free.
    fn owner(&self, slot: u32) -> Option<u64> {
        let record = self.get(&format!("evenkeel//slot/{slot}"))?;
        Some(u64::from_le_bytes(record.get(1..9)?.try_into().unwrap()))
    }

    /// Requests in flight by what all VMs say that are there.
    fn in_flight(&self, server: &str) -> u32 {
        let of_slot = |slot: u32| {
            let record = self.get(&format!("evenkeel/web/load/{slot}"))?;
            let record = LoadRecord::decode(&record)?;
            let mut entries = record.entries();
            let count = entries.find(|entry| entry.hash == id_hash(server));
            let count = count.map(|entry| entry.in_flight);
            (Some(record.owner) == self.owner(slot)).then_some(count.unwrap_or(0))
        };
        (0..SLOTS_LOOKED_AT).filter_map(of_slot).sum()
    }

    /// Who answers `count` requests over 16 connections, which all workers get some of.
    #[track_caller]
    fn answers(&self, count: u64) -> BTreeMap<String, u64> {
        let report = Load::new(16).requests(count).run(self.address);
        report.assert_no_failure();
        report.by_server
    }

    /// How long it took until the answers are as wanted.
    #[track_caller]
    fn until(&self, what: &str, wanted: impl Fn(&BTreeMap<String, u64>) -> bool) -> Duration {
        let start = Instant::now();
        eventually(what, PATIENCE, || {
            let answers = self.answers(32);
            if wanted(&answers) {
                Ok(())
            } else {
                Err(answers)
            }
        });
        start.elapsed()
    }

    /// Every worker has a slot once it has served a request.
    #[track_caller]
    fn claim_all(&self, workers: u32) {
        eventually("every worker has a slot", PATIENCE, || {
            self.answers(64);
            let owners: Vec<_> = (0..workers).map(|slot| self.owner(slot)).collect();
            let all = owners
                .iter()
                .all(|owner| owner.is_some_and(|owner| owner != 0));
            if all { Ok(()) } else { Err(owners) }
        });
    }

    /// How many VMs there were ever.
    fn vms(&self) -> u64 {
        let mut admin = Connection::open(self.admin).unwrap();
        match &self.proxy {
            Running::Here(_) => {
                let state = admin.get("/api/state").unwrap().json();
                let workers = state["workers"].as_array().unwrap();
                let count = |worker: &serde_json::Value| {
                    worker["filter_replacements"].as_u64().unwrap()
                        + worker["filter_failures"].as_u64().unwrap()
                };
                workers.iter().map(count).sum()
            }
            Running::Envoy(_) => {
                let name = "wasm.envoy.wasm.runtime.v8.created";
                let text = admin.get(&format!("/stats?filter={name}")).unwrap().text();
                let count = text.trim().rsplit(' ').next().unwrap_or_default().parse();
                count.unwrap_or_else(|_| panic!("{text}"))
            }
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Running::Here(running) = &mut self.proxy {
            running.take().unwrap().stop();
        }
    }
}

/// A request of the storm, by its number; whoever sends it goes away after a moment, whatever it got by then.
fn of_the_storm(number: usize) -> Request {
    match number % 8 {
        0 => Request::get("/sleep.php?s=5"),
        1 => Request::get("/sse.php?n=50"),
        2 => Request::get("/ws")
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket"),
        3 => Request::get("/reset?ms=20"),
        4 => Request::get("/?ms=5000"),
        5 => Request::new("POST", "/echo.php").body(vec![b'x'; 100_000]),
        6 => Request::new("POST", "/reset").body("one please"),
        _ => Request::get("/cookies.php"),
    }
}

/// Clients that go away at any moment, attempts that fail and go on elsewhere, WebSockets, PHP's pages, and reloads where there are any.
fn nothing_is_in_flight_after_a_storm(host: Host) {
    const ROUNDS: usize = 24;
    const CLIENTS: usize = 16;
    let (shop, busy, other) = (php("shop"), busy("busy"), busy("other"));
    let refuses = ports::refusing().to_string();
    let servers = ["shop", "busy", "other", "refuses"];
    let cluster = Cluster::new()
        .workers(2)
        .server(&shop)
        .server(&busy)
        .server(&other)
        .name("refuses", &refuses)
        .pool(
            "balance: least_conn; retries: 3",
            &servers.map(|name| (name, "max_fails: 0")),
        );
    let scene = Scene::new(host, cluster);
    let mut most = 0;
    for round in 0..ROUNDS {
        let open: Vec<Connection> = (0..CLIENTS)
            .map(|client| {
                let mut connection = Connection::open(scene.address).unwrap();
                connection.send(&of_the_storm(round * 3 + client)).unwrap();
                connection
            })
            .collect();
        if let Running::Here(running) = &scene.proxy
            && round % 6 == 5
        {
            running.as_ref().unwrap().reload();
        }
        std::thread::sleep(Duration::from_millis(10 * (round as u64 % 12)));
        let now: u32 = servers.iter().map(|server| scene.in_flight(server)).sum();
        most = most.max(now);
        for (client, connection) in open.into_iter().enumerate() {
            if client % 2 == 0 {
                connection.break_off();
            }
        }
    }
    assert!(most >= 4, "{most} in flight at most: that was no storm");
    if host == Host::Sidecar {
        let state = Connection::open(scene.admin).unwrap().get("/api/state");
        let generation = state.unwrap().json()["config"]["generation"].as_u64();
        assert!(generation > Some(1), "{generation:?}: it was reloaded");
    }
    eventually("nothing is in flight", PATIENCE, || {
        let counts = servers.map(|server| scene.in_flight(server));
        if counts == [0; 4] {
            Ok(())
        } else {
            Err(counts)
        }
    });
}

fn only(name: &str) -> impl Fn(&BTreeMap<String, u64>) -> bool {
    move |answers| answers.keys().all(|answered| answered == name)
}

fn a_change_of_members_counts_within_two_ticks_and_fails_nobody(host: Host) {
    let (a, b, c) = (
        doubles::recorder("a"),
        doubles::recorder("b"),
        doubles::recorder("c"),
    );
    let cluster = Cluster::new().workers(2).server(&a).server(&b).server(&c);
    let scene = Scene::new(host, cluster.pool("", &[("a", ""), ("b", ""), ("c", "")]));
    scene.claim_all(2);
    let load = Load::new(8).per_second(300).start(scene.address);
    use AdminChange::{Drain, Maint, Ready};

    scene.members(1, &[(&a, 1, Maint), (&b, 1, Drain)]);
    let took = scene.until("neither a nor b is used", only("c"));
    assert!(took < 2 * TICK + SLACK, "{took:?}");

    scene.members(2, &[(&a, 3, Ready), (&b, 1, Ready), (&c, 1, Maint)]);
    let took = scene.until("a and b are used, c is not", |answers| {
        answers.len() == 2 && !answers.contains_key("c")
    });
    assert!(took < 2 * TICK + SLACK, "{took:?}");
    load.stop().assert_no_failure();

    // One connection is one worker, whose turns are exact.
    let names = evenkeel_tests::cluster::sequence(scene.address, 400);
    let of_a = names.iter().filter(|name| *name == "a").count();
    assert_eq!((of_a, names.len()), (300, 400));
}

fn what_one_worker_has_in_flight_keeps_the_others_away(host: Host) {
    const HELD: usize = 6;
    let (a, b) = (php("a"), doubles::recorder("b"));
    let cluster = Cluster::new().workers(4).server(&a).server(&b);
    let cluster = cluster.pool("balance: least_conn", &[("a", ""), ("b", "")]);
    let scene = Scene::new(host, cluster);
    use AdminChange::{Maint, Ready};

    scene.members(1, &[(&b, 1, Maint)]);
    let mut held: Vec<Connection> = Vec::new();
    let each_by = |server: &str| {
        let answers: Vec<String> = (0..40)
            .map(|_| {
                let mut connection = Connection::open(scene.address).unwrap();
                connection.get("/cookies.php").unwrap().text()
            })
            .collect();
        if answers.iter().all(|answer| answer == server) {
            Ok(())
        } else {
            Err(answers)
        }
    };
    eventually("a alone is used", PATIENCE, || each_by("set"));
    for _ in 0..HELD {
        let mut connection = Connection::open(scene.address).unwrap();
        connection.send(&Request::get("/sleep.php?s=6")).unwrap();
        held.push(connection);
    }
    eventually("all say what they have in flight", PATIENCE, || {
        let count = scene.in_flight("a");
        if count == HELD as u32 {
            Ok(())
        } else {
            Err(count)
        }
    });
    scene.members(2, &[(&b, 1, Ready)]);
    eventually("b is used again", PATIENCE, || {
        let seen = b.requests().len();
        let mut connection = Connection::open(scene.address).unwrap();
        connection.get("/cookies.php").unwrap();
        if b.requests().len() > seen {
            Ok(())
        } else {
            Err(())
        }
    });
    // A worker that has not looked since may be among the first: it looks at its next tick.
    eventually("nobody uses a", PATIENCE, || each_by("b"));
    assert_eq!(scene.in_flight("a"), HELD as u32, "they are still held");
    for mut connection in held {
        assert_eq!(connection.response("GET").unwrap().status, 200);
    }
    eventually("nothing is in flight", PATIENCE, || {
        let counts = (scene.in_flight("a"), scene.in_flight("b"));
        if counts == (0, 0) {
            Ok(())
        } else {
            Err(counts)
        }
    });
}

/// What a VM that died leaves behind is exactly this: a slot whose beat stands still, and its last load.
fn a_dead_vm_counts_for_five_ticks_and_its_slot_begins_anew(host: Host) {
    const DEAD: u64 = 0xdead;
    let (a, b) = (doubles::recorder("a"), doubles::recorder("b"));
    let cluster = Cluster::new().workers(2).server(&a).server(&b);
    let cluster = cluster.pool("balance: least_conn", &[("a", ""), ("b", "")]);
    let scene = Scene::new(host, cluster);
    scene.claim_all(2);
    let slot = |owner: u64| [&[1][..], &owner.to_le_bytes(), &7_u64.to_le_bytes()].concat();
    let mut load = Vec::new();
    let busy = LoadEntry {
        hash: id_hash("a"),
        in_flight: 1_000,
        ..LoadEntry::default()
    };
    LoadRecord::encode(1, DEAD, Layout::InFlight, [busy].into_iter(), &mut load);

    let begin = Instant::now();
    scene.set("evenkeel/web/load/2", &load);
    scene.set("evenkeel//slot/2", &slot(DEAD));
    scene.until("its load counts", only("b"));
    scene.until("its load counts no more", |answers| answers.len() == 2);
    let took = begin.elapsed();
    // It is first seen within a tick, and dead after five more.
    assert!(took > 4 * TICK, "{took:?}");
    assert!(took < 6 * TICK + 2 * SLACK, "{took:?}");
    eventually("its slot is free", PATIENCE, || match scene.owner(2) {
        Some(0) => Ok(()),
        owner => Err(owner),
    });

    // A worker that finds its slot taken takes the lowest free one, and begins there with what it really has in flight.
    scene.set("evenkeel//slot/0", &slot(DEAD + 1));
    eventually("slot 2 has an owner again", PATIENCE, || {
        let record = scene.get("evenkeel/web/load/2").unwrap();
        let record = LoadRecord::decode(&record).unwrap();
        let left: u32 = record.entries().map(|entry| entry.in_flight).sum();
        let owner = scene.owner(2);
        let is_new = owner.is_some_and(|owner| owner != 0 && owner != DEAD);
        if is_new && Some(record.owner) == owner && left == 0 {
            Ok(())
        } else {
            Err((owner, record.owner, left))
        }
    });
    let answers = scene.answers(64);
    assert_eq!(answers.len(), 2, "{answers:?}");
}

fn the_checks_of_a_dead_vm_go_on_in_another(host: Host) {
    const DEAD: u64 = 0xdead;
    let a = doubles::recorder("a");
    let cluster = Cluster::new().workers(2).server(&a);
    let scene = Scene::new(
        host,
        cluster.pool("health: {interval: 100ms}", &[("a", "")]),
    );
    let sent = || {
        let requests = a.requests_text();
        let checks = requests
            .iter()
            .filter(|request| request.contains("evenkeel-check"));
        checks.count()
    };
    let until = |count: usize| {
        eventually("checks are sent", PATIENCE, || match sent() {
            now if now >= count => Ok(()),
            now => Err(now),
        });
    };
    until(3);
    // Somebody has taken the lease, and is gone: whoever had it stops, and after five ticks without a beat somebody takes it.
    let lease = [&[1][..], &DEAD.to_le_bytes(), &7_u64.to_le_bytes()].concat();
    let begin = Instant::now();
    scene.set("evenkeel//lease", &lease);
    // Those that are sent until the next tick of whoever had it.
    let before = sent();
    until(before + 6);
    let took = begin.elapsed();
    assert!(took > 4 * TICK, "{took:?}");
    assert!(took < 6 * TICK + 2 * SLACK, "{took:?}");
    let owner = scene
        .get("evenkeel//lease")
        .map(|lease| lease[1..9].to_vec());
    assert_ne!(owner, Some(DEAD.to_le_bytes().to_vec()));
}

/// Bytes that no writer writes: empty, too short, too long, counts that promise more than there is, and noise.
fn hostile_values() -> Vec<Vec<u8>> {
    let mut values: Vec<Vec<u8>> = vec![
        vec![],
        vec![0],
        vec![1],
        vec![1; 9],
        vec![0xff; 17],
        vec![0xff; 3_000],
        vec![1; 3_000],
        [&[1][..], &[0xff; 8], &[0xff; 2]].concat(),
        // Members: one server, whose id is longer than all there is; then an unknown state; then an unknown kind of address.
        [&[2][..], &[9; 8], &[1, 0, 255]].concat(),
        [
            &[2][..],
            &[8; 8],
            &[1, 0, 1, b'a', 4, 1, 0, 0, 4, 127, 0, 0, 1, 80, 0],
        ]
        .concat(),
        [
            &[2][..],
            &[7; 8],
            &[1, 0, 1, b'a', 0, 1, 0, 0, 5, 127, 0, 0, 1, 80, 0],
        ]
        .concat(),
        // Load: 64 entries promised, none there; 255 chunks.
        [&[1, 255][..], &[0xff; 8], &[64, 0]].concat(),
    ];
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for length in 1..40 {
        let noise = (0..length).map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        });
        // Half of them begin like a record.
        let first = [(length % 2) as u8];
        values.push(first.into_iter().chain(noise).collect());
    }
    values
}

fn hostile_records_are_passed_over(host: Host) {
    let (a, b) = (doubles::recorder("a"), doubles::recorder("b"));
    let cluster = Cluster::new().workers(2).server(&a).server(&b);
    let cluster = cluster.pool("balance: least_conn", &[("a", ""), ("b", "")]);
    let scene = Scene::new(host, cluster);
    scene.claim_all(2);
    let vms = scene.vms();
    let load = Load::new(8).per_second(300).start(scene.address);
    for value in hostile_values() {
        // The owners' own slots and load too.
        for slot in 0..4 {
            scene.set(&format!("evenkeel//slot/{slot}"), &value);
            scene.set(&format!("evenkeel/web/load/{slot}"), &value);
        }
        scene.set("evenkeel/web/members", &value);
        // Ten ticks pass within all of them.
        std::thread::sleep(TICK / 5);
    }
    let report = load.stop();
    report.assert_no_failure();
    scene.until("both are used", |answers| answers.len() == 2);
    assert_eq!(scene.vms(), vms, "a VM died of it");
    scene.members(1, &[(&a, 1, AdminChange::Maint)]);
    scene.until("a good record counts", only("b"));
}
