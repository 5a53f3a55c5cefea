//! What the gateway counts, in Prometheus' text format.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::command::RULES;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Answered,
    /// With an error of the store, or ours.
    Failed,
}

/// Of one gateway.
#[derive(Debug)]
pub struct Counters {
    /// In the order of [`RULES`]; the last is for what the gateway does itself.
    commands: Vec<[Counter; 2]>,
    /// Commands that have no row.
    pub refused_commands: Counter,
    pub refused_logins: Counter,
    pub refused_clients: Counter,
    pub refused_arguments: Counter,
    pub refused_values: Counter,
    pub refused_answers: Counter,
    pub malformed: Counter,
    pub idle_closed: Counter,
    pub slow_closed: Counter,
    pub lock_waits: Counter,
    pub lock_wait_microseconds: AtomicU64,
    pub lock_timeouts: Counter,
    pub locks_orphaned: Counter,
    pub parked: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            commands: (0..=RULES.len()).map(|_| Default::default()).collect(),
            refused_commands: Counter::default(),
            refused_logins: Counter::default(),
            refused_clients: Counter::default(),
            refused_arguments: Counter::default(),
            refused_values: Counter::default(),
            refused_answers: Counter::default(),
            malformed: Counter::default(),
            idle_closed: Counter::default(),
            slow_closed: Counter::default(),
            lock_waits: Counter::default(),
            lock_wait_microseconds: AtomicU64::new(0),
            lock_timeouts: Counter::default(),
            locks_orphaned: Counter::default(),
            parked: AtomicU64::new(0),
        }
    }
}

impl Counters {
    /// `rule`: the row's place in [`RULES`], or `None` for the gateway's own commands.
    pub(super) fn command(&self, rule: Option<usize>, outcome: Outcome) {
        let row = self.commands.get(rule.unwrap_or(RULES.len()));
        let counter = match outcome {
            Outcome::Answered => row.map(|[answered, _]| answered),
            Outcome::Failed => row.map(|[_, failed]| failed),
        };
        if let Some(counter) = counter {
            counter.add();
        }
    }

    /// Appends them.
    pub fn render(&self, out: &mut String) {
        head(
            out,
            "commands_total",
            "counter",
            "commands of clients, by how they ended",
        );
        let names = RULES.iter().map(|rule| rule.name).chain(["connection"]);
        for (name, [answered, failed]) in names.zip(&self.commands) {
            for (result, counter) in [("ok", answered), ("error", failed)] {
                if counter.get() > 0 {
                    let name = name.to_ascii_lowercase();
                    let _ = writeln!(
                        out,
                        "evenkeel_store_commands_total{{cmd=\"{name}\",result=\"{result}\"}} {}",
                        counter.get()
                    );
                }
            }
        }
        head(
            out,
            "refused_total",
            "counter",
            "what was refused, by the bound that it met",
        );
        for (reason, counter) in [
            ("command", &self.refused_commands),
            ("login", &self.refused_logins),
            ("clients", &self.refused_clients),
            ("arguments", &self.refused_arguments),
            ("value", &self.refused_values),
            ("answer", &self.refused_answers),
            ("malformed", &self.malformed),
            ("idle", &self.idle_closed),
            ("slow", &self.slow_closed),
        ] {
            let _ = writeln!(
                out,
                "evenkeel_store_refused_total{{reason=\"{reason}\"}} {}",
                counter.get()
            );
        }
        head(out, "parked", "gauge", "clients that wait for a lock");
        let _ = writeln!(
            out,
            "evenkeel_store_parked {}",
            self.parked.load(Ordering::Relaxed)
        );
        head(
            out,
            "lock_wait_seconds",
            "summary",
            "how long locks were waited for",
        );
        let waited = self.lock_wait_microseconds.load(Ordering::Relaxed);
        let (seconds, rest) = (waited / 1_000_000, waited % 1_000_000);
        let _ = writeln!(
            out,
            "evenkeel_store_lock_wait_seconds_sum {seconds}.{rest:06}\nevenkeel_store_lock_wait_seconds_count {}",
            self.lock_waits.get()
        );
        for (name, help, counter) in [
            (
                "lock_timeouts_total",
                "waits for a lock that ended without it",
                &self.lock_timeouts,
            ),
            (
                "locks_orphaned_total",
                "locks released because their holder's connection closed",
                &self.locks_orphaned,
            ),
        ] {
            head(out, name, "counter", help);
            let _ = writeln!(out, "evenkeel_store_{name} {}", counter.get());
        }
    }
}

/// Begins a metric.
pub(super) fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "# HELP evenkeel_store_{name} {help}\n# TYPE evenkeel_store_{name} {kind}"
    );
}
