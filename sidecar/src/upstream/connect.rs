//! Opening a connection to a server, with the only timer that a request may set; and, where the pool wants it, telling the server
//! whose connection it is before anything else.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::clock::Clock;
use crate::upstream::connection::Connection;

/// Why there is no connection. Nothing was sent, so the next server may be tried whatever the request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectError {
    /// Refused, unreachable, no descriptors: with the system's error number.
    Failed(i32),
    TimedOut,
}

/// Connects within `timeout`. `whose` is sent first: a header of the PROXY protocol.
pub(crate) async fn connect(
    address: SocketAddr,
    timeout: Duration,
    whose: Option<&[u8]>,
    clock: &Rc<Clock>,
) -> Result<Box<Connection>, ConnectError> {
    let mut stream = match tokio::time::timeout(timeout, TcpStream::connect(address)).await {
        Err(_elapsed) => return Err(ConnectError::TimedOut),
        Ok(Err(error)) => return Err(ConnectError::Failed(error.raw_os_error().unwrap_or(0))),
        Ok(Ok(stream)) => stream,
    };
    // A socket that cannot do without delay still works.
    let _ = stream.set_nodelay(true);
    if let Some(header) = whose {
        // The buffer of a new socket has room for it.
        let sent = stream.write_all(header).await;
        sent.map_err(|error| ConnectError::Failed(error.raw_os_error().unwrap_or(0)))?;
    }
    Connection::start(stream, address, clock)
        .await
        .map_err(|_| ConnectError::Failed(0))
}
