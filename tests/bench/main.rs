//! `make bench`: evenkeel beside nginx, HAProxy and Envoy on one machine, in one run.
//!
//! Every proxy gets the same task (three servers round robin, `X-Real-IP` and `X-Forwarded-For` set, two routes, an access
//! log to a file, upstream keep-alive) and one core; the servers behind and the load generator share another. The rounds
//! are interleaved, because on a shared machine only figures of the same minute can be compared: the ratio is worth
//! something, the absolute figure little.
//!
//! The figure that counts is CPU time per request. Throughput at saturation says the same in another unit, and only while
//! the proxy's core is busy; hence the column that tells how busy it was.

// A program, not a library: `pub` says "for the other files".
#![allow(unreachable_pub)]

mod compare;
mod cores;
mod cpu;
mod features;
mod filter_cost;
mod idle;
mod large;
mod load;
mod machine;
mod peers;
mod picks;
mod process;
mod rebuild;
mod report;
mod routes;
mod spread;
mod startup;
mod statistics;
mod syscalls;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

/// Measures evenkeel beside nginx, HAProxy and Envoy; writes Markdown to standard output and JSON to `target/bench`.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Arguments {
    /// One round of one second each: shows that the harness works, not how fast anything is.
    #[arg(long, global = true)]
    quick: bool,
    /// Rounds; each visits every proxy once.
    #[arg(long, global = true, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Seconds of load per proxy and round, for each of the two loads.
    #[arg(long, global = true, default_value_t = 3.0)]
    seconds: f64,
    /// Measure only these rows (names as printed by `peers`), comma separated.
    #[arg(long, global = true, value_delimiter = ',')]
    only: Vec<String>,
    /// No access log anywhere.
    #[arg(long, global = true)]
    no_access_log: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// Both loads over all proxies.
    Compare,
    /// From exec to the first 200, median of ten.
    Startup,
    /// Memory after a minute with 1,000 idle keep-alive clients that each made one request.
    Idle,
    /// What the filter costs: alone (time and instructions per request, without a network), and within the proxy.
    Filter,
    /// What choosing a server costs: every method, pools of 2 to 10,000 servers, inside the filter and natively. Builds a filter.
    Picks {
        /// Only these methods.
        #[arg(long, value_delimiter = ',')]
        methods: Vec<String>,
        /// Only these sizes of pools.
        #[arg(long, value_delimiter = ',')]
        sizes: Vec<usize>,
    },
    /// What finding the client and the route costs within the filter: 50 networks and 20 hops, 1,000 routes, 100 expressions.
    Routes(routes::Options),
    /// 10,000 servers in one pool, and 1,000 pools of 10: the first answer, memory of the filter, what a reload costs.
    Large,
    /// How evenly each method spreads when one of four servers is four times slower, beside nginx and HAProxy. A few minutes.
    Spread,
    /// What a one-line change costs to rebuild, in a development build. Changes source files and puts them back.
    Rebuild,
    /// Which rows there are, and which of them this machine can measure.
    Peers,
    /// Everything above but `picks`, `routes`, `large`, `spread` and `rebuild` (the default).
    All,
    /// The loop of `filter`, for valgrind.
    #[command(hide = true)]
    FilterLoop {
        #[arg(long)]
        wasm: PathBuf,
        #[arg(long)]
        requests: u64,
        /// Without the filter.
        #[arg(long)]
        nothing: bool,
    },
    /// The loop of `routes`, for valgrind.
    #[command(hide = true)]
    RoutesLoop {
        #[arg(long)]
        wasm: PathBuf,
        #[arg(long)]
        case: routes::Case,
        #[arg(long)]
        requests: u64,
        /// Without what the case is about.
        #[arg(long)]
        missing: bool,
    },
}

impl Command {
    /// The name of the files the result goes to: a part, or a try, never overwrites the whole.
    fn output(&self, quick: bool) -> &'static str {
        match self {
            _ if quick => "quick",
            Self::Compare => "compare",
            Self::Startup => "startup",
            Self::Idle => "idle",
            Self::Filter | Self::FilterLoop { .. } => "filter",
            Self::Picks { .. } => "picks",
            Self::Routes(_) | Self::RoutesLoop { .. } => "routes",
            Self::Large => "large",
            Self::Spread => "spread",
            Self::Rebuild => "rebuild",
            Self::Peers | Self::All => "bench",
        }
    }
}

/// How much to measure; `--quick` makes it small.
#[derive(Debug, Clone)]
pub struct Scale {
    pub rounds: u32,
    pub measured: Duration,
    /// Load before each measurement that is not counted: connections open, caches fill.
    pub warm_up: Duration,
    /// How long `strace` watches.
    pub traced: Duration,
    /// Starts per proxy in [`startup`].
    pub starts: usize,
    /// Clients and waiting time of [`idle`].
    pub idle_clients: usize,
    pub idle_wait: Duration,
    /// Requests of one measurement of [`filter_cost`].
    pub filter_requests: u64,
    /// Whether the filter is measured within the proxy, too: that builds a second executable.
    pub filter_in_proxy: bool,
    /// Two numbers of requests under valgrind: in their difference, what is done once cancels out. `None`: not counted.
    pub counted_requests: Option<[u64; 2]>,
}

impl Scale {
    fn of(arguments: &Arguments) -> Result<Self> {
        if arguments.quick {
            return Ok(Self {
                rounds: 1,
                measured: Duration::from_secs(1),
                warm_up: Duration::from_millis(200),
                traced: Duration::from_millis(300),
                starts: 1,
                idle_clients: 50,
                idle_wait: Duration::from_secs(1),
                filter_requests: 1_000,
                filter_in_proxy: false,
                counted_requests: None,
            });
        }
        let measured = Duration::try_from_secs_f64(arguments.seconds)
            .context("--seconds is not a length of time")?;
        anyhow::ensure!(
            (Duration::from_millis(100)..=Duration::from_secs(60)).contains(&measured),
            "--seconds must be between 0.1 and 60"
        );
        Ok(Self {
            rounds: arguments.rounds,
            measured,
            warm_up: Duration::from_millis(500),
            traced: Duration::from_secs(1),
            starts: 10,
            idle_clients: 1000,
            idle_wait: Duration::from_secs(60),
            filter_requests: 200_000,
            filter_in_proxy: true,
            counted_requests: Some([1_000, 101_000]),
        })
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let scale = Scale::of(&arguments)?;
    let choice = peers::Choice {
        only: arguments.only.clone(),
        access_log: !arguments.no_access_log,
    };
    let command = arguments.command.unwrap_or(Command::All);
    let mut report = report::Report::begin(command.output(arguments.quick), &scale, &choice)?;
    match command {
        Command::Peers => return peers::list(),
        Command::FilterLoop {
            wasm,
            requests,
            nothing,
        } => {
            let with = if nothing {
                filter_cost::With::Nothing
            } else {
                filter_cost::With::Filter
            };
            return filter_cost::pass(&wasm, requests, with);
        }
        Command::RoutesLoop {
            wasm,
            case,
            requests,
            missing,
        } => {
            let feature = if missing {
                routes::Feature::Missing
            } else {
                routes::Feature::There
            };
            return routes::pass(&wasm, case, feature, requests);
        }
        Command::Compare => report.add(compare::run(&scale, &choice)?)?,
        Command::Startup => report.add(startup::run(&scale, &choice)?)?,
        Command::Idle => report.add(idle::run(&scale, &choice)?)?,
        Command::Filter => report.add(filter_cost::run(&scale)?)?,
        Command::Picks { methods, sizes } => report.add(picks::run(&methods, &sizes)?)?,
        Command::Routes(options) => report.add(routes::run(&scale, &options)?)?,
        Command::Large => report.add(large::run(&scale)?)?,
        Command::Spread => report.add(spread::run(&scale)?)?,
        Command::Rebuild => report.add(rebuild::run()?)?,
        Command::All => {
            report.add(compare::run(&scale, &choice)?)?;
            report.add(startup::run(&scale, &choice)?)?;
            report.add(idle::run(&scale, &choice)?)?;
            if peers::Peer::Evenkeel.is_chosen(&choice)? {
                report.add(filter_cost::run(&scale)?)?;
            }
        }
    }
    report.finish()
}
