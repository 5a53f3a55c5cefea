//! Choosing where servers take only so many requests at a time.
//!
//! The method chooses among those that are not known to be full, a place is taken with the one it picked, and when that turns out to be full
//! it chooses again among the rest. What is known comes from one's own changes and is looked at again before each choice, so that a
//! single VM chooses exactly among those with room, as nginx does.

use super::{ConnLimits, Freed, Pool};
use crate::balance::{Choices, Facts};
use crate::config::{Chooser, QueueConfig};
use crate::random::Sequence;
use crate::upstream::conn_limits::Place;
use crate::upstream::{SharedData, Slots};

/// Servers that turn out to be full within one choice, before it is given up.
const LOST_MAX: usize = 64;

/// Servers that are asked whether they have room for one more that stands by.
const STAND_BYS_ASKED_MAX: usize = 2;

/// What a pool says to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chosen {
    /// The one to try first, then those standing by. It must be counted as begun at once.
    Servers(Choices),
    /// No server is eligible.
    Nobody,
    /// All that are eligible have as many requests as they take.
    AllFull,
    /// Nobody here chooses: the host does.
    ByHost,
}

impl Pool {
    /// As [`Pool::choose`], with a place taken on the first server of the list where it takes only so many. Servers without a bound stand
    /// by; where there is none, one with a bound may, and a place is kept there until [`Pool::let_go`].
    pub fn choose_within_limits(
        &mut self,
        facts: &Facts<'_>,
        random: &mut Sequence,
        slots: &Slots,
        data: &mut impl SharedData,
    ) -> Chosen {
        if self.chooser == Chooser::Envoy {
            return Chosen::ByHost;
        }
        let Some(mut limits) = self.limits.take() else {
            let choices = self.choose(facts, random);
            return if choices.is_empty() {
                Chosen::Nobody
            } else {
                Chosen::Servers(choices)
            };
        };
        self.refresh();
        let is_nobody_there = self.primary.eligible.is_empty() && self.backup.eligible.is_empty();
        let chosen = if is_nobody_there {
            self.no_server += 1;
            Chosen::Nobody
        } else {
            limits.look_again(slots, data);
            match self.pick_with_place(&mut limits, facts, random, slots, data) {
                Some(picked) => {
                    self.picked(picked);
                    let mut choices = self.with_stand_bys(&limits, picked, facts, random);
                    if choices.len() == 1 && !choices.is_full() {
                        let question = (facts, random);
                        self.keep_a_stand_by(&mut limits, &mut choices, question, slots, data);
                    }
                    Chosen::Servers(choices)
                }
                None => {
                    self.all_full += u64::from(self.queue.is_none());
                    Chosen::AllFull
                }
            }
        };
        self.limits = Some(limits);
        chosen
    }

    /// The servers that stand by in this list are not needed any more. To be called once for each list.
    pub fn let_go(&mut self, choices: &Choices) {
        if let Some(limits) = &mut self.limits {
            let stand_bys = choices.iter().skip(1);
            stand_bys.for_each(|server| limits.let_go(server));
        }
    }

    /// Whether any server takes only so many requests.
    pub fn has_bounds(&self) -> bool {
        self.limits.is_some()
    }

    /// Tells others of requests that have ended; whether a server that others may wait for has room again.
    pub fn settle(&mut self, slots: &Slots, data: &mut impl SharedData) -> Freed {
        match &mut self.limits {
            Some(limits) => limits.settle(slots, data),
            None => Freed::Nothing,
        }
    }

    /// Each tick, after that of `slots`: puts right what could not be told, and what dead VMs left.
    pub fn tick_limits(&mut self, slots: &mut Slots, data: &mut impl SharedData) -> Freed {
        match &mut self.limits {
            Some(limits) => limits.tick(slots, data),
            None => Freed::Nothing,
        }
    }

    /// Who may wait while all are full.
    pub fn queue(&self) -> Option<QueueConfig> {
        self.queue.filter(|_| self.limits.is_some())
    }

    /// Whether a server was full when it was seen last.
    pub fn is_busy(&self) -> bool {
        self.limits
            .as_ref()
            .is_some_and(|limits| !limits.full().is_empty())
    }

    /// Requests that found all servers full where there is no queue, since it was asked last.
    pub fn take_all_full(&mut self) -> u64 {
        std::mem::take(&mut self.all_full)
    }

    fn pick_with_place(
        &mut self,
        limits: &mut ConnLimits,
        facts: &Facts<'_>,
        random: &mut Sequence,
        slots: &Slots,
        data: &mut impl SharedData,
    ) -> Option<usize> {
        let mut looked_at_all = Freed::Nothing;
        for _ in 0..LOST_MAX {
            let mut choices = Choices::with_limit(1);
            for (group, full) in [
                (&mut self.primary, &limits.full().primary),
                (&mut self.backup, &limits.full().backup),
            ] {
                let mut open = std::mem::take(&mut group.open);
                open.clone_from(&group.eligible);
                open.take_out(full);
                if choices.is_empty() && !open.is_empty() {
                    group.build_tables(&self.servers, self.start);
                    group.choose_of(&open, &self.load, facts, random, &mut choices);
                }
                group.open = open;
            }
            match choices.get(0) {
                Some(picked) => {
                    if limits.acquire(picked, slots, data) == Place::Taken {
                        return Some(picked);
                    }
                }
                None => {
                    if looked_at_all == Freed::Some {
                        return None;
                    }
                    looked_at_all = Freed::Some;
                    if limits.look_at_all(slots, data) == Freed::Nothing {
                        return None;
                    }
                }
            }
        }
        None
    }

    fn with_stand_bys(
        &mut self,
        limits: &ConnLimits,
        picked: usize,
        facts: &Facts<'_>,
        random: &mut Sequence,
    ) -> Choices {
        let mut choices = Choices::with_limit(usize::from(self.retries) + 1);
        choices.push(picked);
        if limits.unlimited().is_empty() {
            return choices;
        }
        for (group, unlimited) in [
            (&mut self.primary, &limits.unlimited().primary),
            (&mut self.backup, &limits.unlimited().backup),
        ] {
            let mut open = std::mem::take(&mut group.open);
            open.clone_from(&group.eligible);
            open.keep(unlimited);
            if let Some(local) = picked.checked_sub(group.first) {
                open.remove(local);
            }
            if !choices.is_full() && !open.is_empty() {
                group.build_tables(&self.servers, self.start);
                group.choose_of(&open, &self.load, facts, random, &mut choices);
            }
            group.open = open;
        }
        choices
    }

    /// Appends a server with a bound that has much room, after the first of the list.
    fn keep_a_stand_by(
        &mut self,
        limits: &mut ConnLimits,
        choices: &mut Choices,
        (facts, random): (&Facts<'_>, &mut Sequence),
        slots: &Slots,
        data: &mut impl SharedData,
    ) {
        let picked = *choices;
        let mut asked = 0;
        for group in [&mut self.primary, &mut self.backup] {
            let mut open = std::mem::take(&mut group.open);
            open.clone_from(&group.eligible);
            open.take_out(if group.first == 0 {
                &limits.full().primary
            } else {
                &limits.full().backup
            });
            let locals = picked
                .iter()
                .filter_map(|server| server.checked_sub(group.first));
            locals
                .filter(|local| *local < group.count)
                .for_each(|local| open.remove(local));
            while asked < STAND_BYS_ASKED_MAX && choices.len() == 1 && !open.is_empty() {
                asked += 1;
                let mut found = picked;
                group.build_tables(&self.servers, self.start);
                group.choose_of(&open, &self.load, facts, random, &mut found);
                let Some(server) = found.get(1) else { break };
                if limits.keep(server, slots, data) == Place::Taken {
                    choices.push(server);
                }
                open.remove(server.saturating_sub(group.first));
            }
            group.open = open;
        }
    }
}
