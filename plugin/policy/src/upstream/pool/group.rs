//! The servers of one tier of a pool, and the method that chooses among them.

use super::Server;
use crate::balance::{Advance, Balancer, Choices, Facts, Question, ServerMask, Share};
use crate::random::Sequence;
use crate::upstream::pool_load::PoolLoad;
use crate::upstream::slow_start::{in_parts, parts};

/// The servers of one tier.
pub(super) struct Group {
    pub(super) balancer: Box<dyn Balancer>,
    /// Index in the pool of its first server.
    pub(super) first: usize,
    pub(super) count: usize,
    pub(super) eligible: ServerMask,
    pub(super) tables: Tables,
    /// Who is left to choose from, where more than eligibility counts: a buffer.
    pub(super) open: ServerMask,
}

/// Whether the method has taken over the group as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tables {
    /// At the next pick: a group that is never used costs nothing.
    ToBuild,
    /// As before, with other weights.
    ToReweigh,
    Built,
}

impl Group {
    pub(super) fn new(balancer: Box<dyn Balancer>, first: usize, count: usize) -> Self {
        Self {
            balancer,
            first,
            count,
            eligible: ServerMask::none(count),
            tables: Tables::ToBuild,
            open: ServerMask::default(),
        }
    }

    /// Hands the group to its method, if that was not done since it changed last.
    pub(super) fn build_tables(&mut self, servers: &[Server], start: u32) {
        let tables = std::mem::replace(&mut self.tables, Tables::Built);
        if tables == Tables::Built {
            return;
        }
        let servers = servers.iter().skip(self.first).take(self.count);
        let weight_max = servers.clone().map(|server| server.weight).max();
        let parts = if servers.clone().any(|server| server.percent < 100) {
            parts(weight_max.unwrap_or(1))
        } else {
            1
        };
        let shares: Vec<Share<'_>> = servers
            .map(|server| Share {
                weight: in_parts(server.weight, parts, server.percent),
                max_fails: server.max_fails,
                id: &server.id,
                endpoint: &server.endpoint,
            })
            .collect();
        if tables == Tables::ToReweigh {
            self.balancer.reweigh(&shares, &self.eligible);
        } else {
            self.balancer.rebuild(&shares, &self.eligible, start);
        }
    }

    /// Appends this group's servers to the pool's choices; picks one if the choices are still empty.
    pub(super) fn choose(
        &mut self,
        load: &PoolLoad,
        facts: &Facts<'_>,
        random: &mut Sequence,
        choices: &mut Choices,
    ) {
        let open = std::mem::take(&mut self.eligible);
        self.choose_of(&open, load, facts, random, choices);
        self.eligible = open;
    }

    /// The same among those who are in `open`, all of which are eligible.
    pub(super) fn choose_of(
        &mut self,
        open: &ServerMask,
        load: &PoolLoad,
        facts: &Facts<'_>,
        random: &mut Sequence,
        choices: &mut Choices,
    ) {
        let advance = if choices.is_empty() {
            Advance::First
        } else {
            Advance::Nothing
        };
        let mut own = Choices::with_limit(choices.room());
        self.balancer.pick(
            &mut Question {
                eligible: open,
                in_flight: load.in_flight_from(self.first),
                // No host tells them.
                idle: &[],
                latency: load.latency_from(self.first),
                now_us: load.now_us(),
                facts,
                random,
                advance,
            },
            &mut own,
        );
        own.iter()
            .for_each(|server| choices.push(self.first + server));
    }
}
