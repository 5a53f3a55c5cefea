//! The harness itself: the servers and clients of the other scenarios do what their names say, without a proxy between.

use std::time::Duration;

use evenkeel_tests::cluster::sequence;
use evenkeel_tests::http2::block_on;
use evenkeel_tests::{Connection, Load, Nginx, Request, Server, doubles, nginx, php};
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

#[test]
fn nginx_as_the_reference_chooses_as_it_is_known_to() {
    let servers = ["a", "b", "c"].map(nginx);
    let lines = |weights: [u32; 3]| -> String {
        let servers = servers.iter().zip(weights);
        servers
            .map(|(server, weight)| format!("server {} weight={weight};", server.address()))
            .collect()
    };
    let reference = Nginx::balancer(&lines([5, 1, 1]));
    assert_eq!(sequence(reference.address(), 7).concat(), "aabacaa");
    let reference = Nginx::balancer(&lines([4, 3, 2]));
    assert_eq!(sequence(reference.address(), 9).concat(), "abcabacba");
}

#[test]
fn a_load_counts_what_is_answered_and_what_is_not() {
    let mut web = nginx("web");
    let report = Load::new(8).requests(500).run(web.address());
    report.assert_no_failure();
    assert_eq!((report.answered, report.by_server["web"]), (500, 500));
    let load = Load::new(4).per_second(100).start(web.address());
    load.during(Duration::from_secs(1));
    web.kill();
    load.during(Duration::from_millis(200));
    let report = load.stop();
    assert!(
        report.failed > 0 && (50..=125).contains(&report.answered),
        "{report:?}"
    );
}

#[test]
fn a_node_says_its_name_and_serves_its_site() {
    let web = nginx("web");
    let mut connection = Connection::open(web.address()).unwrap();
    assert_eq!(connection.get("/anything").unwrap().text(), "web");
    assert_eq!(
        connection.get("/page.html").unwrap().text(),
        "<p>a page</p>"
    );
    assert_eq!(
        connection
            .get("/trailers?n=3")
            .unwrap()
            .trailer("x-check")
            .as_deref(),
        Some("sum-of-3")
    );
    assert!(connection.get("/big.bin").unwrap().body == web.big());
    let told = connection
        .exchange(&Request::get("/headers").header("X-Real-IP", "1.2.3.4"))
        .unwrap()
        .json();
    assert_eq!(told["x-real-ip"], "1.2.3.4");
    assert_eq!(web.seen()[0], "GET /anything 200");
}

#[test]
fn a_php_node_tells_what_it_was_sent() {
    let shop = php("shop");
    let request = Request::new("POST", "/echo.php")
        .header("X-Odd", b"\xff")
        .body("abc");
    let told = Connection::open(shop.address())
        .unwrap()
        .exchange(&request)
        .unwrap()
        .json();
    assert_eq!(
        (&told["method"], &told["length"]),
        (&"POST".into(), &3.into())
    );
    assert_eq!(
        (&told["fnv"], &told["headers"]["X-Odd"]),
        (&"e71fa2190541574b".into(), &"ff".into())
    );
}

#[test]
fn doubles_have_their_faults() {
    let recorder = doubles::recorder("web");
    let mut connection = Connection::open(recorder.address()).unwrap();
    assert_eq!(connection.get("/one").unwrap().text(), "web");
    assert!(recorder.requests_text()[0].starts_with("GET /one HTTP/1.1\r\n"));
    assert!(
        Connection::open(doubles::hangs_up("x").address())
            .unwrap()
            .get("/")
            .is_err()
    );
    assert!(
        Connection::open(doubles::truncates("x").address())
            .unwrap()
            .get("/")
            .is_err()
    );
    let stale = doubles::goes_stale("x");
    let mut connection = Connection::open(stale.address()).unwrap();
    assert!(connection.get("/").is_ok() && connection.get("/").is_err());
    let unreachable = doubles::unreachable();
    let wait = Duration::from_millis(300);
    let error = std::net::TcpStream::connect_timeout(&unreachable.address(), wait).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    let echo = doubles::web_socket_echo("echo");
    block_on(async {
        let url = format!("ws://{}/", echo.address());
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        socket.send(Message::text("hello")).await.unwrap();
        assert_eq!(
            socket.next().await.unwrap().unwrap(),
            Message::text("hello")
        );
    });
}
