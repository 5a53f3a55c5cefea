//! What the filter costs within the proxy: evenkeel as it is, less an evenkeel whose filter only steers.
//!
//! The second executable is built here, with [`STEERING`] embedded in place of `evenkeel.wasm` and everything else the same. Both run
//! side by side on the proxy's core and are loaded in turns; what is subtracted is figures of the same round. The caches
//! are as cold here as a proxy's are, which the loop of the parent module cannot show; and the difference holds what the filter makes
//! the proxy do (four headers more to the server).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::Scale;
use crate::cores::{Cores, on_core};
use crate::cpu::CpuTime;
use crate::load::{Border, Load, Shape, mix};
use crate::peers::{Backends, evenkeel_binary, is_optimised, target_folder};
use crate::process::{Running, free_addresses};
use crate::statistics::Samples;

const STEERING: &str = include_str!("steering.wat");
const CONNECTIONS: usize = 64;
/// The steering filter within: built once a run, unless this names one that is there.
const BARE_VARIABLE: &str = "EVENKEEL_BARE_BIN";

/// CPU µs per request, one sample a round.
#[derive(Debug, Default)]
pub struct InProxy {
    pub with: Samples,
    pub without: Samples,
}

impl InProxy {
    /// With less without, of the same rounds.
    pub fn difference(&self) -> Samples {
        let pairs = self.with.values().iter().zip(self.without.values());
        pairs.map(|(with, without)| with - without).collect()
    }
}

pub fn run(scale: &Scale) -> Result<InProxy> {
    let cores = Cores::find()?;
    let scratch = tempfile::tempdir()?;
    let bare = match std::env::var_os(BARE_VARIABLE) {
        Some(path) => PathBuf::from(path),
        None => build()?,
    };
    let backends = Backends::start(cores.rest, scratch.path())?;
    let proxies = [
        start(
            "with",
            &evenkeel_binary()?,
            &backends,
            cores,
            scratch.path(),
        )?,
        start("without", &bare, &backends, cores, scratch.path())?,
    ];
    let requests = requests();
    let mut measured = InProxy::default();
    for round in 0..scale.rounds {
        // Each round begins with the other.
        for step in 0..2 {
            let is_bare = (round + step) % 2 == 1;
            let [with, without] = &proxies;
            let proxy = if is_bare { without } else { with };
            let load = Load {
                address: proxy.address,
                connections: CONNECTIONS,
                shape: Shape::Closed,
                requests: &requests,
                warm_up: scale.warm_up,
                measured: scale.measured,
            };
            let cost = on_core(cores.rest, || cost(proxy, &load))?;
            let samples = if is_bare {
                &mut measured.without
            } else {
                &mut measured.with
            };
            samples.push(cost);
        }
    }
    Ok(measured)
}

/// Builds the second executable. Another profile setting gives the crate that embeds the filter a place of its own, so that the
/// first one need not be built again afterwards, and shares everything else.
///
/// Module and executable stay in `<target>/bench`, and the module is written only when it changed: the next run builds nothing.
fn build() -> Result<PathBuf> {
    let target = target_folder()?;
    let module = target.join("bench/steering.wasm");
    let wanted = wat::parse_str(STEERING)?;
    if std::fs::read(&module).ok().as_ref() != Some(&wanted) {
        std::fs::write(&module, wanted).context("writing the steering filter")?;
    }
    let profile = if is_optimised() { "release" } else { "dev" };
    let folder = if is_optimised() { "release" } else { "debug" };
    eprintln!("building an evenkeel whose filter only steers (minutes)");
    let cargo = |bare: bool| -> Result<()> {
        let mut command = Command::new("cargo");
        command
            .args([
                "build",
                "--quiet",
                "--package",
                "evenkeel",
                "--profile",
                profile,
            ])
            .arg("--target-dir")
            .arg(&target)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
        if bare {
            let place = format!("profile.{profile}.package.evenkeel.debug=false");
            command.args(["--config", &place]);
            command.env("EVENKEEL_WASM", &module);
        }
        let status = command.status().context("running cargo")?;
        anyhow::ensure!(status.success(), "the build failed");
        Ok(())
    };
    let built = target.join(folder).join("evenkeel");
    let bare = target.join("bench/evenkeel-bare");
    cargo(true)?;
    std::fs::copy(&built, &bare).with_context(|| format!("copying {}", built.display()))?;
    // The name belongs to the first one again.
    cargo(false)?;
    Ok(bare)
}

struct Proxy {
    address: std::net::SocketAddr,
    running: Running,
}

fn start(
    name: &str,
    binary: &Path,
    backends: &Backends,
    cores: Cores,
    scratch: &Path,
) -> Result<Proxy> {
    let [address] = free_addresses()?;
    // Nine that nobody comes from, and the client's own: every list is walked, and X-Forwarded-For is believed.
    let mut trusted: Vec<String> = (0..9).map(|at| format!("10.{at}.0.0/16")).collect();
    trusted.push("127.0.0.0/8".to_owned());
    let servers = backends
        .shop
        .map(|server| json!({"address": server.to_string()}));
    let document = json!({
        "listeners": [{"name": "web", "bind": address.to_string()}],
        "workers": 1,
        "policy": {
            "real_ip": {"trusted": trusted, "header": "X-Forwarded-For", "recursive": true},
            "routes": [{"pool": "shop"}],
            "pools": {"shop": {"balance": "round_robin", "servers": servers}},
        },
    });
    let folder = scratch.join(name);
    std::fs::create_dir_all(&folder)?;
    let file = folder.join("evenkeel.yaml");
    std::fs::write(&file, document.to_string()).context("writing the configuration")?;
    let mut command = Command::new(binary);
    command.arg("run").arg("-c").arg(&file);
    let mut running = Running::start(name, command, Some(cores.proxy), &folder)?;
    running.until_listening(address)?;
    Ok(Proxy { address, running })
}

/// Those of the comparison, through a proxy that says for whom.
fn requests() -> Vec<Vec<u8>> {
    let mut requests = mix();
    for request in &mut requests {
        request.truncate(request.len().saturating_sub(b"\r\n".len()));
        request.extend_from_slice(b"X-Forwarded-For: 198.51.100.7\r\n\r\n");
    }
    requests
}

/// CPU µs per request, of all threads of the proxy.
fn cost(proxy: &Proxy, load: &Load<'_>) -> Result<f64> {
    let pids = proxy.running.pids()?;
    let mut clocks = Vec::with_capacity(2);
    let outcome = load.run(|_: Border| {
        clocks.push(CpuTime::of(&pids)?);
        Ok(())
    })?;
    let (Some(before), Some(after)) = (clocks.first(), clocks.last()) else {
        anyhow::bail!("the clocks were not read")
    };
    anyhow::ensure!(
        outcome.errors == 0 && outcome.answered > 0,
        "{} errors, {} answers: {}",
        outcome.errors,
        outcome.answered,
        outcome.first_error.unwrap_or_default()
    );
    let spent = *after - *before;
    Ok(spent.total_ns as f64 / 1000.0 / outcome.answered as f64)
}
