//! The demo's servers without the proxy in front.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::*;

fn ask(address: SocketAddr, head: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(address) else {
        return "refused".to_owned();
    };
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    write!(
        stream,
        "{head} HTTP/1.1\r\nhost: demo\r\nconnection: close\r\nx-real-ip: 10.9.8.7\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn address(config: &Config, pool: &str, server: usize) -> SocketAddr {
    config.policy.pools[config.policy.pool_index(pool).unwrap()].servers[server].address
}

#[test]
fn the_configuration_of_the_demo_is_valid_and_has_a_pool_for_each_method() {
    let backends = Backends::start(Ports::Usual).unwrap();
    let config = backends.config().unwrap();
    assert_eq!(config.policy.pools.len(), Algorithm::ALL.len() + 1);
    assert!(
        config.listeners[0].bind.ip().is_loopback() && config.admin.unwrap().ip().is_loopback()
    );
}

#[test]
fn two_demos_do_not_meet() {
    let (one, two) = (
        Backends::start(Ports::Usual).unwrap(),
        Backends::start(Ports::Usual).unwrap(),
    );
    assert_ne!(
        address(&one.config().unwrap(), "console", 0),
        address(&two.config().unwrap(), "console", 0)
    );
}

#[test]
fn a_node_says_who_it_is_and_can_be_stopped_and_started() {
    let backends = Backends::start(Ports::Usual).unwrap();
    let config = backends.config().unwrap();
    let (web1, console) = (
        address(&config, "round_robin", 0),
        address(&config, "console", 0),
    );
    let answer = ask(web1, "GET /round_robin/hello?ms=1");
    assert!(
        answer.contains("\"node\":\"web1\"") && answer.contains("10.9.8.7"),
        "{answer}"
    );
    let switch = |verb: &str, header: &str| {
        ask(
            console,
            &format!(
                "POST /demo/nodes/web1/{verb} HTTP/1.1\r\ncontent-length: 0{header}\r\nx-rest:"
            ),
        )
    };
    assert!(
        switch("stop", "").starts_with("HTTP/1.1 403"),
        "a page of somebody else cannot stop it"
    );
    assert!(switch("stop", "\r\nx-evenkeel-demo: 1").starts_with("HTTP/1.1 200"));
    assert_eq!(ask(web1, "GET /"), "refused");
    assert!(switch("start", "\r\nx-evenkeel-demo: 1").contains("\"served\":1"));
    assert!(ask(web1, "GET /").starts_with("HTTP/1.1 200"));
    assert!(switch("explode", "\r\nx-evenkeel-demo: 1").starts_with("HTTP/1.1 404"));
}

#[test]
fn the_page_is_there_and_needs_nothing_from_elsewhere() {
    let backends = Backends::start(Ports::Usual).unwrap();
    let console = address(&backends.config().unwrap(), "console", 0);
    let page = ask(console, "GET /");
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("</html>"));
    assert!(
        !page.contains("https://") && !page.contains("src="),
        "no asset from elsewhere"
    );
    assert!(ask(console, "GET /demo/state").contains("\"running\":true"));
    assert!(ask(console, "GET /nothing").starts_with("HTTP/1.1 404"));
}
