//! A connection: taken, and closed.

use std::net::SocketAddr;

use tokio::net::TcpStream;

/// Connects.
pub(super) async fn check(address: SocketAddr) -> Result<(), String> {
    connect(address).await.map(drop)
}

/// The error is in words.
pub(super) async fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(address).await;
    let stream = stream.map_err(|error| match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => error.to_string(),
    })?;
    // A socket that cannot do without delay still works.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}
