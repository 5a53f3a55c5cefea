//! One keep-alive connection with at most one request under way.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::response::{HEAD_MAX, Progress, progress};

/// Longest response that is accepted, in bytes: the bench asks for 1 KiB.
const RESPONSE_MAX: usize = HEAD_MAX + 8 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Blocking or not as the socket was opened.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    input: Box<[u8]>,
    filled: usize,
    /// When the request under way should have been sent; `None` while there is none.
    due: Option<Instant>,
}

impl Connection {
    pub fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).context("connecting")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
        Ok(Self {
            stream,
            input: vec![0; RESPONSE_MAX].into_boxed_slice(),
            filled: 0,
            due: None,
        })
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends a request that should have left at `due`.
    ///
    /// # Errors
    /// Also when the socket does not take all of it: a request is far smaller than an empty socket buffer.
    pub fn send(&mut self, request: &[u8], due: Instant) -> Result<()> {
        let sent = self.stream.write(request).context("sending a request")?;
        anyhow::ensure!(sent == request.len(), "a request was sent in part");
        self.due = Some(due);
        Ok(())
    }

    /// Reads once. When that completes the response: the time its request was due, and its bytes.
    pub fn receive(&mut self) -> Result<Option<(Instant, &[u8])>> {
        let free = self
            .input
            .get_mut(self.filled..)
            .filter(|free| !free.is_empty())
            .context("a response that is too long")?;
        match self.stream.read(free) {
            Ok(0) => anyhow::bail!("closed by the proxy"),
            Ok(count) => self.filled += count,
            Err(error)
                if error.kind() == ErrorKind::WouldBlock
                    || error.kind() == ErrorKind::Interrupted =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error).context("reading a response"),
        }
        let bytes = self.input.get(..self.filled).unwrap_or_default();
        let Progress::Length(length) = progress(bytes)? else {
            return Ok(None);
        };
        if self.filled < length {
            return Ok(None);
        }
        anyhow::ensure!(
            self.filled == length,
            "more than one response came for one request"
        );
        self.filled = 0;
        let due = self.due.take().context("a response without a request")?;
        Ok(Some((due, bytes)))
    }

    /// One request and its whole response, waiting for it. For a connection that blocks.
    pub fn exchange(&mut self, request: &[u8]) -> Result<Vec<u8>> {
        self.send(request, Instant::now())?;
        // Ends: each read brings bytes until RESPONSE_MAX, or is an error at the read timeout.
        loop {
            let began = Instant::now();
            if let Some((_, bytes)) = self.receive()? {
                return Ok(bytes.to_vec());
            }
            anyhow::ensure!(
                began.elapsed() < CONNECT_TIMEOUT,
                "no response after {CONNECT_TIMEOUT:?}"
            );
        }
    }
}
