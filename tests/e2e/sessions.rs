//! PHP's sessions over several web nodes: the story this project exists for. A captcha is made on one node and checked on another.

use std::time::{Duration, Instant};

use evenkeel_tests::{
    Cluster, Gateway, Host, Php, Proxy, Request, Response, Server, both_hosts, databases,
    eventually, gateway, peers, php::php_with, sentinel,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Whether PHP here has the redis extension; says loudly if not.
fn has_phpredis() -> bool {
    let modules = std::process::Command::new(peers::need("php"))
        .arg("-m")
        .output()
        .unwrap();
    let has = String::from_utf8_lossy(&modules.stdout)
        .lines()
        .any(|line| line == "redis");
    if !has {
        peers::missing("php-redis is not installed (deploy/install-peers.sh installs it)");
    }
    has
}

/// Two nodes whose sessions are at this gateway.
fn shared_nodes(gateway: &Gateway, more: &[&str]) -> [Php; 2] {
    nodes_at(gateway.address, more)
}

fn nodes_at(store: std::net::SocketAddr, more: &[&str]) -> [Php; 2] {
    let path = format!("session.save_path=tcp://{store}");
    ["web1", "web2"].map(|name| {
        let directives = [&["session.save_handler=redis", &path], more].concat();
        php_with(name, &directives)
    })
}

fn round_robin(nodes: &[Php; 2], host: Host) -> Proxy {
    let cluster = Cluster::new().server(&nodes[0]).server(&nodes[1]);
    cluster.pool("", &[("web1", ""), ("web2", "")]).on(host)
}

/// A browser with one cookie.
#[derive(Default)]
struct Browser {
    cookie: Option<String>,
}

impl Browser {
    #[track_caller]
    fn get(&mut self, proxy: &Proxy, target: &str) -> Response {
        let mut request = Request::get(target);
        if let Some(cookie) = &self.cookie {
            request = request.header("Cookie", cookie);
        }
        let response = proxy.exchange(&request);
        assert_eq!(response.status, 200, "{target}: {}", response.text());
        if let Some(set) = response.header("set-cookie") {
            self.cookie = set.split(';').next().map(str::to_owned);
        }
        response
    }

    #[track_caller]
    fn sees(&mut self, proxy: &Proxy, target: &str, expected: &str) {
        assert_eq!(self.get(proxy, target).text(), expected, "{target}");
    }
}

/// Two users, each step of whom meets the other node than the one before.
#[track_caller]
fn story(proxy: &Proxy, nodes: &[Php; 2]) {
    let (mut ann, mut bob) = (Browser::default(), Browser::default());
    ann.sees(proxy, "/captcha.php", "made by web1");
    ann.sees(proxy, "/login.php?code=7x2k", "welcome");
    bob.sees(proxy, "/captcha.php", "made by web1");
    bob.sees(proxy, "/login.php?code=wrong", "wrong captcha");
    for _ in 0..3 {
        ann.sees(proxy, "/user.php", "ann");
        bob.sees(proxy, "/user.php", "nobody");
    }
    let old = ann.cookie.clone();
    ann.sees(proxy, "/regenerate.php", "ann");
    assert_ne!(ann.cookie, old);
    ann.sees(proxy, "/user.php", "ann");
    let mut thief = Browser { cookie: old };
    thief.sees(proxy, "/user.php", "nobody");
    ann.sees(proxy, "/logout.php", "bye");
    ann.sees(proxy, "/user.php", "nobody");
    for node in nodes {
        assert_eq!(node.errors(), "", "{}", node.name());
    }
}

#[test]
fn with_files_of_their_own_nodes_do_not_know_each_others_captchas() {
    let nodes = ["web1", "web2"].map(|name| php_with(name, &[]));
    let proxy = round_robin(&nodes, Host::Sidecar);
    let mut ann = Browser::default();
    ann.sees(&proxy, "/captcha.php", "made by web1");
    ann.sees(&proxy, "/login.php?code=7x2k", "wrong captcha");
}

both_hosts!(with_the_embedded_store_every_node_knows_every_session);
fn with_the_embedded_store_every_node_knows_every_session(host: Host) {
    if !has_phpredis() {
        return;
    }
    for locking in ["0", "1"] {
        let gateway = gateway("path: data");
        let locking = format!("redis.session.locking_enabled={locking}");
        let nodes = shared_nodes(&gateway, &[&locking]);
        story(&round_robin(&nodes, host), &nodes);
    }
}

#[test]
fn with_a_redis_behind_the_gateway_every_node_knows_every_session() {
    let Some(redis) = has_phpredis()
        .then(|| databases::redis("redis", &["--requirepass", "hunter2"]))
        .flatten()
    else {
        return;
    };
    let gateway = gateway(&format!(
        "backend: 'redis://{}', password: hunter2, auth: [{{user: default, password: gate}}]",
        redis.address()
    ));
    let path = format!(
        "session.save_path=\"tcp://{}?auth=gate&database=0\"",
        gateway.address
    );
    let nodes = ["web1", "web2"].map(|name| {
        php_with(
            name,
            &[
                "session.save_handler=redis",
                &path,
                "redis.session.locking_enabled=1",
            ],
        )
    });
    story(&round_robin(&nodes, Host::Sidecar), &nodes);
    assert!(!gateway.child.output().contains("hunter2"));
}

/// The gateway in the proxy's own process.
#[test]
fn the_proxy_itself_serves_sessions() {
    if !has_phpredis() {
        return;
    }
    let resp = evenkeel_tests::ports::free();
    let path = format!("session.save_path=tcp://{resp}");
    let nodes = ["web1", "web2"].map(|name| php_with(name, &["session.save_handler=redis", &path]));
    let cluster = Cluster::new()
        .server(&nodes[0])
        .server(&nodes[1])
        .pool("", &[("web1", ""), ("web2", "")]);
    let mut proxy = cluster
        .top(&format!("session_store: {{resp: '{resp}', path: data}}"))
        .on(Host::Sidecar);
    story(&proxy, &nodes);
    let metrics = proxy.admin_get("/metrics").text();
    assert!(
        metrics.contains("evenkeel_store_commands_total{cmd=\"setex\",result=\"ok\"}"),
        "{metrics}"
    );
    // Another store would be another set of sessions: that is no reload.
    let file = proxy.directory.path().join("evenkeel.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("path: data", "path: other")).unwrap();
    proxy.signal(rustix::process::Signal::HUP);
    eventually("the reload is refused", PATIENCE, || {
        match proxy.metric("reloads_failed_total") {
            Some(1) => Ok(()),
            other => Err(other),
        }
    });
    let mut bob = Browser::default();
    bob.get(&proxy, "/captcha.php");
    bob.sees(&proxy, "/login.php?code=7x2k", "welcome");
    proxy.signal(rustix::process::Signal::TERM);
    assert!(proxy.wait(PATIENCE).success());
}

/// Sessions are in the log: killed without a word, the gateway comes back with all of them.
#[test]
fn a_killed_gateway_logs_nobody_out() {
    if !has_phpredis() {
        return;
    }
    let first = gateway("path: data");
    let resp = first.address;
    let nodes = shared_nodes(&first, &[]);
    let proxy = round_robin(&nodes, Host::Sidecar);
    let mut users: Vec<Browser> = (0..20).map(|_| Browser::default()).collect();
    for user in &mut users {
        user.get(&proxy, "/captcha.php");
        user.sees(&proxy, "/login.php?code=7x2k", "welcome");
    }
    let directory = kill(first);
    let text = std::fs::read_to_string(directory.path().join("store.yaml")).unwrap();
    assert!(text.contains(&resp.to_string()));
    let _again = evenkeel_tests::gateway::restarted(directory, resp);
    for user in &mut users {
        user.sees(&proxy, "/user.php", "ann");
    }
}

fn kill(mut gateway: Gateway) -> tempfile::TempDir {
    gateway.child.kill();
    gateway.directory
}

/// 50 requests of one session at a time over two nodes: with locks each of them counts.
#[test]
fn parallel_requests_of_one_session_are_counted_each() {
    if !has_phpredis() {
        return;
    }
    let Some(redis) = databases::redis("redis", &[]) else {
        return;
    };
    // Without a gateway phpredis 5.3 gives up after 20 ms and goes on without the lock, so it must be told to go on asking.
    let asking = [
        "redis.session.lock_retries=-1",
        "redis.session.lock_wait_time=20000",
    ];
    let polled = counted_at(redis.address(), &asking);
    for keys in [
        "path: data".to_owned(),
        format!("backend: 'redis://{}'", redis.address()),
    ] {
        let gateway = gateway(&keys);
        let queued = counted_at(gateway.address, &[]);
        eprintln!("50 requests of one session, {keys}: {queued:?}; polling a Redis: {polled:?}");
    }
}

/// How long they take.
#[track_caller]
fn counted_at(store: std::net::SocketAddr, more: &[&str]) -> Duration {
    const REQUESTS: usize = 50;
    let directives = [&["redis.session.locking_enabled=1"], more].concat();
    let nodes = nodes_at(store, &directives);
    let proxy = round_robin(&nodes, Host::Sidecar);
    let mut browser = Browser::default();
    browser.sees(&proxy, "/count.php", "1");
    let (start, cookie) = (Instant::now(), browser.cookie.clone());
    std::thread::scope(|scope| {
        for _ in 0..REQUESTS {
            let (proxy, cookie) = (&proxy, cookie.clone());
            scope.spawn(move || Browser { cookie }.get(proxy, "/count.php"));
        }
    });
    let elapsed = start.elapsed();
    browser.sees(&proxy, "/count.php", &(REQUESTS + 2).to_string());
    for node in &nodes {
        assert_eq!(node.errors(), "", "{}", node.name());
    }
    elapsed
}

/// The master dies under users who are logged in: they wait, and see no error, and nobody is logged out.
#[test]
fn a_master_that_dies_costs_users_a_pause() {
    const USERS: usize = 12;
    let Some(mut redis) = has_phpredis()
        .then(|| sentinel::watched(Duration::from_secs(1)))
        .flatten()
    else {
        return;
    };
    let gateway = gateway(&format!("backend: '{}'", redis.address()));
    let nodes = shared_nodes(&gateway, &["redis.session.locking_enabled=1"]);
    let proxy = round_robin(&nodes, Host::Sidecar);
    let mut users: Vec<Browser> = (0..USERS).map(|_| Browser::default()).collect();
    for user in &mut users {
        user.get(&proxy, "/captcha.php");
        user.sees(&proxy, "/login.php?code=7x2k", "welcome");
    }
    redis.caught_up();
    let end = Instant::now() + Duration::from_secs(8);
    let pauses = std::thread::scope(|scope| {
        let browsing: Vec<_> = users
            .iter_mut()
            .map(|user| {
                let proxy = &proxy;
                scope.spawn(move || {
                    let mut longest = Duration::ZERO;
                    while Instant::now() < end {
                        let start = Instant::now();
                        user.sees(proxy, "/user.php", "ann");
                        longest = longest.max(start.elapsed());
                    }
                    longest
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(500));
        redis.kill_master();
        let pauses = browsing.into_iter().map(|user| user.join().unwrap());
        pauses.collect::<Vec<_>>()
    });
    for node in &nodes {
        assert_eq!(node.errors(), "", "{}", node.name());
    }
    let longest = pauses.iter().max().unwrap();
    assert!(
        *longest > Duration::from_millis(500),
        "nobody noticed: {longest:?}"
    );
    eprintln!("a Redis master was killed under {USERS} users: the longest pause was {longest:?}");
}
