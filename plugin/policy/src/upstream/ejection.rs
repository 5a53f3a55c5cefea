//! Passive health: a server that fails several times in a row is ejected, each time for longer, and never too many at a time.
//!
//! The n-th ejection lasts n times as long as the first, up to a maximum, as Envoy's outlier detection has it. A server that was in
//! service for the maximum after an ejection starts with the first length again. What a request that was failed over did to the
//! servers that failed it counts, and statuses if they are named; a success ends the row.

/// Limits of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EjectionRule {
    /// Failures in a row that eject.
    pub(super) failures: u16,
    pub(super) ejection_ms: u64,
    pub(super) ejection_max_ms: u64,
}

/// Most servers of a pool that may be ejected at a time: `share_max` percent, rounded down.
pub(super) fn ejected_max(servers: usize, share_max: u8) -> usize {
    servers.saturating_mul(usize::from(share_max)) / 100
}

/// What a server's failures in a row have come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Ejection {
    in_a_row: u16,
    times: u16,
    /// While it is ejected: until when.
    until_ms: Option<u64>,
    /// When the last ejection ended.
    ended_ms: u64,
}

impl Ejection {
    /// Until when it is ejected, if it is.
    pub(super) fn until_ms(self) -> Option<u64> {
        self.until_ms
    }

    /// Whether there is anything to forget.
    pub(super) fn any(self) -> bool {
        self.in_a_row > 0 || self.until_ms.is_some()
    }

    /// Whether the next failure completes a row.
    pub(super) fn is_last(self, rule: EjectionRule) -> bool {
        self.until_ms.is_none() && self.in_a_row.saturating_add(1) >= rule.failures
    }

    /// It failed. Returns the length of the ejection that this begins, if `may_eject` and it was the last one of the row.
    pub(super) fn failed(
        &mut self,
        rule: EjectionRule,
        now_ms: u64,
        may_eject: impl FnOnce() -> bool,
    ) -> Option<u64> {
        self.in_a_row = self.in_a_row.saturating_add(1);
        if self.until_ms.is_some() || self.in_a_row < rule.failures || !may_eject() {
            return None;
        }
        if now_ms.saturating_sub(self.ended_ms) >= rule.ejection_max_ms {
            self.times = 0;
        }
        self.times = self.times.saturating_add(1);
        self.in_a_row = 0;
        let length_ms = rule
            .ejection_ms
            .saturating_mul(u64::from(self.times))
            .min(rule.ejection_max_ms);
        self.until_ms = Some(now_ms.saturating_add(length_ms));
        Some(length_ms)
    }

    /// It answered, and well.
    pub(super) fn succeeded(&mut self) {
        self.in_a_row = 0;
    }

    /// Whether an ejection ends now; says so once. A clock that went back ends it, too.
    pub(super) fn ends(&mut self, rule: EjectionRule, now_ms: u64) -> bool {
        let is_over = self
            .until_ms
            .is_some_and(|until_ms| now_ms >= until_ms || until_ms - now_ms > rule.ejection_max_ms);
        if is_over {
            self.until_ms = None;
            self.ended_ms = now_ms;
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: EjectionRule = EjectionRule {
        failures: 3,
        ejection_ms: 30_000,
        ejection_max_ms: 100_000,
    };

    fn fails(ejection: &mut Ejection, times: u16, now_ms: u64) -> Option<u64> {
        (0..times).fold(None, |last, _| {
            last.or(ejection.failed(RULE, now_ms, || true))
        })
    }

    #[test]
    fn only_failures_in_a_row_eject() {
        let mut ejection = Ejection::default();
        assert_eq!(fails(&mut ejection, 2, 0), None);
        ejection.succeeded();
        assert_eq!(fails(&mut ejection, 2, 0), None);
        assert_eq!(fails(&mut ejection, 1, 5), Some(30_000));
        assert_eq!(ejection.until_ms(), Some(30_005));
        assert!(!ejection.ends(RULE, 30_004));
        assert!(ejection.ends(RULE, 30_005));
        assert!(!ejection.ends(RULE, 30_005), "once");
    }

    #[test]
    fn each_ejection_is_longer_until_it_has_served_long_enough() {
        let mut ejection = Ejection::default();
        let mut now_ms = 1_000_000;
        for expected in [30_000, 60_000, 90_000, 100_000, 100_000] {
            assert_eq!(fails(&mut ejection, 3, now_ms), Some(expected));
            now_ms += expected;
            assert!(ejection.ends(RULE, now_ms));
        }
        now_ms += RULE.ejection_max_ms - 1;
        assert_eq!(fails(&mut ejection, 3, now_ms), Some(100_000));
        now_ms += 100_000;
        assert!(ejection.ends(RULE, now_ms));
        now_ms += RULE.ejection_max_ms;
        assert_eq!(fails(&mut ejection, 3, now_ms), Some(30_000));
    }

    #[test]
    fn who_may_not_be_ejected_stays_and_is_looked_at_again() {
        let mut ejection = Ejection::default();
        for _ in 0..10 {
            assert_eq!(ejection.failed(RULE, 0, || false), None);
        }
        assert_eq!(ejection.failed(RULE, 0, || true), Some(30_000));
    }

    #[test]
    fn a_clock_that_goes_back_ends_it() {
        let mut ejection = Ejection::default();
        fails(&mut ejection, 3, 1_000_000);
        assert!(ejection.ends(RULE, 900_000));
    }

    #[test]
    fn the_share_is_rounded_down() {
        for (servers, share, expected) in [
            (1, 50, 0),
            (2, 50, 1),
            (3, 50, 1),
            (10, 33, 3),
            (10, 100, 10),
        ] {
            assert_eq!(
                ejected_max(servers, share),
                expected,
                "{share} % of {servers}"
            );
        }
    }
}
