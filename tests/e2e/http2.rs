//! HTTP/2 from the client: prior knowledge and ALPN, a hundred streams at once, bodies both ways.

use bytes::Bytes;
use evenkeel_tests::http2::{Http2, block_on};
use evenkeel_tests::php::fnv1a64;
use evenkeel_tests::tls::Certificate;
use evenkeel_tests::{Cluster, Host, both_hosts, nginx, php};
use http_body_util::BodyExt;

both_hosts!(
    a_hundred_streams_on_one_connection,
    a_hundred_streams_over_tls,
    large_bodies_both_ways,
    a_stream_that_is_reset_leaves_the_others,
    a_flood_of_resets_leaves_other_clients_alone,
);

async fn hundred_streams(client: &Http2) {
    let mut streams = Vec::new();
    for at in 0..100 {
        let client = client.clone();
        // Some are slow: they must not hold up the others.
        let path = if at % 10 == 0 {
            "/sleep.php?s=1"
        } else {
            "/echo.php"
        };
        streams.push(tokio::spawn(async move {
            client.exchange("GET", path, Vec::new()).await
        }));
    }
    for (at, stream) in streams.into_iter().enumerate() {
        let (status, body) = stream.await.unwrap().unwrap();
        assert_eq!(
            status,
            200,
            "stream {at}: {}",
            String::from_utf8_lossy(&body)
        );
    }
}

fn a_hundred_streams_on_one_connection(host: Host) {
    let shop = php("shop");
    let proxy = Cluster::new()
        .server(&shop)
        .pool("", &[("shop", "")])
        .on(host);
    block_on(async { hundred_streams(&Http2::open(proxy.address).await).await });
}

fn a_hundred_streams_over_tls(host: Host) {
    let (shop, certificate) = (php("shop"), Certificate::new());
    let cluster = Cluster::new()
        .server(&shop)
        .listener(&certificate.listener());
    let proxy = cluster.pool("", &[("shop", "")]).on(host);
    block_on(async { hundred_streams(&Http2::open_tls(proxy.address, &certificate).await).await });
}

fn large_bodies_both_ways(host: Host) {
    let (web, shop) = (nginx("web"), php("shop"));
    let policy = "\
routes: [{match: {path: /big.bin}, pool: web}, {pool: shop}]
pools: {web: {servers: [{address: '@web'}]}, shop: {servers: [{address: '@shop'}]}}";
    let proxy = Cluster::new()
        .server(&web)
        .server(&shop)
        .policy(policy)
        .on(host);
    let big = web.big();
    block_on(async {
        let client = Http2::open(proxy.address).await;
        let (status, body) = client
            .exchange("GET", "/big.bin", Vec::new())
            .await
            .unwrap();
        assert!(
            status == 200 && body == big,
            "{status}, {} bytes",
            body.len()
        );
        let (status, body) = client
            .exchange("POST", "/echo.php", big.clone())
            .await
            .unwrap();
        assert_eq!(status, 200);
        let told: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(told["fnv"], fnv1a64(&big));
    });
}

fn a_stream_that_is_reset_leaves_the_others(host: Host) {
    let web = nginx("web");
    let proxy = Cluster::new()
        .server(&web)
        .pool("", &[("web", "")])
        .on(host);
    block_on(async {
        let client = Http2::open(proxy.address).await;
        for _ in 0..20 {
            let mut response = client.send("GET", "/big.bin", Vec::new()).await.unwrap();
            let frame: Bytes = response
                .body_mut()
                .frame()
                .await
                .unwrap()
                .unwrap()
                .into_data()
                .unwrap();
            assert!(!frame.is_empty());
        }
        let (status, body) = client.exchange("GET", "/name", Vec::new()).await.unwrap();
        assert_eq!((status, body.as_slice()), (200, &b"web"[..]));
    });
}

/// "Rapid reset": streams opened and given up at once, as fast as it goes. The connection may be ended for it; another
/// client must not notice.
fn a_flood_of_resets_leaves_other_clients_alone(host: Host) {
    let web = nginx("web");
    let proxy = Cluster::new()
        .server(&web)
        .pool("", &[("web", "")])
        .on(host);
    block_on(async {
        for _ in 0..4 {
            let client = Http2::open(proxy.address).await;
            for _ in 0..500 {
                let given_up = tokio::time::timeout(
                    std::time::Duration::from_micros(200),
                    client.send("GET", "/big.bin", Vec::new()),
                );
                if matches!(given_up.await, Ok(Err(_))) {
                    break;
                }
            }
        }
    });
    assert_eq!(proxy.sequence(20), ["web"; 20]);
}
