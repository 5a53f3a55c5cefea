//! The filter's own metrics: counted in memory, told to the host each tick, because telling costs a call.
//!
//! Names carry pool and server id: the ABI knows no labels. Envoy shows them as `wasmcustom.<name>`.

use std::collections::HashMap;

use evenkeel_policy::exchange::Policy;

use crate::hostcalls::{self, Metric};

/// Most metrics of a VM; what comes after is not told.
const METRICS_MAX: usize = 8_192;

/// Numbers of metrics that were defined.
#[derive(Default)]
pub(crate) struct Metrics {
    ids: HashMap<String, u32>,
}

impl Metrics {
    /// Tells what was counted since the last time.
    pub(crate) fn flush(&mut self, policy: &mut Policy) {
        self.add("evenkeel_no_route_total".to_owned(), policy.take_no_route());
        for pool in policy.pools_mut() {
            let mut counted = Vec::new();
            let no_server = pool.take_counters(|server, counters| counted.push((server, counters)));
            self.add(
                format!("evenkeel_pool_{}_no_server_total", pool.name()),
                no_server,
            );
            for (server, counters) in counted {
                let of = format!("evenkeel_pool_{}_server_{}", pool.name(), pool.id(server));
                self.add(format!("{of}_requests_total"), counters.picks);
                self.add(format!("{of}_failures_total"), counters.failures);
            }
        }
    }

    /// Counts configurations that were taken into use.
    pub(crate) fn configured(&mut self) {
        self.add("evenkeel_configurations_total".to_owned(), 1);
        if let Some(id) = self.id(Metric::Gauge, "evenkeel_configured_seconds".to_owned()) {
            hostcalls::record_metric(id, hostcalls::now_ns() / 1_000_000_000);
        }
    }

    fn add(&mut self, name: String, by: u64) {
        if by > 0
            && let Some(id) = self.id(Metric::Counter, name)
        {
            hostcalls::increment_metric(id, by);
        }
    }

    fn id(&mut self, kind: Metric, name: String) -> Option<u32> {
        if let Some(id) = self.ids.get(&name) {
            return Some(*id);
        }
        if self.ids.len() >= METRICS_MAX {
            return None;
        }
        let id = hostcalls::define_metric(kind, &name)?;
        self.ids.insert(name, id);
        Some(id)
    }
}
