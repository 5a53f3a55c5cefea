//! Which pool: by host and by path, the first match, and 404 without one.

use evenkeel_tests::{Cluster, Host, Request, Response, both_hosts, nginx, php};

both_hosts!(
    host_and_path_choose_the_pool,
    static_files_and_php_pages_go_to_their_own_servers,
    a_request_that_no_route_takes_gets_404,
    a_method_can_choose_the_pool,
);

const POLICY: &str = "\
routes:
  - match: {host: [www.server01.com, '*.cdn.com']}
    pool: one
  - match: {path_prefix: [/static, /images], path_suffix: [.jpg, .css]}
    pool: static
  - match: {path_regex: ['^/v[0-9]+/']}
    pool: one
  - match: {path: /only}
    pool: static
  - {pool: shop}
pools:
  one: {servers: [{address: '@one'}]}
  static: {servers: [{address: '@static'}]}
  shop: {servers: [{address: '@shop'}]}";

fn host_and_path_choose_the_pool(host: Host) {
    let servers = ["one", "static", "shop"].map(nginx);
    let proxy = servers
        .iter()
        .fold(Cluster::new(), |cluster, s| cluster.server(s))
        .policy(POLICY)
        .on(host);
    for (name, target, expected) in [
        ("www.server01.com", "/name", "one"),
        ("WWW.Server01.COM", "/name", "one"),
        ("www.server01.com:8080", "/name", "one"),
        ("www.server01.com.", "/name", "one"),
        ("img.cdn.com", "/static/nothing", "one"),
        ("cdn.com", "/name", "shop"),
        ("evilcdn.com", "/name", "shop"),
        ("other", "/static/nothing", "static"),
        ("other", "/imagesque", "static"),
        ("other", "/a/b.css", "static"),
        ("other", "/a/b.css?x=1", "static"),
        ("other", "/a/b.CSS", "shop"),
        ("other", "/index.php/x.css", "shop"),
        ("other", "/name?file=.css", "shop"),
        ("other", "/v2/name", "one"),
        ("other", "/only", "static"),
        ("other", "/only/more", "shop"),
        ("other", "/Static/x", "shop"),
    ] {
        let response = proxy.exchange(&Request::get(target).header("Host", name));
        assert_eq!(response.text(), expected, "{name} {target}");
    }
}

fn static_files_and_php_pages_go_to_their_own_servers(host: Host) {
    let (site, shop) = (nginx("site"), php("shop"));
    let policy = "\
routes:
  - match: {path_suffix: [.jpg, .css, .html]}
    pool: static
  - {pool: shop}
pools:
  static: {servers: [{address: '@site'}]}
  shop: {servers: [{address: '@shop'}]}";
    let proxy = Cluster::new()
        .server(&site)
        .server(&shop)
        .policy(policy)
        .on(host);
    let jpeg = proxy.get("/images/one.jpg");
    assert_eq!(
        (jpeg.status, jpeg.body.as_slice()),
        (200, &[0xff, 0xd8, 0xff, 0xe0][..])
    );
    assert_eq!(
        proxy
            .get("/static/site.css")
            .header("content-type")
            .as_deref(),
        Some("text/css")
    );
    assert_eq!(proxy.get("/echo.php?a=b").json()["uri"], "/echo.php?a=b");
}

fn a_request_that_no_route_takes_gets_404(host: Host) {
    let web = nginx("web");
    let policy =
        "routes: [{match: {host: known}, pool: web}]\npools: {web: {servers: [{address: '@web'}]}}";
    let proxy = Cluster::new().server(&web).policy(policy).on(host);
    let response: Response = proxy.get("/name");
    assert_eq!(response.status, 404);
    if host == Host::Sidecar {
        assert_eq!(
            response.header("x-evenkeel-error").as_deref(),
            Some("no_route")
        );
    }
    assert!(web.seen().is_empty());
    assert_eq!(
        proxy
            .exchange(&Request::get("/name").header("Host", "known"))
            .text(),
        "web"
    );
}

fn a_method_can_choose_the_pool(host: Host) {
    let (reader, writer) = (nginx("reader"), nginx("writer"));
    let policy = "\
routes: [{match: {method: [GET, HEAD]}, pool: reader}, {pool: writer}]
pools: {reader: {servers: [{address: '@reader'}]}, writer: {servers: [{address: '@writer'}]}}";
    let proxy = Cluster::new()
        .server(&reader)
        .server(&writer)
        .policy(policy)
        .on(host);
    assert_eq!(proxy.get("/name").text(), "reader");
    assert_eq!(
        proxy
            .exchange(&Request::new("POST", "/name").body("x"))
            .text(),
        "writer"
    );
    assert_eq!(
        proxy.exchange(&Request::new("DELETE", "/name")).text(),
        "writer"
    );
}
