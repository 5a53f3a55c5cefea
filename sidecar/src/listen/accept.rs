//! Accepting, and the way from an accepted socket to a task that serves it.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::http::client::{Client, Order};
use crate::listen::connection;
use crate::worker::Worker;

/// Pause after an error that lasts (no descriptors).
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// Accepts until `stop` turns true or is dropped, then takes what is in the queue, and closes.
pub(crate) async fn until_stopped(
    listener: std::net::TcpListener,
    bind: SocketAddr,
    stop: &mut watch::Receiver<bool>,
    mut take: impl FnMut(TcpStream, SocketAddr),
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%bind, "cannot listen: {error}"),
    };
    loop {
        tokio::select! {
            biased;
            _ = stop.changed() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => take(stream, peer),
                Err(error) => pause(&error, bind).await,
            }
        }
    }
    while let Some((stream, peer)) = queued(&listener).await {
        take(stream, peer);
    }
}

/// Logs what is worth it and waits a little where trying again at once would spin.
async fn pause(error: &std::io::Error, bind: SocketAddr) {
    if !is_of_connection(error) {
        tracing::warn!(%bind, "cannot accept: {error}");
        tokio::time::sleep(ERROR_PAUSE).await;
    }
}

/// How long to look for a connection that is in the queue already. It is there at once or not at all.
const QUEUED_WAIT: Duration = Duration::from_millis(1);

/// The next connection of a queue that is to be emptied.
pub(crate) async fn queued(listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
    tokio::time::timeout(QUEUED_WAIT, listener.accept())
        .await
        .ok()?
        .ok()
}

/// Errors that are the connection's own, not the listener's: the client was gone before it was accepted.
pub(crate) fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted
    )
}

/// Serves a connection on this worker, which has counted it as open already.
pub(crate) fn serve(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr, bind: SocketAddr) {
    let open = Open {
        worker: Rc::clone(worker),
    };
    let Ok(local) = stream.local_addr() else {
        return;
    };
    // A socket that cannot do without delay still works.
    let _ = stream.set_nodelay(true);
    let client = Rc::new(Client::new(worker, canonical(peer), canonical(local), bind));
    if worker.draining.get().is_some() {
        client.order(Order::Drain);
    }
    let slot = worker.clients.borrow_mut().insert(Rc::clone(&client));
    tokio::task::spawn_local(async move {
        let worker = &open.worker;
        connection::run(&client, stream).await;
        worker.clients.borrow_mut().remove(slot);
        if worker.clients.borrow().len() == 0 {
            worker.emptied.notify_one();
        }
    });
}

/// An IPv4 client of an IPv6 socket is an IPv4 client.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Counts the connection until it goes.
struct Open {
    worker: Rc<Worker>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.worker.forget_connection();
    }
}
