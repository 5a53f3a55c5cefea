//! The PROXY protocol, in and out: real HAProxy and nginx as senders and receivers, and by hand what they would never send.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use evenkeel_tests::child::Child;
use evenkeel_tests::{
    Cluster, Connection, Host, Nginx, Proxy, Request, Server, both_hosts, doubles, eventually,
    nginx, peers, ports,
};
use tempfile::TempDir;

both_hosts!(
    the_client_is_whom_a_trusted_balancer_names,
    what_is_no_header_is_cut_off,
    a_header_may_come_byte_by_byte,
    a_header_cut_anywhere_is_no_request,
    nobody_else_may_say_whose_connection_it_is,
    haproxy_and_nginx_as_senders,
    servers_are_told_whose_connection_it_is,
    every_client_has_connections_of_its_own,
    checks_are_nobodys_connections,
);

const PATIENCE: Duration = Duration::from_secs(20);
const FROM_HERE: &str = "proxy_protocol: {from: [127.0.0.1]}";

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [
        b"\r\n\r\n\0\r\nQUIT\n",
        &[command, family][..],
        &length,
        rest,
    ]
    .concat()
}

/// 192.0.2.9:4444 to 198.51.100.1:80.
fn v2_of_someone() -> Vec<u8> {
    v2(
        0x21,
        0x11,
        &[192, 0, 2, 9, 198, 51, 100, 1, 0x11, 0x5c, 0, 80],
    )
}

fn proxy(host: Host, web: &Nginx, listener: &str, policy: &str) -> Proxy {
    Cluster::new()
        .server(web)
        .listener(listener)
        .policy(policy)
        .pool("", &[("web", "")])
        .on(host)
}

/// What the server is told by a request that follows `header` on a new connection.
#[track_caller]
fn told(at: SocketAddr, header: &[u8]) -> serde_json::Value {
    let mut connection = Connection::open(at).unwrap();
    let request = Request::get("/headers").head_bytes();
    connection.send_bytes(&[header, &request].concat()).unwrap();
    connection.response("GET").unwrap().json()
}

fn the_client_is_whom_a_trusted_balancer_names(host: Host) {
    let web = nginx("web");
    let proxy = proxy(host, &web, FROM_HERE, "");
    let rows: [(&[u8], &str); 5] = [
        (
            b"PROXY TCP4 192.0.2.9 198.51.100.1 4444 80\r\n",
            "192.0.2.9",
        ),
        (
            b"PROXY TCP6 2001:db8::9 2001:db8::1 4444 80\r\n",
            "2001:db8::9",
        ),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (&v2_of_someone(), "192.0.2.9"),
        (&v2(0x20, 0, &[]), "127.0.0.1"),
    ];
    for (header, client) in rows {
        let told = told(proxy.address, header);
        assert_eq!(told["x-real-ip"], client, "{told}");
        assert_eq!(told["x-forwarded-for"], client, "{told}");
    }
}

fn what_is_no_header_is_cut_off(host: Host) {
    let web = nginx("web");
    let proxy = proxy(host, &web, FROM_HERE, "");
    let mut broken_sum = v2(0x21, 0x11, &[0; 19]);
    broken_sum[28] = 3;
    broken_sum[30] = 4;
    let mut rows: Vec<&[u8]> = vec![
        b"",
        b"PROXY TCP4 192.0.2.9 198.51.100.1 4444\r\n",
        b"PROXY TCP4 999.0.2.9 198.51.100.1 4444 80\r\n",
        b"PROXY TCP7 192.0.2.9 198.51.100.1 4444 80\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c192.168.1.1.",
    ];
    // Envoy verifies no checksum.
    if host == Host::Sidecar {
        rows.push(&broken_sum);
    }
    for header in rows {
        let mut connection = Connection::open(proxy.address).unwrap();
        let request = Request::get("/after-a-bad-header").head_bytes();
        connection.send_bytes(&[header, &request].concat()).unwrap();
        assert!(
            connection.is_closed_within(PATIENCE),
            "{:?}",
            String::from_utf8_lossy(header)
        );
    }
    assert!(!web.seen().iter().any(|line| line.contains("after-a-bad")));
}

fn a_header_may_come_byte_by_byte(host: Host) {
    let web = nginx("web");
    let proxy = proxy(host, &web, FROM_HERE, "");
    for header in [
        b"PROXY TCP4 192.0.2.9 198.51.100.1 4444 80\r\n".to_vec(),
        v2_of_someone(),
    ] {
        let mut connection = Connection::open(proxy.address).unwrap();
        for byte in [&header[..], &Request::get("/headers").head_bytes()].concat() {
            connection.send_bytes(&[byte]).unwrap();
        }
        let told = connection.response("GET").unwrap().json();
        assert_eq!(told["x-real-ip"], "192.0.2.9");
    }
}

fn a_header_cut_anywhere_is_no_request(host: Host) {
    let web = nginx("web");
    let proxy = proxy(host, &web, FROM_HERE, "");
    for header in [
        b"PROXY TCP4 192.0.2.9 198.51.100.1 4444 80\r\n".to_vec(),
        v2_of_someone(),
    ] {
        for length in 0..header.len() {
            let mut connection = Connection::open(proxy.address).unwrap();
            connection.send_bytes(&header[..length]).unwrap();
            // Gone before it was whole; whoever comes next is served.
            drop(connection);
        }
    }
    assert_eq!(
        told(proxy.address, &v2_of_someone())["x-real-ip"],
        "192.0.2.9"
    );
    assert_eq!(web.seen().len(), 1, "{:?}", web.seen());
}

/// Others are served as themselves by evenkeel; in Envoy they are not served at all: its listener filter cannot tell them apart.
fn nobody_else_may_say_whose_connection_it_is(host: Host) {
    let web = nginx("web");
    let proxy = proxy(host, &web, "proxy_protocol: {from: [192.0.2.0/24]}", "");
    let mut connection = Connection::open(proxy.address).unwrap();
    let header = b"PROXY TCP4 192.0.2.9 198.51.100.1 4444 80\r\n";
    let request = Request::get("/after-a-lie").head_bytes();
    connection
        .send_bytes(&[&header[..], &request].concat())
        .unwrap();
    match host {
        Host::Sidecar => {
            assert_eq!(connection.response("GET").unwrap().status, 400);
            assert_eq!(told(proxy.address, b"")["x-real-ip"], "127.0.0.1");
        }
        Host::Envoy => assert!(connection.is_closed_within(PATIENCE)),
    }
    assert!(!web.seen().iter().any(|line| line.contains("after-a-lie")));
}

/// A balancer in front, real: it sends what its users' configuration makes it send.
struct Balancer {
    address: SocketAddr,
    _child: Child,
    _directory: TempDir,
}

/// HAProxy with these sections, one of which listens at `address`.
fn haproxy(address: SocketAddr, sections: &str) -> Balancer {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("haproxy.cfg");
    let text = format!(
        "global\n  nbthread 1\ndefaults\n  timeout client 60s\n  timeout server 60s\n  timeout connect 5s\n{sections}"
    );
    std::fs::write(&path, text).unwrap();
    let mut command = Command::new(peers::need("haproxy"));
    command.arg("-db").arg("-f").arg(&path);
    listening("haproxy", address, directory, &command)
}

fn nginx_stream(target: SocketAddr) -> Balancer {
    let (address, directory) = (ports::free(), TempDir::new().unwrap());
    let path = directory.path().join("nginx.conf");
    let module = peers::need("/usr/lib/nginx/modules/ngx_stream_module.so");
    let at = directory.path().display();
    let text = format!(
        "load_module {}; daemon off; master_process off; pid {at}/pid; error_log {at}/error.log;\n\
         events {{}}\nstream {{ server {{ listen {address}; proxy_pass {target}; proxy_protocol on; }} }}\n",
        module.display()
    );
    std::fs::write(&path, text).unwrap();
    let mut command = Command::new(peers::need("nginx"));
    command.arg("-p").arg(directory.path()).arg("-c").arg(&path);
    listening("nginx", address, directory, &command)
}

fn listening(name: &str, address: SocketAddr, directory: TempDir, command: &Command) -> Balancer {
    let child = Child::start(name, command, &directory.path().join("output.log"));
    eventually(&format!("{name} listens"), PATIENCE, || {
        Connection::open(address).map(drop)
    });
    Balancer {
        address,
        _child: child,
        _directory: directory,
    }
}

fn haproxy_and_nginx_as_senders(host: Host) {
    let web = nginx("web");
    let proxy = proxy(host, &web, FROM_HERE, "");
    let to = proxy.address;
    for options in [
        "send-proxy",
        "send-proxy-v2",
        "send-proxy-v2 proxy-v2-options crc32c,unique-id,authority",
    ] {
        let address = ports::free();
        let balancer = haproxy(
            address,
            &format!(
                "frontend in\n  mode tcp\n  bind {address}\n  unique-id-format %rt\n\
                 \x20 tcp-request connection set-src str(192.0.2.77)\n  default_backend out\n\
                 backend out\n  mode tcp\n  server evenkeel {to} {options}\n"
            ),
        );
        assert_eq!(
            told(balancer.address, b"")["x-real-ip"],
            "192.0.2.77",
            "{options}"
        );
    }
    let balancer = nginx_stream(to);
    assert_eq!(told(balancer.address, b"")["x-real-ip"], "127.0.0.1");
}

/// nginx and HAProxy that require it, of both versions.
fn servers_are_told_whose_connection_it_is(host: Host) {
    let address = ports::free();
    let server = Nginx::with(
        "web",
        address,
        &format!(
            "server {{ listen {address} proxy_protocol; location / {{ return 200 \"$proxy_protocol_addr $proxy_protocol_server_addr\"; }} }}"
        ),
    );
    let receiver = ports::free();
    let _haproxy = haproxy(
        receiver,
        &format!(
            "frontend strict\n  mode http\n  bind {receiver} accept-proxy\n\
             \x20 http-request return status 200 content-type text/plain lf-string \"%[src] %[dst]\"\n"
        ),
    );
    for version in ["v1", "v2"] {
        for target in [server.address(), receiver] {
            let proxy = Cluster::new()
                .name("target", &target.to_string())
                .listener(FROM_HERE)
                .pool(&format!("proxy_protocol: {version}"), &[("target", "")])
                .on(host);
            for (header, expected) in [
                (
                    &b"PROXY TCP4 192.0.2.9 198.51.100.1 4444 80\r\n"[..],
                    "192.0.2.9 198.51.100.1",
                ),
                (
                    b"PROXY TCP6 2001:db8::9 2001:db8::1 4444 80\r\n",
                    "2001:db8::9 2001:db8::1",
                ),
                (b"PROXY UNKNOWN\r\n", "127.0.0.1 127.0.0.1"),
            ] {
                let mut connection = Connection::open(proxy.address).unwrap();
                let request = Request::get("/").head_bytes();
                connection.send_bytes(&[header, &request].concat()).unwrap();
                let answer = connection.response("GET").unwrap();
                assert_eq!(answer.text(), expected, "{version} to {target}");
            }
        }
    }
}

/// A connection that was made in the name of one client must not carry another's request.
fn every_client_has_connections_of_its_own(host: Host) {
    let address = ports::free();
    let server = Nginx::with(
        "web",
        address,
        &format!(
            "server {{ listen {address} proxy_protocol; location / {{ return 200 \"$proxy_protocol_addr\"; }} }}"
        ),
    );
    let proxy = Cluster::new()
        .server(&server)
        .listener(FROM_HERE)
        .pool("proxy_protocol: v2", &[("web", "")])
        .on(host);
    for round in 0..20 {
        let client = format!("192.0.2.{}", round % 5 + 1);
        let mut connection = Connection::open(proxy.address).unwrap();
        let header = format!("PROXY TCP4 {client} 198.51.100.1 4444 80\r\n");
        connection.send_bytes(header.as_bytes()).unwrap();
        for _ in 0..3 {
            assert_eq!(connection.get("/").unwrap().text(), client);
        }
    }
}

/// In version 1 Envoy says of a check that it is Envoy's own connection.
fn checks_are_nobodys_connections(host: Host) {
    let v1 = match host {
        Host::Sidecar => &b"PROXY UNKNOWN\r\n"[..],
        Host::Envoy => b"PROXY TCP4 127.0.0.1 127.0.0.1 ",
    };
    for (version, words) in [("v1", v1), ("v2", b"\r\nQUIT\n\x20")] {
        let server = doubles::recorder("web");
        let proxy = Cluster::new()
            .server(&server)
            .pool(
                &format!("proxy_protocol: {version}; health: {{interval: 200ms, timeout: 100ms, path: /check}}"),
                &[("web", "")],
            )
            .start(host);
        eventually("a check says that it is nobody's", PATIENCE, || {
            let all = server.requests();
            let is_told = all
                .iter()
                .any(|request| request.windows(words.len()).any(|part| part == words));
            if is_told {
                Ok(())
            } else {
                Err(server.requests_text())
            }
        });
        drop(proxy);
    }
}
