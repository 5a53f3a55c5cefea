//! Where it listens and what it connects to: IPv6, several listeners.

use std::net::{Ipv6Addr, SocketAddr};

use evenkeel_tests::cluster::{Server, sequence};
use evenkeel_tests::tls::Certificate;
use evenkeel_tests::{Cluster, Host, Nginx, Request, both_hosts, nginx, ports};

both_hosts!(
    listens_and_connects_over_ipv6,
    two_listeners_share_one_policy,
);

fn six() -> SocketAddr {
    SocketAddr::from((Ipv6Addr::LOCALHOST, ports::free().port()))
}

fn listens_and_connects_over_ipv6(host: Host) {
    let four = nginx("four");
    let six_server = Nginx::start_at("six", six());
    let cluster = Cluster::new().bind(six()).server(&four).server(&six_server);
    let proxy = cluster.pool("", &[("four", ""), ("six", "")]).on(host);
    assert_eq!(proxy.sequence(4), ["four", "six", "four", "six"]);
    let told = [(); 2].map(|()| proxy.get("/headers").json());
    assert!(
        told.iter().all(|told| told["x-real-ip"] == "::1"),
        "{told:?}"
    );
}

fn two_listeners_share_one_policy(host: Host) {
    let (web, certificate, second) = (nginx("web"), Certificate::new(), ports::free());
    let more = format!(
        "  - {{name: tls, bind: '{second}', {}}}",
        certificate.listener()
    );
    let proxy = Cluster::new()
        .server(&web)
        .more_listeners(&more)
        .pool("", &[("web", "")])
        .on(host);
    assert_eq!(sequence(proxy.address, 3), ["web"; 3]);
    let told = certificate
        .connect(second)
        .unwrap()
        .exchange(&Request::get("/headers"))
        .unwrap()
        .json();
    assert_eq!(
        (&told["x-forwarded-proto"], &told["server"]),
        (&"https".into(), &web.name().into())
    );
}
