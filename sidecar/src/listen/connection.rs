//! One client connection, from its first byte to its last: TLS, which HTTP, serving, upgrade, a clean end.
//!
//! A connection waits for its next request most of its life, so its task is kept small: whatever most connections never come to
//! (TLS, HTTP/2, a tunnel, lingering) is a box of its own, made when it comes to that.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use crate::config::Limits;
use crate::http::client::{Client, Order, Phase, Tls};
use crate::http::refused::Refused;
use crate::http::{server, upgrade};
use crate::listen::proxy_protocol;

/// What a client that speaks HTTP/2 without being asked sends first (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// First read of a connection: most request heads fit.
const FIRST_READ: usize = 2048;
/// Smallest buffer that hyper allows.
const BUFFER_MIN: usize = 8192;

/// Streams of one HTTP/2 connection at a time.
const H2_STREAMS_MAX: u32 = 128;
/// Streams that a client may open and reset before they were served, and resets that its errors may cause (CVE-2023-44487).
const H2_RESETS_MAX: usize = 64;
/// How many times `limits.header_bytes` h2 takes of a head before it refuses it by itself. What is larger than the limit and not
/// that large is refused by us, with a reason and a line in the log.
const H2_LIST_ROOM: usize = 2;
const H2_STREAM_WINDOW: u32 = 256 * 1024;
const H2_CONNECTION_WINDOW: u32 = 1024 * 1024;

/// How long, and how much, a client that was refused may go on sending before its connection is cut. Without that the
/// kernel would answer what is unread with a reset, which may overtake the answer.
const LINGER_TIME_MAX: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// Serves the connection until it ends or is ordered to.
pub(crate) async fn run(client: &Rc<Client>, stream: TcpStream) {
    let mut serving = pin!(serve(client, stream));
    poll_fn(|cx| {
        client.attend(cx);
        if client.pending_order() == Order::Close {
            return Poll::Ready(());
        }
        serving.as_mut().poll(cx)
    })
    .await;
}

async fn serve(client: &Rc<Client>, mut stream: TcpStream) {
    let active = client.worker.active();
    let Some(listener) = active.generation.config.listener_at(client.bind) else {
        return;
    };
    let limits = active.generation.config.limits;
    let tls = listener.tls.clone();
    let peer = client.socket_peer().ip();
    let must_say_whose = listener
        .proxy_senders
        .as_ref()
        .is_some_and(|senders| senders.networks.contains(peer));
    drop(active);
    if must_say_whose && !Box::pin(read_whose(client, &mut stream)).await {
        return;
    }
    let Some(config) = tls else {
        return match first_bytes(&mut stream).await {
            Ok(Some((Protocol::Http1, read))) => {
                serve_http1(client, ClientStream::new(client, stream, read), limits).await
            }
            Ok(Some((Protocol::Http2, read))) => {
                let stream = ClientStream::new(client, stream, read);
                Box::pin(serve_http2(client, stream, limits)).await;
            }
            Ok(None) | Err(_) => {}
        };
    };
    let acceptor = tokio_rustls::TlsAcceptor::from(config);
    Box::pin(serve_tls(client, acceptor, stream, limits)).await;
}

/// Reads the PROXY header, which is required. `false`: there is none, and the connection is over.
async fn read_whose(client: &Client, stream: &mut TcpStream) -> bool {
    match proxy_protocol::read(stream).await {
        Ok(Some(ends)) => client.set_proxied(ends.source, ends.destination),
        Ok(None) => {}
        Err(fault) => {
            client.worker.counters.connections_failed.add(1);
            tracing::debug!(peer = %client.socket_peer(), "PROXY protocol: {fault}");
            return false;
        }
    }
    true
}

async fn serve_tls(
    client: &Rc<Client>,
    acceptor: tokio_rustls::TlsAcceptor,
    stream: TcpStream,
    limits: Limits,
) {
    let stream = match acceptor.accept(stream).await {
        Ok(stream) => stream,
        Err(error) => {
            client.worker.counters.connections_failed.add(1);
            return tracing::debug!(peer = %client.ends().peer, "TLS handshake failed: {error}");
        }
    };
    let session = stream.get_ref().1;
    let is_http2 = session.alpn_protocol() == Some(b"h2");
    // The handshake is done once, so nobody has set it before.
    let _ = client.tls.set(Tls {
        version: match session.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "TLSv1.2",
        },
        server_name: session.server_name().unwrap_or_default().to_owned(),
        is_mutual: session.peer_certificates().is_some(),
    });
    let stream = ClientStream::new(client, stream, Bytes::new());
    if is_http2 {
        Box::pin(serve_http2(client, stream, limits)).await;
    } else {
        Box::pin(serve_http1(client, stream, limits)).await;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

/// Reads until it is clear which protocol it is. `None`: the client left without a word.
async fn first_bytes(stream: &mut TcpStream) -> io::Result<Option<(Protocol, Bytes)>> {
    let mut read = Vec::with_capacity(FIRST_READ);
    // Ends after at most as many reads as the preface has bytes.
    loop {
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(None);
        }
        if read.starts_with(PREFACE) {
            return Ok(Some((Protocol::Http2, read.into())));
        }
        if !PREFACE.starts_with(&read) {
            return Ok(Some((Protocol::Http1, read.into())));
        }
    }
}

async fn serve_http1<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    client: &Rc<Client>,
    stream: ClientStream<S>,
    limits: Limits,
) {
    let mut builder = http1::Builder::new();
    builder
        .header_read_timeout(None)
        .max_buf_size(limits.header_bytes.max(BUFFER_MIN))
        .max_header_size(limits.header_bytes);
    if limits.headers != HYPER_HEADERS_MAX {
        builder.max_headers(limits.headers);
    }
    let service = service_fn(|request| server::serve(Rc::clone(client), request));
    let mut connection = builder.serve_connection(TokioIo::new(stream), service);
    // Drained by `Connection: close` in its next answer, and by the janitor.
    let ended = poll_fn(|cx| {
        if client.pending_order() == Order::Late {
            return Poll::Ready(None);
        }
        Pin::new(&mut connection).poll(cx).map(Some)
    })
    .await;
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner();
    match ended {
        None => {
            Refused::late(client).record(client);
            client.enter(Phase::Busy);
            client.must_linger.set(true);
            // Who does not read it is cut off.
            let answer = stream.write_all(LATE_ANSWER);
            let _ = Box::pin(tokio::time::timeout(LINGER_TIME_MAX, answer)).await;
        }
        Some(Err(error)) => {
            if error.is_parse() {
                client.worker.counters.connections_failed.add(1);
                client.must_linger.set(true);
            }
            if let Some(refused) = Refused::by_http1(client, &error) {
                refused.record(client);
            }
        }
        Some(Ok(())) => {}
    }
    let tunnel = client.tunnel.borrow_mut().take();
    if let Some((tunnel, guard)) = tunnel {
        Box::pin(upgrade::copy(client, stream, parts.read_buf, tunnel)).await;
        drop(guard);
    } else if client.must_linger.get() {
        // Refused already: what it still sends is no head that could be late.
        client.enter(Phase::Busy);
        Box::pin(linger(stream)).await;
    }
}

/// RFC 9110 section 15.5.9: to a client whose request did not come in time.
const LATE_ANSWER: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\
    x-evenkeel-error: request_timeout\r\n\r\n";

/// What hyper allows by itself, in a buffer on the stack.
const HYPER_HEADERS_MAX: usize = 100;

async fn serve_http2<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    client: &Rc<Client>,
    stream: ClientStream<S>,
    limits: Limits,
) {
    client.switch_to_http2();
    let list_max = limits.header_bytes.saturating_mul(H2_LIST_ROOM);
    let list_max = u32::try_from(list_max).unwrap_or(u32::MAX);
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .max_concurrent_streams(H2_STREAMS_MAX)
        .max_pending_accept_reset_streams(H2_RESETS_MAX)
        .max_local_error_reset_streams(H2_RESETS_MAX)
        .max_header_list_size(list_max)
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW);
    let service_client = Rc::clone(client);
    let service = service_fn(move |request| server::serve(Rc::clone(&service_client), request));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut is_draining = false;
    let ended = poll_fn(|cx| {
        if !is_draining && client.pending_order() == Order::Drain {
            is_draining = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx)
    })
    .await;
    if let Err(error) = ended
        && let Some(refused) = Refused::by_http2(client, &error)
    {
        client.worker.counters.connections_failed.add(1);
        refused.record(client);
    }
}

/// Runs the streams of HTTP/2 connections on the worker's own thread.
#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: ClientStream<S>) {
    let mut buffer = [0_u8; 4096];
    let mut total = 0;
    let drain = async {
        while total < LINGER_BYTES_MAX {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(length) => total += length,
            }
        }
    };
    // Either way the connection is cut then.
    let _ = tokio::time::timeout(LINGER_TIME_MAX, drain).await;
}

/// The client's stream, which tells its [`Client`] when something passes.
pub(crate) struct ClientStream<S> {
    stream: S,
    /// Read before it was known who would want it.
    first: Bytes,
    client: Rc<Client>,
}

impl<S> ClientStream<S> {
    fn new(client: &Rc<Client>, stream: S, first: Bytes) -> Self {
        Self {
            stream,
            first,
            client: Rc::clone(client),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.first.is_empty() {
            let length = this.first.len().min(buffer.remaining());
            buffer.put_slice(&this.first.split_to(length));
            if this.first.is_empty() {
                // What is read is given back to the allocator now, not when the connection ends.
                this.first = Bytes::new();
            }
            this.client.saw_read();
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            this.client.saw_read();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, data))?;
        this.client.saw_write();
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, data))?;
        this.client.saw_write();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
