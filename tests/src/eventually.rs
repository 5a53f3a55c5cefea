//! Waiting for something to become true, instead of sleeping and hoping.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Polls `attempt` until it gives `Ok`, for at most `patience`; panics with its last error after that.
#[track_caller]
pub fn eventually<T, E: Debug>(
    what: &str,
    patience: Duration,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> T {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) if start.elapsed() >= patience => {
                panic!("{what}: not within {patience:?}: {error:?}")
            }
            Err(_) => std::thread::sleep(POLL),
        }
    }
}
