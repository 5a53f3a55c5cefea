//! System calls per request, counted by `strace -c` in a run of its own: tracing makes everything slower.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use crate::load::{Border, Load};
use crate::process::{Running, on_path};

/// Calls per request of the processes `pids` under `load`, all threads; `None` where there is no strace.
///
/// # Errors
/// When strace may not trace, or the load fails.
pub fn per_request(
    pids: &[u32],
    load: &Load<'_>,
    core: usize,
    folder: &Path,
) -> Result<Option<f64>> {
    let Some(strace) = on_path("strace") else {
        return Ok(None);
    };
    let summary = folder.join("strace.summary");
    let mut tracer: Option<Running> = None;
    let outcome = load.run(|border| {
        match border {
            Border::Begin => {
                let mut command = Command::new(&strace);
                command
                    .args(["-c", "-f", "-q", "-U", "calls,name", "-o"])
                    .arg(&summary);
                for pid in pids {
                    command.arg("-p").arg(pid.to_string());
                }
                let running = Running::start("strace", command, Some(core), folder)?;
                until_traced(pids)?;
                tracer = Some(running);
            }
            // SIGINT: it lets go of the processes and writes the summary.
            Border::End => tracer
                .as_mut()
                .context("strace was not started")?
                .stop(Signal::INT)?,
        }
        Ok(())
    })?;
    anyhow::ensure!(
        outcome.errors == 0,
        "under strace: {}",
        outcome.first_error.unwrap_or_default()
    );
    let text = std::fs::read_to_string(&summary).context("strace wrote no summary")?;
    let calls = total(&text).context("strace counted nothing")?;
    Ok(Some(calls as f64 / outcome.answered.max(1) as f64))
}

/// Waits until every thread of `pids` has a tracer, so that no call is missed.
fn until_traced(pids: &[u32]) -> Result<()> {
    let began = std::time::Instant::now();
    while !all_traced(pids)? {
        anyhow::ensure!(
            began.elapsed().as_secs() < 5,
            "strace did not attach; may it trace here?"
        );
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    Ok(())
}

fn all_traced(pids: &[u32]) -> Result<bool> {
    for pid in pids {
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let status = std::fs::read_to_string(task?.path().join("status")).unwrap_or_default();
            if status.contains("TracerPid:\t0\n") {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// The number in the last line, `<calls> total`.
fn total(summary: &str) -> Option<u64> {
    let line = summary
        .lines()
        .rev()
        .find(|line| line.trim_end().ends_with("total"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_the_first_number_of_the_last_line() {
        let summary = "    calls syscall\n--------- ----------------\n     1000 read\n       20 write\n--------- ----------------\n     1020 total\n";
        assert_eq!(total(summary), Some(1020));
        assert_eq!(total(""), None);
    }
}
