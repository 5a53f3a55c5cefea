//! The checks of one pool's servers: when each is due, and what its outcomes come to.
//!
//! ```text
//!               first check passed                fall failures in a row
//!   Checking ─────────────────────────▶ Up ─────────────────────────────▶ Down
//!       └─────────── fall failures in a row ─────────────────────────────▶ │
//!                                        ▲                                 │
//!                                        └──── rise passes in a row ───────┘
//! ```
//!
//! Servers start up: one that was not checked yet takes requests. Each check is due an interval after the one before it was due,
//! not after it was sent or answered, so that late ticks do not add up. Jitter takes up to a tenth of the interval away and never adds,
//! so that a server that stops is down within `fall` intervals, the timeout, and how late a tick is. While a verdict is about
//! to change, the fast interval counts.

use super::transition::Cause;
use crate::config::HealthConfig;
use crate::random::Sequence;

/// Longest reason that is kept, bytes.
pub(super) const REASON_BYTES_MAX: usize = 64;
/// A check whose end was not told so long after its timeout has failed.
const LOST_MS: u64 = 5_000;

/// What checks say of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Health {
    /// Nothing yet: it takes requests.
    #[default]
    Checking,
    Up,
    Down,
}

/// What one check said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    Failed {
        cause: Cause,
        /// In a few words: at most [`REASON_BYTES_MAX`] bytes are kept.
        reason: String,
    },
    /// It could not be asked, through no fault of its own: nothing changes.
    Unknown,
}

/// A server whose health has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthChange {
    pub server: usize,
    pub from: Health,
    pub to: Health,
    pub cause: Cause,
    pub reason: String,
}

/// The state of one server's checks.
#[derive(Debug, Clone, Default)]
pub(super) struct Check {
    pub(super) health: Health,
    /// Why it is what it is.
    pub(super) reason: String,
    /// Since when, milliseconds since 1970; 0: never checked.
    pub(super) since_ms: u64,
    /// How often it went down or up again.
    pub(super) transitions: u32,
    /// Checks in a row that speak against what it is.
    row: u16,
    due_ms: u64,
    state: Progress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Progress {
    /// Not planned yet.
    #[default]
    New,
    Waiting,
    UnderWay {
        since_ms: u64,
    },
}

/// The checks of a pool.
#[derive(Debug)]
pub(super) struct Checks {
    rise: u16,
    fall: u16,
    interval_ms: u64,
    fast_interval_ms: u64,
    timeout_ms: u64,
    checks: Vec<Check>,
    /// Where the next look begins, so that with too many due at once everybody has his turn.
    cursor: usize,
}

impl Checks {
    pub(super) fn new(config: &HealthConfig, servers: usize) -> Self {
        let ms =
            |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self {
            rise: config.rise,
            fall: config.fall,
            interval_ms: ms(config.interval),
            fast_interval_ms: ms(config.fast_interval),
            timeout_ms: ms(config.timeout),
            checks: vec![Check::default(); servers],
            cursor: 0,
        }
    }

    /// Most time for one check.
    pub(super) fn timeout_ms(&self) -> u64 {
        self.timeout_ms
    }

    pub(super) fn get(&self, server: usize) -> Option<&Check> {
        self.checks.get(server)
    }

    /// As many servers as there now are; new ones are new.
    pub(super) fn resize(&mut self, servers: usize) {
        self.checks.resize_with(servers, Check::default);
    }

    /// Forgets everything but what somebody else found out: as when this VM begins to check.
    pub(super) fn take_over(&mut self, known: impl Fn(usize) -> Option<Check>) {
        for (server, check) in self.checks.iter_mut().enumerate() {
            *check = known(server).unwrap_or_default();
            check.row = 0;
            check.state = Progress::New;
        }
    }

    /// Servers whose check is due now, at most `max` and only `wanted` ones, appended to `due`. They are under way from now on.
    pub(super) fn take_due(
        &mut self,
        now_ms: u64,
        max: usize,
        wanted: impl Fn(usize) -> bool,
        random: &mut Sequence,
        due: &mut Vec<usize>,
    ) {
        let interval_ms = self.interval_ms;
        let end = due.len().saturating_add(max);
        let len = self.checks.len();
        for step in 0..len {
            let server = (self.cursor + step) % len;
            if due.len() >= end {
                self.cursor = server;
                return;
            }
            let Some(check) = self.checks.get_mut(server).filter(|_| wanted(server)) else {
                continue;
            };
            if check.state == Progress::New {
                check.state = Progress::Waiting;
                check.due_ms = now_ms.saturating_add(random.below(interval_ms));
            }
            // A clock that went back must not put checks off, nor one that stood still ask for all that were missed.
            let is_far = |from: u64, to: u64| to.saturating_sub(from) > interval_ms;
            if is_far(now_ms, check.due_ms) || is_far(check.due_ms, now_ms) {
                check.due_ms = now_ms;
            }
            if check.state == Progress::Waiting && check.due_ms <= now_ms {
                check.state = Progress::UnderWay { since_ms: now_ms };
                due.push(server);
            }
        }
    }

    /// Servers whose check was begun so long ago that nobody will tell its end.
    pub(super) fn lost(&self, now_ms: u64) -> Option<usize> {
        let patience_ms = self.timeout_ms.saturating_add(LOST_MS);
        self.checks.iter().position(|check| match check.state {
            Progress::UnderWay { since_ms } => now_ms.saturating_sub(since_ms) > patience_ms,
            Progress::New | Progress::Waiting => false,
        })
    }

    /// A check is over. Says so if that changed the server's health.
    pub(super) fn ended(
        &mut self,
        server: usize,
        verdict: Verdict,
        now_ms: u64,
        random: &mut Sequence,
    ) -> Option<HealthChange> {
        let (rise, fall) = (self.rise, self.fall);
        let check = self.checks.get_mut(server)?;
        if !matches!(check.state, Progress::UnderWay { .. }) {
            return None;
        }
        let before = check.health;
        let mut cause = Cause::Checks;
        match (before, verdict) {
            (_, Verdict::Unknown) => {}
            (Health::Up | Health::Checking, Verdict::Passed) => {
                check.row = 0;
                if before == Health::Checking {
                    check.turn(Health::Up, "the first check passed".to_owned(), now_ms);
                }
            }
            (Health::Up | Health::Checking, Verdict::Failed { cause: why, reason }) => {
                check.row = check.row.saturating_add(1);
                if check.row >= fall {
                    cause = why;
                    check.turn(Health::Down, reason, now_ms);
                    check.transitions = check.transitions.saturating_add(1);
                }
            }
            (Health::Down, Verdict::Passed) => {
                check.row = check.row.saturating_add(1);
                if check.row >= rise {
                    check.turn(Health::Up, format!("{rise} checks passed"), now_ms);
                    check.transitions = check.transitions.saturating_add(1);
                }
            }
            (Health::Down, Verdict::Failed { .. }) => check.row = 0,
        }
        let interval_ms = if check.row > 0 {
            self.fast_interval_ms
        } else {
            self.interval_ms
        };
        let jitter_ms = random.below(interval_ms / 10 + 1);
        check.due_ms = check.due_ms.saturating_add(interval_ms - jitter_ms);
        check.state = Progress::Waiting;
        (check.health != before).then(|| HealthChange {
            server,
            from: before,
            to: check.health,
            cause,
            reason: check.reason.clone(),
        })
    }
}

impl Check {
    /// As somebody else has found out.
    pub(super) fn known(health: Health, reason: String, since_ms: u64, transitions: u32) -> Self {
        Self {
            health,
            reason,
            since_ms,
            transitions,
            ..Self::default()
        }
    }

    fn turn(&mut self, health: Health, mut reason: String, now_ms: u64) {
        while reason.len() > REASON_BYTES_MAX {
            reason.pop();
        }
        self.health = health;
        self.reason = reason;
        self.since_ms = now_ms;
        self.row = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::config::{Config, Document};

    fn rule(health: serde_json::Value) -> HealthConfig {
        let servers = json!([{"address": "10.0.0.1:80"}]);
        let policy = json!({"pools": {"shop": {"servers": servers, "health": health}}});
        let mut config = Config::from_document(&Document::from_value(policy).unwrap()).unwrap();
        config.pools.remove(0).health.unwrap()
    }

    /// A pool of one server that is checked by a clock of milliseconds.
    struct Clock {
        checks: Checks,
        random: Sequence,
        now_ms: u64,
        /// When checks were begun.
        begun: Vec<u64>,
    }

    impl Clock {
        fn new(health: serde_json::Value, seed: u64) -> Self {
            Self {
                checks: Checks::new(&rule(health), 1),
                random: Sequence::new(seed),
                now_ms: 1_000_000,
                begun: Vec::new(),
            }
        }

        /// Goes on to the next check, on ticks of `tick_ms`, and ends it after `took_ms` with this verdict. As the filter does, it also
        /// looks for the next one when one has ended.
        fn check(&mut self, verdict: &Verdict, tick_ms: u64, took_ms: u64) -> Option<HealthChange> {
            let mut due = Vec::new();
            for _ in 0..100_000 {
                self.checks
                    .take_due(self.now_ms, 1, |_| true, &mut self.random, &mut due);
                if !due.is_empty() {
                    break;
                }
                self.now_ms = (self.now_ms + 1).next_multiple_of(tick_ms);
            }
            self.begun.push(self.now_ms);
            self.now_ms += took_ms;
            self.checks
                .ended(0, verdict.clone(), self.now_ms, &mut self.random)
        }

        fn health(&self) -> Health {
            self.checks.get(0).unwrap().health
        }
    }

    fn why(reason: String) -> Verdict {
        let cause = Cause::Status;
        Verdict::Failed { cause, reason }
    }

    fn failed() -> Verdict {
        why("status 503".to_owned())
    }

    #[test]
    fn falls_and_rises_only_after_so_many_in_a_row() {
        let mut clock = Clock::new(json!({"rise": 2, "fall": 3}), 1);
        assert_eq!(clock.health(), Health::Checking);
        let mut seen = Vec::new();
        for verdict in "P FF P FFF F P PP".chars().filter(|step| *step != ' ') {
            let verdict = if verdict == 'P' {
                Verdict::Passed
            } else {
                failed()
            };
            let change = clock.check(&verdict, 50, 1);
            seen.push(change.map(|change| (change.to, change.reason)));
        }
        let change = |to, reason: &str| Some((to, reason.to_owned()));
        let mut expected = vec![None; 11];
        expected[0] = change(Health::Up, "the first check passed");
        expected[6] = change(Health::Down, "status 503");
        expected[9] = change(Health::Up, "2 checks passed");
        assert_eq!(seen, expected);
        assert_eq!(clock.checks.get(0).unwrap().transitions, 2);
    }

    #[test]
    fn a_server_that_was_never_up_needs_its_falls_too() {
        let mut clock = Clock::new(json!({"fall": 2}), 1);
        assert_eq!(clock.check(&failed(), 50, 1), None);
        assert_eq!(clock.health(), Health::Checking);
        assert_eq!(clock.check(&failed(), 50, 1).unwrap().to, Health::Down);
    }

    #[test]
    fn down_and_up_come_within_the_stated_bounds() {
        proptest!(|(interval in 100u64..5_000, share in 0u64..=100, fall in 1u16..6, rise in 1u16..6, seed: u64, tick in 1u64..=50)| {
            let timeout = (interval * share / 100).max(1);
            let health = json!({"interval": format!("{interval}ms"), "timeout": format!("{timeout}ms"), "fall": fall, "rise": rise});
            let mut clock = Clock::new(health, seed);
            clock.check(&Verdict::Passed, tick, timeout);
            // It hangs from right after it was asked.
            let hung_ms = *clock.begun.last().unwrap();
            for _ in 1..fall {
                prop_assert!(clock.check(&failed(), tick, timeout).is_none());
            }
            prop_assert!(clock.check(&failed(), tick, timeout).is_some());
            let down_ms = clock.checks.get(0).unwrap().since_ms - hung_ms;
            prop_assert!(down_ms <= u64::from(fall) * interval * 11 / 10 + timeout + 50, "down after {down_ms}");
            let well_ms = *clock.begun.last().unwrap();
            for _ in 0..rise {
                clock.check(&Verdict::Passed, tick, timeout);
            }
            prop_assert_eq!(clock.health(), Health::Up);
            let up_ms = clock.checks.get(0).unwrap().since_ms - well_ms;
            prop_assert!(up_ms <= u64::from(rise) * interval * 11 / 10 + timeout + 50, "up after {up_ms}");
            let least = clock.begun.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap();
            prop_assert!(least + tick >= interval * 9 / 10, "{least} between two checks");
        });
    }

    #[test]
    fn the_fast_interval_counts_while_a_verdict_is_about_to_change() {
        let mut clock = Clock::new(
            json!({"interval": "10s", "fast_interval": "500ms", "timeout": "100ms"}),
            1,
        );
        for verdict in [
            Verdict::Passed,
            failed(),
            failed(),
            failed(),
            Verdict::Passed,
            Verdict::Passed,
            Verdict::Passed,
        ] {
            clock.check(&verdict, 10, 0);
        }
        let gaps: Vec<u64> = clock
            .begun
            .windows(2)
            .map(|pair| pair[1] - pair[0])
            .collect();
        // Up: slow; after the first and the second failure, fast; down: slow; after the first pass, fast; up: slow.
        for (gap, fast) in gaps.iter().zip([false, true, true, false, true, false]) {
            let around = if fast { 440..=510 } else { 8_990..=10_010 };
            assert!(around.contains(gap), "{gaps:?}");
        }
    }

    #[test]
    fn only_so_many_are_under_way_and_all_have_their_turn() {
        let mut checks = Checks::new(&rule(json!({"interval": "100ms", "timeout": "100ms"})), 10);
        let mut random = Sequence::new(1);
        let mut seen = Vec::new();
        checks.take_due(1_000, 10, |_| true, &mut random, &mut seen);
        for _ in 0..4 {
            let mut due = Vec::new();
            checks.take_due(1_100, 3, |server| server != 7, &mut random, &mut due);
            assert!(due.len() <= 3);
            seen.extend(due);
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6, 8, 9]);
        assert_eq!(checks.lost(1_100 + 100 + LOST_MS), None);
        assert!(checks.lost(1_101 + 100 + LOST_MS).is_some());
    }

    #[test]
    fn a_clock_that_jumps_neither_stops_nor_floods() {
        let mut clock = Clock::new(json!({"interval": "1s"}), 1);
        clock.check(&Verdict::Passed, 10, 0);
        clock.now_ms -= 500_000;
        let (count, back_ms) = (clock.begun.len(), clock.now_ms);
        clock.check(&Verdict::Passed, 10, 0);
        assert!(clock.begun[count] <= back_ms + 1_000);
        clock.now_ms += 500_000;
        let count = clock.begun.len();
        clock.check(&Verdict::Passed, 10, 0);
        clock.check(&Verdict::Passed, 10, 0);
        assert!(clock.begun[count + 1] - clock.begun[count] >= 900);
    }

    #[test]
    fn whoever_takes_over_knows_what_was_found_out() {
        let mut clock = Clock::new(json!({"fall": 1}), 1);
        clock.check(&failed(), 50, 1);
        let known = clock.checks.get(0).cloned();
        let mut next = Checks::new(&rule(json!({"fall": 1})), 2);
        next.take_over(|server| known.clone().filter(|_| server == 0));
        assert_eq!(
            (next.get(0).unwrap().health, next.get(1).unwrap().health),
            (Health::Down, Health::Checking)
        );
        assert_eq!(next.get(0).unwrap().reason, "status 503");
    }

    #[test]
    fn what_is_not_known_changes_nothing() {
        let mut clock = Clock::new(json!({"fall": 2}), 1);
        for verdict in [
            Verdict::Passed,
            failed(),
            Verdict::Unknown,
            Verdict::Unknown,
        ] {
            clock.check(&verdict, 50, 1);
        }
        assert_eq!(clock.health(), Health::Up);
        assert_eq!(clock.check(&failed(), 50, 1).unwrap().cause, Cause::Status);
    }

    #[test]
    fn reasons_are_short() {
        let mut clock = Clock::new(json!({"fall": 1}), 1);
        clock.check(&why("ä".repeat(1_000)), 50, 1);
        let reason = &clock.checks.get(0).unwrap().reason;
        assert_eq!(reason.len(), REASON_BYTES_MAX);
        assert_eq!(rule(json!({})).timeout, Duration::from_secs(1));
    }
}
