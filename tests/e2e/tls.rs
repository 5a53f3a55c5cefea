//! TLS in front: HTTP/1.1 by ALPN, the scheme that the server is told, and clients that do not speak TLS.

use std::time::Duration;

use evenkeel_tests::tls::Certificate;
use evenkeel_tests::{Cluster, Host, Request, both_hosts, nginx};

both_hosts!(
    http1_over_tls_is_served_and_the_server_is_told,
    many_requests_on_one_tls_connection,
    a_client_without_tls_is_not_served,
);

fn http1_over_tls_is_served_and_the_server_is_told(host: Host) {
    let (web, certificate) = (nginx("web"), Certificate::new());
    let cluster = Cluster::new()
        .server(&web)
        .listener(&certificate.listener());
    let proxy = cluster.pool("", &[("web", "")]).on(host);
    let mut connection = certificate.connect(proxy.address).unwrap();
    let told = connection
        .exchange(&Request::get("/headers").header("X-Forwarded-Proto", "http"))
        .unwrap()
        .json();
    assert_eq!(
        (&told["x-forwarded-proto"], &told["x-real-ip"]),
        (&"https".into(), &"127.0.0.1".into())
    );
}

fn many_requests_on_one_tls_connection(host: Host) {
    let (web, certificate) = (nginx("web"), Certificate::new());
    let cluster = Cluster::new()
        .server(&web)
        .listener(&certificate.listener());
    let proxy = cluster.pool("", &[("web", "")]).on(host);
    let mut connection = certificate.connect(proxy.address).unwrap();
    for _ in 0..200 {
        assert_eq!(connection.get("/name").unwrap().text(), "web");
    }
    assert!(connection.get("/big.bin").unwrap().body == web.big());
}

fn a_client_without_tls_is_not_served(host: Host) {
    let (web, certificate) = (nginx("web"), Certificate::new());
    let cluster = Cluster::new()
        .server(&web)
        .listener(&certificate.listener());
    let proxy = cluster.pool("", &[("web", "")]).on(host);
    let mut connection = proxy.connect();
    connection.send(&Request::get("/name")).unwrap();
    assert!(connection.is_closed_within(Duration::from_secs(20)));
    assert!(web.seen().is_empty());
    assert_eq!(
        certificate
            .connect(proxy.address)
            .unwrap()
            .get("/name")
            .unwrap()
            .text(),
        "web"
    );
}
