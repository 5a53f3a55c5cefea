//! A server that came back gets its weight little by little: linear over `slow_start`, as nginx Plus and HAProxy have it.
//!
//! It begins when a server comes back from being down, banned or ejected, and at no other time: not when a configuration is
//! loaded, not when an operator changes something. A share grows in steps of a percent; the first is one percent, because no
//! weight is nothing.

const WHOLE_PERCENT: u8 = 100;

/// When a server came back, as long as that matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct SlowStart {
    since_ms: Option<u64>,
}

impl SlowStart {
    pub(super) fn begin(&mut self, now_ms: u64) {
        self.since_ms = Some(now_ms);
    }

    pub(super) fn end(&mut self) {
        self.since_ms = None;
    }

    /// Percent of its weight that a server has at `now_ms`: 1–100. A clock that goes back ends it.
    pub(super) fn percent(self, slow_start_ms: u64, now_ms: u64) -> u8 {
        let Some(since_ms) = self.since_ms else {
            return WHOLE_PERCENT;
        };
        match now_ms.checked_sub(since_ms) {
            Some(elapsed_ms) if elapsed_ms < slow_start_ms => {
                let percent = elapsed_ms.saturating_mul(u64::from(WHOLE_PERCENT)) / slow_start_ms;
                u8::try_from(percent).unwrap_or(WHOLE_PERCENT).max(1)
            }
            _ => WHOLE_PERCENT,
        }
    }
}

/// How many parts each unit of weight is cut into while some server of a group has only a percentage of its own: as many as
/// there is room for beside the largest weight.
pub(super) fn parts(weight_max: u16) -> u16 {
    (u16::MAX / weight_max.max(1)).clamp(1, u16::from(WHOLE_PERCENT))
}

/// A weight in parts, of which a server has `percent`; at least one part.
pub(super) fn in_parts(weight: u16, parts: u16, percent: u8) -> u16 {
    let whole = u64::from(weight) * u64::from(parts);
    let part = whole * u64::from(percent) / u64::from(WHOLE_PERCENT);
    u16::try_from(part).unwrap_or(u16::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_grows_linearly_from_the_moment_it_is_back() {
        let mut start = SlowStart::default();
        assert_eq!(start.percent(10_000, 5), 100, "nothing has happened");
        start.begin(100_000);
        for (now_ms, percent) in [
            (99_999, 100),
            (100_000, 1),
            (101_000, 10),
            (105_000, 50),
            (109_999, 99),
            (110_000, 100),
            (u64::MAX, 100),
        ] {
            assert_eq!(start.percent(10_000, now_ms), percent, "{now_ms}");
        }
        assert_eq!(start.percent(0, 100_000), 100, "without slow_start");
        start.end();
        assert_eq!(start.percent(10_000, 100_000), 100);
    }

    #[test]
    fn weights_are_cut_as_fine_as_there_is_room() {
        for (weight_max, expected) in [
            (0, 100),
            (1, 100),
            (655, 100),
            (656, 99),
            (40_000, 1),
            (65_535, 1),
        ] {
            assert_eq!(parts(weight_max), expected, "{weight_max}");
        }
        assert_eq!(in_parts(3, 100, 100), 300);
        assert_eq!(in_parts(3, 100, 50), 150);
        assert_eq!(in_parts(1, 1, 1), 1, "never nothing");
        assert_eq!(in_parts(65_535, 1, 100), 65_535);
    }
}
