//! The filter's own metrics: counted in memory, told to the host each tick, because telling costs a call.
//!
//! Names carry pool and server id: the ABI knows no labels. Envoy shows them as `wasmcustom.<name>`.
//!
//! # Why not of every server
//!
//! A host keeps every metric for ever, in every VM; ten thousand servers would be tens of thousands, which hosts refuse, nobody reads, and
//! each tick would tell anew. So a configuration with more than [`SERVERS_TOLD_MAX`] servers has metrics of its pools, and says so.

use std::collections::HashMap;

use evenkeel_policy::exchange::Policy;
use evenkeel_policy::upstream::{Cause, Health, Pool, ServerCounters, Standing};

use crate::hostcalls::{self, Level, Metric};

/// Most metrics of a VM, as evenkeel's own proxy has it; what comes after is not told.
const METRICS_MAX: usize = 16_384;
/// Most servers, of all pools together, that have metrics of their own: each has two, and up to six more by what befalls it.
const SERVERS_TOLD_MAX: usize = 2_000;

/// Numbers of metrics that were defined.
#[derive(Default)]
pub(crate) struct Metrics {
    ids: HashMap<String, u32>,
    detail: Detail,
}

/// Of whom is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Detail {
    #[default]
    Servers,
    Pools,
}

impl Metrics {
    /// Of whom is told from now on: that depends on how many servers there are.
    pub(crate) fn look_at(&mut self, policy: &Policy) {
        let servers: usize = policy.pools().iter().map(Pool::len).sum();
        let detail = if servers > SERVERS_TOLD_MAX {
            Detail::Pools
        } else {
            Detail::Servers
        };
        if detail == Detail::Pools && self.detail == Detail::Servers {
            let line = format!(
                "evenkeel: {servers} servers are more than {SERVERS_TOLD_MAX}: metrics are of pools, not of each server"
            );
            hostcalls::log(Level::Info, &line);
        }
        self.detail = detail;
    }

    /// Tells what was counted and what happened since the last time.
    pub(crate) fn flush(&mut self, policy: &mut Policy) {
        self.add(policy.take_no_route(), || {
            "evenkeel_no_route_total".to_owned()
        });
        for pool in policy.pools_mut() {
            let mut counted = Vec::new();
            let mut all = ServerCounters::default();
            let no_server = pool.take_counters(|server, counters| match self.detail {
                Detail::Servers => counted.push((server, counters)),
                Detail::Pools => {
                    all.picks += counters.picks;
                    all.failures += counters.failures;
                }
            });
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
            let all_full = pool.take_all_full();
            let of = |what: &str| format!("evenkeel_pool_{}_{what}_total", pool.name());
            self.add(no_server, || of("no_server"));
            self.add(all_full, || of("all_full"));
            self.add(all.picks, || of("requests"));
            self.add(all.failures, || of("failures"));
            for (server, counters) in counted {
                let id = pool.id(server);
                let of = |what: &str| of(&format!("server_{id}_{what}"));
                self.add(counters.picks, || of("requests"));
                self.add(counters.failures, || of("failures"));
            }
        }
    }

    /// Counts a server that was taken out or came back.
    pub(crate) fn turned(&mut self, pool: &str, id: &str, to: Standing, cause: Cause) {
        let detail = self.detail;
        self.add(1, || match detail {
            Detail::Servers => format!("evenkeel_pool_{pool}_server_{id}_to_{to}_{cause}_total"),
            Detail::Pools => format!("evenkeel_pool_{pool}_servers_to_{to}_{cause}_total"),
        });
    }

    /// Says what checks say of a server.
    pub(crate) fn set_up(&mut self, pool: &str, id: &str, health: Health) {
        if self.detail == Detail::Pools {
            return;
        }
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
            self.add(by, || format!("evenkeel_pool_{pool}_{name}_total"));
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
        self.add(1, || format!("evenkeel_pool_{pool}_checks_not_sent_total"));
    }

    /// Counts configurations that were taken into use.
    pub(crate) fn configured(&mut self) {
        // Those of servers that have gone do not come again; the host gives the others the numbers they had.
        self.ids.clear();
        self.add(1, || "evenkeel_configurations_total".to_owned());
        if let Some(id) = self.id(Metric::Gauge, "evenkeel_configured_seconds".to_owned()) {
            hostcalls::record_metric(id, hostcalls::now_ns() / 1_000_000_000);
        }
    }

    /// Most counts of most ticks are 0: then not even the name is made.
    fn add(&mut self, by: u64, name: impl FnOnce() -> String) {
        if by > 0
            && let Some(id) = self.id(Metric::Counter, name())
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
