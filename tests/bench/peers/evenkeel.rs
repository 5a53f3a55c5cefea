//! evenkeel itself: as the proxy, and as a filter within Envoy, from one configuration.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Balance, MAX_CONNS, SECOND_ROUTE, Task, envoy, write};
use crate::process::first_line;

/// The binary built beside this program, with the same profile; `EVENKEEL_BIN` names another.
pub fn binary() -> Result<PathBuf> {
    let binary = match std::env::var_os("EVENKEEL_BIN") {
        Some(binary) => PathBuf::from(binary),
        None => std::env::current_exe()?.with_file_name("evenkeel"),
    };
    anyhow::ensure!(
        binary.is_file(),
        "no {}: build it with the same profile as this program",
        binary.display()
    );
    Ok(binary)
}

/// Whether figures of [`binary`] mean anything: it stands for the profile of this program, with which it is built.
pub fn is_optimised() -> bool {
    !cfg!(debug_assertions)
}

pub fn version(binary: &Path) -> String {
    let line = first_line(binary, &["--version"]);
    if is_optimised() {
        line
    } else {
        format!("{line} (not optimised)")
    }
}

pub fn command(binary: &Path, task: &Task<'_>) -> Result<Command> {
    let mut command = Command::new(binary);
    command.arg("run").arg("-c").arg(configuration(task)?);
    Ok(command)
}

/// Starts Envoy with what evenkeel makes of the same configuration.
pub fn envoy_command(binary: &Path, envoy: &Path, task: &Task<'_>) -> Result<Command> {
    let folder = task.folder.join("generated");
    generate_for_envoy(binary, &configuration(task)?, &folder)?;
    let mut command = envoy::run(envoy, &folder.join("envoy.yaml"), task.workers);
    // The generated file may name the filter relative to itself.
    command.current_dir(&folder);
    Ok(command)
}

/// Has `evenkeel envoy` write `envoy.yaml` and `evenkeel.wasm` into `folder`.
pub fn generate_for_envoy(binary: &Path, configuration: &Path, folder: &Path) -> Result<()> {
    let mut command = Command::new(binary);
    command
        .arg("envoy")
        .arg("-c")
        .arg(configuration)
        .arg("-o")
        .arg(folder);
    let output = command
        .output()
        .with_context(|| format!("running {command:?}"))?;
    anyhow::ensure!(
        output.status.success(),
        "evenkeel envoy: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Written as JSON, which is YAML.
fn configuration(task: &Task<'_>) -> Result<PathBuf> {
    let path = task.folder.join("evenkeel.yaml");
    write(&path, &serde_json::to_string_pretty(&document(task))?)?;
    Ok(path)
}

fn document(task: &Task<'_>) -> Value {
    let pool = |servers: &[std::net::SocketAddr]| {
        let servers: Vec<Value> = servers
            .iter()
            .map(|server| match task.balance {
                Balance::RoundRobin => json!({"address": server.to_string()}),
                Balance::LeastConn => {
                    json!({"address": server.to_string(), "max_conns": MAX_CONNS})
                }
            })
            .collect();
        let keepalive = json!({"per_worker": 64, "idle": "60s", "requests": 10000});
        match task.balance {
            Balance::RoundRobin => {
                json!({"balance": "round_robin", "servers": servers, "keepalive": keepalive})
            }
            Balance::LeastConn => json!({
                "balance": "least_conn", "servers": servers, "keepalive": keepalive,
                "health": {"path": "/", "interval": "2s", "timeout": "1s"},
            }),
        }
    };
    let mut document = json!({
        "listeners": [{"name": "web", "bind": task.listen.to_string(), "mode": "http"}],
        "admin": {"bind": task.admin.to_string()},
        "workers": task.workers,
        "policy": {
            "routes": [
                {"match": {"path_prefix": [SECOND_ROUTE]}, "pool": "images"},
                {"pool": "shop"},
            ],
            "pools": {"shop": pool(&task.backends.shop), "images": pool(&task.backends.images)},
        },
    });
    if let (Some(path), Some(document)) = (&task.access_log, document.as_object_mut()) {
        document.insert(
            "access_log".into(),
            json!({"path": path, "format": "combined"}),
        );
    }
    document
}
