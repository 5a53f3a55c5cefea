//! `evenkeel demo`: three web nodes, the proxy in front of them and a page that shows what it does, all in one process.
//!
//! ```text
//!   browser ──▶ proxy ──▶ pool of the method in the path ──▶ web1 web2 web3   /round_robin/hello
//!                    └──▶ pool `console` ──────────────────▶ the page         everything else
//! ```
//!
//! The proxy is the real one, configured by the text that the page shows; only the nodes are small. Everything listens on this
//! machine alone, and nothing is left behind.

mod console;
mod node;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::rc::Rc;
use std::thread;

use anyhow::Context;
use evenkeel_policy::balance::Algorithm;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use self::console::{Console, Facts};
use self::node::Node;
use crate::config::Config;
use crate::run::{self, RunOptions, Running};

/// Names and weights of the nodes: 3, 2, 1, so that the page shows what a weight is.
const NODES: [(&str, u16); 3] = [("web1", 3), ("web2", 2), ("web3", 1)];
const USUAL_PORT: u16 = 8080;
const USUAL_ADMIN_PORT: u16 = 8404;

/// Starts everything, says where, and serves until Ctrl-C or SIGTERM.
///
/// # Errors
/// When something does not start.
pub fn run() -> anyhow::Result<()> {
    let (backends, running) = start(Ports::Usual).or_else(|_| start(Ports::Free))?;
    println!("evenkeel demo");
    println!("  the page    http://{}/", backends.bind);
    println!("  the proxy   http://{}/round_robin/hello", backends.bind);
    println!(
        "  the admin   http://{}/metrics, /api/state, /readyz",
        backends.admin
    );
    println!("Ctrl-C ends it.");
    running.wait();
    Ok(())
}

/// The servers, and the proxy in front of them. Between the choice of a port and its use somebody else may take it.
fn start(ports: Ports) -> anyhow::Result<(Backends, Running)> {
    let backends = Backends::start(ports)?;
    let options = RunOptions {
        show_decision: true,
        handle_signals: true,
        ..RunOptions::default()
    };
    let running = run::start(backends.config()?, options)?;
    Ok((backends, running))
}

/// Where the proxy listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// 8080 and 8404, each replaced by a free one if it is taken.
    Usual,
    Free,
}

/// The servers behind the proxy. They run on a thread of their own, until this is dropped.
pub struct Backends {
    /// The configuration of the proxy in front, as text.
    pub configuration: String,
    pub bind: SocketAddr,
    pub admin: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Backends {
    /// Starts the nodes and the console, and chooses the proxy's ports.
    ///
    /// # Errors
    /// When there are no ports or threads to be had.
    pub fn start(ports: Ports) -> anyhow::Result<Self> {
        let bind = choose(ports, USUAL_PORT)?;
        let admin = choose(ports, USUAL_ADMIN_PORT)?;
        let (stop, stopped) = oneshot::channel();
        let (ready, started) = std::sync::mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name("demo".to_owned())
            .spawn(move || {
                let runtime = match tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                {
                    Ok(runtime) => runtime,
                    Err(error) => return drop(ready.send(Err(error.into()))),
                };
                LocalSet::new().block_on(&runtime, async move {
                    match backends(bind, admin) {
                        Ok((console, listener, configuration)) => {
                            let _ = ready.send(Ok(configuration));
                            tokio::select! {
                                () = console.serve(listener) => {}
                                _ = stopped => {}
                            }
                        }
                        Err(error) => drop(ready.send(Err(error))),
                    }
                });
            })?;
        let configuration = started
            .recv()
            .context("the demo's servers did not start")??;
        Ok(Self {
            configuration,
            bind,
            admin,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The proxy's configuration.
    ///
    /// # Errors
    /// Never, unless the text that is made here is wrong.
    pub fn config(&self) -> anyhow::Result<Config> {
        Ok(Config::parse(Path::new("demo.yaml"), &self.configuration)?)
    }
}

impl Drop for Backends {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn backends(
    bind: SocketAddr,
    admin: SocketAddr,
) -> anyhow::Result<(Rc<Console>, tokio::net::TcpListener, String)> {
    let nodes = NODES
        .into_iter()
        .map(|(name, weight)| Node::start_new(name, weight))
        .collect::<Result<Vec<_>, _>>()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let configuration = configuration(bind, admin, &nodes, listener.local_addr()?);
    let facts = Facts {
        methods: Algorithm::ALL.into_iter().map(Algorithm::name).collect(),
        configuration: configuration.clone(),
        admin: format!("http://{admin}"),
    };
    Ok((
        Rc::new(Console { nodes, facts }),
        tokio::net::TcpListener::from_std(listener)?,
        configuration,
    ))
}

/// One pool for each method over the same nodes; the page's own requests go to the console.
fn configuration(
    bind: SocketAddr,
    admin: SocketAddr,
    nodes: &[Node],
    console: SocketAddr,
) -> String {
    let mut text = format!(
        "listeners:\n  - {{name: web, bind: \"{bind}\"}}\nadmin: {{bind: \"{admin}\"}}\nworkers: 1                # one worker takes turns by itself, so the page shows the textbook sequence\ntimeouts: {{connect: 500ms}}\npolicy:\n  routes:\n"
    );
    for method in Algorithm::ALL.map(Algorithm::name) {
        text.push_str(&format!(
            "    - {{match: {{path_prefix: /{method}/}}, pool: {method}}}\n"
        ));
    }
    text.push_str("    - {pool: console}\n  pools:\n");
    for algorithm in Algorithm::ALL {
        let method = algorithm.name();
        text.push_str(&format!(
            "    {method}:\n      balance: {method}\n      retries: 2\n      servers:\n"
        ));
        for node in nodes {
            // A method that knows no weights refuses them.
            let weight = if algorithm.allows_weights() {
                node.weight
            } else {
                1
            };
            text.push_str(&format!(
                "        - {{id: {}, address: \"{}\", weight: {weight}}}\n",
                node.name, node.address
            ));
        }
    }
    text.push_str(&format!(
        "    console: {{servers: [{{address: \"{console}\"}}]}}\n"
    ));
    text
}

/// The usual port of this machine if it is wanted and nobody has it, else any free one.
fn choose(ports: Ports, usual: u16) -> anyhow::Result<SocketAddr> {
    let wanted = if ports == Ports::Usual { usual } else { 0 };
    // A plain socket, which a port that somebody shares by SO_REUSEPORT refuses, too.
    let listener = TcpListener::bind(("127.0.0.1", wanted))
        .or_else(|_| TcpListener::bind("127.0.0.1:0"))
        .context("no free port")?;
    Ok(listener.local_addr()?)
}

#[cfg(test)]
mod tests;
