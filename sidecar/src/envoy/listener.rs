//! A listener: TLS, the connection manager, the headers that nobody may send, the chain of filters.

use std::path::Path;

use anyhow::bail;
use evenkeel_policy::config::{ListenerIdentity, Mode, filter_configuration};
use evenkeel_policy::contract::{
    HTTP_ROOT_ID, MAX_RETRIES_HEADER, POOL_HEADER, RETRIABLE_STATUSES_HEADER, RETRY_ON_HEADER,
    STEERING_HEADER, VM_ID,
};

use super::yaml::{bind_address, indented, pretty_json, quoted, seconds};
use super::{access_log, routes};
use crate::config::{Accept, Config, ExtraFilter, Listener, ProxySenders};
use crate::http::body::NO_TRAILERS;

/// Headers by which a client could steer or retry, removed before any filter or route sees them.
const NOBODY_MAY_SEND: [&str; 15] = [
    RECEIVED_PROTO,
    STEERING_HEADER,
    POOL_HEADER,
    "x-envoy-original-dst-host",
    RETRY_ON_HEADER,
    MAX_RETRIES_HEADER,
    "x-envoy-retry-grpc-on",
    RETRIABLE_STATUSES_HEADER,
    "x-envoy-retriable-header-names",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-stream-duration-ms",
];
/// Where the X-Forwarded-Proto of a trusted proxy waits until Envoy has overwritten it: see [`restored_proto`].
const RECEIVED_PROTO: &str = "x-evenkeel-received-proto";
/// What Envoy's connection manager can be set to.
const HEADER_KIB_MAX: usize = 8192;
const HTTP2_STREAMS_MAX: u32 = 256;

pub(super) fn render(config: &Config, listener: &Listener, wasm: &Path) -> anyhow::Result<String> {
    let mut out = format!(
        "- name: {}\n  address: {}\n",
        quoted(&listener.name),
        bind_address(listener.bind)
    );
    if listener.accept == Accept::Balanced {
        out.push_str("  connection_balance_config: { exact_balance: {} }\n");
    }
    if listener.proxy_senders.is_some() {
        out.push_str(PROXY_PROTOCOL_FILTER);
    }
    out.push_str("  filter_chains:\n");
    out.push_str(&match &listener.proxy_senders {
        None => "  - filters:\n".to_owned(),
        Some(senders) => format!("{}    filters:\n", from_senders(senders)),
    });
    out.push_str(
        "    - name: envoy.filters.network.http_connection_manager\n      typed_config:\n",
    );
    out.push_str(&indented(&connection_manager(config, listener, wasm)?, 8));
    if let Some(files) = &listener.tls_files {
        out.push_str(&indented(&tls(&files.cert, &files.key)?, 4));
    }
    Ok(out)
}

/// Requires the header of everybody, which is more than evenkeel does: see [`from_senders`].
const PROXY_PROTOCOL_FILTER: &str = "  listener_filters:
  - name: envoy.filters.listener.proxy_protocol
    typed_config: { \"@type\": type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol }
";

/// The match of the only chain: connections of `proxy_protocol.from`. A chain for others could not tell whether one of them had sent a
/// header, which Envoy has believed by then; so in Envoy others are not served.
fn from_senders(senders: &ProxySenders) -> String {
    let mut out = "  - filter_chain_match:      # the socket's own peer: from anybody else the header is a lie, and the connection is closed\n      direct_source_prefix_ranges:\n".to_owned();
    for text in &senders.texts {
        let (prefix, length) = match text.split_once('/') {
            Some((prefix, length)) => (prefix, length),
            None if text.contains(':') => (text.as_str(), "128"),
            None => (text.as_str(), "32"),
        };
        out.push_str(&format!(
            "      - {{ address_prefix: {}, prefix_len: {length} }}\n",
            quoted(prefix)
        ));
    }
    out
}

fn tls(cert: &Path, key: &Path) -> anyhow::Result<String> {
    Ok(format!(
        "\
transport_socket:
  name: envoy.transport_sockets.tls
  typed_config:
    \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
    common_tls_context:
      alpn_protocols: [ h2, http/1.1 ]
      tls_params: {{ tls_minimum_protocol_version: TLSv1_2 }}
      tls_certificates:
      - certificate_chain: {{ filename: {cert} }}
        private_key: {{ filename: {key} }}
",
        cert = absolute(cert)?,
        key = absolute(key)?
    ))
}

fn connection_manager(config: &Config, listener: &Listener, wasm: &Path) -> anyhow::Result<String> {
    let mut out = format!(
        "\
\"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
stat_prefix: {name}
use_remote_address: true          # the filter's source.address is the peer, never what a client wrote
skip_xff_append: true             # the filter owns X-Forwarded-For
generate_request_id: false        # and X-Request-Id, which Envoy would write over a trusted proxy's
# :scheme is the listener's own, whatever a client says (HTTP/2 clients say it, for others Envoy takes X-Forwarded-Proto).
scheme_header_transformation: {{ scheme_to_overwrite: {scheme} }}
server_header_transformation: PASS_THROUGH
max_request_headers_kb: {header_kib}
request_headers_timeout: {client_header}
# The larger of timeouts.response and timeouts.idle; it also bounds a body that stops coming (timeouts.client_body
# has no counterpart), and a request that waits for ever on a filter that failed.
stream_idle_timeout: {stream_idle}
drain_timeout: {drain}
common_http_protocol_options: {{ idle_timeout: {idle}, max_headers_count: {headers} }}
http_protocol_options: {{ accept_http_10: true, enable_trailers: true }}
http2_protocol_options: {{ max_concurrent_streams: {HTTP2_STREAMS_MAX} }}
upgrade_configs: [ {{ upgrade_type: websocket }} ]
local_reply_config:               # as the filter and evenkeel's own proxy say it
  mappers:
  - filter: {{ status_code_filter: {{ comparison: {{ op: EQ, value: {{ default_value: 503, runtime_key: evenkeel.retry_after }} }} }} }}
    headers_to_add: [ {{ header: {{ key: retry-after, value: \"5\" }}, append_action: ADD_IF_ABSENT }} ]
",
        name = quoted(&listener.name),
        scheme = if listener.tls_files.is_some() { "https" } else { "http" },
        header_kib = config.limits.header_bytes.div_ceil(1024).min(HEADER_KIB_MAX),
        client_header = seconds(config.timeouts.client_header),
        stream_idle = seconds(routes::longest_response(config).max(config.timeouts.idle)),
        drain = seconds(config.timeouts.drain),
        idle = seconds(config.timeouts.idle),
        headers = config.limits.headers,
    );
    let trusts = config.policy.real_ip.is_some();
    out.push_str(&early_mutation(trusts));
    out.push_str("route_config:\n");
    out.push_str(&indented(&routes::render(config), 2));
    out.push_str("http_filters:\n");
    out.push_str(&legal_trailers());
    if config.limits.body_bytes > 0 {
        out.push_str(&body_limit(config.limits.body_bytes)?);
    }
    if trusts {
        out.push_str(&restored_proto());
    }
    for (index, filter) in config.filters.iter().enumerate() {
        out.push_str(&extra_filter(index, filter)?);
    }
    out.push_str(&own_filter(config, listener, wasm)?);
    out.push_str(
        "\
- name: envoy.filters.http.router
  typed_config:
    \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
    suppress_envoy_headers: true
",
    );
    if let Some(log) = &config.access_log {
        out.push_str(&access_log::render(log)?);
    }
    Ok(out)
}

fn early_mutation(trusts: bool) -> String {
    let mut out = "\
# Before any filter or route: nobody outside may steer or retry. (request_headers_to_remove would be too late, and too early below.)
early_header_mutation_extensions:
- name: envoy.http.early_header_mutation.header_mutation
  typed_config:
    \"@type\": type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation
    mutations:
"
    .to_owned();
    for name in NOBODY_MAY_SEND {
        out.push_str(&format!("    - remove: {name}\n"));
    }
    if trusts {
        out.push_str(&format!("    - append: {{ header: {{ key: {RECEIVED_PROTO}, value: \"%REQ(X-FORWARDED-PROTO)%\" }} }}\n"));
    }
    out
}

/// Envoy overwrites X-Forwarded-Proto; whether to believe it is the filter's decision, so the filter is shown what came.
fn restored_proto() -> String {
    format!(
        "\
# What came as X-Forwarded-Proto, before Envoy overwrote it: the filter believes it from trusted peers only.
- name: received-proto
  typed_config:
    \"@type\": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
    mutations:
      request_mutations:
      - append: {{ header: {{ key: x-forwarded-proto, value: \"%REQ({RECEIVED_PROTO})%\" }}, append_action: OVERWRITE_IF_EXISTS_OR_ADD }}
      - remove: {RECEIVED_PROTO}
"
    )
}

/// Envoy passes trailers as they come.
fn legal_trailers() -> String {
    let mut out = "\
# What no trailer may say: where a body ends, whose request it is (RFC 9110 section 6.5.1).
- name: legal-trailers
  typed_config:
    \"@type\": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
    mutations:
      request_trailers_mutations:
"
    .to_owned();
    for name in NO_TRAILERS.into_iter().chain(NOBODY_MAY_SEND) {
        out.push_str(&format!("      - remove: {name}\n"));
        if name.contains('-') {
            out.push_str(&format!("      - remove: {}\n", name.replace('-', "_")));
        }
    }
    for prefix in ["x-forwarded-", "x_forwarded_"] {
        out.push_str(&format!(
            "      - remove_on_match: {{ key_matcher: {{ prefix: {prefix} }} }}\n"
        ));
    }
    out
}

/// Envoy has no limit for a body that streams by: its buffer filter holds the whole of it first.
fn body_limit(bytes: u64) -> anyhow::Result<String> {
    let Ok(bytes) = u32::try_from(bytes) else {
        bail!(
            "limits.body_bytes: Envoy can limit a body to at most {} bytes, found {bytes}",
            u32::MAX
        );
    };
    Ok(format!(
        "\
# limits.body_bytes. Unlike evenkeel, Envoy holds a whole body in memory to limit it.
- name: envoy.filters.http.buffer
  typed_config:
    \"@type\": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer
    max_request_bytes: {bytes}
"
    ))
}

/// One of the operator's own filters: a VM of its own, with the names that our own proxy gives it.
fn extra_filter(index: usize, filter: &ExtraFilter) -> anyhow::Result<String> {
    let name = filter
        .path
        .file_stem()
        .map_or_else(|| "filter".into(), |stem| stem.to_string_lossy());
    let configuration = format!("value: {}", quoted(&filter.configuration));
    Ok(wasm_filter(
        &name,
        "",
        &format!("{name}-{index}"),
        &absolute(&filter.path)?,
        &configuration,
    ))
}

fn own_filter(config: &Config, listener: &Listener, wasm: &Path) -> anyhow::Result<String> {
    let identity = ListenerIdentity {
        name: listener.name.clone(),
        mode: Mode::Http,
        pool: None,
    };
    let text = pretty_json(&filter_configuration(&identity, &config.policy_json));
    let configuration = format!("value: |-\n{}", indented(&text, 2));
    Ok(wasm_filter(
        "evenkeel",
        HTTP_ROOT_ID,
        VM_ID,
        &absolute(wasm)?,
        configuration.trim_end(),
    ))
}

/// FAIL_RELOAD, so that one trap does not stop a worker for good; Envoy's own backoff of a second would be long.
fn wasm_filter(name: &str, root_id: &str, vm_id: &str, file: &str, configuration: &str) -> String {
    let mut out = format!(
        "\
- name: {name}
  typed_config:
    \"@type\": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
    config:
      name: {name}
      root_id: {root_id}
      failure_policy: FAIL_RELOAD
      reload_config: {{ backoff: {{ base_interval: 0.1s }} }}
      vm_config: {{ vm_id: {vm_id}, runtime: envoy.wasm.runtime.v8, code: {{ local: {{ filename: {file} }} }} }}
      configuration:               # a StringValue: a Struct would reach the filter as binary protobuf
        \"@type\": type.googleapis.com/google.protobuf.StringValue
",
        name = quoted(name),
        root_id = quoted(root_id),
        vm_id = quoted(vm_id),
    );
    out.push_str(&indented(configuration, 8));
    out
}

/// Envoy resolves relative names where it is started.
fn absolute(path: &Path) -> anyhow::Result<String> {
    Ok(quoted(&std::path::absolute(path)?.display().to_string()))
}
