//! Smooth weighted round robin, exactly as nginx (`ngx_http_upstream_get_peer`).
//!
//! Each pick adds every eligible server's effective weight to its current weight; the greatest current weight wins, the first
//! of equals, and pays the sum of what was added. Heavy servers thus come often but not in a row: weights 5, 1, 1 give AABACAA.
//! A failure takes weight/max_fails from the effective weight, and every pick gives one back.

use std::cmp::Reverse;

use super::leaders::Leaders;
use super::{Advance, Balancer, Charge, Choices, Question, ServerMask, Share};
use crate::contract::ENDPOINTS_MAX;

/// Positions of the servers of one group.
#[derive(Debug, Default)]
pub(super) struct RoundRobin {
    turns: Turns,
}

impl Balancer for RoundRobin {
    fn rebuild(&mut self, servers: &[Share<'_>], eligible: &ServerMask, start: u32) {
        self.turns.rebuild(servers, eligible, start);
    }

    fn reweigh(&mut self, servers: &[Share<'_>], _eligible: &ServerMask) {
        self.turns.reweigh(servers);
    }

    fn pick(&mut self, question: &mut Question<'_>, choices: &mut Choices) {
        self.turns
            .fill(question.eligible, question.advance, choices);
    }

    fn charge(&mut self, charge: &Charge<'_>) {
        self.turns.charge(charge);
    }
}

/// Groups of at most as many servers are gone through once for each place of a list.
const SMALL_GROUP: usize = 8;

/// The state of smooth weighted round robin, also the last resort and the tie-breaker of other methods.
#[derive(Debug, Default)]
pub(super) struct Turns {
    servers: Vec<Turn>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Turn {
    current: i64,
    /// What the weight counts for now: less after failures.
    effective: i32,
    weight: u16,
    /// What one failure costs.
    failure_costs: u16,
}

impl Turn {
    fn gain(&mut self) -> i64 {
        let gained = i64::from(self.effective);
        self.current += gained;
        if self.effective < i32::from(self.weight) {
            self.effective += 1;
        }
        gained
    }
}

impl Turns {
    pub(super) fn rebuild(&mut self, servers: &[Share<'_>], eligible: &ServerMask, start: u32) {
        let turn = |share: &Share<'_>| Turn {
            current: 0,
            effective: i32::from(share.weight),
            weight: share.weight,
            failure_costs: share.weight.checked_div(share.max_fails).unwrap_or(0),
        };
        self.servers = servers
            .iter()
            .take(ServerMask::SERVERS_MAX)
            .map(turn)
            .collect();
        let sum: i64 = eligible
            .iter()
            .map(|server| i64::from(self.weight(server)))
            .sum();
        // Bounded by the number of VMs: `start` is a VM's slot.
        for _ in 0..i64::from(start).checked_rem(sum).unwrap_or(0) {
            self.fill(eligible, Advance::First, &mut Choices::with_limit(1));
        }
    }

    /// Takes other weights for the same servers. Everybody is as far ahead or behind as before, for the new sum of weights.
    pub(super) fn reweigh(&mut self, servers: &[Share<'_>]) {
        let sum = |turns: &[Turn]| -> i64 { turns.iter().map(|turn| i64::from(turn.weight)).sum() };
        let old_sum = sum(&self.servers).max(1);
        for (turn, share) in self.servers.iter_mut().zip(servers) {
            turn.weight = share.weight;
            turn.effective = i32::from(share.weight);
            turn.failure_costs = share.weight.checked_div(share.max_fails).unwrap_or(0);
        }
        let new_sum = sum(&self.servers);
        for turn in &mut self.servers {
            turn.current = turn.current.saturating_mul(new_sum) / old_sum;
        }
    }

    /// A server's weight; 0 if it is not of the group.
    pub(super) fn weight(&self, server: usize) -> u16 {
        self.weights()(server)
    }

    /// The same for many servers.
    pub(super) fn weights(&self) -> impl Fn(usize) -> u16 + '_ {
        let servers = self.servers.as_slice();
        move |server| servers.get(server).map_or(0, |turn| turn.weight)
    }

    /// Fills the rest of `choices`: a pick first if one is asked for, then those that would come next.
    pub(super) fn fill(&mut self, eligible: &ServerMask, advance: Advance, choices: &mut Choices) {
        self.fill_among(eligible.iter(), advance, choices);
    }

    /// As [`Turns::fill`], among these servers in their order; the others' positions do not move.
    ///
    /// Who stands by is who would be picked next with those before it left out, and nobody but a winner pays; so the value that
    /// a server would have at each further pick is known at once, and one pass over the group finds all of them.
    pub(super) fn fill_among(
        &mut self,
        servers: impl Iterator<Item = usize>,
        advance: Advance,
        choices: &mut Choices,
    ) {
        if choices.is_empty() && self.servers.len() <= SMALL_GROUP {
            return self.fill_small(servers, advance, choices);
        }
        // Most lists are short: then clearing the leaders is much of what this costs.
        match choices.room() {
            0 => {}
            1 => self.fill_up::<1>(servers, advance, choices),
            2..=3 => self.fill_up::<3>(servers, advance, choices),
            _ => self.fill_up::<ENDPOINTS_MAX>(servers, advance, choices),
        }
    }

    /// Pick by pick, on a copy: for few servers that is a fraction of what keeping leaders costs.
    fn fill_small(
        &mut self,
        servers: impl Iterator<Item = usize>,
        advance: Advance,
        choices: &mut Choices,
    ) {
        let mut left = [(0, Turn::default()); SMALL_GROUP];
        let mut count = 0;
        let mut total = 0;
        for (place, server) in left.iter_mut().zip(servers) {
            let Some(turn) = self.servers.get_mut(server) else {
                break;
            };
            *place = (server, *turn);
            if advance == Advance::First {
                total += turn.gain();
            }
            count += 1;
        }
        let left = left.get_mut(..count).unwrap_or_default();
        // Each round takes one of `count` servers out, and there is room for at most `ENDPOINTS_MAX`.
        for round in 0..choices.room().min(count) {
            let mut best: Option<(i64, usize)> = None;
            for (place, (_, turn)) in left.iter_mut().enumerate() {
                if turn.weight == 0 {
                    continue;
                }
                turn.gain();
                if best.is_none_or(|(current, _)| turn.current > current) {
                    best = Some((turn.current, place));
                }
            }
            let Some((server, turn)) = best.and_then(|(_, place)| left.get_mut(place)) else {
                return;
            };
            // No server has weight 0: that is who was chosen.
            turn.weight = 0;
            choices.push(*server);
            if round == 0
                && advance == Advance::First
                && let Some(turn) = self.servers.get_mut(*server)
            {
                turn.current -= total;
            }
        }
    }

    /// For at most `ROOM` places.
    fn fill_up<const ROOM: usize>(
        &mut self,
        servers: impl Iterator<Item = usize>,
        advance: Advance,
        choices: &mut Choices,
    ) {
        let picks = advance == Advance::First && choices.is_empty();
        let places = choices.room();
        // One more leader in each round than can be gone by then.
        let mut rounds = [Leaders::<_, ROOM>::new(); ROOM];
        let mut total = 0;
        let rounds = rounds.get_mut(..places).unwrap_or_default();
        // What must be exceeded at each further pick; nothing exceeds that of a place that is not asked for.
        let mut bars = [i64::MAX; ROOM];
        bars.iter_mut().take(places).for_each(|bar| *bar = i64::MIN);
        let nobody_yet = choices.is_empty();
        for server in servers {
            let Some(turn) = self.servers.get_mut(server) else {
                break;
            };
            if !nobody_yet && choices.contains(server) {
                continue;
            }
            let mut ahead = *turn;
            if picks {
                total += turn.gain();
            }
            // Nobody gains more than its weight, so that this is the most it can come to. Few get further.
            let (mut most, mut is_ahead) = (ahead.current, false);
            for bar in &bars {
                most += i64::from(ahead.weight);
                is_ahead |= most > *bar;
            }
            if !is_ahead {
                continue;
            }
            for (place, (leaders, bar)) in rounds.iter_mut().zip(&mut bars).enumerate() {
                ahead.gain();
                leaders.offer(Reverse(ahead.current), server, place + 1);
                *bar = leaders.bar().map_or(i64::MIN, |Reverse(bar)| bar);
            }
        }
        for (place, leaders) in rounds.iter().enumerate() {
            let Some(winner) = leaders.iter().find(|server| !choices.contains(*server)) else {
                return;
            };
            if picks
                && place == 0
                && let Some(turn) = self.servers.get_mut(winner)
            {
                turn.current -= total;
            }
            choices.push(winner);
        }
    }

    pub(super) fn charge(&mut self, charge: &Charge<'_>) {
        match charge {
            Charge::Failed { server } => {
                if let Some(turn) = self.servers.get_mut(*server) {
                    turn.effective = (turn.effective - i32::from(turn.failure_costs)).max(0);
                }
            }
            Charge::Used {
                server,
                tried,
                eligible,
                ..
            } => {
                let others = eligible.iter().filter(|index| !tried.contains(*index));
                self.used_among(*server, others);
            }
        }
    }

    /// Moves as a pick would that was made among these and came to `server`: everybody who could have been picked gains, `server` pays.
    pub(super) fn used_among(&mut self, server: usize, servers: impl Iterator<Item = usize>) {
        let mut total = 0;
        for index in servers {
            if let Some(turn) = self.servers.get_mut(index) {
                total += turn.gain();
            }
        }
        if let Some(turn) = self.servers.get_mut(server) {
            turn.current -= total;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::laws::{Group, letters, shares};
    use super::*;
    use crate::balance::Algorithm;

    /// nginx 1.22.1 with these weights.
    #[test]
    fn goes_round_as_nginx_does() {
        for (weights, expected) in [
            (&[5, 3][..], "ABAABABA"),
            (&[5, 1, 1], "AABACAA"),
            (&[4, 3, 2], "ABCABACBA"),
            (&[1, 1, 1], "ABCABC"),
            (&[5, 3, 1], "ABACABABA"),
        ] {
            let mut group = Group::new(Algorithm::RoundRobin, weights);
            assert_eq!(
                letters(&group.picks(expected.len())),
                expected,
                "{weights:?}"
            );
        }
    }

    #[test]
    fn begins_later_in_the_round_in_another_slot() {
        let rounds = "ABAABABAABAABABA";
        for (start, slot) in (0..9).zip(0_u32..) {
            let mut group = Group::starting(Algorithm::RoundRobin, &[5, 3], slot);
            let from = start % 8;
            assert_eq!(
                letters(&group.picks(8)),
                rounds[from..from + 8],
                "slot {start}"
            );
        }
    }

    /// A peer list that nginx walked after A failed: the second pick is made with A left out, and moves B and C.
    #[test]
    fn a_stand_by_that_was_used_counts_as_the_next_pick() {
        let mut group = Group::new(Algorithm::RoundRobin, &[1, 1, 1]);
        let choices = group.choose(3);
        assert_eq!(letters(&choices), "ABC");
        group.charge_used(&choices, 1);
        // After A: -2 1 1. B with A left out: -2 0 2. Then C: -1 1 0, B: 0 -1 1, C: 1 0 -1, A.
        assert_eq!(letters(&group.picks(4)), "CBCA");
    }

    #[test]
    fn a_failure_costs_weight_and_every_round_gives_one_back() {
        let mut turns = Turns::default();
        let mut shares = shares(&[4, 4]);
        shares[0].max_fails = 2;
        let both = ServerMask::first(2);
        turns.rebuild(&shares, &both, 0);
        turns.charge(&Charge::Failed { server: 0 });
        turns.charge(&Charge::Failed { server: 1 });
        assert_eq!(
            (turns.servers[0].effective, turns.servers[1].effective),
            (2, 4)
        );
        turns.charge(&Charge::Failed { server: 0 });
        turns.charge(&Charge::Failed { server: 0 });
        assert_eq!(turns.servers[0].effective, 0);
        let mut pick = || {
            let mut choices = Choices::with_limit(1);
            turns.fill(&both, Advance::First, &mut choices);
            choices.get(0)
        };
        let picks: Vec<usize> = (0..6).filter_map(|_| pick()).collect();
        // A's effective weight 0, 1, 2, 3, 4, 4 against B's 4: the sums of nginx's rule worked out by hand.
        assert_eq!(letters(&picks), "BBABAB");
        assert_eq!(turns.servers[0].effective, 4);
    }

    #[test]
    fn other_weights_do_not_begin_the_turns_anew() {
        let mut group = Group::new(Algorithm::RoundRobin, &[1, 1, 1]);
        assert_eq!(letters(&group.picks(2)), "AB");
        group.reweigh(&[100, 100, 100]);
        assert_eq!(letters(&group.picks(2)), "CA");
        group.reweigh(&[100, 100, 1]);
        let picks = letters(&group.picks(201));
        let counts = ["A", "B", "C"].map(|server| picks.matches(server).count());
        assert!(
            counts[0] >= 99 && counts[1] >= 99 && counts[2] >= 1,
            "{counts:?}"
        );
    }

    /// Picks of a copy, each with those before it left out, as nginx would walk its peers after failures.
    #[test]
    fn who_stands_by_is_who_would_be_picked_next() {
        let weights = proptest::collection::vec(1u16..20, 1..9);
        let subsets = proptest::collection::vec((any::<u8>(), any::<bool>()), 1..20);
        proptest!(|(weights in weights, subsets in subsets)| {
            let mut turns = Turns::default();
            let mut shares = shares(&weights);
            shares.iter_mut().for_each(|share| share.max_fails = 3);
            turns.rebuild(&shares, &ServerMask::first(weights.len()), 0);
            for (subset, fails) in subsets {
                let mut left = ServerMask::none(weights.len());
                (0..weights.len()).filter(|server| subset >> server & 1 == 1).for_each(|server| left.insert(server));
                let mut copy = Turns { servers: turns.servers.clone() };
                let mut choices = Choices::with_limit(ENDPOINTS_MAX);
                turns.fill(&left, Advance::First, &mut choices);
                let mut expected = Vec::new();
                while !left.is_empty() {
                    let mut one = Choices::with_limit(1);
                    copy.fill(&left, Advance::First, &mut one);
                    left.remove(one.get(0).unwrap());
                    expected.extend(one.iter());
                }
                prop_assert_eq!(choices.iter().collect::<Vec<_>>(), expected);
                if let (true, Some(server)) = (fails, choices.get(0)) {
                    turns.charge(&Charge::Failed { server });
                }
            }
        });
    }
}
