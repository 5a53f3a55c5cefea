//! Where connections come in: listening sockets, who accepts, and which worker serves.

pub(crate) mod accept;
pub(crate) mod balanced;
pub(crate) mod bind;
pub(crate) mod connection;
mod proxy_protocol;
pub(crate) mod reuseport;

use std::net::{SocketAddr, TcpStream};

/// A connection on its way to the worker that is to serve it.
pub(crate) struct Handover {
    pub(crate) stream: TcpStream,
    pub(crate) peer: SocketAddr,
    /// The configured address of the listener it came to.
    pub(crate) bind: SocketAddr,
}
