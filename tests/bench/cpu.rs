//! What a process and its children cost: CPU time to the nanosecond, split into user and kernel, and memory.
//!
//! `/proc/PID/task/*/schedstat` counts nanoseconds but does not tell user from kernel; `utime` and `stime` in `stat` do, in
//! ticks of 10 ms. So the total comes from the former and the split from the ratio of the latter. Work the kernel does for
//! a packet while it runs on the proxy's time (loopback delivers in the sender's context) is in it, as in every proxy.

use std::collections::BTreeMap;
use std::fs;
use std::ops::{Add, Sub};

use anyhow::{Context as _, Result};
use rustix::time::{ClockId, clock_gettime};

/// CPU time of this thread so far, nanoseconds.
pub fn thread_nanoseconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// CPU time used so far. Threads that ended are not in it: no proxy measured here ends threads under load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuTime {
    pub total_ns: u64,
    user_ticks: u64,
    kernel_ticks: u64,
}

impl CpuTime {
    /// Of all threads of these processes, now.
    pub fn of(pids: &[u32]) -> Result<Self> {
        let mut sum = Self::default();
        for pid in pids {
            for task in fs::read_dir(format!("/proc/{pid}/task"))
                .with_context(|| format!("process {pid} is gone"))?
            {
                let task = task?.path();
                let schedstat = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
                let stat = fs::read_to_string(task.join("stat")).unwrap_or_default();
                let (user_ticks, kernel_ticks) = ticks(&stat).unwrap_or_default();
                let total_ns = schedstat
                    .split(' ')
                    .next()
                    .and_then(|field| field.parse().ok())
                    .unwrap_or_default();
                sum = sum
                    + Self {
                        total_ns,
                        user_ticks,
                        kernel_ticks,
                    };
            }
        }
        Ok(sum)
    }

    /// The part spent in user space, 0 to 1; `None` when nothing was spent for long enough to tell.
    pub fn user_share(&self) -> Option<f64> {
        let ticks = self.user_ticks + self.kernel_ticks;
        (ticks > 0).then(|| self.user_ticks as f64 / ticks as f64)
    }
}

impl Add for CpuTime {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            total_ns: self.total_ns + other.total_ns,
            user_ticks: self.user_ticks + other.user_ticks,
            kernel_ticks: self.kernel_ticks + other.kernel_ticks,
        }
    }
}

impl Sub for CpuTime {
    type Output = Self;
    /// Saturating: a thread that ended in between takes its time with it.
    fn sub(self, earlier: Self) -> Self {
        Self {
            total_ns: self.total_ns.saturating_sub(earlier.total_ns),
            user_ticks: self.user_ticks.saturating_sub(earlier.user_ticks),
            kernel_ticks: self.kernel_ticks.saturating_sub(earlier.kernel_ticks),
        }
    }
}

/// Resident memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    pub now_kib: u64,
    pub peak_kib: u64,
}

impl Memory {
    /// Of these processes together. What they share counts in each: small beside the rest for a master and one worker.
    pub fn of(pids: &[u32]) -> Result<Self> {
        let mut sum = Self::default();
        for pid in pids {
            let status = fs::read_to_string(format!("/proc/{pid}/status"))
                .with_context(|| format!("process {pid} is gone"))?;
            sum.now_kib += kib(&status, "VmRSS:");
            sum.peak_kib += kib(&status, "VmHWM:");
        }
        Ok(sum)
    }
}

/// A process and everything below it, children before grandchildren. A process that ends meanwhile is left out.
pub fn family(root: u32) -> Result<Vec<u32>> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").context("reading /proc")? {
        let Some(pid) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if let Some(parent) = after_name(&stat).and_then(|mut fields| fields.nth(1)?.parse().ok()) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut family = vec![root];
    let mut next = 0;
    // Ends: every process has one parent, so none is entered twice.
    while let Some(pid) = family.get(next).copied() {
        family.extend(children.remove(&pid).unwrap_or_default());
        next += 1;
    }
    Ok(family)
}

/// The fields of `/proc/PID/stat` from the third on; the second is the name, in parentheses, and may hold anything.
fn after_name(stat: &str) -> Option<std::str::SplitWhitespace<'_>> {
    Some(stat.rsplit_once(')')?.1.split_whitespace())
}

/// `utime` and `stime`: fields 14 and 15 (proc_pid_stat(5)).
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let mut fields = after_name(stat)?.skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn kib(status: &str, key: &str) -> u64 {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .unwrap_or_default();
    line.split_whitespace()
        .next()
        .and_then(|field| field.parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_a_name_with_spaces_and_parentheses() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 100 0 0 0 31 42 0 0 20 0 1 0 5 6 7";
        assert_eq!(ticks(stat), Some((31, 42)));
    }

    #[test]
    fn a_child_belongs_to_the_family() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let family = family(std::process::id()).unwrap();
        assert!(
            family.contains(&child.id()),
            "{family:?} lacks {}",
            child.id()
        );
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn own_cpu_time_grows_and_memory_is_not_zero() {
        let pids = [std::process::id()];
        let before = CpuTime::of(&pids).unwrap();
        let mut sum = 0u64;
        let mut later = before;
        while later.total_ns <= before.total_ns + 1_000_000 {
            sum = std::hint::black_box(sum.wrapping_add(1));
            later = CpuTime::of(&pids).unwrap();
        }
        assert!((later - before).total_ns > 1_000_000);
        assert!(Memory::of(&pids).unwrap().now_kib > 0);
    }
}
