//! Envoy with its own round robin and header mutation, without any filter but the router.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use serde_json::{Value, json};

use super::{SECOND_ROUTE, Task, peer_program, write};
use crate::process::first_line;

pub fn program() -> Result<PathBuf> {
    peer_program("envoy")
}

/// It says `<program> version: <commit>/1.40.0/Clean/RELEASE/BoringSSL`.
pub fn version(program: &Path) -> String {
    let line = first_line(program, &["--version"]);
    let build = line.split("version: ").nth(1).unwrap_or_default();
    format!("Envoy {}", build.split('/').nth(1).unwrap_or(build))
}

pub fn command(program: &Path, task: &Task<'_>) -> Result<Command> {
    let configuration = task.folder.join("envoy.json");
    write(
        &configuration,
        &serde_json::to_string_pretty(&bootstrap(task))?,
    )?;
    Ok(run(program, &configuration, task.workers))
}

/// How Envoy is started here, whoever wrote the configuration.
pub fn run(program: &Path, configuration: &Path, workers: usize) -> Command {
    let mut command = Command::new(program);
    command
        .arg("-c")
        .arg(configuration)
        .arg("--concurrency")
        .arg(workers.to_string());
    command.args(["--disable-hot-restart", "--log-level", "warning"]);
    command
}

fn bootstrap(task: &Task<'_>) -> Value {
    json!({
        "admin": {"address": address(task.admin)},
        "static_resources": {
            "listeners": [{
                "name": "web",
                "address": address(task.listen),
                "filter_chains": [{"filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": connection_manager(task),
                }]}],
            }],
            "clusters": [cluster("shop", &task.backends.shop), cluster("images", &task.backends.images)],
        },
    })
}

fn connection_manager(task: &Task<'_>) -> Value {
    let access_log = task.access_log.as_ref().map(|path| {
        json!({
            "name": "envoy.access_loggers.file",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                "path": path,
            },
        })
    });
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "web",
        "use_remote_address": true,
        // Nobody else here makes request ids.
        "generate_request_id": false,
        "access_log": Vec::from_iter(access_log),
        "route_config": {
            "name": "routes",
            "request_headers_to_add": [{
                "header": {"key": "x-real-ip", "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }],
            "virtual_hosts": [{
                "name": "all",
                "domains": ["*"],
                "routes": [
                    {"match": {"prefix": SECOND_ROUTE}, "route": {"cluster": "images", "timeout": "0s"}},
                    {"match": {"prefix": "/"}, "route": {"cluster": "shop", "timeout": "0s"}},
                ],
            }],
        },
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }],
    })
}

fn cluster(name: &str, servers: &[SocketAddr]) -> Value {
    let endpoints: Vec<Value> = servers
        .iter()
        .map(|server| json!({"endpoint": {"address": address(*server)}}))
        .collect();
    let unlimited = 1_000_000;
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "lb_policy": "ROUND_ROBIN",
        "circuit_breakers": {"thresholds": [{
            "max_connections": unlimited, "max_pending_requests": unlimited, "max_requests": unlimited, "max_retries": unlimited,
        }]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    })
}

fn address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}
