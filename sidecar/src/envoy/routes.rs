//! The routes: Envoy goes where the filter says, `x-evenkeel-pool`, and retries as the filter says, by request headers.

use std::time::Duration;

use evenkeel_policy::config::Chooser;
use evenkeel_policy::contract::POOL_HEADER;

use super::yaml::{quoted, seconds};
use crate::config::{Config, QUEUE_GRACE};

/// The longest silence that any pool allows, of its servers or of those who wait for them.
pub(super) fn longest_response(config: &Config) -> Duration {
    let pools = config
        .policy
        .pools
        .iter()
        .filter_map(|pool| pool.timeouts.response);
    pools
        .chain([
            config.timeouts.response,
            config.longest_queue() + QUEUE_GRACE,
        ])
        .max()
        .unwrap_or(config.timeouts.response)
}

pub(super) fn render(config: &Config) -> String {
    let mut out =
        "name: pools\nvirtual_hosts:\n- name: all\n  domains: [ \"*\" ]\n  routes:\n".to_owned();
    out.push_str("  # timeouts.tunnel: an upgraded connection may be silent for longer.\n");
    let upgrade = "{ name: upgrade, string_match: { exact: websocket, ignore_case: true } }";
    out.push_str(&route(
        upgrade,
        config.timeouts.tunnel,
        Some(config.timeouts.tunnel),
        Chooser::Filter,
    ));
    for pool in &config.policy.pools {
        let response = pool.timeouts.response.unwrap_or(config.timeouts.response);
        if response == config.timeouts.response && pool.chooser == Chooser::Filter {
            continue;
        }
        out.push_str(&format!("  # What is special of pool {}.\n", pool.name));
        let matcher = format!(
            "{{ name: {POOL_HEADER}, string_match: {{ exact: {} }} }}",
            quoted(&pool.name)
        );
        out.push_str(&route(&matcher, response, None, pool.chooser));
    }
    out.push_str("  # timeout: never a total. per_try_idle_timeout: the longest silence of a server. The filter sets which failures are retried and how often.\n");
    out.push_str(&route("", config.timeouts.response, None, Chooser::Filter));
    out
}

fn route(header: &str, silence: Duration, idle: Option<Duration>, chooser: Chooser) -> String {
    let headers = if header.is_empty() {
        String::new()
    } else {
        format!(", headers: [ {header} ]")
    };
    let idle = idle.map_or(String::new(), |idle| {
        format!("      idle_timeout: {}\n", seconds(idle))
    });
    // Where Envoy chooses, the next server must be told to be another one; the filter's lists say so by themselves.
    let other = match chooser {
        Chooser::Filter => "",
        Chooser::Envoy => {
            ", host_selection_retry_max_attempts: 5, retry_host_predicate: [ { name: envoy.retry_host_predicates.previous_hosts, typed_config: { \"@type\": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate } } ]"
        }
    };
    format!(
        "  - match: {{ prefix: \"/\"{headers} }}
    route:
      cluster_header: {POOL_HEADER}
      timeout: 0s
{idle}      retry_policy: {{ per_try_idle_timeout: {silence}, retry_back_off: {{ base_interval: 0.001s, max_interval: 0.01s }}{other} }}
",
        silence = seconds(silence)
    )
}
