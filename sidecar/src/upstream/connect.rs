//! Opening a connection to a server, with the only timer that a request may set.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

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

/// Connects within `timeout`.
pub(crate) async fn connect(
    address: SocketAddr,
    timeout: Duration,
    clock: &Rc<Clock>,
) -> Result<Box<Connection>, ConnectError> {
    let stream = match tokio::time::timeout(timeout, TcpStream::connect(address)).await {
        Err(_elapsed) => return Err(ConnectError::TimedOut),
        Ok(Err(error)) => return Err(ConnectError::Failed(error.raw_os_error().unwrap_or(0))),
        Ok(Ok(stream)) => stream,
    };
    // A socket that cannot do without delay still works.
    let _ = stream.set_nodelay(true);
    Connection::start(stream, address, clock)
        .await
        .map_err(|_| ConnectError::Failed(0))
}
