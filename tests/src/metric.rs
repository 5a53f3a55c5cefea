//! The filter's metrics, as both hosts tell them.

use std::time::{Duration, Instant};

use crate::{Host, Proxy, eventually};

/// How long checks may take to find something out: generous, whoever measures compares what it really took.
const PATIENCE: Duration = Duration::from_secs(30);

impl Proxy {
    /// Metrics whose names end so, added up; `None`: there is none yet.
    #[track_caller]
    pub fn metric(&self, suffix: &str) -> Option<u64> {
        let target = match self.host {
            Host::Sidecar => "/metrics".to_owned(),
            Host::Envoy => format!("/stats?usedonly&filter={suffix}$"),
        };
        let text = self.admin_get(&target).text();
        let values = text.lines().filter_map(|line| {
            let (name, value) = line.rsplit_once([' ', ':'])?;
            let name = name.trim_end_matches([' ', ':']);
            name.ends_with(suffix).then(|| value.trim().parse().ok())?
        });
        values.reduce(|sum: u64, value| sum + value)
    }

    /// Waits for a server to be up (1) or down (0) by checks; how long that took.
    #[track_caller]
    pub fn until_up_is(&self, server: &str, expected: u64) -> Duration {
        let start = Instant::now();
        let suffix = format!("server_{server}_up");
        eventually(
            &format!("{suffix} is {expected}"),
            PATIENCE,
            || match self.metric(&suffix) {
                Some(value) if value == expected => Ok(()),
                other => Err(other),
            },
        );
        start.elapsed()
    }
}
