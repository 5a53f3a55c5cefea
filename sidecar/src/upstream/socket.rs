//! A server's socket that knows how much went through it, and when.
//!
//! The connection that hyper drives owns one handle, the exchange another: by the figures it knows whether anything was sent
//! (may the request be repeated elsewhere?) and how long the server has been silent.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::clock::{Clock, Ticks};

/// The shared part.
pub(crate) struct Socket {
    stream: RefCell<TcpStream>,
    clock: Rc<Clock>,
    /// Tick of the last byte in either direction.
    pub(crate) active: Cell<Ticks>,
    pub(crate) bytes_read: Cell<u64>,
    pub(crate) bytes_written: Cell<u64>,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream, clock: Rc<Clock>) -> Rc<Self> {
        let active = Cell::new(clock.now());
        Rc::new(Self {
            stream: RefCell::new(stream),
            clock,
            active,
            bytes_read: Cell::new(0),
            bytes_written: Cell::new(0),
        })
    }

    /// Asks the kernel whether the server has closed, or sent what nobody asked for. One system call.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut byte = [0_u8; 1];
        let received = rustix::net::recv(
            &*self.stream.borrow(),
            &mut byte[..],
            RecvFlags::PEEK | RecvFlags::DONTWAIT,
        );
        matches!(
            received,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR)
        )
    }

    fn count(&self, counter: &Cell<u64>, amount: usize) {
        if amount > 0 {
            counter.set(counter.get() + amount as u64);
            self.active.set(self.clock.now());
        }
    }
}

/// The end that reads and writes.
pub(crate) struct UpstreamStream(pub(crate) Rc<Socket>);

impl AsyncRead for UpstreamStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let socket = &self.0;
        let before = buffer.filled().len();
        let polled = Pin::new(&mut *socket.stream.borrow_mut()).poll_read(cx, buffer);
        socket.count(&socket.bytes_read, buffer.filled().len() - before);
        polled
    }
}

impl AsyncWrite for UpstreamStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let socket = &self.0;
        let polled = Pin::new(&mut *socket.stream.borrow_mut()).poll_write(cx, data);
        if let Poll::Ready(Ok(amount)) = polled {
            socket.count(&socket.bytes_written, amount);
        }
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let socket = &self.0;
        let polled = Pin::new(&mut *socket.stream.borrow_mut()).poll_write_vectored(cx, data);
        if let Poll::Ready(Ok(amount)) = polled {
            socket.count(&socket.bytes_written, amount);
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.stream.borrow_mut()).poll_shutdown(cx)
    }
}
