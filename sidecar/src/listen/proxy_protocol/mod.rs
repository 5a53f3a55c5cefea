//! The PROXY protocol of a listener: whose connection a balancer in front says it is.
//!
//! A listener with `proxy_protocol.from` requires the header from those peers and takes it from nobody else: who may send one, and
//! does not, is cut off; who may not, and does, has sent a request that is no HTTP. Nothing is guessed.
//!
//! `LOCAL`, `UNKNOWN` and families that are not TCP over IP leave the socket's own addresses, as the specification says.

mod header;

#[cfg(test)]
mod corpus_tests;

use std::io;

use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

pub(crate) use header::Ends;
use header::Rest;

/// Why there is no header.
#[derive(Debug, Error)]
pub(crate) enum Fault {
    #[error("the connection broke off: {0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Header(&'static str),
}

/// Reads exactly the header. `None`: it leaves the socket's own addresses.
///
/// # Errors
/// No header, a broken or an overlong one, one whose checksum is wrong; the end of the stream.
pub(crate) async fn read(stream: &mut TcpStream) -> Result<Option<Ends>, Fault> {
    let mut read = Vec::new();
    // Ends as `rest` does.
    loop {
        match header::rest(&read).map_err(Fault::Header)? {
            Rest::Bytes(missing) => read_bytes(stream, &mut read, missing).await?,
            Rest::Line(room) => {
                let ours = line_bytes(stream, room).await?;
                read_bytes(stream, &mut read, ours).await?;
            }
            Rest::Complete => return header::parse(&read).map_err(Fault::Header),
        }
    }
}

async fn read_bytes(stream: &mut TcpStream, read: &mut Vec<u8>, count: usize) -> io::Result<()> {
    let start = read.len();
    read.resize(start + count, 0);
    let place = read.get_mut(start..).unwrap_or_default();
    stream.read_exact(place).await?;
    Ok(())
}

/// How many of the bytes that are there belong to the line, its end included: one or more, at most `room`. They are only looked at, because
/// what is behind the line is not ours.
async fn line_bytes(stream: &TcpStream, room: usize) -> io::Result<usize> {
    let mut seen = vec![0; room];
    let length = stream.peek(&mut seen).await?;
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut seen = seen.iter().take(length);
    let end = seen.position(|&byte| byte == b'\n');
    Ok(end.map_or(length, |end| end + 1))
}
