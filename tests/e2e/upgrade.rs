//! WebSocket through the proxy, and upgrades that are refused.

use std::time::Duration;

use evenkeel_tests::http2::block_on;
use evenkeel_tests::{Cluster, Host, Request, both_hosts, doubles, nginx};
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

both_hosts!(
    web_socket_messages_come_back,
    many_web_sockets_at_once,
    an_upgrade_that_the_server_ignores_is_a_plain_request,
    a_closed_web_socket_closes_both_sides,
);

fn web_socket_messages_come_back(host: Host) {
    let echo = doubles::web_socket_echo("echo");
    let proxy = Cluster::new()
        .server(&echo)
        .pool("", &[("echo", "")])
        .on(host);
    block_on(async {
        let (mut socket, response) =
            tokio_tungstenite::connect_async(format!("ws://{}/chat", proxy.address))
                .await
                .unwrap();
        assert_eq!(response.status(), 101);
        for size in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
            let message = Message::binary(vec![7; size]);
            socket.send(message.clone()).await.unwrap();
            assert_eq!(
                socket.next().await.unwrap().unwrap(),
                message,
                "{size} bytes"
            );
        }
        socket.send(Message::text("grüße")).await.unwrap();
        assert_eq!(
            socket.next().await.unwrap().unwrap(),
            Message::text("grüße")
        );
        socket.close(None).await.unwrap();
    });
}

fn many_web_sockets_at_once(host: Host) {
    let echo = doubles::web_socket_echo("echo");
    let proxy = Cluster::new()
        .workers(2)
        .server(&echo)
        .pool("", &[("echo", "")])
        .on(host);
    block_on(async {
        let mut sockets = Vec::new();
        for _ in 0..50 {
            let url = format!("ws://{}/", proxy.address);
            sockets.push(tokio_tungstenite::connect_async(url).await.unwrap().0);
        }
        for (at, socket) in sockets.iter_mut().enumerate() {
            socket.send(Message::text(at.to_string())).await.unwrap();
        }
        for (at, socket) in sockets.iter_mut().enumerate() {
            assert_eq!(
                socket.next().await.unwrap().unwrap(),
                Message::text(at.to_string())
            );
        }
    });
}

fn an_upgrade_that_the_server_ignores_is_a_plain_request(host: Host) {
    let web = nginx("web");
    let proxy = Cluster::new()
        .server(&web)
        .pool("", &[("web", "")])
        .on(host);
    let request = Request::get("/name")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    let response = proxy.exchange(&request);
    // Envoy 1.40 forwards the head of such a response, and drops its body.
    let body = if host == Host::Sidecar { "web" } else { "" };
    assert_eq!((response.status, response.text().as_str()), (200, body));
}

fn a_closed_web_socket_closes_both_sides(host: Host) {
    let echo = doubles::web_socket_echo("echo");
    let proxy = Cluster::new()
        .server(&echo)
        .pool("", &[("echo", "")])
        .on(host);
    let request = Request::get("/")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    let mut connection = proxy.connect();
    connection.send(&request).unwrap();
    assert_eq!(connection.head().unwrap().status, 101);
    // A close frame, masked: the server answers with one and closes.
    connection.send_bytes(&[0x88, 0x80, 1, 2, 3, 4]).unwrap();
    assert!(connection.is_closed_within(Duration::from_secs(10)));
}
