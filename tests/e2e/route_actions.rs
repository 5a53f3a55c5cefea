//! What routes do besides choosing a pool, by what they look, and what servers and clients are told.

use evenkeel_tests::{Cluster, Connection, Host, Proxy, Request, both_hosts, doubles};

both_hosts!(
    the_normal_form_of_a_path_is_matched_and_sent,
    routes_redirect_answer_deny_and_rewrite,
    routes_look_at_headers_parameters_and_addresses,
    servers_are_told_what_was_asked_for,
    headers_are_added_and_removed_both_ways,
);

/// A proxy with these routes before one that sends everything to `web`.
fn with_routes(routes: &str, more: &str, web: &doubles::Double, host: Host) -> Proxy {
    let policy = format!(
        "{more}\nroutes:\n{routes}\n  - {{pool: web}}\npools: {{web: {{servers: [{{address: '@web'}}]}}}}"
    );
    Cluster::new().server(web).policy(&policy).on(host)
}

/// The request line that the server saw last.
fn line_seen(web: &doubles::Double) -> String {
    let seen = web.requests_text();
    seen.last().unwrap().lines().next().unwrap().to_owned()
}

fn the_normal_form_of_a_path_is_matched_and_sent(host: Host) {
    let web = doubles::recorder("web");
    let routes = "  - {match: {path_prefix: /admin}, deny: true}";
    let proxy = with_routes(routes, "", &web, host);
    for target in [
        "/admin",
        "//admin/",
        "/x/../admin",
        "/%61dmin?x=1",
        "/x/%2e%2e/admin",
    ] {
        assert_eq!(proxy.get(target).status, 403, "{target}");
    }
    for target in ["/..", "/a%2fb", "/a%00b", "/a%zz", "/x/../../admin"] {
        assert_eq!(proxy.get(target).status, 400, "{target}");
    }
    assert_eq!(web.requests_text(), Vec::<String>::new());
    for (target, sent) in [
        ("/a/../b//c/%7e?q=//..", "/b/c/~?q=//.."),
        ("/a%20b/%c3%a9", "/a%20b/%C3%A9"),
        ("/admi", "/admi"),
    ] {
        assert_eq!(proxy.get(target).status, 200, "{target}");
        assert_eq!(line_seen(&web), format!("GET {sent} HTTP/1.1"));
    }
}

fn routes_redirect_answer_deny_and_rewrite(host: Host) {
    let web = doubles::recorder("web");
    let routes = "  - {match: {host: old.example}, redirect: {location: 'https://new.example$uri', status: 301}}
  - {match: {path: /ping}, respond: {body: pong, headers: {X-Client: $client_ip}}}
  - {match: {path: /gone}, respond: {status: 410}}
  - {match: {path_suffix: .bak, ignore_case: true}, deny: 404}
  - {match: {path_prefix: /api/}, pool: web, rewrite: {prefix: /api, to: /}}
  - {match: {path_regex: '^/p/[0-9]+$'}, pool: web, rewrite: {regex: '^/p/(.*)$', to: '/p.php?id=$1'}}";
    let proxy = with_routes(routes, "", &web, host);
    let moved = proxy.exchange(&Request::get("/a//b?c=d").header("Host", "old.example"));
    let location = moved.header("location");
    assert_eq!(
        (moved.status, location.as_deref()),
        (301, Some("https://new.example/a/b?c=d"))
    );
    let pong = proxy.get("/ping");
    assert_eq!((pong.status, pong.text().as_str()), (200, "pong"));
    assert_eq!(pong.header("x-client").as_deref(), Some("127.0.0.1"));
    assert_eq!(proxy.get("/gone").status, 410);
    let denied = proxy.get("/x/y.BAK");
    assert_eq!(
        (denied.status, denied.header("x-evenkeel-error").as_deref()),
        (404, Some("denied"))
    );
    assert_eq!(web.requests_text(), Vec::<String>::new());
    assert_eq!(proxy.get("/api/x?y=z").status, 200);
    assert_eq!(line_seen(&web), "GET /x?y=z HTTP/1.1");
    assert_eq!(proxy.get("/p/7?y=z").status, 200);
    assert_eq!(line_seen(&web), "GET /p.php?id=7&y=z HTTP/1.1");
    // PATH_INFO: a script's path is not a static file's.
    assert_eq!(proxy.get("/index.php/y.bak").status, 200);
}

fn routes_look_at_headers_parameters_and_addresses(host: Host) {
    let web = doubles::recorder("web");
    let routes = "  - {match: {client: {in: 127.0.0.0/8, of: tcp_peer}, path: /stats, header: {X-Admin: true}}, respond: {body: stats}}
  - {match: {path: /stats}, deny: true}
  - {match: {client: 203.0.113.0/24, not: {path: /help}}, deny: true}
  - {match: {header: {User-Agent: {contains: [BadBot], regex: '^curl/[0-6]'}}, ignore_case: true}, deny: true}
  - {match: {query: {debug: [1, 'yes']}}, respond: {body: debug}}
  - {match: {host_regex: '^shop[0-9]+\\.example$'}, respond: {body: shop}}";
    let proxy = with_routes(routes, "real_ip: {trusted: 127.0.0.1}", &web, host);
    let status = |target: &str, name: &str, value: &str| {
        proxy
            .exchange(&Request::get(target).header(name, value))
            .status
    };
    assert_eq!(proxy.get("/stats").status, 403);
    let stats = Request::get("/stats")
        .header("X-Admin", "")
        .header("X-Forwarded-For", "203.0.113.9");
    assert_eq!(
        proxy.exchange(&stats).text(),
        "stats",
        "the socket's address"
    );
    assert_eq!(status("/", "X-Forwarded-For", "203.0.113.9"), 403);
    assert_eq!(status("/help", "X-Forwarded-For", "203.0.113.9"), 200);
    assert_eq!(status("/", "X-Forwarded-For", "203.0.114.9"), 200);
    assert_eq!(status("/", "User-Agent", "a badbot/1"), 403);
    assert_eq!(status("/", "User-Agent", "CURL/6.1"), 403);
    assert_eq!(status("/", "User-Agent", "curl/7.1"), 200);
    for target in ["/?debug=1", "/?a&%64ebug=y%65s"] {
        assert_eq!(proxy.get(target).text(), "debug", "{target}");
    }
    let shop = Request::get("/").header("Host", "Shop12.example:81");
    assert_eq!(proxy.exchange(&shop).text(), "shop");
}

/// Behind the PROXY protocol the socket's address is another than the peer's; Envoy does not tell it, and is refused.
#[test]
fn rules_on_the_socket_are_not_what_a_proxy_header_says() {
    let web = doubles::recorder("web");
    let policy = "\
routes:
  - {match: {client: {in: 203.0.113.0/24, of: tcp_peer}}, deny: true}
  - {match: {path: /socket, client: {in: 127.0.0.1, of: tcp_peer}}, respond: {body: socket}}
  - {match: {path: /peer, client: {in: 203.0.113.9, of: peer}}, respond: {body: peer}}
  - {deny: 404}
pools: {web: {servers: [{address: '@web'}]}}";
    let proxy = Cluster::new()
        .server(&web)
        .listener("proxy_protocol: {from: [127.0.0.1]}")
        .policy(policy)
        .on(Host::Sidecar);
    for (target, expected) in [("/socket", "socket"), ("/peer", "peer")] {
        let mut connection = Connection::open(proxy.address).unwrap();
        let request = Request::get(target).head_bytes();
        let header = &b"PROXY TCP4 203.0.113.9 192.0.2.1 4444 80\r\n"[..];
        connection.send_bytes(&[header, &request].concat()).unwrap();
        let said = connection.response("GET").unwrap();
        assert_eq!(said.text(), expected, "{target}");
    }
}

fn servers_are_told_what_was_asked_for(host: Host) {
    let web = doubles::recorder("web");
    let proxy = with_routes("", "request_headers: {forwarded: true}", &web, host);
    let request = Request::get("/")
        .header("Host", "shop.example:8080")
        .header("X-Forwarded-Host", "evil")
        .header("X-Forwarded-Port", "1")
        .header("X-Request-Id", "evil")
        .header("Forwarded", "for=6.6.6.6;host=evil")
        .header("X-Original-URL", "/evil")
        .header("X_Request_Id", "evil");
    assert_eq!(proxy.exchange(&request).status, 200);
    let seen = web.requests_text()[0].to_ascii_lowercase();
    assert!(!seen.contains("evil"), "{seen}");
    for line in [
        "host: shop.example:8080",
        "x-forwarded-host: shop.example:8080",
        "x-forwarded-port: 8080",
        "forwarded: for=127.0.0.1;host=\"shop.example:8080\";proto=http",
    ] {
        assert!(
            seen.contains(&format!("\r\n{line}\r\n")),
            "{line} in {seen}"
        );
    }
    let id = seen.split("\r\nx-request-id: ").nth(1).unwrap();
    let id = id.split("\r\n").next().unwrap();
    assert!(
        id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{id}"
    );
}

fn headers_are_added_and_removed_both_ways(host: Host) {
    let web = doubles::recorder("web");
    let more = "\
request_headers: {add: {X-Via: 'a $request_id'}, remove: [Accept-Language]}
response_headers: {set: {Strict-Transport-Security: max-age=31536000, X-Id: $request_id}, add: {X-Path: $path}, remove: [Server, Content-Type]}";
    let routes = "  - {match: {path: /ping}, respond: {body: pong}}";
    let proxy = with_routes(routes, more, &web, host);
    let request = |target| {
        Request::get(target)
            .header("X-Via", "b")
            .header("Accept-Language", "de")
    };
    for target in ["/x", "/ping"] {
        let response = proxy.exchange(&request(target));
        assert_eq!(response.status, 200);
        let header = |name| response.header(name);
        assert_eq!(
            header("strict-transport-security").as_deref(),
            Some("max-age=31536000"),
            "{target}"
        );
        assert_eq!(header("x-path").as_deref(), Some(target));
        assert_eq!(header("x-id").map(|id| id.len()), Some(32));
        assert_eq!(header("content-type"), None, "{target}");
        assert_eq!(header("server"), None, "{target}");
    }
    let seen = web.requests_text()[0].to_ascii_lowercase();
    assert!(seen.contains("\r\nx-via: b\r\n"), "{seen}");
    assert!(seen.contains("\r\nx-via: a "), "{seen}");
    assert!(!seen.contains("accept-language"), "{seen}");
}
