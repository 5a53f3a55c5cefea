//! Opening listening sockets. They are opened once and live until the listener leaves the configuration or the process ends:
//! closing one would reset the connections in its queue.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::{Accept, Listener};

/// Connections that may wait to be accepted; the system's `somaxconn` bounds it too.
const BACKLOG: i32 = 4096;

/// The sockets of one listener.
pub(crate) struct Bound {
    /// As configured: names the listener across reloads.
    pub(crate) bind: SocketAddr,
    /// As the system has it: with the port, where 0 was configured.
    pub(crate) address: SocketAddr,
    pub(crate) accept: Accept,
    /// One for each worker, or one for all.
    pub(crate) sockets: Vec<TcpListener>,
}

/// Opens a listener's sockets.
pub(crate) fn bind(listener: &Listener, workers: usize) -> io::Result<Bound> {
    let count = match listener.accept {
        Accept::Reuseport => workers,
        Accept::Balanced => 1,
    };
    let mut sockets = Vec::with_capacity(count);
    let mut address = listener.bind;
    for _ in 0..count {
        let socket = open(address, listener.accept)?;
        address = socket.local_addr()?;
        sockets.push(socket);
    }
    Ok(Bound {
        bind: listener.bind,
        address,
        accept: listener.accept,
        sockets,
    })
}

fn open(address: SocketAddr, accept: Accept) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if accept == Accept::Reuseport {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // `[::]` takes IPv4 as well, whatever the system's default is.
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A listening socket for the admin interface.
pub(crate) fn bind_single(address: SocketAddr) -> io::Result<TcpListener> {
    open(address, Accept::Balanced)
}

/// Whether somebody else listens on an address: sockets with `SO_REUSEPORT` of two processes of the same user would share it
/// silently.
pub(crate) fn probe(address: SocketAddr) -> io::Result<()> {
    if address.port() == 0 {
        return Ok(());
    }
    open(address, Accept::Balanced).map(drop)
}
