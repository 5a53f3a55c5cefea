//! Active checks: the calls that one VM of the process makes, and what comes of them.
//!
//! Every VM whose configuration asks for checks looks at the lease each tick; the one that has it sends what is due, on ticks and
//! whenever an answer comes. What it finds out goes to shared data, where it meets everybody at their next tick.

use std::collections::BTreeMap;

use evenkeel_policy::config::Config;
use evenkeel_policy::exchange::Policy;
use evenkeel_policy::upstream::{
    BODY_BYTES_MAX, Health, HealthChange, Held, News, PoolChecks, Standing, Verdict, id_hash,
};

use crate::hostcalls::{self, Level};
use crate::virtual_machine::{HostShared, VirtualMachine};

/// Most checks under way; others wait for their turn.
const UNDER_WAY_MAX: usize = 256;

/// The checks of one configuration.
pub(crate) struct Checker {
    /// Pools that are checked, by index.
    pools: Vec<(usize, PoolChecks)>,
    under_way: BTreeMap<u32, UnderWay>,
    held: Held,
    /// As read last.
    news: Option<u64>,
    /// The pool that comes first the next time.
    first: usize,
    due: Vec<usize>,
    text: Vec<u8>,
}

/// A check that was sent.
#[derive(Debug, Clone, Copy)]
struct UnderWay {
    /// Place in `pools`.
    place: usize,
    id_hash: u64,
}

impl Checker {
    /// `None`: the configuration asks for no checks.
    pub(crate) fn new(config: &Config) -> Option<Self> {
        let checks = config.pools.iter().enumerate();
        let pools: Vec<(usize, PoolChecks)> = checks
            .filter_map(|(index, pool)| Some((index, PoolChecks::new(pool)?)))
            .collect();
        (!pools.is_empty()).then_some(Self {
            pools,
            under_way: BTreeMap::new(),
            held: Held::No,
            news: None,
            first: 0,
            due: Vec::new(),
            text: Vec::new(),
        })
    }

    /// The policy is another one: its servers are looked up anew.
    pub(crate) fn begin_anew(&mut self) {
        self.held = Held::No;
        self.news = None;
    }

    /// Once a whole tick: whether this VM is the one that checks.
    pub(crate) fn beat(&mut self, policy: &Policy, vm: &mut VirtualMachine) {
        let held = vm.lease.tick(vm.slots.owner(), &mut HostShared);
        if held == Held::Yes && self.held == Held::No {
            self.under_way.clear();
            for (index, checks) in &mut self.pools {
                let Some(pool) = policy.pools().get(*index) else {
                    continue;
                };
                checks.take_over(pool, &mut HostShared);
                for server in 0..pool.len() {
                    if checks.health(server) == Health::Down {
                        vm.metrics
                            .set_up(pool.name(), pool.id(server), Health::Down);
                    }
                }
            }
        }
        self.held = held;
    }

    /// A newer configuration checks instead.
    pub(crate) fn rest(&mut self) {
        self.held = Held::No;
    }

    /// Reads what was found out, by whomever, if anything was since the last time.
    pub(crate) fn read_news(&mut self, policy: &mut Policy, now_us: u64) {
        let news = News::Health.read(&mut HostShared, &mut self.text);
        let news = news.unwrap_or(0);
        if self.news == Some(news) {
            return;
        }
        self.news = Some(news);
        for (index, _) in &self.pools {
            if let Some(pool) = policy.pools_mut().get_mut(*index) {
                pool.note_time(now_us);
                pool.read_state(&mut HostShared);
            }
        }
    }

    /// Each tick: tells what answers changed, and sends what is due.
    pub(crate) fn send_due(&mut self, policy: &Policy, vm: &mut VirtualMachine, now_ms: u64) {
        if self.held == Held::No {
            return;
        }
        for (index, checks) in &mut self.pools {
            if let Some(pool) = policy.pools().get(*index) {
                checks.tell(pool, &mut HostShared);
            }
        }
        let len = self.pools.len();
        for step in 0..len {
            let place = (self.first + step) % len;
            self.send_due_of(place, policy, vm, now_ms);
            if self.under_way.len() >= UNDER_WAY_MAX {
                self.first = place;
                return;
            }
        }
    }

    fn send_due_of(&mut self, place: usize, policy: &Policy, vm: &mut VirtualMachine, now_ms: u64) {
        let Some((index, checks)) = self.pools.get_mut(place) else {
            return;
        };
        let Some(pool) = policy.pools().get(*index) else {
            return;
        };
        if let Some(server) = checks.lost(now_ms) {
            let with = (&mut vm.random, &mut HostShared);
            checks.ended(pool, server, Verdict::Unknown, now_ms, with);
            let hash = id_hash(pool.id(server));
            self.under_way
                .retain(|_, check| (check.place, check.id_hash) != (place, hash));
        }
        let room = UNDER_WAY_MAX.saturating_sub(self.under_way.len());
        self.due.clear();
        checks.take_due(pool, now_ms, room, &mut vm.random, &mut self.due);
        for server in self.due.iter().copied() {
            let (call, timeout_ms) = checks.call(pool, server);
            match hostcalls::http_call(&call, timeout_ms) {
                Some(token) => {
                    let id_hash = id_hash(pool.id(server));
                    self.under_way.insert(token, UnderWay { place, id_hash });
                }
                // The host is full, or knows no such server or bridge: the server is not to blame.
                None => {
                    vm.metrics.check_not_sent(pool.name());
                    let with = (&mut vm.random, &mut HostShared);
                    checks.ended(pool, server, Verdict::Unknown, now_ms, with);
                }
            }
        }
    }

    /// A call is over; its answer is with the filter now.
    pub(crate) fn answered(
        &mut self,
        token: u32,
        policy: &Policy,
        vm: &mut VirtualMachine,
        now_ms: u64,
    ) {
        let Some(check) = self.under_way.remove(&token) else {
            return;
        };
        if self.held == Held::No {
            // Somebody else has taken over, and knows better.
            return;
        }
        let Some((index, checks)) = self.pools.get_mut(check.place) else {
            return;
        };
        let Some(pool) = policy.pools().get(*index) else {
            return;
        };
        let Some(server) = pool.by_id_hash(check.id_hash) else {
            return;
        };
        let status = hostcalls::call_status();
        let body = hostcalls::call_body(BODY_BYTES_MAX);
        let body = body.as_ref().map_or(&b""[..], |body| body.as_slice());
        let verdict = checks.judge(status, body);
        let with = (&mut vm.random, &mut HostShared);
        if let Some(change) = checks.ended(pool, server, verdict, now_ms, with) {
            vm.metrics.set_up(pool.name(), pool.id(server), change.to);
            tell(vm, pool.name(), pool.id(server), &change);
        }
        // Not only on ticks: late ticks and slow answers must not add up.
        self.send_due_of(check.place, policy, vm, now_ms);
    }
}

/// One line, and one count.
fn tell(vm: &mut VirtualMachine, pool: &str, id: &str, change: &HealthChange) {
    let (level, to) = match (change.from, change.to) {
        (_, Health::Down) => (Level::Warn, Standing::Down),
        (Health::Down, _) => (Level::Info, Standing::Up),
        // It was taken for up before.
        _ => return,
    };
    let reason = &change.reason;
    hostcalls::log(
        level,
        &format!("evenkeel: pool {pool}: server {id} is {to}: {reason}"),
    );
    vm.metrics.turned(pool, id, to, change.cause);
}
