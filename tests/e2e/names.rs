//! Servers by name: addresses that come, go and cannot be found, while requests flow.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use evenkeel::config::Config;
use evenkeel::run::{self, RunOptions};
use evenkeel_tests::cluster::sequence;
use evenkeel_tests::doubles::Names;
use evenkeel_tests::{
    Cluster, Connection, Host, Load, Nginx, Request, eventually, nginx, peers, ports,
};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

/// Three servers at one port of three addresses of this machine.
fn three_at_one_port() -> (u16, Vec<Nginx>) {
    let port = ports::free().port();
    let start = |(name, last): (&str, u8)| {
        Nginx::start_at(name, SocketAddr::from(([127, 0, 0, last], port)))
    };
    (port, [("a", 2), ("b", 3), ("c", 4)].map(start).into())
}

struct Scene {
    running: Option<run::Running>,
    address: SocketAddr,
    _folder: TempDir,
}

impl Scene {
    /// A proxy of this process, whose resolver is the test's.
    fn new(names: &Names, workers: usize, pool: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("e.yaml");
        let log = folder.path().join("log");
        let policy = format!("routes: [{{pool: web}}]\npools:\n  web: {pool}");
        let cluster = Cluster::new()
            .workers(workers)
            .top("timeouts: {drain: 1s}")
            .policy(&policy);
        let text = cluster.yaml(&ports::free().to_string(), log.to_str().unwrap());
        std::fs::write(&path, text).unwrap();
        let config = Config::load(&path).unwrap_or_else(|faults| panic!("{faults}"));
        let again = path.clone();
        let options = RunOptions {
            load: Some(Box::new(move || {
                Config::load(&again).map_err(|faults| faults.to_string())
            })),
            resolve: Some(names.resolver()),
            ..RunOptions::default()
        };
        let running = run::start(config, options).unwrap();
        Self {
            address: running.addresses()[0].1,
            running: Some(running),
            _folder: folder,
        }
    }

    fn servers(&self) -> Vec<(String, String)> {
        let admin = self.running.as_ref().unwrap().admin_address().unwrap();
        let told = Connection::open(admin)
            .unwrap()
            .get("/api/pools/web")
            .unwrap()
            .json();
        let servers = told["servers"].as_array().unwrap().iter();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        servers
            .map(|server| (text(&server["id"]), text(&server["state"])))
            .collect()
    }

    #[track_caller]
    fn answered_by(&self, expected: &[&str]) {
        eventually(&format!("{expected:?} answer"), PATIENCE, || {
            let mut connection =
                Connection::open(self.address).map_err(|error| error.to_string())?;
            let mut names = Vec::new();
            for _ in 0..4 * expected.len().max(1) {
                let response = connection.get("/name").map_err(|error| error.to_string())?;
                if response.status != 200 {
                    return Err(format!("{} {}", response.status, response.text()));
                }
                names.push(response.text());
            }
            names.sort();
            names.dedup();
            (names == expected)
                .then_some(())
                .ok_or(format!("{names:?}"))
        });
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.running.take().unwrap().stop();
    }
}

#[test]
fn addresses_of_a_name_come_and_go_and_fail_nobody() {
    let (port, _servers) = three_at_one_port();
    let names = Names::default();
    names.set("web.test", &["127.0.0.2", "127.0.0.3"]);
    let pool = format!("{{resolve: 1s, servers: [{{address: 'web.test:{port}', id: web}}]}}");
    let scene = Scene::new(&names, 2, &pool);
    // From the very first request on.
    let mut first = sequence(scene.address, 4);
    first.sort();
    assert_eq!(first, ["a", "a", "b", "b"]);
    let load = Load::new(8).per_second(200).start(scene.address);
    names.set("web.test", &["127.0.0.3", "127.0.0.4"]);
    scene.answered_by(&["b", "c"]);
    let told = scene.servers();
    assert_eq!(
        told.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(),
        ["web#127.0.0.3", "web#127.0.0.4"]
    );
    // What cannot be resolved any more stays as it was: three intervals, as far as that can be seen from outside.
    names.set("web.test", &[]);
    load.during(Duration::from_secs(3));
    scene.answered_by(&["b", "c"]);
    names.set("web.test", &["127.0.0.2"]);
    scene.answered_by(&["a"]);
    load.during(Duration::from_millis(500));
    load.stop().assert_no_failure();
}

#[test]
fn a_name_that_cannot_be_resolved_is_waited_for_without_waiting() {
    let (port, _servers) = three_at_one_port();
    let names = Names::default();
    let pool = format!(
        "{{resolve: 1s, servers: [{{address: 'later.test:{port}'}}, {{address: '127.0.0.4:{port}', id: c}}]}}"
    );
    let scene = Scene::new(&names, 1, &pool);
    scene.answered_by(&["c"]);
    names.set("later.test", &["127.0.0.2"]);
    scene.answered_by(&["a", "c"]);
    assert_eq!(scene.servers()[1].0, format!("later.test:{port}#127.0.0.2"));
}

#[test]
fn the_systems_resolver_knows_localhost_and_envoy_gets_no_names() {
    let web = nginx("web");
    let port = evenkeel_tests::Server::address(&web).port();
    let policy = format!(
        "routes: [{{pool: web}}]\npools: {{web: {{retries: 1, servers: [{{address: 'localhost:{port}'}}]}}}}"
    );
    let proxy = Cluster::new().policy(&policy).on(Host::Sidecar);
    assert_eq!(proxy.sequence(6), ["web"; 6]);
    let told = proxy.admin_get("/api/pools/web").json();
    let first = told["servers"][0]["address"].as_str().unwrap();
    assert!(
        first.parse::<SocketAddr>().unwrap().ip().is_loopback(),
        "{told}"
    );
    let drained = Command::new(peers::evenkeel())
        .args([
            "ctl",
            "--admin",
            &proxy.admin.to_string(),
            "maint",
            &format!("web/localhost:{port}"),
        ])
        .output()
        .unwrap();
    assert!(
        drained.status.success(),
        "{}",
        String::from_utf8_lossy(&drained.stderr)
    );
    eventually("all addresses of the name are out", PATIENCE, || {
        (proxy.get("/name").status == 503).then_some(()).ok_or(())
    });
    let made = Command::new(peers::evenkeel())
        .args(["envoy", "-c"])
        .arg(proxy.directory.path().join("evenkeel.yaml"))
        .args(["-o"])
        .arg(proxy.directory.path().join("out"))
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&made.stderr).into_owned();
    assert!(
        !made.status.success() && error.contains("is a name"),
        "{error}"
    );
}

#[test]
fn envoy_resolves_names_itself_where_the_pool_leaves_it_the_choice() {
    use evenkeel_tests::Server as _;
    let (mut a, b) = (nginx("a"), nginx("b"));
    let policy = format!(
        "routes: [{{pool: web}}]\npools: {{web: {{balance: envoy, retries: 3, servers: [{{address: 'localhost:{}'}}, {{address: '{}'}}]}}}}",
        a.address().port(),
        b.address(),
    );
    let proxy = Cluster::new().workers(2).policy(&policy).on(Host::Envoy);
    // The name has an address, or two, beside the other server's; a steering header of a client's own changes nothing.
    let both = || {
        let request =
            Request::get("/name").header("x-gateway-destination-endpoint", b.address().to_string());
        let answers = (0..12).map(|_| proxy.exchange(&request));
        let mut names: Vec<_> = answers
            .map(|answer| format!("{} {}", answer.status, answer.text()))
            .collect();
        names.sort();
        names.dedup();
        names
    };
    eventually("both answer", PATIENCE, || {
        let names = both();
        (names == ["200 a", "200 b"]).then_some(()).ok_or(names)
    });
    let load = Load::new(4).per_second(200).start(proxy.address);
    a.kill();
    load.during(Duration::from_secs(1));
    load.stop().assert_no_failure();
    assert_eq!(both(), ["200 b"]);
    let file = proxy.directory.path().join("evenkeel.yaml");
    let say = |command: &str| {
        let output = Command::new(peers::evenkeel())
            .args([command, "-c"])
            .arg(&file)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    };
    let (code, said) = say("run");
    assert!(
        code == Some(2) && said.contains("policy.pools.web.balance: `envoy`"),
        "{code:?} {said}"
    );
    let (code, said) = say("check");
    assert!(
        code == Some(0) && said.contains("pool web: Envoy takes turns by itself"),
        "{code:?} {said}"
    );
}
