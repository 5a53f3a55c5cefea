//! A worker's thread: its runtime, its accept loops, and the commands it obeys until it ends.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};

use crate::access_log::{LogBuffer, Message};
use crate::config::LogFormat;
use crate::generation::Generation;
use crate::http::client::Order;
use crate::janitor;
use crate::listen::{Handover, accept, reuseport};
use crate::shared::Shared;
use crate::worker::{Command, Worker};

/// How long connections that were told to close now may take for it.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(1);

/// Where a worker's log lines go.
#[derive(Clone)]
pub(crate) struct LogTo {
    pub(crate) format: LogFormat,
    pub(crate) writer: SyncSender<Message>,
}

/// Starts the thread; `started` is told once how its start went.
pub(crate) fn spawn(
    index: usize,
    shared: Arc<Shared>,
    generation: Arc<Generation>,
    commands: mpsc::UnboundedReceiver<Command>,
    log: Option<LogTo>,
    started: std::sync::mpsc::Sender<Result<(), String>>,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(format!("evenkeel-{index}"))
        .spawn(move || {
            let runtime = match Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default())
            {
                Ok(runtime) => runtime,
                Err(error) => {
                    // The one who started us has gone only if it failed itself.
                    let _ = started.send(Err(format!("cannot start a runtime: {error}")));
                    return;
                }
            };
            runtime.block_on(async move {
                let worker = match Worker::start(index, &shared, &generation) {
                    Ok(worker) => worker,
                    Err(error) => {
                        let _ = started.send(Err(error));
                        return;
                    }
                };
                drop(generation);
                set_log(&worker, log);
                let _ = started.send(Ok(()));
                drop(started);
                run(worker, commands).await;
            });
        })
}

fn set_log(worker: &Worker, log: Option<LogTo>) {
    let buffer =
        log.map(|log| LogBuffer::new(log.format, log.writer, &worker.clock, &worker.counters));
    worker.log.replace(buffer);
}

struct AcceptLoop {
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl AcceptLoop {
    fn start(worker: &Rc<Worker>, listener: TcpListener, bind: SocketAddr) -> Self {
        let (stop, stopped) = watch::channel(false);
        let task =
            tokio::task::spawn_local(reuseport::run(Rc::clone(worker), listener, bind, stopped));
        Self { stop, task }
    }

    /// Ends when what was in the queue is being served.
    async fn stop(self) {
        drop(self.stop);
        // A loop that panicked has ended too.
        let _ = self.task.await;
    }
}

async fn run(worker: Rc<Worker>, mut commands: mpsc::UnboundedReceiver<Command>) {
    let janitor = tokio::task::spawn_local(janitor::run(Rc::clone(&worker)));
    let mut loops: HashMap<SocketAddr, AcceptLoop> = HashMap::new();
    let mut must_drain = false;
    while let Some(command) = commands.recv().await {
        match command {
            Command::Listen(listener, bind) => {
                loops.insert(bind, AcceptLoop::start(&worker, listener, bind));
            }
            Command::Unlisten(bind) => {
                if let Some(accepting) = loops.remove(&bind) {
                    accepting.stop().await;
                }
            }
            Command::Drain => {
                must_drain = true;
                break;
            }
            Command::Stop => break,
            other => obey(&worker, other),
        }
    }
    if must_drain {
        for accepting in loops.into_values() {
            accepting.stop().await;
        }
        drain(&worker, &mut commands).await;
    }
    close(&worker).await;
    janitor.abort();
    worker.log.replace(None);
}

fn obey(worker: &Rc<Worker>, command: Command) {
    match command {
        Command::Serve(handover) => serve(worker, handover),
        Command::Prepare(generation, answer) => {
            // Whoever asked waits for the answer.
            let _ = answer.send(worker.prepare(&generation));
        }
        Command::Commit(log) => {
            worker.commit();
            set_log(worker, log);
        }
        Command::Abandon => worker.abandon(),
        Command::QueueReady {
            vm,
            root_context,
            queue,
        } => {
            if let Some(vm) = worker
                .environment(vm)
                .and_then(|environment| environment.vm())
            {
                vm.queue_ready(root_context, queue);
            }
        }
        Command::Listen(..) | Command::Unlisten(_) | Command::Drain | Command::Stop => {}
    }
}

fn serve(worker: &Rc<Worker>, handover: Handover) {
    match TcpStream::from_std(handover.stream) {
        Ok(stream) => accept::serve(worker, stream, handover.peer, handover.bind),
        Err(error) => {
            worker.forget_connection();
            tracing::warn!("cannot take over a connection: {error}");
        }
    }
}

/// Serves what is open, and what still comes from other workers, to its end.
async fn drain(worker: &Rc<Worker>, commands: &mut mpsc::UnboundedReceiver<Command>) {
    worker.draining.set(Some(worker.clock.now()));
    worker.order_all(Order::Drain);
    // Ends when the last connection has gone, or when told to stop.
    loop {
        if worker.clients.borrow().len() == 0 && commands.is_empty() {
            return;
        }
        tokio::select! {
            () = worker.emptied.notified() => {}
            command = commands.recv() => match command {
                None | Some(Command::Stop) => return,
                Some(command) => obey(worker, command),
            }
        }
    }
}

/// Cuts what is still open, so that each exchange ends as it should.
async fn close(worker: &Rc<Worker>) {
    worker.order_all(Order::Close);
    let closed = async {
        while worker.clients.borrow().len() > 0 {
            worker.emptied.notified().await;
        }
    };
    // What does not end in time ends with the thread.
    let _ = tokio::time::timeout(CLOSE_WAIT_MAX, closed).await;
}
