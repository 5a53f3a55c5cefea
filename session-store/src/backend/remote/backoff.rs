//! How long to wait before the next attempt: twice as long each time, up to a bound, and never quite the same for two gateways.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const MOST: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// Between half of the pause and all of it.
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(MOST);
        let mut random = [0_u8; 2];
        // Without randomness the pause is the longest.
        if aws_lc_rs::rand::fill(&mut random).is_err() {
            random = [u8::MAX; 2];
        }
        pause / 2 + pause / 2 * u32::from(u16::from_le_bytes(random)) / u32::from(u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_differ() {
        let mut backoff = Backoff::default();
        let pauses: Vec<Duration> = (0..10).map(|_| backoff.next()).collect();
        let mut longest = FIRST;
        for pause in &pauses {
            assert!(*pause >= longest / 2 && *pause <= longest, "{pauses:?}");
            longest = (longest * 2).min(MOST);
        }
        assert_eq!(longest, MOST);
    }
}
