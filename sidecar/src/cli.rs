//! The command line: what each command reads, calls and answers.
//!
//! Exit codes: 0 fine, 1 failed at run time, 2 the configuration or the command line is wrong.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, Faults};
use crate::ctl::Ask;
use crate::run::{self, RunOptions, Wrong};
use crate::{check, ctl, demo, embedded, envoy, sealed, store};

const FAILED: u8 = 1;
const WRONG: u8 = 2;

/// A load balancer for PHP web clusters whose policy is one WebAssembly filter, in stock Envoy and in its own proxy.
#[derive(Debug, Parser)]
#[command(name = "evenkeel", version, arg_required_else_help = true)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy (SIGHUP reloads, SIGUSR1 reopens logs, SIGTERM drains and ends, a second one ends now)
    Run(File),
    /// Validate a configuration and say what it means
    Check(File),
    /// Write envoy.yaml and evenkeel.wasm, ready for a stock Envoy
    Envoy {
        #[command(flatten)]
        file: File,
        /// Folder to write into; made if it is not there
        #[arg(short, long = "out", value_name = "DIR")]
        out: PathBuf,
    },
    /// Run the session store for PHP alone, beside Envoy or another proxy
    Store(File),
    /// Ask a running proxy to drain, change, add, remove or show servers, over its admin interface
    Ctl(Ask),
    /// Everything on one machine, nothing to install: three web nodes, the proxy, and a page that shows what it does
    Demo,
    /// Write a copy of this executable that need not compile its filter at start (part of the build)
    #[command(hide = true)]
    Seal {
        #[arg(short, long = "out", value_name = "FILE")]
        out: PathBuf,
    },
}

#[derive(Debug, Args)]
struct File {
    /// The configuration, YAML or JSON
    #[arg(short, long = "config", value_name = "FILE")]
    config: PathBuf,
}

/// Why a command did not succeed.
enum Failure {
    Wrong(Faults),
    Failed(anyhow::Error),
}

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Self {
        Self::Wrong(faults)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    run::log_to_stderr();
    // clap prints help and its own errors, and ends with 0 or 2.
    let outcome = match Line::parse().command {
        Command::Run(file) => serve(&file.config),
        Command::Check(file) => explain(&file.config),
        Command::Store(file) => serve_store(&file.config),
        Command::Envoy { file, out } => write_envoy(&file.config, &out),
        Command::Seal { out } => sealed::seal(&out)
            .map(|()| ExitCode::SUCCESS)
            .map_err(Failure::from),
        Command::Ctl(ask) => ctl::run(&ask)
            .map(|()| ExitCode::SUCCESS)
            .map_err(Failure::from),
        Command::Demo => demo::run()
            .map(|()| ExitCode::SUCCESS)
            .map_err(Failure::from),
    };
    match outcome {
        Ok(code) => code,
        Err(Failure::Wrong(faults)) => {
            eprintln!("{faults}");
            ExitCode::from(WRONG)
        }
        Err(Failure::Failed(error)) => {
            eprintln!("evenkeel: {error:#}");
            ExitCode::from(if error.is::<Wrong>() { WRONG } else { FAILED })
        }
    }
}

fn serve(path: &Path) -> Result<ExitCode, Failure> {
    let config = Config::load_to_run(path)?;
    let again = path.to_owned();
    let load = move || Config::load_to_run(&again).map_err(|faults| faults.to_string());
    let options = RunOptions {
        load: Some(Box::new(load)),
        ..RunOptions::default()
    };
    Ok(run::run(config, options)?)
}

fn serve_store(path: &Path) -> Result<ExitCode, Failure> {
    Ok(store::run(&Config::load_store(path)?)?)
}

fn explain(path: &Path) -> Result<ExitCode, Failure> {
    print!("{}", check::explain(&Config::load(path)?));
    Ok(ExitCode::SUCCESS)
}

fn write_envoy(path: &Path, out: &Path) -> Result<ExitCode, Failure> {
    let config = Config::load(path)?;
    let written = envoy::write(&config, embedded::FILTER, out)?;
    println!(
        "wrote {} and {}",
        written.envoy_yaml.display(),
        written.wasm.display()
    );
    println!(
        "start it with: envoy -c {} --concurrency {}",
        written.envoy_yaml.display(),
        config.workers
    );
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Line::command().debug_assert();
    }

    #[test]
    fn commands_are_those_of_the_documentation() {
        for line in [
            &["run", "-c", "f"][..],
            &["store", "-c", "f"],
            &["check", "-c", "f"],
            &["envoy", "-c", "f", "-o", "d"],
            &["ctl", "drain", "shop/a", "shop/b"],
            &["ctl", "--admin", "127.0.0.1:1", "weight", "5", "shop/a"],
            &["ctl", "add", "shop/c", "10.0.0.1:80", "--weight", "3"],
            &["ctl", "show"],
            &["ctl", "show", "shop", "--admin", "127.0.0.1:1"],
        ] {
            assert!(
                Line::try_parse_from([&["evenkeel"], line].concat()).is_ok(),
                "{line:?}"
            );
        }
        for line in [
            &["run"][..],
            &["envoy", "-c", "f"],
            &["ctl"],
            &["ctl", "drain"],
            &["ctl", "drain", "shop"],
            &["ctl", "weight", "0", "shop/a"],
        ] {
            assert!(
                Line::try_parse_from([&["evenkeel"], line].concat()).is_err(),
                "{line:?}"
            );
        }
    }
}
