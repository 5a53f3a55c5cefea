//! The ways to pass for somebody else, one test an item, so that a reader can tick them off. Each says beside it what would happen without
//! the rule: the same words from a peer that is trusted, or in a header that tells nothing, do arrive.
//!
//! | item | test |
//! |---|---|
//! | headers that tell of the client, from strangers | `strangers_tell_nothing` |
//! | their spellings with underscores, which CGI reads as the same | `spellings_with_underscores_tell_nothing` |
//! | IPv4 addresses as mapped IPv6 ones | `mapped_addresses_are_the_ipv4_ones` |
//! | octets with leading zeros | `octets_with_leading_zeros_are_no_addresses` |
//! | the same header more than once | `of_repeated_headers_none_slips_through` |
//! | very long X-Forwarded-For | `a_very_long_list_is_walked_to_its_bound` |
//! | private networks that tenants share | `only_who_is_stated_is_trusted` |
//! | limits that count what a client writes | `limits_count_who_the_client_is` |
//! | rules for administrators that believe a header | `rules_on_the_socket_believe_no_header` |
//! | the hop that was there, hidden behind the address found | `the_peer_is_appended_and_never_the_client` |
//! | Forwarded beside X-Forwarded-For | `only_the_configured_header_is_believed` |
//! | headers that steer | `nobody_steers_from_outside` |
//! | addresses that choose a server | `a_stranger_does_not_choose_its_server` |
//! | the PROXY protocol where nobody asked for it | `nobody_else_may_say_whose_connection_it_is` of [`crate::proxy_protocol`] |

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use evenkeel_tests::{
    Cluster, Connection, Host, Proxy, Request, both_hosts, doubles, nginx, ports,
};

both_hosts!(
    strangers_tell_nothing,
    spellings_with_underscores_tell_nothing,
    mapped_addresses_are_the_ipv4_ones,
    octets_with_leading_zeros_are_no_addresses,
    of_repeated_headers_none_slips_through,
    a_very_long_list_is_walked_to_its_bound,
    only_who_is_stated_is_trusted,
    limits_count_who_the_client_is,
    rules_on_the_socket_believe_no_header,
    the_peer_is_appended_and_never_the_client,
    only_the_configured_header_is_believed,
    nobody_steers_from_outside,
    a_stranger_does_not_choose_its_server,
);

const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 9, 0, 1));
const TRUSTED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 5, 0, 1));
const TRUST: &str = "real_ip: {trusted: [127.5.0.0/16, 10.0.0.0/8], recursive: true}\n";

/// Headers that tell of the client or of what it asked for.
const TELLING: [&str; 13] = [
    "X-Real-IP",
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Server",
    "Forwarded",
    "X-Client-IP",
    "CF-Connecting-IP",
    "True-Client-IP",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-Request-Id",
];

fn proxy(web: &doubles::Double, policy: &str, host: Host) -> Proxy {
    Cluster::new()
        .server(web)
        .policy(policy)
        .pool("", &[("web", "")])
        .on(host)
}

/// What the server gets of a request with these headers, from a peer.
#[track_caller]
fn seen(proxy: &Proxy, web: &doubles::Double, peer: IpAddr, headers: &[(&str, &str)]) -> String {
    web.forget();
    let request = headers
        .iter()
        .fold(Request::get("/"), |request, (name, value)| {
            request.header(name, value)
        });
    let mut connection = Connection::open_from(peer, proxy.address).unwrap();
    let response = connection.exchange(&request).unwrap();
    assert_eq!(response.status, 200, "{headers:?}: {}", response.text());
    web.requests_text().concat().to_ascii_lowercase()
}

/// The value of a header that the server got once.
#[track_caller]
fn value(request: &str, name: &str) -> String {
    let begin = format!("\r\n{name}: ");
    let mut parts = request.split(&begin).skip(1);
    let value = parts
        .next()
        .unwrap_or_else(|| panic!("no {name} in {request}"));
    assert!(parts.next().is_none(), "{name} more than once in {request}");
    value.split("\r\n").next().unwrap().to_owned()
}

/// Whom the server takes for the client, by these lines of X-Forwarded-For from the trusted peer.
#[track_caller]
fn check_client(proxy: &Proxy, web: &doubles::Double, lines: &[&str], expected: &str) {
    let headers: Vec<_> = lines
        .iter()
        .map(|line| ("X-Forwarded-For", *line))
        .collect();
    let seen = seen(proxy, web, TRUSTED, &headers);
    assert_eq!(value(&seen, "x-real-ip"), expected, "{lines:?}");
}

fn strangers_tell_nothing(host: Host) {
    let web = doubles::recorder("web");
    let proxy = proxy(&web, TRUST, host);
    for name in TELLING {
        let told = seen(&proxy, &web, STRANGER, &[(name, "spoofed")]);
        assert!(!told.contains("spoofed"), "{name}: {told}");
        assert_eq!(value(&told, "x-real-ip"), "127.9.0.1", "{name}");
        // From a trusted peer it is believed, or at least passed on; X-Real-IP is always what was found.
        let told = seen(&proxy, &web, TRUSTED, &[(name, "spoofed")]);
        assert_eq!(
            told.contains("spoofed"),
            name != "X-Real-IP",
            "{name}: {told}"
        );
    }
    // Of this nobody's is passed on: CGI would read a proxy's address of it.
    for peer in [STRANGER, TRUSTED] {
        let told = seen(
            &proxy,
            &web,
            peer,
            &[("Proxy", "spoofed"), ("X-Proxy", "kept")],
        );
        assert!(!told.contains("spoofed") && told.contains("kept"), "{told}");
    }
}

fn spellings_with_underscores_tell_nothing(host: Host) {
    let web = doubles::recorder("web");
    let proxy = proxy(&web, TRUST, host);
    for name in TELLING.iter().filter(|name| name.contains('-')) {
        let all = name.replace('-', "_");
        let one = name.replacen('-', "_", 1);
        let capitals = all.to_ascii_uppercase();
        for spelling in [&all, &one, &capitals] {
            for peer in [STRANGER, TRUSTED] {
                let told = seen(
                    &proxy,
                    &web,
                    peer,
                    &[(spelling, "spoofed"), ("X_Other", "kept")],
                );
                assert!(!told.contains("spoofed"), "{spelling}: {told}");
                assert!(told.contains("kept"), "{spelling}: {told}");
            }
        }
    }
}

fn mapped_addresses_are_the_ipv4_ones(host: Host) {
    let web = doubles::recorder("web");
    let any: SocketAddr = format!("[::]:{}", ports::free().port()).parse().unwrap();
    let mut proxy = Cluster::new()
        .server(&web)
        .bind(any)
        .policy(TRUST)
        .pool("", &[("web", "")])
        .on(host);
    // The peer itself is ::ffff:127.5.0.1 there.
    proxy.address = SocketAddr::from((Ipv4Addr::LOCALHOST, any.port()));
    check_client(&proxy, &web, &["6.6.6.6"], "6.6.6.6");
    check_client(&proxy, &web, &["6.6.6.6, ::ffff:10.0.0.5"], "6.6.6.6");
    check_client(&proxy, &web, &["6.6.6.6, ::ffff:11.0.0.5"], "11.0.0.5");
    let told = seen(&proxy, &web, STRANGER, &[("X-Forwarded-For", "6.6.6.6")]);
    assert_eq!(value(&told, "x-real-ip"), "127.9.0.1");
}

/// 010 is ten for one program and eight for the next.
fn octets_with_leading_zeros_are_no_addresses(host: Host) {
    let web = doubles::recorder("web");
    let proxy = proxy(&web, TRUST, host);
    for zeros in [
        "010.0.0.5",
        "10.0.0.05",
        "0010.0.0.5",
        "10.00.0.5",
        "0x0a.0.0.5",
        "167772165",
        "10.5",
    ] {
        check_client(&proxy, &web, &[zeros], "127.5.0.1");
        check_client(&proxy, &web, &[&format!("6.6.6.6, {zeros}")], "127.5.0.1");
    }
    check_client(&proxy, &web, &["6.6.6.6, 10.0.0.5"], "6.6.6.6");
}

fn of_repeated_headers_none_slips_through(host: Host) {
    let web = doubles::recorder("web");
    let proxy = proxy(&web, TRUST, host);
    for name in TELLING {
        let (lower, upper) = (name.to_ascii_lowercase(), name.to_ascii_uppercase());
        let three = [
            (&*lower, "spoofed"),
            (name, "spoofed"),
            (&*upper, "spoofed"),
        ];
        let told = seen(&proxy, &web, STRANGER, &three);
        assert!(!told.contains("spoofed"), "{name}: {told}");
    }
    // What the server is told is told once.
    let twice = [("X-Real-IP", "6.6.6.6"), ("X-Real-IP", "7.7.7.7")];
    let told = seen(&proxy, &web, TRUSTED, &twice);
    assert_eq!(value(&told, "x-real-ip"), "127.5.0.1");
    // The last line is the nearest hop's.
    check_client(&proxy, &web, &["6.6.6.6", "203.0.113.7"], "203.0.113.7");
    check_client(&proxy, &web, &["203.0.113.7", "10.0.0.5"], "203.0.113.7");
}

fn a_very_long_list_is_walked_to_its_bound(host: Host) {
    let web = doubles::recorder("web");
    let proxy = proxy(&web, TRUST, host);
    let list = |hops: usize| format!("6.6.6.6{}", ", 10.0.0.5".repeat(hops));
    check_client(&proxy, &web, &[&list(255)], "6.6.6.6");
    check_client(&proxy, &web, &[&list(256)], "10.0.0.5");
    check_client(&proxy, &web, &[&list(5_000)], "10.0.0.5");
    let request = Request::get("/").header("X-Forwarded-For", list(10_000));
    let mut connection = Connection::open_from(TRUSTED, proxy.address).unwrap();
    assert_eq!(connection.exchange(&request).unwrap().status, 431);
}

fn only_who_is_stated_is_trusted(host: Host) {
    let web = doubles::recorder("web");
    // Nobody, if nobody is stated: not even this machine.
    let closed = proxy(&web, "", host);
    let told = seen(&closed, &web, TRUSTED, &[("X-Forwarded-For", "6.6.6.6")]);
    assert_eq!(value(&told, "x-real-ip"), "127.5.0.1");
    // One address, and not its neighbours in the same private network.
    let policy = "real_ip: {trusted: [127.5.0.1, 10.0.0.5], recursive: true}\n";
    let one = proxy(&web, policy, host);
    check_client(&one, &web, &["6.6.6.6, 10.0.0.5"], "6.6.6.6");
    check_client(&one, &web, &["6.6.6.6, 10.0.0.6"], "10.0.0.6");
    let neighbour = IpAddr::V4(Ipv4Addr::new(127, 5, 0, 2));
    let told = seen(&one, &web, neighbour, &[("X-Forwarded-For", "6.6.6.6")]);
    assert_eq!(value(&told, "x-real-ip"), "127.5.0.2");
}

fn limits_count_who_the_client_is(host: Host) {
    let web = doubles::recorder("web");
    let policy = format!(
        "{TRUST}limits: {{few: {{rate: 1r/m, burst: 2, nodelay: true}}}}\nroutes: [{{limit: few, pool: web}}]\npools: {{web: {{servers: [{{address: '@web'}}]}}}}"
    );
    let proxy = Cluster::new().server(&web).policy(&policy).on(host);
    let statuses = |peer: IpAddr| -> Vec<u16> {
        let ask = |at| {
            let request = Request::get("/").header("X-Forwarded-For", format!("6.6.6.{at}"));
            let mut connection = Connection::open_from(peer, proxy.address).unwrap();
            connection.exchange(&request).unwrap().status
        };
        (0..5).map(ask).collect()
    };
    assert_eq!(statuses(STRANGER), [200, 200, 200, 429, 429]);
    assert_eq!(statuses(TRUSTED), [200; 5], "five clients");
}

fn rules_on_the_socket_believe_no_header(host: Host) {
    let web = doubles::recorder("web");
    let policy = format!(
        "{TRUST}routes:
  - {{match: {{path: /socket, not: {{client: {{in: 127.7.0.1, of: tcp_peer}}}}}}, deny: true}}
  - {{match: {{path: /client, not: {{client: 127.7.0.1}}}}, deny: true}}
  - {{pool: web}}
pools: {{web: {{servers: [{{address: '@web'}}]}}}}"
    );
    let proxy = Cluster::new().server(&web).policy(&policy).on(host);
    let administrator = IpAddr::V4(Ipv4Addr::new(127, 7, 0, 1));
    let status = |peer: IpAddr, target: &str| {
        let request = Request::get(target).header("X-Forwarded-For", "127.7.0.1");
        let mut connection = Connection::open_from(peer, proxy.address).unwrap();
        connection.exchange(&request).unwrap().status
    };
    assert_eq!(status(administrator, "/socket"), 200);
    assert_eq!(status(STRANGER, "/socket"), 403);
    assert_eq!(status(STRANGER, "/client"), 403);
    // Who passes a trusted proxy is the client there, and still not on the socket.
    assert_eq!(status(TRUSTED, "/client"), 200);
    assert_eq!(status(TRUSTED, "/socket"), 403);
}

fn the_peer_is_appended_and_never_the_client(host: Host) {
    let web = doubles::recorder("web");
    let proxy = proxy(&web, TRUST, host);
    let list = [("X-Forwarded-For", "6.6.6.6, 203.0.113.7, 10.0.0.5")];
    let told = seen(&proxy, &web, TRUSTED, &list);
    assert_eq!(value(&told, "x-real-ip"), "203.0.113.7");
    assert_eq!(
        value(&told, "x-forwarded-for"),
        "6.6.6.6, 203.0.113.7, 10.0.0.5, 127.5.0.1"
    );
    let told = seen(&proxy, &web, STRANGER, &list);
    assert_eq!(value(&told, "x-forwarded-for"), "127.9.0.1");
}

fn only_the_configured_header_is_believed(host: Host) {
    let web = doubles::recorder("web");
    let both = [
        ("X-Forwarded-For", "6.6.6.6"),
        ("Forwarded", "for=7.7.7.7"),
        ("X-Real-IP", "8.8.8.8"),
        ("CF-Connecting-IP", "9.9.9.9"),
    ];
    for (header, expected) in [
        ("X-Forwarded-For", "6.6.6.6"),
        ("Forwarded", "7.7.7.7"),
        ("X-Real-IP", "8.8.8.8"),
        ("CF-Connecting-IP", "9.9.9.9"),
    ] {
        let policy = format!("real_ip: {{trusted: [127.5.0.1], header: {header}}}\n");
        let proxy = proxy(&web, &policy, host);
        let told = seen(&proxy, &web, TRUSTED, &both);
        assert_eq!(value(&told, "x-real-ip"), expected, "{header}");
        let without: Vec<_> = both
            .into_iter()
            .filter(|(name, _)| *name != header)
            .collect();
        let told = seen(&proxy, &web, TRUSTED, &without);
        assert_eq!(value(&told, "x-real-ip"), "127.5.0.1", "without {header}");
    }
}

fn nobody_steers_from_outside(host: Host) {
    let (web, other) = (doubles::recorder("web"), doubles::recorder("other"));
    let policy = "\
routes: [{match: {path: /other}, pool: other}, {pool: web}]
pools: {web: {servers: [{address: '@web'}]}, other: {servers: [{address: '@other'}]}}";
    let proxy = Cluster::new()
        .server(&web)
        .server(&other)
        .policy(policy)
        .on(host);
    let address = evenkeel_tests::Server::address(&other).to_string();
    let steering = [
        ("x-gateway-destination-endpoint", address.as_str()),
        ("x-evenkeel-pool", "other"),
        ("x-envoy-original-dst-host", address.as_str()),
        ("x-envoy-retry-on", "5xx"),
        ("x-envoy-max-retries", "99"),
        ("x-envoy-upstream-rq-timeout-ms", "1"),
        ("x-evenkeel-explain", "1"),
    ];
    for (name, text) in steering {
        let told = seen(&proxy, &web, STRANGER, &[(name, text)]);
        assert!(!told.contains(name), "{name}: {told}");
    }
    assert_eq!(other.requests_text(), Vec::<String>::new());
    // The other server is there, and it is routes that lead to it.
    assert_eq!(proxy.get("/other").status, 200);
    assert_eq!(other.requests().len(), 1);
}

fn a_stranger_does_not_choose_its_server(host: Host) {
    let servers = ["a", "b", "c", "d"].map(nginx);
    let cluster = servers
        .iter()
        .fold(Cluster::new(), |cluster, server| cluster.server(server));
    let proxy = cluster
        .policy(TRUST)
        .pool(
            "balance: ip_hash",
            &["a", "b", "c", "d"].map(|name| (name, "")),
        )
        .on(host);
    let names = |peer: IpAddr| {
        let mut names: Vec<String> = (0..32)
            .map(|at| {
                let request =
                    Request::get("/name").header("X-Forwarded-For", format!("6.6.{at}.6"));
                let mut connection = Connection::open_from(peer, proxy.address).unwrap();
                connection.exchange(&request).unwrap().text()
            })
            .collect();
        names.sort_unstable();
        names.dedup();
        names.len()
    };
    assert_eq!(names(STRANGER), 1);
    assert!(names(TRUSTED) > 1);
}
