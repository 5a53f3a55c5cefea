//! What the server is told about the client, and what a client cannot make it believe.

use evenkeel_tests::{Cluster, Host, Proxy, Request, both_hosts, doubles, nginx, php};
use serde_json::Value;

both_hosts!(
    nobody_is_trusted_unless_told,
    a_trusted_proxy_is_believed_up_to_the_first_stranger,
    underscore_twins_and_proxy_do_not_pass,
    hop_by_hop_headers_stay_on_their_hop,
    headers_that_are_not_utf8_pass_unchanged,
    repeated_headers_and_cookies_arrive_as_sent,
    every_cookie_that_is_set_arrives,
    the_configuration_sets_and_removes_headers,
    the_host_is_kept,
);

fn told(proxy: &Proxy, request: &Request) -> Value {
    let response = proxy.exchange(request);
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

fn nobody_is_trusted_unless_told(host: Host) {
    let web = nginx("web");
    let proxy = Cluster::new()
        .server(&web)
        .pool("", &[("web", "")])
        .on(host);
    let request = Request::get("/headers")
        .header("X-Real-IP", "6.6.6.6")
        .header("X-Forwarded-For", "6.6.6.6, 7.7.7.7")
        .header("X-Forwarded-Proto", "https");
    let told = told(&proxy, &request);
    assert_eq!(told["x-real-ip"], "127.0.0.1");
    assert_eq!(told["x-forwarded-for"], "127.0.0.1");
    assert_eq!(told["x-forwarded-proto"], "http");
}

fn a_trusted_proxy_is_believed_up_to_the_first_stranger(host: Host) {
    let web = nginx("web");
    let proxy = Cluster::new()
        .server(&web)
        .policy("real_ip: {trusted: [127.0.0.1, 10.0.0.0/8], recursive: true}\n")
        .pool("", &[("web", "")])
        .on(host);
    for (sent, client) in [
        ("203.0.113.7", "203.0.113.7"),
        ("6.6.6.6, 203.0.113.7, 10.1.2.3", "203.0.113.7"),
        ("10.1.2.3, 10.4.5.6", "10.1.2.3"),
        ("nonsense, 10.1.2.3", "10.1.2.3"),
        ("2001:db8::7", "2001:db8::7"),
    ] {
        let request = Request::get("/headers")
            .header("X-Forwarded-For", sent)
            .header("X-Real-IP", "6.6.6.6");
        let told = told(&proxy, &request);
        assert_eq!(told["x-real-ip"], client, "X-Forwarded-For: {sent}");
        assert_eq!(told["x-forwarded-for"], format!("{sent}, 127.0.0.1"));
    }
}

fn underscore_twins_and_proxy_do_not_pass(host: Host) {
    let recorder = doubles::recorder("web");
    let proxy = Cluster::new()
        .server(&recorder)
        .pool("", &[("web", "")])
        .on(host);
    let request = Request::get("/")
        .header("X_Real_IP", "6.6.6.6")
        .header("X_Forwarded_For", "6.6.6.6")
        .header("Proxy", "http://6.6.6.6/");
    assert_eq!(proxy.exchange(&request).status, 200);
    let seen = recorder.requests_text().join("");
    assert!(!seen.contains("6.6.6.6"), "{seen}");
}

fn hop_by_hop_headers_stay_on_their_hop(host: Host) {
    let recorder = doubles::recorder("web");
    let proxy = Cluster::new()
        .server(&recorder)
        .pool("", &[("web", "")])
        .on(host);
    let request = Request::get("/")
        .header("Keep-Alive", "timeout=5")
        .header("Proxy-Connection", "keep-alive")
        .header("TE", "gzip")
        .header("X-Kept", "yes");
    let with_listed = request
        .clone()
        .header("Connection", "X-Listed")
        .header("X-Listed", "no");
    assert_eq!(proxy.exchange(&request).status, 200);
    let seen = recorder.requests_text()[0].to_ascii_lowercase();
    assert!(seen.contains("x-kept: yes"), "{seen}");
    for field in ["\r\nkeep-alive:", "\r\nproxy-connection:", "\r\nte:"] {
        assert!(!seen.contains(field), "{field} in {seen}");
    }
    // Envoy has no rule for headers that Connection names beyond refusing some of them.
    if host == Host::Sidecar {
        assert_eq!(proxy.exchange(&with_listed).status, 200);
        let seen = recorder.requests_text()[1].to_ascii_lowercase();
        assert!(!seen.contains("x-listed"), "{seen}");
    }
}

fn headers_that_are_not_utf8_pass_unchanged(host: Host) {
    let recorder = doubles::recorder("web");
    let proxy = Cluster::new()
        .server(&recorder)
        .pool("", &[("web", "")])
        .on(host);
    let odd: &[u8] = b"caf\xe9 \xff\xfe";
    for _ in 0..3 {
        let request = Request::get("/")
            .header("X-Odd", odd)
            .header("Cookie", b"a=\xff");
        assert_eq!(proxy.exchange(&request).status, 200);
    }
    for request in recorder.requests() {
        assert!(
            request.windows(odd.len()).any(|window| window == odd),
            "{request:?}"
        );
    }
}

fn repeated_headers_and_cookies_arrive_as_sent(host: Host) {
    let recorder = doubles::recorder("web");
    let proxy = Cluster::new()
        .server(&recorder)
        .pool("", &[("web", "")])
        .on(host);
    let request = Request::get("/")
        .header("Cookie", "a=1")
        .header("Cookie", "b=2")
        .header("X-Empty", "");
    assert_eq!(proxy.exchange(&request).status, 200);
    let seen = recorder.requests_text()[0].to_ascii_lowercase();
    let first = seen.find("a=1").unwrap();
    assert!(
        seen[first..].contains("b=2") && seen.contains("\r\nx-empty:"),
        "{seen}"
    );
}

fn every_cookie_that_is_set_arrives(host: Host) {
    let shop = php("shop");
    let proxy = Cluster::new()
        .server(&shop)
        .pool("", &[("shop", "")])
        .on(host);
    let response = proxy.get("/cookies.php");
    let cookies = response
        .headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"));
    let cookies: Vec<_> = cookies
        .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
        .collect();
    assert_eq!(cookies, ["one=1", "two=2"]);
}

fn the_configuration_sets_and_removes_headers(host: Host) {
    let recorder = doubles::recorder("web");
    let policy = "request_headers:\n  set: {X-Client: '$client_ip', X-Via: 'evenkeel $host', X-Real-IP: ''}\n";
    let proxy = Cluster::new()
        .server(&recorder)
        .policy(policy)
        .pool("", &[("web", "")])
        .on(host);
    let request = Request::get("/")
        .header("Host", "shop.example")
        .header("X-Client", "6.6.6.6");
    assert_eq!(proxy.exchange(&request).status, 200);
    let seen = recorder.requests_text()[0].to_ascii_lowercase();
    assert!(seen.contains("x-client: 127.0.0.1\r\n"), "{seen}");
    assert!(seen.contains("x-via: evenkeel shop.example\r\n"), "{seen}");
    assert!(
        !seen.contains("x-real-ip") && !seen.contains("6.6.6.6"),
        "{seen}"
    );
}

fn the_host_is_kept(host: Host) {
    let web = nginx("web");
    let proxy = Cluster::new()
        .server(&web)
        .pool("", &[("web", "")])
        .on(host);
    let request = Request::get("/headers").header("Host", "Shop.Example:8080");
    let kept = told(&proxy, &request)["host"].as_str().unwrap().to_owned();
    assert!(kept.eq_ignore_ascii_case("shop.example:8080"), "{kept}");
}
