//! Who failed too often of late: nginx's `max_fails` and `fail_timeout`, without its ten seconds of errors.
//!
//! `fail_timeout` is both the window in which failures add up and the time for which a server is left out after `max_fails` of
//! them (`ngx_http_upstream_round_robin.c`). After it, one request per `fail_timeout` is let through to see, and its success
//! clears the record. A success earlier than that clears nothing: within the window failures add up whatever comes between.
//!
//! # Why everybody is let in when everybody is out
//! With two servers that both refused one connection, nginx answers 502 for ten seconds, though both may be back after half a
//! second. Leaving servers out is for sending requests to better ones; where there is no better one it only makes errors. So when
//! nobody would be left, failures do not count, and whoever is back answers the next request. (A group of one server is never left
//! out in nginx either.)

use crate::balance::ServerMask;

/// What a server may do before it is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailureRule {
    /// Failures after which it is left out; 0: never.
    pub max_fails: u16,
    pub fail_timeout_s: u32,
}

impl Default for FailureRule {
    /// nginx's.
    fn default() -> Self {
        Self {
            max_fails: 1,
            fail_timeout_s: 10,
        }
    }
}

/// Whether failures are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FailuresCount {
    #[default]
    Yes,
    /// Everybody had failed too often.
    NotNow,
}

/// The records of a group's servers. Times are whole seconds of any one clock, as in nginx; one that goes back lets servers in.
#[derive(Debug, Default)]
pub struct Failures {
    records: Vec<Record>,
    /// Who has failed too often, whether the time is up or not: nearly always nobody.
    suspects: Vec<usize>,
    count: FailuresCount,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    rule: FailureRule,
    fails: u16,
    /// When it failed last.
    failed_s: u64,
    /// When it failed, or was chosen to see whether it still does.
    checked_s: u64,
}

impl Record {
    fn is_suspect(&self) -> bool {
        self.rule.max_fails > 0 && self.fails >= self.rule.max_fails
    }

    fn is_out(&self, now_s: u64) -> bool {
        self.is_suspect() && !self.time_is_up(now_s)
    }

    fn time_is_up(&self, now_s: u64) -> bool {
        now_s
            .checked_sub(self.checked_s)
            .is_none_or(|elapsed_s| elapsed_s > u64::from(self.rule.fail_timeout_s))
    }
}

impl Failures {
    /// Servers without a past.
    pub fn new(rules: impl Iterator<Item = FailureRule>) -> Self {
        let record = |rule| Record {
            rule,
            fails: 0,
            failed_s: 0,
            checked_s: 0,
        };
        Self {
            records: rules.take(ServerMask::SERVERS_MAX).map(record).collect(),
            suspects: Vec::new(),
            count: FailuresCount::Yes,
        }
    }

    /// A server was chosen: if its time is up, this is the request that sees.
    pub fn chosen(&mut self, server: usize, now_s: u64) {
        if let Some(record) = self.records.get_mut(server)
            && record.time_is_up(now_s)
        {
            record.checked_s = now_s;
        }
    }

    /// A server failed a request.
    pub fn failed(&mut self, server: usize, now_s: u64) {
        let Some(record) = self.records.get_mut(server) else {
            return;
        };
        record.fails = record.fails.saturating_add(1);
        record.failed_s = now_s;
        record.checked_s = now_s;
        if record.is_suspect() && !self.suspects.contains(&server) {
            self.suspects.push(server);
        }
    }

    /// A server answered a request: its failures are forgotten if the request was let through to see, or if failures do not count
    /// because everybody had them: then the first one to answer is better than all others.
    pub fn succeeded(&mut self, server: usize) {
        if let Some(record) = self.records.get_mut(server)
            && (record.failed_s < record.checked_s || self.count == FailuresCount::NotNow)
        {
            record.fails = 0;
        }
    }

    /// Brings `eligible` up to date: those who are `ready`, without those who failed too often of late, unless that would be
    /// nobody. `ready` are those that nothing else speaks against; only servers that failed are looked at, so `eligible` must
    /// be what the last call made of it, or the same as `ready`.
    pub fn update(
        &mut self,
        ready: &ServerMask,
        eligible: &mut ServerMask,
        now_s: u64,
    ) -> FailuresCount {
        let records = &self.records;
        let mut out = 0;
        self.suspects.retain(|server| {
            let Some(record) = records.get(*server) else {
                return false;
            };
            if record.is_out(now_s) {
                out += usize::from(ready.contains(*server));
                eligible.remove(*server);
            } else if ready.contains(*server) {
                eligible.insert(*server);
            }
            record.is_suspect()
        });
        self.count = if out == 0 || out < ready.count() {
            FailuresCount::Yes
        } else {
            ready.iter().for_each(|server| eligible.insert(server));
            FailuresCount::NotNow
        };
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Group {
        failures: Failures,
        ready: ServerMask,
        eligible: ServerMask,
    }

    impl Group {
        fn new(max_fails: &[u16]) -> Self {
            let rules = max_fails.iter().map(|max_fails| FailureRule {
                max_fails: *max_fails,
                ..FailureRule::default()
            });
            let ready = ServerMask::first(max_fails.len());
            Self {
                failures: Failures::new(rules),
                eligible: ready.clone(),
                ready,
            }
        }

        fn at(&mut self, now_s: u64) -> (Vec<usize>, FailuresCount) {
            let count = self.failures.update(&self.ready, &mut self.eligible, now_s);
            (self.eligible.iter().collect(), count)
        }
    }

    use FailuresCount::{NotNow, Yes};

    #[test]
    fn a_server_is_out_until_the_time_is_up_and_then_one_request_sees() {
        let mut group = Group::new(&[1, 1]);
        group.failures.failed(0, 100);
        assert_eq!(group.at(100), (vec![1], Yes));
        assert_eq!(group.at(110), (vec![1], Yes), "the end is still within");
        assert_eq!(group.at(111), (vec![0, 1], Yes));
        group.failures.chosen(0, 111);
        assert_eq!(
            group.at(111),
            (vec![1], Yes),
            "one request is enough to see"
        );
        group.failures.failed(0, 112);
        assert_eq!(group.at(122), (vec![1], Yes));
        group.failures.chosen(0, 123);
        assert_eq!(group.at(123), (vec![1], Yes));
        group.failures.succeeded(0);
        assert_eq!(group.at(123), (vec![0, 1], Yes));
    }

    #[test]
    fn failures_add_up_within_the_window_whatever_comes_between() {
        let mut group = Group::new(&[3, 0]);
        for now_s in [100, 103, 106] {
            assert_eq!(group.at(now_s), (vec![0, 1], Yes), "at {now_s}");
            group.failures.failed(0, now_s);
            group.failures.chosen(0, now_s);
            group.failures.succeeded(0);
        }
        assert_eq!(group.at(106), (vec![1], Yes));
        let mut spread = Group::new(&[2, 0]);
        spread.failures.failed(0, 100);
        spread.failures.chosen(0, 111);
        spread.failures.succeeded(0);
        spread.failures.failed(0, 112);
        assert_eq!(
            spread.at(112),
            (vec![0, 1], Yes),
            "the first one is forgotten"
        );
        (0..1_000).for_each(|_| spread.failures.failed(1, 112));
        assert_eq!(spread.at(112), (vec![0, 1], Yes), "max_fails 0 is never");
    }

    /// nginx 1.22.1 answers 502 for ten seconds here.
    #[test]
    fn when_everybody_is_out_everybody_is_let_in() {
        let mut group = Group::new(&[1, 1, 1]);
        group.ready.remove(2);
        group.eligible.remove(2);
        group.failures.failed(0, 100);
        group.failures.failed(1, 100);
        assert_eq!(group.at(100), (vec![0, 1], NotNow));
        // The first one to answer is back for good at once, and the other one is out.
        group.failures.failed(1, 101);
        assert_eq!(group.at(101), (vec![0, 1], NotNow));
        group.failures.succeeded(0);
        assert_eq!(group.at(101), (vec![0], Yes));
        assert_eq!(group.at(112), (vec![0, 1], Yes));
        // Nobody ready: nobody let in.
        group.ready = ServerMask::none(3);
        group.eligible = ServerMask::none(3);
        assert_eq!(group.at(112), (vec![], Yes));
    }

    #[test]
    fn a_clock_that_goes_back_keeps_nobody_out() {
        let mut group = Group::new(&[1, 1]);
        group.failures.failed(0, 1_000_000);
        assert_eq!(group.at(5), (vec![0, 1], Yes));
    }
}
