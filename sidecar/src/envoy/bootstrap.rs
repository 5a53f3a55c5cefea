//! The whole file: admin, runtime, limits of the process, listeners, clusters.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use anyhow::bail;
use evenkeel_policy::config::{Chooser, Probe};

use super::yaml::{address, indented};
use super::{cluster, listener};
use crate::config::Config;

/// Largest response that a call of the filter may bring: what the proxy of our own allows, too.
const CALL_RESPONSE_BYTES_MAX: usize = 64 * 1024;

pub(super) fn render(config: &Config, wasm: &Path) -> anyhow::Result<String> {
    let mut out = heading(config);
    if let Some(bind) = config.admin {
        out.push_str(&format!(
            "admin:\n  address: {}\n\n",
            address(loopback(bind))
        ));
    }
    out.push_str(&process(config));
    out.push_str("static_resources:\n  listeners:\n");
    for each in &config.listeners {
        out.push_str(&indented(&listener::render(config, each, wasm)?, 2));
    }
    out.push_str("  clusters:\n");
    for pool in &config.policy.pools {
        if let Some(Probe::Bridge(bridge)) = pool.health.as_ref().map(|health| &health.probe) {
            bail!(
                "policy.pools.{}.health.{}: a filter cannot speak this itself, and this version sets up no bridge beside Envoy that could",
                pool.name,
                bridge.kind
            );
        }
        if pool.chooser == Chooser::Filter
            && let Some(named) = pool.named.first()
        {
            bail!(
                "policy.pools.{}.servers: `{}` is a name: the filter in Envoy steers to addresses, and nobody there tells it those of a name (`balance: envoy` leaves the choice to Envoy, which resolves names)",
                pool.name,
                named.server.id
            );
        }
        out.push_str(&indented(&cluster::render(config, pool), 2));
    }
    Ok(out)
}

fn heading(config: &Config) -> String {
    let file = config.path.display().to_string().replace(['\n', '\r'], " ");
    format!(
        "# Written by `evenkeel envoy` {version} from {file}: change that file, not this one.\n\
         # Start it with: envoy -c envoy.yaml --concurrency {workers} --drain-time-s {drain}\n\n",
        version = env!("CARGO_PKG_VERSION"),
        workers = config.workers,
        drain = config.timeouts.drain.as_secs().max(1),
    )
}

/// Envoy's admin can stop the process and has no password, so it never listens beyond this machine.
fn loopback(bind: SocketAddr) -> SocketAddr {
    let ip = match bind.ip() {
        ip if ip.is_loopback() => ip,
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    SocketAddr::new(ip, bind.port())
}

fn process(config: &Config) -> String {
    format!(
        "\
# The answer to a call of the filter (a health check) is bounded.
layered_runtime:
  layers:
  - name: static
    static_layer: {{ http.async_response_buffer_limit: {CALL_RESPONSE_BYTES_MAX} }}

# limits.connections: without it Envoy takes as many as it has descriptors, and then none of its servers can be reached.
overload_manager:
  resource_monitors:
  - name: envoy.resource_monitors.global_downstream_max_connections
    typed_config:
      \"@type\": type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig
      max_active_downstream_connections: {connections}

",
        connections = config.limits.connections
    )
}
