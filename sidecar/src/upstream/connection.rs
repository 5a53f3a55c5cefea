//! One HTTP/1.1 connection to a server: hyper's client, driven by the task of the request that uses it.
//!
//! # Why it is not a task of its own
//!
//! hyper means a connection to be spawned. Then each request costs two changes of task and their wake-ups. Here whoever waits
//! for the response polls the connection itself, with its own waker, and then asks hyper's channels what came of it, with a
//! waker that does nothing: all that can fill them happened in the poll just made. An idle connection is polled by nobody; that
//! the server closed it is seen when it is taken from the pool, or by the janitor.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::clock::Clock;
use crate::http::body::UpstreamBody;
use crate::upstream::socket::{Socket, UpstreamStream};

/// Largest response head and read-ahead of one connection.
const BUFFER_MAX: usize = 256 * 1024;

type Driver = http1::Connection<TokioIo<UpstreamStream>, UpstreamBody>;

/// An open connection.
pub(crate) struct Connection {
    sender: http1::SendRequest<UpstreamBody>,
    /// Gone once it has ended without becoming a tunnel.
    driver: Option<Driver>,
    socket: Rc<Socket>,
    peer: SocketAddr,
    local: Option<SocketAddr>,
    /// Requests begun on it.
    requests: u32,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The driver has ended: closed, failed, or upgraded.
    Ended,
}

/// What is left of a connection that became a tunnel.
pub(crate) struct Tunnel {
    pub(crate) stream: UpstreamStream,
    /// Read, but not HTTP.
    pub(crate) read: Bytes,
}

impl Connection {
    pub(crate) async fn start(
        stream: TcpStream,
        peer: SocketAddr,
        clock: &Rc<Clock>,
    ) -> hyper::Result<Box<Self>> {
        let local = stream.local_addr().ok();
        let socket = Socket::new(stream, Rc::clone(clock));
        // At most 100 header lines, hyper's own bound: with a bound of ours it would allocate room for them for every response.
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(BUFFER_MAX)
            .handshake(TokioIo::new(UpstreamStream(Rc::clone(&socket))))
            .await?;
        Ok(Box::new(Self {
            sender,
            driver: Some(driver),
            socket,
            peer,
            local,
            requests: 0,
            state: State::Open,
        }))
    }

    pub(crate) fn socket(&self) -> &Rc<Socket> {
        &self.socket
    }

    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    pub(crate) fn local(&self) -> Option<SocketAddr> {
        self.local
    }

    pub(crate) fn requests(&self) -> u32 {
        self.requests
    }

    /// Lets hyper read and write what it can.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) {
        if self.state == State::Open
            && let Some(driver) = self.driver.as_mut()
            && Pin::new(driver).poll(cx).is_ready()
        {
            self.state = State::Ended;
        }
    }

    /// Ready for a request: the last exchange is complete on both sides, and the server has not closed as far as we know.
    pub(crate) fn is_reusable(&self) -> bool {
        self.state == State::Open && self.sender.is_ready()
    }

    /// Begins an exchange: the response's head comes by [`Connection::poll_response`].
    pub(crate) fn send(
        &mut self,
        request: Request<UpstreamBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<UpstreamBody>>>> + use<>
    {
        self.requests = self.requests.saturating_add(1);
        self.sender.try_send_request(request)
    }

    /// Drives the connection and asks for the response's head.
    pub(crate) fn poll_response<F: Future>(
        &mut self,
        mut response: Pin<&mut F>,
        cx: &mut Context<'_>,
    ) -> Poll<F::Output> {
        self.drive(cx);
        let mut ask = || {
            response
                .as_mut()
                .poll(&mut Context::from_waker(std::task::Waker::noop()))
        };
        let answer = ask();
        if answer.is_pending() && self.state == State::Ended {
            // The server closed before hyper looked at the request: only dropping the driver gives it back.
            self.driver = None;
            return ask();
        }
        answer
    }

    /// Takes the connection apart after a `101` that hyper has seen; `None` while it is still HTTP.
    pub(crate) fn into_tunnel(self) -> Option<Tunnel> {
        if self.state == State::Open {
            return None;
        }
        let parts = self.driver?.into_parts();
        Some(Tunnel {
            stream: parts.io.into_inner(),
            read: parts.read_buf,
        })
    }
}
