//! Servers that die: nobody notices, as long as one is left and the request may be repeated.

use std::time::{Duration, Instant};

use evenkeel_tests::{
    Cluster, Host, Load, Nginx, Request, Server, both_hosts, doubles, eventually, nginx, php, ports,
};

both_hosts!(
    a_node_killed_under_load_fails_no_get,
    a_refusing_server_is_passed_over,
    a_post_is_repeated_when_nothing_was_sent,
    a_post_is_not_repeated_once_it_was_sent,
    a_get_goes_on_when_a_server_is_silent_and_a_post_does_not,
    when_all_servers_are_silent_each_is_asked_once,
    a_stale_kept_connection_fails_no_request,
    when_all_servers_refuse_the_client_is_told,
    a_server_that_comes_back_is_used_at_once,
    an_error_of_the_application_is_not_asked_for_twice,
    without_retries_the_first_server_is_the_only_one,
    a_large_upload_passes_a_refusing_server_over,
);

/// Longest silence of a server where a test says so.
const SILENCE: Duration = Duration::from_secs(1);

fn a_node_killed_under_load_fails_no_get(host: Host) {
    let (a, mut b, c) = (nginx("a"), nginx("b"), nginx("c"));
    let pool = [("a", ""), ("b", ""), ("c", "")];
    let proxy = Cluster::new()
        .workers(2)
        .server(&a)
        .server(&b)
        .server(&c)
        .pool("retries: 2", &pool)
        .on(host);
    let load = Load::new(200).start(proxy.address);
    eventually("the load flows", Duration::from_secs(30), || {
        (load.answered() > 2_000).then_some(()).ok_or(())
    });
    b.kill();
    let before = load.answered();
    eventually("and flows on", Duration::from_secs(30), || {
        (load.answered() > before + 3_000)
            .then_some(())
            .ok_or(load.answered())
    });
    let _b = Nginx::start_at("b", b.address());
    load.during(Duration::from_secs(2));
    let report = load.stop();
    report.assert_no_failure();
    assert_eq!(report.by_server.len(), 3, "{report:?}");
}

fn a_refusing_server_is_passed_over(host: Host) {
    let web = nginx("web");
    let dead = ports::refusing().to_string();
    let pool = [("dead", ""), ("web", "")];
    let proxy = Cluster::new()
        .server(&web)
        .name("dead", &dead)
        .pool("", &pool)
        .on(host);
    assert_eq!(proxy.sequence(10), ["web"; 10]);
}

fn a_post_is_repeated_when_nothing_was_sent(host: Host) {
    let recorder = doubles::recorder("web");
    let dead = ports::refusing().to_string();
    let pool = [("dead", ""), ("web", "")];
    let proxy = Cluster::new()
        .server(&recorder)
        .name("dead", &dead)
        .pool("", &pool)
        .on(host);
    for _ in 0..4 {
        let response = proxy.exchange(&Request::new("POST", "/order").body("one please"));
        assert_eq!((response.status, response.text().as_str()), (200, "web"));
    }
    assert_eq!(recorder.requests().len(), 4);
    assert!(
        recorder
            .requests_text()
            .iter()
            .all(|request| request.ends_with("one please"))
    );
}

fn a_post_is_not_repeated_once_it_was_sent(host: Host) {
    let (broken, web) = (doubles::hangs_up("broken"), doubles::recorder("web"));
    let proxy = Cluster::new()
        .server(&broken)
        .server(&web)
        .pool("", &[("broken", ""), ("web", "")])
        .on(host);
    let response = proxy.exchange(&Request::new("POST", "/order").body("one please"));
    assert!(
        matches!(response.status, 502 | 503),
        "{} {}",
        response.status,
        response.text()
    );
    assert_eq!((broken.requests().len(), web.requests().len()), (1, 0));
    // A GET is.
    let statuses = [(); 4].map(|()| proxy.get("/").status);
    assert_eq!(statuses, [200; 4]);
}

/// Silence is no proof that nothing was done: what may not be repeated is not, nor what had a body on its way.
fn a_get_goes_on_when_a_server_is_silent_and_a_post_does_not(host: Host) {
    let (silent, web) = (doubles::silent("silent"), doubles::recorder("web"));
    let proxy = Cluster::new()
        .server(&silent)
        .server(&web)
        .top("timeouts: {response: 1s}")
        .pool(
            "balance: first; retries: 1",
            &[("silent", "max_fails: 0"), ("web", "")],
        )
        .on(host);
    let ask = |request: &Request| {
        let start = Instant::now();
        let response = proxy.exchange(request);
        (response.status, start.elapsed())
    };
    // Envoy counts from when it began to wait, in whole milliseconds.
    let waited = SILENCE - Duration::from_millis(20)..SILENCE + Duration::from_secs(2);
    for (asked, request) in [Request::get("/"), Request::new("HEAD", "/")]
        .iter()
        .enumerate()
    {
        let (status, took) = ask(request);
        assert_eq!(status, 200, "{}", request.method);
        assert!(waited.contains(&took), "{took:?}");
        let counts = (silent.requests().len(), web.requests().len());
        assert_eq!(counts, (asked + 1, asked + 1));
    }
    for request in [
        Request::new("POST", "/order"),
        Request::new("POST", "/order").body("one please"),
    ] {
        let (status, took) = ask(&request);
        assert_eq!(status, 504, "{request:?}");
        assert!(waited.contains(&took), "{took:?}");
    }
    assert_eq!((silent.requests().len(), web.requests().len()), (4, 2));
}

fn when_all_servers_are_silent_each_is_asked_once(host: Host) {
    let servers = ["a", "b", "c", "d"].map(doubles::silent);
    let mut cluster = Cluster::new();
    for server in &servers {
        cluster = cluster.server(server);
    }
    let pool = servers.each_ref().map(|server| (server.name(), ""));
    let proxy = cluster
        .top("timeouts: {response: 1s}")
        .pool("balance: first; retries: 2", &pool)
        .on(host);
    let start = Instant::now();
    let response = proxy.get("/");
    let took = start.elapsed();
    assert_eq!(response.status, 504);
    assert!(
        (SILENCE * 3..SILENCE * 3 + Duration::from_secs(2)).contains(&took),
        "{took:?}"
    );
    let asked = servers.each_ref().map(|server| server.requests().len());
    assert_eq!(asked, [1, 1, 1, 0]);
    if host == Host::Sidecar {
        let why = response.header("x-evenkeel-error");
        assert_eq!(why.as_deref(), Some("response_timeout"));
    }
}

fn a_stale_kept_connection_fails_no_request(host: Host) {
    let stale = doubles::goes_stale("stale");
    let proxy = Cluster::new()
        .server(&stale)
        .pool("retries: 1", &[("stale", "")])
        .on(host);
    let mut connection = proxy.connect();
    for at in 0..20 {
        let response = connection.get("/").unwrap();
        // Envoy has no second attempt when there is one server: the list has one entry.
        if host == Host::Sidecar {
            assert_eq!(response.status, 200, "request {at}: {}", response.text());
        }
    }
}

fn when_all_servers_refuse_the_client_is_told(host: Host) {
    let (one, two) = (ports::refusing().to_string(), ports::refusing().to_string());
    let cluster = Cluster::new().name("one", &one).name("two", &two);
    let proxy = cluster.pool("", &[("one", ""), ("two", "")]).on(host);
    let response = proxy.get("/");
    assert!(matches!(response.status, 502 | 503), "{}", response.status);
    if host == Host::Sidecar {
        assert_eq!(
            response.header("x-evenkeel-error").as_deref(),
            Some("upstream_connect_failed")
        );
    }
}

/// Unless it is left out because it failed: see `health`.
fn a_server_that_comes_back_is_used_at_once(host: Host) {
    let (mut a, b) = (nginx("a"), nginx("b"));
    let proxy = Cluster::new()
        .server(&a)
        .server(&b)
        .pool("", &[("a", "max_fails: 0"), ("b", "")])
        .on(host);
    a.kill();
    assert_eq!(proxy.sequence(4), ["b"; 4]);
    let _a = Nginx::start_at("a", a.address());
    let names = proxy.sequence(4);
    assert!(names.iter().any(|name| name == "a"), "{names:?}");
}

fn an_error_of_the_application_is_not_asked_for_twice(host: Host) {
    let (a, b) = (nginx("a"), nginx("b"));
    let proxy = Cluster::new()
        .server(&a)
        .server(&b)
        .pool("", &[("a", ""), ("b", "")])
        .on(host);
    for _ in 0..4 {
        assert_eq!(proxy.get("/503").status, 503);
        assert_eq!(proxy.get("/500").status, 500);
    }
    // nginx writes its log after it has answered.
    eventually("the servers log them", Duration::from_secs(10), || {
        let seen = a.seen().len() + b.seen().len();
        (seen >= 8).then_some(()).ok_or(seen)
    });
    assert_eq!(
        a.seen().len() + b.seen().len(),
        8,
        "{:?} {:?}",
        a.seen(),
        b.seen()
    );
}

fn without_retries_the_first_server_is_the_only_one(host: Host) {
    let web = nginx("web");
    let dead = ports::refusing().to_string();
    let cluster = Cluster::new().server(&web).name("dead", &dead);
    let proxy = cluster
        .pool("retries: 0", &[("dead", "max_fails: 0"), ("web", "")])
        .on(host);
    let answered = (0..6).filter(|_| proxy.get("/name").status == 200).count();
    assert_eq!(answered, 3);
}

fn a_large_upload_passes_a_refusing_server_over(host: Host) {
    let shop = php("shop");
    let dead = ports::refusing().to_string();
    let cluster = Cluster::new().server(&shop).name("dead", &dead);
    let proxy = cluster.pool("", &[("dead", ""), ("shop", "")]).on(host);
    // Envoy repeats only what fits its buffer (1 MiB): of a longer body it may have sent too much before the refusal comes.
    let length = match host {
        Host::Sidecar => 3 << 20,
        Host::Envoy => 256 << 10,
    };
    for _ in 0..2 {
        let told = proxy
            .exchange(&Request::new("POST", "/echo.php").body(vec![b'x'; length]))
            .json();
        assert_eq!(told["length"], length);
    }
}
