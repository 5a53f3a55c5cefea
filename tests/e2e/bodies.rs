//! Bodies: large ones both ways byte for byte, chunked, trailers, HEAD, 100-continue.

use std::time::Duration;

use evenkeel_tests::php::fnv1a64;
use evenkeel_tests::{Cluster, Host, Request, both_hosts, doubles, nginx, php};

both_hosts!(
    ten_megabytes_come_down_unchanged,
    ten_megabytes_go_up_unchanged,
    a_chunked_upload_arrives_whole,
    trailers_of_the_server_reach_the_client,
    trailers_of_the_client_reach_the_server,
    head_has_a_length_and_no_body,
    a_client_that_waits_for_100_gets_it,
    status_codes_and_redirects_pass,
    an_aborted_download_leaves_the_proxy_working,
    an_old_client_gets_an_old_answer,
    pipelined_requests_are_answered_in_order,
);

fn ten_megabytes_come_down_unchanged(host: Host) {
    let web = nginx("web");
    let proxy = Cluster::new()
        .server(&web)
        .pool("", &[("web", "")])
        .on(host);
    let response = proxy.get("/big.bin");
    assert_eq!(response.status, 200);
    assert!(
        response.body == web.big(),
        "{} bytes, not the same",
        response.body.len()
    );
}

fn ten_megabytes_go_up_unchanged(host: Host) {
    let (web, shop) = (nginx("web"), php("shop"));
    let proxy = Cluster::new()
        .server(&shop)
        .pool("", &[("shop", "")])
        .on(host);
    let body = web.big();
    let request =
        Request::new("POST", "/echo.php").header("Content-Type", "application/octet-stream");
    let told = proxy.exchange(&request.body(body.clone())).json();
    assert_eq!(told["length"], body.len());
    assert_eq!(told["fnv"], fnv1a64(&body));
}

fn a_chunked_upload_arrives_whole(host: Host) {
    let web = doubles::recorder("web");
    let proxy = Cluster::new()
        .server(&web)
        .pool("", &[("web", "")])
        .on(host);
    let mut connection = proxy.connect();
    connection
        .send_bytes(b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n")
        .unwrap();
    for piece in 0..50 {
        let data = vec![b'a' + (piece % 26) as u8; 1_000];
        connection
            .send_bytes(format!("{:x}\r\n", data.len()).as_bytes())
            .unwrap();
        connection.send_bytes(&data).unwrap();
        connection.send_bytes(b"\r\n").unwrap();
    }
    connection.send_bytes(b"0\r\n\r\n").unwrap();
    assert_eq!(connection.response("POST").unwrap().status, 200);
    let seen = &web.requests()[0];
    let letters = seen.iter().filter(|byte| **byte == b'y').count();
    assert!(
        letters >= 1_000 && seen.len() > 50_000,
        "{} bytes",
        seen.len()
    );
    // The connection is still good.
    assert_eq!(connection.get("/").unwrap().status, 200);
}

fn trailers_of_the_server_reach_the_client(host: Host) {
    let web = nginx("web");
    let proxy = Cluster::new()
        .server(&web)
        .pool("", &[("web", "")])
        .on(host);
    let response = proxy.exchange(&Request::get("/trailers?n=7").header("TE", "trailers"));
    assert_eq!(response.text(), "<p>a page</p>");
    assert_eq!(
        response.trailer("x-check").as_deref(),
        Some("sum-of-7"),
        "{response:?}"
    );
}

fn trailers_of_the_client_reach_the_server(host: Host) {
    let web = doubles::recorder("web");
    let proxy = Cluster::new()
        .server(&web)
        .pool("", &[("web", "")])
        .on(host);
    let mut connection = proxy.connect();
    let head =
        b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n";
    connection.send_bytes(head).unwrap();
    connection
        .send_bytes(b"3\r\nabc\r\n0\r\nX-Sum: 42\r\n\r\n")
        .unwrap();
    assert_eq!(connection.response("POST").unwrap().status, 200);
    let seen = web.requests_text()[0].to_ascii_lowercase();
    assert!(seen.contains("abc\r\n0\r\nx-sum: 42\r\n"), "{seen}");
}

fn head_has_a_length_and_no_body(host: Host) {
    let web = nginx("web");
    let proxy = Cluster::new()
        .server(&web)
        .pool("", &[("web", "")])
        .on(host);
    let mut connection = proxy.connect();
    let response = connection
        .exchange(&Request::new("HEAD", "/page.html"))
        .unwrap();
    assert_eq!(
        (
            response.status,
            response.header("content-length").as_deref()
        ),
        (200, Some("14"))
    );
    assert_eq!(connection.get("/name").unwrap().text(), "web");
}

fn a_client_that_waits_for_100_gets_it(host: Host) {
    let shop = php("shop");
    let proxy = Cluster::new()
        .server(&shop)
        .pool("", &[("shop", "")])
        .on(host);
    let mut connection = proxy.connect();
    let request = Request::new("POST", "/echo.php")
        .header("Expect", "100-continue")
        .body("patience");
    connection.send_bytes(&request.head_bytes()).unwrap();
    connection.patience(Duration::from_secs(5));
    assert_eq!(connection.head().unwrap().status, 100);
    connection.send_bytes(b"patience").unwrap();
    let response = connection.response("POST").unwrap();
    assert_eq!(response.json()["length"], 8);
}

fn status_codes_and_redirects_pass(host: Host) {
    let web = nginx("web");
    let proxy = Cluster::new()
        .server(&web)
        .pool("", &[("web", "")])
        .on(host);
    for (target, status) in [("/500", 500), ("/503", 503), ("/moved", 302), ("/%00", 400)] {
        assert_eq!(proxy.get(target).status, status, "{target}");
    }
    let location = proxy.get("/moved").header("location").unwrap();
    assert!(location.ends_with("/elsewhere"), "{location}");
    let tag = proxy.get("/page.html").header("etag").unwrap();
    let unchanged = proxy.exchange(&Request::get("/page.html").header("If-None-Match", &tag));
    assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
}

fn an_aborted_download_leaves_the_proxy_working(host: Host) {
    let web = nginx("web");
    let proxy = Cluster::new()
        .server(&web)
        .pool("", &[("web", "")])
        .on(host);
    for _ in 0..10 {
        let mut connection = proxy.connect();
        connection.send(&Request::get("/big.bin")).unwrap();
        assert_eq!(connection.head().unwrap().status, 200);
        connection.exactly(10_000).unwrap();
    }
    assert_eq!(proxy.sequence(10), ["web"; 10]);
}

fn an_old_client_gets_an_old_answer(host: Host) {
    let web = nginx("web");
    let proxy = Cluster::new()
        .server(&web)
        .pool("", &[("web", "")])
        .on(host);
    let mut connection = proxy.connect();
    connection
        .send_bytes(b"GET /name HTTP/1.0\r\nHost: t\r\n\r\n")
        .unwrap();
    let response = connection.response("GET").unwrap();
    assert_eq!((response.status, response.text().as_str()), (200, "web"));
    assert!(connection.is_closed_within(Duration::from_secs(5)));
}

fn pipelined_requests_are_answered_in_order(host: Host) {
    let web = nginx("web");
    let proxy = Cluster::new()
        .server(&web)
        .pool("", &[("web", "")])
        .on(host);
    let mut connection = proxy.connect();
    let both = [
        Request::get("/page.html").head_bytes(),
        Request::get("/name").head_bytes(),
    ]
    .concat();
    connection.send_bytes(&both).unwrap();
    assert_eq!(connection.response("GET").unwrap().text(), "<p>a page</p>");
    assert_eq!(connection.response("GET").unwrap().text(), "web");
}
