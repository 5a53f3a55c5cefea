//! `accept: reuseport`: each worker accepts on its own socket, and the kernel spreads connections by hash.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use tokio::sync::watch;

use crate::listen::{Handover, accept};
use crate::worker::{Command, Worker};

/// Accepts until `stop` turns true or is dropped, then serves what is in the queue, and closes.
pub(crate) async fn run(
    worker: Rc<Worker>,
    listener: std::net::TcpListener,
    bind: SocketAddr,
    mut stop: watch::Receiver<bool>,
) {
    accept::until_stopped(listener, bind, &mut stop, |stream, peer| {
        take(&worker, stream, peer, bind);
    })
    .await;
}

fn take(worker: &Rc<Worker>, stream: tokio::net::TcpStream, peer: SocketAddr, bind: SocketAddr) {
    let shared = &worker.shared;
    worker.counters.connections_accepted.add(1);
    if shared.open_connections() >= worker.active().generation.config.limits.connections {
        worker.counters.connections_refused.add(1);
        return;
    }
    let here = shared.workers.get(worker.index);
    let is_ready = here.is_some_and(|here| here.is_ready.load(Ordering::Acquire));
    let there = if is_ready {
        None
    } else {
        shared
            .least_loaded()
            .filter(|&number| number != worker.index)
    };
    if let Some(there) = there.and_then(|number| shared.workers.get(number)) {
        // This worker has no filter just now: another one serves.
        if let Ok(stream) = stream.into_std() {
            worker.counters.connections_handed_over.add(1);
            there.open.fetch_add(1, Ordering::Relaxed);
            // A worker that has ended drops it: the process is ending.
            let _ = there
                .commands
                .send(Command::Serve(Handover { stream, peer, bind }));
        }
        return;
    }
    if let Some(here) = here {
        here.open.fetch_add(1, Ordering::Relaxed);
    }
    accept::serve(worker, stream, peer, bind);
}
