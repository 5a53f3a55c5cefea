//! `accept: balanced`: one task accepts, and hands each connection to the worker that has the fewest open.
//!
//! For long connections: the kernel's hash would spread a few of them badly.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::listen::{Handover, accept};
use crate::shared::Shared;
use crate::worker::Command;

/// Accepts until `stop` turns true or is dropped, then hands over what is in the queue, and closes.
pub(crate) async fn run(
    shared: Arc<Shared>,
    listener: std::net::TcpListener,
    bind: SocketAddr,
    mut stop: watch::Receiver<bool>,
) {
    accept::until_stopped(listener, bind, &mut stop, |stream, peer| {
        hand_over(&shared, stream, peer, bind);
    })
    .await;
}

fn hand_over(shared: &Shared, stream: TcpStream, peer: SocketAddr, bind: SocketAddr) {
    let limit = shared.generation.load().config.limits.connections;
    if shared.open_connections() >= limit {
        shared.refused_balanced.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let worker = shared
        .least_loaded()
        .and_then(|number| shared.workers.get(number));
    if let (Some(worker), Ok(stream)) = (worker, stream.into_std()) {
        // Counted here, so that the next choice knows of it. What is sent and not yet served is bounded by the limit above.
        worker.open.fetch_add(1, Ordering::Relaxed);
        let _ = worker
            .commands
            .send(Command::Serve(Handover { stream, peer, bind }));
    }
}
