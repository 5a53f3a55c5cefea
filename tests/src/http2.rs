//! An HTTP/2 client on hyper: one connection, many streams.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::tls::{self, Certificate};

/// Longest a whole scenario may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs the client's side of a scenario.
pub fn block_on<T>(scenario: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, scenario).await.unwrap() })
}

/// One HTTP/2 connection.
#[derive(Clone)]
pub struct Http2 {
    send: SendRequest<Full<Bytes>>,
    scheme: &'static str,
}

impl Http2 {
    /// Prior knowledge: the preface is the first thing sent.
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream, "http").await
    }

    /// TLS, HTTP/2 by ALPN.
    pub async fn open_tls(address: SocketAddr, certificate: &Certificate) -> Self {
        let connector = tokio_rustls::TlsConnector::from(certificate.client(&["h2", "http/1.1"]));
        let stream = TcpStream::connect(address).await.unwrap();
        let stream = connector.connect(tls::name(), stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "ALPN");
        Self::over(stream, "https").await
    }

    async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        scheme: &'static str,
    ) -> Self {
        let (send, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(async move {
            connection.await.ok();
        });
        Self { send, scheme }
    }

    /// The answer's head; its body is still to be read.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        body: Vec<u8>,
    ) -> hyper::Result<Response<Incoming>> {
        let uri = format!("{}://localhost{path}", self.scheme);
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .body(Full::new(Bytes::from(body)));
        let mut send = self.send.clone();
        send.ready().await?;
        send.send_request(request.unwrap()).await
    }

    /// Status and body.
    pub async fn exchange(
        &self,
        method: &str,
        path: &str,
        body: Vec<u8>,
    ) -> hyper::Result<(u16, Vec<u8>)> {
        let response = self.send(method, path, body).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes().to_vec();
        Ok((status, body))
    }
}
