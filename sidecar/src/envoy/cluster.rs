//! A pool as two clusters: the one that serves, and its strict twin for checks.
//!
//! Both take the endpoint from the steering header and from nothing else: `override_host` over a fallback that has no host to
//! offer. So a request that the filter did not steer is answered 503, never balanced by Envoy. But for pools that say
//! `balance: envoy`: those are one cluster, whose names Envoy resolves and in which it takes turns.

use evenkeel_policy::config::{AdminState, Chooser, PoolConfig, ProxyVersion, ServerConfig, Tier};
use evenkeel_policy::contract::{
    CHECK_CLUSTER_SUFFIX, EXPLAIN_HEADER, MAX_RETRIES_HEADER, POOL_HEADER,
    RETRIABLE_STATUSES_HEADER, RETRY_ON_HEADER, STEERING_HEADER,
};

use super::yaml::{address, host_address, indented, quoted, seconds};
use crate::config::Config;

/// Headers of the contract and of Envoy itself that end here.
const NOT_FOR_SERVERS: [&str; 10] = [
    STEERING_HEADER,
    POOL_HEADER,
    EXPLAIN_HEADER,
    RETRY_ON_HEADER,
    MAX_RETRIES_HEADER,
    RETRIABLE_STATUSES_HEADER,
    "x-envoy-internal",
    "x-envoy-external-address",
    "x-envoy-attempt-count",
    "x-envoy-expected-rq-timeout-ms",
];
/// Concurrent checks of one pool.
const CHECKS_MAX: u32 = 1024;
const NO_LIMIT: u32 = 1_000_000;

pub(super) fn render(config: &Config, pool: &PoolConfig) -> String {
    let connect = seconds(pool.timeouts.connect.unwrap_or(config.timeouts.connect));
    let requests = if pool.keepalive.per_worker == 0 {
        1
    } else {
        pool.keepalive.requests.max(1)
    };
    if pool.chooser == Chooser::Envoy {
        return left_to_envoy(pool, &connect, requests);
    }
    let serving = format!(
        "\
- name: {name}
  type: STATIC
  connect_timeout: {connect}
  # Envoy's defaults (1024, and 3 retries at a time) would break failover under load. Limits are the filter's business.
{breakers}  common_lb_config: {{ healthy_panic_threshold: {{ value: 0 }} }}
{options}{socket}{policy}{assignment}",
        name = quoted(&pool.name),
        breakers = breakers(NO_LIMIT),
        options = protocol_options(&seconds(pool.keepalive.idle), requests),
        socket = socket(pool.proxy_protocol),
        policy = policy(),
        assignment = assignment(&pool.name, &pool.servers, Twin::Serving),
    );
    let name = format!("{}{CHECK_CLUSTER_SUFFIX}", pool.name);
    let checks = format!(
        "\
- name: {quoted}                # for the filter's own checks: one exact server, one request a connection
  type: STATIC
  connect_timeout: {connect}
{breakers}  common_lb_config: {{ healthy_panic_threshold: {{ value: 0 }} }}
{options}{socket}{policy}{assignment}",
        quoted = quoted(&name),
        breakers = breakers(CHECKS_MAX),
        options = protocol_options("1s", 1),
        socket = socket(pool.proxy_protocol),
        policy = policy(),
        assignment = assignment(&name, &pool.servers, Twin::Checks),
    );
    format!("{serving}{checks}")
}

/// A pool whose servers Envoy resolves and chooses. Names are asked of the system's resolver, as our own proxy does, and all of their
/// addresses are used.
fn left_to_envoy(pool: &PoolConfig, connect: &str, requests: u32) -> String {
    let mut out = format!(
        "\
- name: {name}
  type: STRICT_DNS                # balance: envoy. Envoy resolves, and takes turns
  connect_timeout: {connect}
  dns_refresh_rate: {resolve}
  dns_lookup_family: ALL
  typed_dns_resolver_config:
    name: envoy.network.dns_resolver.getaddrinfo
    typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig }}
{breakers}  common_lb_config: {{ healthy_panic_threshold: {{ value: 0 }} }}
{options}{socket}  lb_policy: ROUND_ROBIN
  load_assignment:
    cluster_name: {name}
    endpoints:
    - lb_endpoints:
",
        name = quoted(&pool.name),
        resolve = seconds(pool.resolve),
        breakers = breakers(NO_LIMIT),
        options = protocol_options(&seconds(pool.keepalive.idle), requests),
        socket = socket(pool.proxy_protocol),
    );
    let known = pool
        .servers
        .iter()
        .map(|server| (server, address(server.address)));
    let named = pool.named.iter().map(|named| {
        let port = named.server.address.port();
        (&named.server, host_address(&named.host, port))
    });
    let ready = known
        .chain(named)
        .filter(|(server, _)| server.admin == AdminState::Ready);
    for (server, address) in ready {
        out.push_str(&format!(
            "      - {{ endpoint: {{ address: {address} }}, load_balancing_weight: {} }}\n",
            server.weight
        ));
    }
    out
}

/// With the PROXY protocol Envoy keeps connections of different clients apart by itself; a check's are nobody's.
fn socket(version: Option<ProxyVersion>) -> String {
    let version = match version {
        None => return String::new(),
        Some(ProxyVersion::V1) => "V1",
        Some(ProxyVersion::V2) => "V2",
    };
    format!(
        "  transport_socket:
    name: envoy.transport_sockets.upstream_proxy_protocol
    typed_config:
      \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport
      config: {{ version: {version} }}
      transport_socket:
        name: envoy.transport_sockets.raw_buffer
        typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer }}
"
    )
}

fn breakers(limit: u32) -> String {
    format!(
        "  circuit_breakers:
    thresholds:
    - {{ priority: DEFAULT, max_connections: {limit}, max_pending_requests: {limit}, max_requests: {limit}, max_retries: {limit} }}
    - {{ priority: HIGH, max_connections: {limit}, max_pending_requests: {limit}, max_requests: {limit}, max_retries: {limit} }}
"
    )
}

fn protocol_options(idle: &str, requests: u32) -> String {
    let mut out = format!(
        "  typed_extension_protocol_options:
    envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
      \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
      explicit_http_config: {{ http_protocol_options: {{ enable_trailers: true }} }}
      common_http_protocol_options: {{ idle_timeout: {idle}, max_requests_per_connection: {requests} }}
      http_filters:                # per attempt and after the choice of the host: only here may the steering headers go
      - name: envoy.filters.http.header_mutation
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
          mutations:
            request_mutations:
"
    );
    for name in NOT_FOR_SERVERS {
        out.push_str(&format!("            - remove: {name}\n"));
    }
    out.push_str(
        "      - name: envoy.filters.http.upstream_codec
        typed_config: { \"@type\": type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec }
",
    );
    out
}

fn policy() -> String {
    format!(
        "  load_balancing_policy:
    policies:
    - typed_extension_config:
        name: envoy.load_balancing_policies.override_host
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.load_balancing_policies.override_host.v3.OverrideHost
          override_host_sources: [ {{ header: {STEERING_HEADER} }} ]
          fallback_policy:           # a subset that no host is in: nothing is chosen that the filter did not name
            policies:
            - typed_extension_config:
                name: envoy.load_balancing_policies.subset
                typed_config:
                  \"@type\": type.googleapis.com/envoy.extensions.load_balancing_policies.subset.v3.Subset
                  fallback_policy: NO_FALLBACK
                  subset_selectors: [ {{ keys: [ never ] }} ]
                  subset_lb_policy:
                    policies:
                    - typed_extension_config:
                        name: envoy.load_balancing_policies.round_robin
                        typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin }}
"
    )
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Twin {
    Serving,
    /// Reaches every server, also one that takes no requests.
    Checks,
}

fn assignment(cluster: &str, servers: &[ServerConfig], twin: Twin) -> String {
    let mut out = format!(
        "  load_assignment:\n    cluster_name: {}\n    endpoints:\n",
        quoted(cluster)
    );
    let tiers = [(Tier::Primary, 0), (Tier::Backup, 1)];
    for (tier, priority) in tiers {
        let members: Vec<_> = servers
            .iter()
            .filter(|server| twin == Twin::Checks || server.tier == tier)
            .collect();
        if members.is_empty() || (twin == Twin::Checks && priority > 0) {
            continue;
        }
        out.push_str(&format!(
            "    - priority: {priority}\n      lb_endpoints:\n"
        ));
        for server in members {
            out.push_str(&indented(&endpoint(server, twin), 6));
        }
    }
    out
}

fn endpoint(server: &ServerConfig, twin: Twin) -> String {
    let mut out = format!("- endpoint: {{ address: {} }}\n", address(server.address));
    if server.admin == AdminState::Down && twin == Twin::Serving {
        out.push_str("  health_status: UNHEALTHY\n");
    }
    out
}
