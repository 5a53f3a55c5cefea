//! Who of a pool may be chosen: what the operator wants, what checks say, whose failures are too many, who is ejected.
//!
//! ```text
//!   out        an operator took it out                                            never chosen
//!   sick       checks say that it is down                                         only in a panic
//!   resting    banned by `max_fails`, or ejected                                  in a panic, or when nobody is well
//!   well       all others
//! ```
//!
//! Of each tier those who are well are chosen. Three rules for when too few are left:
//! - **Nobody is well, somebody rests**: all who rest are chosen, primaries before backups, each time as a probe. Failures of
//!   requests can be the requests' own, or be over long since; where nobody else is left, asking costs nothing. (nginx answers
//!   "no live upstreams" for `fail_timeout` instead, also when everybody is back at once.)
//! - **All are sick**: nobody is chosen (503), because checks ask anyway, and know first when somebody is back.
//! - **Fewer than `panic_below` percent are well** in the tier that serves (the first with anybody well): all of that tier that are
//!   not out are chosen, on the assumption that the rest would not stand the load. With nobody well anywhere, all of both tiers.
//!
//! What befell a server belongs to the VM and the server's id, not to a configuration: a reload forgets nothing.
//!
//! # Why VMs do not tell each other of failures
//! What checks find out is shared, because they ask all servers alike. Failures of requests can be the requests' own, and `max_fails` of 1
//! is the default: one bad request would take a server from all workers at once, where it now takes it from one. nginx without `zone`
//! counts for each worker as well; with it, it shares. Who wants one finding for all has `health`.

use std::rc::Rc;

use super::Quality;
use super::ejection::{EjectionRule, ejected_max};
use super::failures::{FailureRule, Turned};
use super::health::Health;
use super::in_flight::OwnLoad;
use super::server_life::ServerLife;
use super::state_record::StateRecord;
use super::transition::{Cause, Standing, Transition};
use crate::balance::ServerMask;
use crate::config::{AdminState, PassiveConfig, PoolConfig, ServerLimits};

/// Transitions that are kept until they are told; more are not told.
const TRANSITIONS_MAX: usize = 256;

/// What an operator wants of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admin {
    Ready,
    /// Takes nothing new; checked all the same.
    Drain,
    /// Not even checked.
    Maint,
}

impl Admin {
    /// As the configuration has it.
    pub(super) fn of(state: AdminState) -> Self {
        match state {
            AdminState::Ready => Self::Ready,
            AdminState::Down => Self::Maint,
        }
    }
}

/// The standing of a pool's servers, in the pool's order: primaries, then backups.
#[derive(Debug)]
pub(super) struct Availability {
    servers: Vec<Member>,
    passive: Option<Passive>,
    panic_below: u8,
    checked: Checked,
    /// When somebody's standing changes by itself.
    next_change_ms: u64,
    freshness: Freshness,
    attention: Attention,
    transitions: Vec<Transition>,
}

#[derive(Debug)]
struct Member {
    own: Rc<OwnLoad>,
    admin: Admin,
    rule: FailureRule,
    slow_start_ms: u64,
}

#[derive(Debug)]
struct Passive {
    rule: EjectionRule,
    ejected_max: usize,
}

/// Whether checks are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Checked {
    Yes,
    No,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    Fresh,
    Stale,
}

/// Whether there are failures to remember: then every answer counts, and so does the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attention {
    Awake,
    Asleep,
}

/// From the worst to the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Out,
    Sick,
    Resting,
    Well,
}

impl Availability {
    pub(super) fn new(config: &PoolConfig) -> Self {
        Self {
            servers: Vec::with_capacity(config.servers.len()),
            passive: config.passive.as_ref().map(|passive| Passive {
                rule: ejection_rule(passive),
                ejected_max: ejected_max(config.servers.len(), passive.share_max),
            }),
            panic_below: config.panic_below,
            checked: if config.health.is_some() {
                Checked::Yes
            } else {
                Checked::No
            },
            next_change_ms: u64::MAX,
            freshness: Freshness::Stale,
            attention: Attention::Asleep,
            transitions: Vec::new(),
        }
    }

    /// The next server.
    pub(super) fn push(&mut self, own: Rc<OwnLoad>, admin: Admin, limits: &ServerLimits) {
        if self.checked == Checked::No {
            // Whoever does not check does not know.
            let mut life = own.life.get();
            life.health = Health::Checking;
            own.life.set(life);
        }
        self.servers.push(Member {
            own,
            admin,
            rule: FailureRule {
                max_fails: limits.max_fails,
                fail_timeout_ms: milliseconds(limits.fail_timeout),
            },
            slow_start_ms: milliseconds(limits.slow_start),
        });
    }

    pub(super) fn set_admin(&mut self, server: usize, admin: Admin) {
        if let Some(member) = self.servers.get_mut(server) {
            member.admin = admin;
            self.freshness = Freshness::Stale;
        }
    }

    /// Whether checks ask this server.
    pub(super) fn is_checked(&self, server: usize) -> bool {
        let member = self.servers.get(server);
        member.is_some_and(|member| member.admin != Admin::Maint)
    }

    /// Whether requests must tell the time, and how they were answered.
    pub(super) fn is_awake(&self) -> bool {
        self.attention == Attention::Awake
    }

    /// Whether every answer's attempts matter.
    pub(super) fn counts_every_answer(&self) -> bool {
        self.is_awake() || self.passive.is_some()
    }

    /// Percent of its weight that a server has now.
    pub(super) fn percent(&self, server: usize, now_ms: u64) -> u8 {
        self.servers.get(server).map_or(100, |member| {
            let life = member.own.life.get();
            life.slow_start.percent(member.slow_start_ms, now_ms)
        })
    }

    /// A request goes to a server.
    pub(super) fn chosen(&mut self, server: usize, now_ms: u64) {
        if self.attention == Attention::Asleep {
            return;
        }
        self.change(server, |life, member| {
            let before = life.failures.banned_until_ms(member.rule, now_ms);
            life.failures.chosen(member.rule, now_ms);
            let after = life.failures.banned_until_ms(member.rule, now_ms);
            if before.is_some() == after.is_some() {
                Freshness::Fresh
            } else {
                Freshness::Stale
            }
        });
    }

    /// An attempt failed.
    pub(super) fn failed(&mut self, server: usize, now_ms: u64) {
        let was_awake = std::mem::replace(&mut self.attention, Attention::Awake);
        let mut told = Vec::new();
        self.change(server, |life, member| {
            let before = life.failures.banned_until_ms(member.rule, now_ms);
            if life.failures.failed(member.rule, now_ms) == Turned::Yes {
                let (fails, ms) = (member.rule.max_fails, member.rule.fail_timeout_ms);
                let reason = format!("{fails} failed within {ms} ms; left out for as long");
                told.push((Standing::Banned, Cause::Failures, reason));
            }
            let after = life.failures.banned_until_ms(member.rule, now_ms);
            if was_awake == Attention::Awake && before.is_some() == after.is_some() {
                Freshness::Fresh
            } else {
                Freshness::Stale
            }
        });
        self.tell(server, told);
        self.count_towards_ejection(server, now_ms);
    }

    /// A server answered; a bad answer counts towards ejection.
    pub(super) fn answered(&mut self, server: usize, quality: Quality, now_ms: u64) {
        if self.attention == Attention::Awake {
            let mut told = Vec::new();
            self.change(server, |life, member| {
                if quality == Quality::Good {
                    life.ejection.succeeded();
                }
                if life.failures.succeeded(member.rule) == Turned::No {
                    return Freshness::Fresh;
                }
                life.slow_start.begin(now_ms);
                let reason = "answered again".to_owned();
                told.push((Standing::Up, Cause::Answered, reason));
                Freshness::Stale
            });
            self.tell(server, told);
        }
        if quality == Quality::Bad {
            self.attention = Attention::Awake;
            self.count_towards_ejection(server, now_ms);
        }
    }

    fn count_towards_ejection(&mut self, server: usize, now_ms: u64) {
        let Some(passive) = &self.passive else {
            return;
        };
        let (rule, most) = (passive.rule, passive.ejected_max);
        let is_last = |member: &Member| member.own.life.get().ejection.is_last(rule);
        let may_eject =
            self.servers.get(server).is_some_and(is_last) && self.count_ejected() < most;
        let mut told = Vec::new();
        self.change(server, |life, _| {
            let Some(ms) = life.ejection.failed(rule, now_ms, || may_eject) else {
                return Freshness::Fresh;
            };
            let reason = format!("{} failed in a row; ejected for {ms} ms", rule.failures);
            told.push((Standing::Ejected, Cause::Failures, reason));
            Freshness::Stale
        });
        self.tell(server, told);
    }

    /// Takes over what checks found out. `by_hash` finds a server by the hash of its id.
    pub(super) fn apply(
        &mut self,
        record: &StateRecord,
        by_hash: impl Fn(u64) -> Option<usize>,
        now_ms: u64,
    ) {
        if self.checked == Checked::No {
            return;
        }
        for state in &record.servers {
            let Some(server) = by_hash(state.id_hash) else {
                continue;
            };
            self.change(server, |life, _| {
                if life.health == state.health {
                    return Freshness::Fresh;
                }
                match (life.health, state.health) {
                    (_, Health::Down) => life.slow_start.end(),
                    (Health::Down, _) => life.slow_start.begin(now_ms),
                    _ => {}
                }
                life.health = state.health;
                Freshness::Stale
            });
        }
    }

    /// Sets the masks of both tiers anew if anybody's standing may have changed; `first_backup` is the index of the first backup. Returns what
    /// they were.
    pub(super) fn refresh(
        &mut self,
        now_ms: u64,
        first_backup: usize,
        (primary, backup): (&mut ServerMask, &mut ServerMask),
    ) -> Freshness {
        // A clock that went back is looked at once a tick.
        if self.freshness == Freshness::Fresh && now_ms < self.next_change_ms {
            return Freshness::Fresh;
        }
        self.end_ejections(now_ms);
        self.freshness = Freshness::Fresh;
        self.attention = Attention::Asleep;
        self.next_change_ms = u64::MAX;
        let mut tiers = [Tally::default(); 2];
        for index in 0..self.servers.len() {
            let state = self.state(index, now_ms);
            let tier = usize::from(index >= first_backup);
            if let Some(tally) = tiers.get_mut(tier) {
                tally.count(state);
            }
        }
        let chosen = self.chosen_states(tiers);
        for index in 0..self.servers.len() {
            let state = self.state(index, now_ms);
            let (mask, place, chosen) = if index < first_backup {
                (&mut *primary, index, chosen.0)
            } else {
                (&mut *backup, index - first_backup, chosen.1)
            };
            if state >= chosen {
                mask.insert(place);
            } else {
                mask.remove(place);
            }
        }
        Freshness::Stale
    }

    /// Looks at everybody at the next refresh, as once a tick: others may have changed what belongs to the VM.
    pub(super) fn look_again(&mut self) {
        self.freshness = Freshness::Stale;
    }

    /// Hands over what is to be told, oldest first.
    pub(super) fn take_transitions(&mut self) -> Vec<Transition> {
        std::mem::take(&mut self.transitions)
    }

    /// The least state that is chosen, by tier.
    fn chosen_states(&self, [primary, backup]: [Tally; 2]) -> (State, State) {
        if primary.well + backup.well == 0 {
            let least = if self.panic_below > 0 {
                State::Sick
            } else {
                State::Resting
            };
            return (least, least);
        }
        let panics = |tally: Tally| {
            tally.well > 0 && tally.well * 100 < usize::from(self.panic_below) * tally.ready
        };
        match (panics(primary), primary.well == 0 && panics(backup)) {
            (true, _) => (State::Sick, State::Well),
            (_, true) => (State::Well, State::Sick),
            _ => (State::Well, State::Well),
        }
    }

    /// A server's state; notes when it changes by itself, and whether there is anything to remember of it.
    fn state(&mut self, server: usize, now_ms: u64) -> State {
        let Some(member) = self.servers.get(server) else {
            return State::Out;
        };
        let life = member.own.life.get();
        let banned_until_ms = life.failures.banned_until_ms(member.rule, now_ms);
        let until_ms = banned_until_ms.into_iter().chain(life.ejection.until_ms());
        let until_ms = until_ms.min();
        if let Some(until_ms) = until_ms {
            self.next_change_ms = self.next_change_ms.min(until_ms);
        }
        if life.failures.any() || life.ejection.any() {
            self.attention = Attention::Awake;
        }
        match (member.admin, life.health, until_ms) {
            (Admin::Drain | Admin::Maint, ..) => State::Out,
            (_, Health::Down, _) => State::Sick,
            (_, _, Some(_)) => State::Resting,
            _ => State::Well,
        }
    }

    fn end_ejections(&mut self, now_ms: u64) {
        let Some(rule) = self.passive.as_ref().map(|passive| passive.rule) else {
            return;
        };
        for server in 0..self.servers.len() {
            let mut told = Vec::new();
            self.change(server, |life, _| {
                if life.ejection.ends(rule, now_ms) {
                    life.slow_start.begin(now_ms);
                    let reason = "its ejection is over".to_owned();
                    told.push((Standing::Up, Cause::Time, reason));
                }
                Freshness::Fresh
            });
            self.tell(server, told);
        }
    }

    fn count_ejected(&self) -> usize {
        let is_ejected = |member: &&Member| member.own.life.get().ejection.until_ms().is_some();
        self.servers.iter().filter(is_ejected).count()
    }

    fn change(
        &mut self,
        server: usize,
        change: impl FnOnce(&mut ServerLife, &Member) -> Freshness,
    ) {
        let Some(member) = self.servers.get(server) else {
            return;
        };
        let mut life = member.own.life.get();
        let freshness = change(&mut life, member);
        member.own.life.set(life);
        if freshness == Freshness::Stale {
            self.freshness = Freshness::Stale;
        }
    }

    fn tell(&mut self, server: usize, told: Vec<(Standing, Cause, String)>) {
        for (to, cause, reason) in told {
            if self.transitions.len() < TRANSITIONS_MAX {
                self.transitions.push(Transition {
                    server,
                    to,
                    cause,
                    reason,
                });
            }
        }
    }
}

/// A tier's servers.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    ready: usize,
    well: usize,
}

impl Tally {
    fn count(&mut self, state: State) {
        self.ready += usize::from(state != State::Out);
        self.well += usize::from(state == State::Well);
    }
}

fn ejection_rule(passive: &PassiveConfig) -> EjectionRule {
    EjectionRule {
        failures: passive.failures,
        ejection_ms: milliseconds(passive.ejection),
        ejection_max_ms: milliseconds(passive.ejection_max),
    }
}

fn milliseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
