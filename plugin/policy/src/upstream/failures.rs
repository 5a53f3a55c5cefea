//! A server that fails is left out for a while: nginx's `max_fails` and `fail_timeout` (`ngx_http_upstream_round_robin.c`).
//!
//! `fail_timeout` is both the window and the ban. Every failure counts, and moves the window's end; with `max_fails` of them the
//! server is left out for `fail_timeout` after the last one. Then one request in each `fail_timeout` is let through as a probe:
//! being chosen notes the time, and that shuts the door behind it. A success forgets all failures, but only one after such a choice:
//! within the window successes between failures change nothing.
//!
//! # Where this is not nginx
//! - Times are milliseconds here and whole seconds there, so that a ban ends up to a second sooner.
//! - A clock that goes back ends a ban; there it makes it longer.
//! - A server may be chosen during its ban when no other is left ([`super::availability`]). Then it is a probe as well: nginx has
//!   nobody to ask for `fail_timeout` when all have failed, even if all are back at once.

/// One server's `max_fails` and `fail_timeout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FailureRule {
    /// 0: never left out.
    pub(super) max_fails: u16,
    pub(super) fail_timeout_ms: u64,
}

/// What a server's failures come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Failures {
    fails: u32,
    /// When it failed last.
    accessed_ms: u64,
    /// When it failed last, or was chosen for the first time after a window.
    checked_ms: u64,
}

/// Whether a failure or a success changed what requests see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turned {
    /// From being used to being left out, or back.
    Yes,
    No,
}

impl Failures {
    /// Whether there is anything to forget.
    pub(super) fn any(self) -> bool {
        self.fails > 0
    }

    /// When the ban ends, if there is one at `now_ms`.
    pub(super) fn banned_until_ms(self, rule: FailureRule, now_ms: u64) -> Option<u64> {
        let elapsed_ms = now_ms.checked_sub(self.checked_ms)?;
        (self.is_condemned(rule) && elapsed_ms <= rule.fail_timeout_ms).then(|| {
            self.checked_ms
                .saturating_add(rule.fail_timeout_ms)
                .saturating_add(1)
        })
    }

    /// A request goes to it.
    pub(super) fn chosen(&mut self, rule: FailureRule, now_ms: u64) {
        let is_probe = self.banned_until_ms(rule, now_ms).is_some();
        let elapsed_ms = now_ms.checked_sub(self.checked_ms);
        if is_probe || elapsed_ms.is_none_or(|elapsed_ms| elapsed_ms > rule.fail_timeout_ms) {
            self.checked_ms = now_ms;
            // A probe in the very millisecond of the failure is after it all the same.
            self.accessed_ms = self.accessed_ms.min(now_ms.saturating_sub(1));
        }
    }

    /// It failed.
    pub(super) fn failed(&mut self, rule: FailureRule, now_ms: u64) -> Turned {
        let was_condemned = self.is_condemned(rule);
        self.fails = self.fails.saturating_add(1);
        self.accessed_ms = now_ms;
        self.checked_ms = now_ms;
        turned(was_condemned, self.is_condemned(rule))
    }

    /// It answered.
    pub(super) fn succeeded(&mut self, rule: FailureRule) -> Turned {
        let was_condemned = self.is_condemned(rule);
        if self.accessed_ms < self.checked_ms {
            self.fails = 0;
        }
        turned(was_condemned, self.is_condemned(rule))
    }

    fn is_condemned(self, rule: FailureRule) -> bool {
        rule.max_fails > 0 && self.fails >= u32::from(rule.max_fails)
    }
}

fn turned(before: bool, after: bool) -> Turned {
    if before == after {
        Turned::No
    } else {
        Turned::Yes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULE: FailureRule = FailureRule {
        max_fails: 2,
        fail_timeout_ms: 10_000,
    };

    fn banned(failures: Failures, now_ms: u64) -> bool {
        failures.banned_until_ms(RULE, now_ms).is_some()
    }

    #[test]
    fn max_fails_within_the_window_ban_until_it_is_over() {
        let mut failures = Failures::default();
        failures.chosen(RULE, 100_000);
        assert_eq!(failures.failed(RULE, 100_000), Turned::No);
        assert!(!banned(failures, 100_000), "one of two");
        // A success in between forgets nothing: nothing was chosen after a whole window.
        failures.chosen(RULE, 105_000);
        assert_eq!(failures.succeeded(RULE), Turned::No);
        assert_eq!(failures.failed(RULE, 106_000), Turned::Yes);
        assert!(banned(failures, 106_000) && banned(failures, 116_000));
        assert!(!banned(failures, 116_001));
    }

    #[test]
    fn after_the_ban_one_request_in_each_window_probes() {
        let mut failures = Failures::default();
        failures.failed(RULE, 100_000);
        failures.failed(RULE, 100_000);
        assert!(!banned(failures, 110_001));
        failures.chosen(RULE, 110_001);
        assert!(banned(failures, 110_001), "the door is shut behind it");
        assert!(
            !banned(failures, 120_002),
            "it never came back: the next one"
        );
        failures.chosen(RULE, 120_002);
        assert_eq!(failures.failed(RULE, 120_500), Turned::No);
        assert!(banned(failures, 130_500));
        failures.chosen(RULE, 130_501);
        assert_eq!(failures.succeeded(RULE), Turned::Yes);
        assert!(!banned(failures, 130_501) && !failures.any());
    }

    #[test]
    fn failures_older_than_a_window_are_forgotten_by_the_next_success() {
        let mut failures = Failures::default();
        failures.failed(RULE, 100_000);
        failures.chosen(RULE, 110_001);
        failures.succeeded(RULE);
        assert_eq!(failures.failed(RULE, 110_002), Turned::No);
    }

    #[test]
    fn a_choice_during_the_ban_is_a_probe() {
        let mut failures = Failures::default();
        failures.failed(RULE, 100_000);
        failures.failed(RULE, 100_000);
        failures.chosen(RULE, 100_000);
        assert_eq!(failures.succeeded(RULE), Turned::Yes);
    }

    #[test]
    fn without_max_fails_nobody_is_banned() {
        let rule = FailureRule {
            max_fails: 0,
            ..RULE
        };
        let mut failures = Failures::default();
        for at in 0..100 {
            assert_eq!(failures.failed(rule, at), Turned::No);
            assert_eq!(failures.banned_until_ms(rule, at), None);
        }
    }

    #[test]
    fn a_clock_that_goes_back_ends_the_ban() {
        let mut failures = Failures::default();
        failures.failed(RULE, 100_000);
        failures.failed(RULE, 100_000);
        assert!(!banned(failures, 99_999));
    }

    /// nginx's code, line by line, in its own seconds; `bool`s as it has them.
    #[derive(Default)]
    struct Peer {
        fails: u32,
        accessed: u64,
        checked: u64,
    }

    impl Peer {
        fn skipped(&self, now: u64) -> bool {
            self.fails >= 2 && now - self.checked <= 10
        }

        fn get(&mut self, now: u64) {
            if now - self.checked > 10 {
                self.checked = now;
            }
        }

        fn free(&mut self, now: u64, failed: bool) {
            if failed {
                self.fails += 1;
                self.accessed = now;
                self.checked = now;
            } else if self.accessed < self.checked {
                self.fails = 0;
            }
        }
    }

    #[test]
    fn goes_as_nginx_goes_on_random_histories() {
        let rule = FailureRule {
            max_fails: 2,
            fail_timeout_ms: 10_000,
        };
        proptest!(|(steps in proptest::collection::vec((0u64..15, 0u64..4, any::<bool>()), 1..60))| {
            let (mut ours, mut nginx, mut now) = (Failures::default(), Peer::default(), 1_000);
            for (pause, took, fails) in steps {
                now += pause;
                let banned = ours.banned_until_ms(rule, now * 1_000).is_some();
                prop_assert_eq!(banned, nginx.skipped(now));
                if banned {
                    continue;
                }
                nginx.get(now);
                ours.chosen(rule, now * 1_000);
                now += took;
                nginx.free(now, fails);
                if fails {
                    ours.failed(rule, now * 1_000);
                } else {
                    ours.succeeded(rule);
                }
            }
        });
    }
}
