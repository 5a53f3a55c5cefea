//! Where and when a figure was measured: without that it says nothing.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::process::first_line;

#[derive(Debug, Clone)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub kernel: String,
    pub system: String,
    pub memory_gib: u64,
    /// The day, in UTC.
    pub date: String,
    /// Load average of the last minute before the first measurement: what else was going on.
    pub load_before: String,
    pub commit: String,
}

impl Machine {
    pub fn look() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, key: &str, separator: char| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(key))
                .unwrap_or_default();
            line.trim_start_matches([' ', '\t', separator])
                .trim()
                .trim_matches('"')
                .to_owned()
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal", ':');
        let kib: u64 = memory
            .split_whitespace()
            .next()
            .and_then(|number| number.parse().ok())
            .unwrap_or_default();
        Self {
            cpu: cpu(&field(&read("/proc/cpuinfo"), "model name", ':')),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            system: field(&read("/etc/os-release"), "PRETTY_NAME", '='),
            memory_gib: (kib + 512 * 1024) / (1024 * 1024),
            date: first_line(Path::new("date"), &["-u", "+%Y-%m-%d"]),
            load_before: read("/proc/loadavg")
                .split(' ')
                .next()
                .unwrap_or_default()
                .to_owned(),
            commit: first_line(Path::new("git"), &["describe", "--always", "--dirty"]),
        }
    }

    pub fn sentence(&self) -> String {
        format!(
            "Measured on {date} at {commit}: {cpu}, {cores} cores, {memory} GiB, {system}, Linux {kernel}; load average before: {load}.",
            date = self.date,
            commit = self.commit,
            cpu = self.cpu,
            cores = self.cores,
            memory = self.memory_gib,
            system = self.system,
            kernel = self.kernel,
            load = self.load_before,
        )
    }

    pub fn json(&self) -> Value {
        json!({
            "cpu": self.cpu, "cores": self.cores, "memory_gib": self.memory_gib, "kernel": self.kernel,
            "system": self.system, "date": self.date, "load_before": self.load_before, "commit": self.commit,
        })
    }
}

/// A virtual machine may hide the model's name; family, model and stepping then say which one it is.
fn cpu(name: &str) -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |key: &str| {
        let value = |line: &str| {
            line.split_once(':')
                .filter(|(name, _)| name.trim() == key)
                .map(|(_, value)| value.trim().to_owned())
        };
        text.lines().find_map(value).unwrap_or_default()
    };
    format!(
        "{name} (family {}, model {}, stepping {})",
        field("cpu family"),
        field("model"),
        field("stepping")
    )
}
