//! `/metrics`: the proxy's counters and those of its filters, in Prometheus' text format.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use crate::counters::{Counter, ServerCounters, WorkerCounters};
use crate::members::Server;
use crate::shared::Shared;

/// Name, kind, help, and which counter.
type WorkerMetric = (
    &'static str,
    &'static str,
    &'static str,
    fn(&WorkerCounters) -> &Counter,
);
type ServerMetric = (
    &'static str,
    &'static str,
    &'static str,
    fn(&ServerCounters) -> &Counter,
);

const OF_WORKERS: [WorkerMetric; 13] = [
    (
        "connections_accepted_total",
        "counter",
        "client connections accepted",
        |of| &of.connections_accepted,
    ),
    (
        "connections_refused_total",
        "counter",
        "client connections closed because of limits.connections",
        |of| &of.connections_refused,
    ),
    (
        "connections_handed_over_total",
        "counter",
        "client connections given to a worker with a filter",
        |of| &of.connections_handed_over,
    ),
    (
        "connections_failed_total",
        "counter",
        "client connections closed for what they sent, or did not in time",
        |of| &of.connections_failed,
    ),
    ("requests_total", "counter", "requests begun", |of| {
        &of.requests
    }),
    (
        "requests_in_flight",
        "gauge",
        "requests begun and not ended",
        |of| &of.requests_in_flight,
    ),
    (
        "retries_total",
        "counter",
        "requests sent to another server after a failure",
        |of| &of.retries,
    ),
    (
        "upstream_connects_total",
        "counter",
        "connections opened to servers",
        |of| &of.upstream_connects,
    ),
    (
        "upstream_connect_failures_total",
        "counter",
        "of these, failed",
        |of| &of.upstream_connect_failures,
    ),
    (
        "upstream_reuses_total",
        "counter",
        "requests sent on a kept connection",
        |of| &of.upstream_reuses,
    ),
    (
        "filter_failures_total",
        "counter",
        "filter VMs that trapped or overran their deadline",
        |of| &of.filter_failures,
    ),
    (
        "filter_replacements_total",
        "counter",
        "filter VMs made in their place",
        |of| &of.filter_replacements,
    ),
    (
        "log_lines_dropped_total",
        "counter",
        "access log lines lost to a slow disk",
        |of| &of.log_lines_dropped,
    ),
];

const OF_SERVERS: [ServerMetric; 4] = [
    (
        "server_requests_total",
        "counter",
        "requests sent to the server",
        |of| &of.requests,
    ),
    (
        "server_requests_in_flight",
        "gauge",
        "of these, not ended",
        |of| &of.in_flight,
    ),
    (
        "server_failures_total",
        "counter",
        "connect failures, resets and timeouts of the server",
        |of| &of.failures,
    ),
    (
        "server_idle_connections",
        "gauge",
        "kept connections",
        |of| &of.idle_connections,
    ),
];

const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

pub(super) fn render(shared: &Shared) -> String {
    let mut out = String::with_capacity(8 * 1024);
    for (name, kind, help, counter) in OF_WORKERS {
        let total: u64 = shared
            .workers
            .iter()
            .map(|worker| counter(&worker.counters).get())
            .sum();
        head(&mut out, name, kind, help);
        line(&mut out, name, "", total);
    }
    responses(&mut out, shared);
    process(&mut out, shared);
    servers(&mut out, shared);
    shared.process.render_metrics(&mut out);
    if let Some(store) = &shared.store {
        store.render(&mut out);
    }
    out
}

fn responses(out: &mut String, shared: &Shared) {
    head(
        out,
        "responses_total",
        "counter",
        "requests ended, by the class of the status sent",
    );
    for (index, class) in CLASSES.iter().enumerate() {
        let of_class =
            |counters: &WorkerCounters| counters.responses.get(index).map_or(0, Counter::get);
        let total = shared
            .workers
            .iter()
            .map(|worker| of_class(&worker.counters))
            .sum();
        line(
            out,
            "responses_total",
            &format!("{{class=\"{class}\"}}"),
            total,
        );
    }
}

fn process(out: &mut String, shared: &Shared) {
    let generation = shared.generation.load();
    for (name, kind, help, value) in [
        (
            "connections_open",
            "gauge",
            "open client connections",
            shared.open_connections() as u64,
        ),
        (
            "ready",
            "gauge",
            "1 when all workers serve",
            u64::from(shared.is_ready()),
        ),
        (
            "config_generation",
            "gauge",
            "how often a configuration was put into force",
            generation.number,
        ),
        (
            "reloads_failed_total",
            "counter",
            "reloads refused",
            shared.reloads_failed.load(Ordering::Relaxed) as u64,
        ),
        (
            "uptime_seconds",
            "gauge",
            "seconds since the start",
            shared.started.elapsed().as_secs(),
        ),
    ] {
        head(out, name, kind, help);
        line(out, name, "", value);
    }
}

fn servers(out: &mut String, shared: &Shared) {
    let generation = shared.generation.load();
    for (name, kind, help, counter) in OF_SERVERS {
        head(out, name, kind, help);
        for pool in &generation.pools {
            for server in pool.roster().members() {
                let labels = format!("{{pool=\"{}\",server=\"{}\"}}", pool.name, server.id);
                line(out, name, &labels, total(server, counter));
            }
        }
    }
}

/// Of all workers.
pub(super) fn total(server: &Server, counter: fn(&ServerCounters) -> &Counter) -> u64 {
    server
        .counters
        .iter()
        .map(|counters| counter(counters).get())
        .sum()
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "# HELP evenkeel_{name} {help}\n# TYPE evenkeel_{name} {kind}"
    );
}

fn line(out: &mut String, name: &str, labels: &str, value: u64) {
    let _ = writeln!(out, "evenkeel_{name}{labels} {value}");
}
