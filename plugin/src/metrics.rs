//! The filter's own metrics: counted in memory, told to the host each tick, because telling costs a call.
//!
//! Names carry pool and server id: the ABI knows no labels. Envoy shows them as `wasmcustom.<name>`.

use std::collections::HashMap;

use evenkeel_policy::exchange::Policy;
use evenkeel_policy::upstream::{Cause, Health, Standing};

use crate::hostcalls::{self, Level, Metric};

/// Most metrics of a VM; what comes after is not told.
const METRICS_MAX: usize = 8_192;

/// Numbers of metrics that were defined.
#[derive(Default)]
pub(crate) struct Metrics {
    ids: HashMap<String, u32>,
}

impl Metrics {
    /// Tells what was counted and what happened since the last time.
    pub(crate) fn flush(&mut self, policy: &mut Policy) {
        self.add("evenkeel_no_route_total".to_owned(), policy.take_no_route());
        for pool in policy.pools_mut() {
            let mut counted = Vec::new();
            let no_server = pool.take_counters(|server, counters| counted.push((server, counters)));
            for turned in pool.take_transitions() {
                let (pool, id, to) = (pool.name(), pool.id(turned.server), turned.to);
                let level = if to == Standing::Up {
                    Level::Info
                } else {
                    Level::Warn
                };
                let reason = &turned.reason;
                let line = format!("evenkeel: pool {pool}: server {id} is {to}: {reason}");
                hostcalls::log(level, &line);
                self.turned(pool, id, to, turned.cause);
            }
            self.add(
                format!("evenkeel_pool_{}_no_server_total", pool.name()),
                no_server,
            );
            let all_full = pool.take_all_full();
            self.add(
                format!("evenkeel_pool_{}_all_full_total", pool.name()),
                all_full,
            );
            for (server, counters) in counted {
                let of = format!("evenkeel_pool_{}_server_{}", pool.name(), pool.id(server));
                self.add(format!("{of}_requests_total"), counters.picks);
                self.add(format!("{of}_failures_total"), counters.failures);
            }
        }
    }

    /// Counts a server that was taken out or came back.
    pub(crate) fn turned(&mut self, pool: &str, id: &str, to: Standing, cause: Cause) {
        let name = format!("evenkeel_pool_{pool}_server_{id}_to_{to}_{cause}_total");
        self.add(name, 1);
    }

    /// Says what checks say of a server.
    pub(crate) fn set_up(&mut self, pool: &str, id: &str, health: Health) {
        let name = format!("evenkeel_pool_{pool}_server_{id}_up");
        if let Some(metric) = self.id(Metric::Gauge, name) {
            hostcalls::record_metric(metric, u64::from(health != Health::Down));
        }
    }

    /// Counts requests of a pool's queue: that waited, that found it full, that waited in vain.
    pub(crate) fn queue_counters(&mut self, pool: &str, waited: u64, full: u64, timeouts: u64) {
        for (name, by) in [
            ("waited", waited),
            ("queue_full", full),
            ("queue_timeouts", timeouts),
        ] {
            self.add(format!("evenkeel_pool_{pool}_{name}_total"), by);
        }
    }

    /// Says how many wait for a pool, in all VMs.
    pub(crate) fn set_queue_length(&mut self, pool: &str, length: u32) {
        let name = format!("evenkeel_pool_{pool}_queue_length");
        if let Some(metric) = self.id(Metric::Gauge, name) {
            hostcalls::record_metric(metric, u64::from(length));
        }
    }

    /// Counts a check that the host did not take.
    pub(crate) fn check_not_sent(&mut self, pool: &str) {
        self.add(format!("evenkeel_pool_{pool}_checks_not_sent_total"), 1);
    }

    /// Counts configurations that were taken into use.
    pub(crate) fn configured(&mut self) {
        // Those of servers that have gone do not come again; the host gives the others the numbers they had.
        self.ids.clear();
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
