//! Smooth weighted round robin, exactly as nginx (`ngx_http_upstream_get_peer`).
//!
//! Each pick adds every eligible server's effective weight to its current weight; the greatest current weight wins, the first
//! of equals, and pays the sum of what was added. Heavy servers thus come often but not in a row: weights 5, 1, 1 give AABACAA.
//! A failure takes weight/max_fails from the effective weight, and every pick gives one back.

use super::{Advance, Balancer, Charge, Choices, Question, ServerMask, Share};

/// Positions of the servers of one group.
#[derive(Debug, Default)]
pub(super) struct RoundRobin {
    turns: Turns,
}

impl Balancer for RoundRobin {
    fn rebuild(&mut self, servers: &[Share], eligible: &ServerMask, start: u32) {
        self.turns.rebuild(servers, eligible, start);
    }

    fn pick(&mut self, question: &mut Question<'_>, choices: &mut Choices) {
        self.turns
            .fill(&question.eligible, question.advance, choices);
    }

    fn charge(&mut self, charge: &Charge) {
        self.turns.charge(charge);
    }
}

/// The state of smooth weighted round robin, also the last resort and the tie-breaker of other methods.
#[derive(Debug, Default)]
pub(super) struct Turns {
    servers: Vec<Turn>,
    /// Current weights as they would be if those that stand by were picked: kept between requests to spare an allocation.
    ahead: Vec<i64>,
}

#[derive(Debug, Clone, Copy)]
struct Turn {
    weight: i64,
    /// What the weight counts for now: less after failures.
    effective: i64,
    current: i64,
    /// What one failure costs.
    failure_costs: i64,
}

impl Turns {
    pub(super) fn rebuild(&mut self, servers: &[Share], eligible: &ServerMask, start: u32) {
        let turn = |share: &Share| {
            let weight = i64::from(share.weight);
            let failure_costs = weight.checked_div(i64::from(share.max_fails)).unwrap_or(0);
            Turn {
                weight,
                effective: weight,
                current: 0,
                failure_costs,
            }
        };
        self.servers = servers
            .iter()
            .take(ServerMask::SERVERS_MAX)
            .map(turn)
            .collect();
        self.ahead = Vec::with_capacity(self.servers.len());
        let eligible_turns = self
            .servers
            .iter()
            .enumerate()
            .filter(|(index, _)| eligible.contains(*index));
        let sum: i64 = eligible_turns.map(|(_, turn)| turn.weight).sum();
        // Bounded by the number of VMs: `start` is a VM's slot.
        for _ in 0..i64::from(start).checked_rem(sum).unwrap_or(0) {
            self.next(eligible);
        }
    }

    pub(super) fn weight(&self, server: usize) -> i64 {
        self.servers.get(server).map_or(0, |turn| turn.weight)
    }

    /// Picks one of `eligible`.
    pub(super) fn next(&mut self, eligible: &ServerMask) -> Option<usize> {
        self.next_among(eligible, |_| true)
    }

    /// Picks one of those `eligible` for which `wanted` holds; the others' positions do not move.
    pub(super) fn next_among(
        &mut self,
        eligible: &ServerMask,
        wanted: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let mut total = 0;
        let mut best: Option<(usize, i64)> = None;
        for (index, turn) in self.servers.iter_mut().enumerate() {
            if !eligible.contains(index) || !wanted(index) {
                continue;
            }
            turn.current += turn.effective;
            total += turn.effective;
            if turn.effective < turn.weight {
                turn.effective += 1;
            }
            if best.is_none_or(|(_, current)| turn.current > current) {
                best = Some((index, turn.current));
            }
        }
        let (best, _) = best?;
        if let Some(turn) = self.servers.get_mut(best) {
            turn.current -= total;
        }
        Some(best)
    }

    /// Fills the rest of `choices`: a pick first if one is asked for, then those that would come next.
    pub(super) fn fill(&mut self, eligible: &ServerMask, advance: Advance, choices: &mut Choices) {
        let mut left = *eligible;
        choices.iter().for_each(|server| left.remove(server));
        if advance == Advance::First && choices.is_empty() {
            let Some(picked) = self.next(&left) else {
                return;
            };
            choices.push(picked);
            left.remove(picked);
        }
        self.look_ahead(left, choices);
    }

    /// Appends those of `left` that would be picked next, each with those before it left out. Moves nothing.
    pub(super) fn look_ahead(&mut self, mut left: ServerMask, choices: &mut Choices) {
        if choices.is_full() || left.is_empty() {
            return;
        }
        self.ahead.clear();
        self.ahead
            .extend(self.servers.iter().map(|turn| turn.current));
        // Each round takes one server out of `left`, and there are no more rounds than places.
        while !choices.is_full() {
            let mut total = 0;
            let mut best: Option<(usize, i64)> = None;
            for (index, (turn, current)) in self.servers.iter().zip(&mut self.ahead).enumerate() {
                if left.contains(index) {
                    *current += turn.effective;
                    total += turn.effective;
                    if best.is_none_or(|(_, best)| *current > best) {
                        best = Some((index, *current));
                    }
                }
            }
            let Some((best, _)) = best else { return };
            if let Some(current) = self.ahead.get_mut(best) {
                *current -= total;
            }
            left.remove(best);
            choices.push(best);
        }
    }

    pub(super) fn charge(&mut self, charge: &Charge) {
        match charge {
            Charge::Failed { server } => {
                if let Some(turn) = self.servers.get_mut(*server) {
                    turn.effective = (turn.effective - turn.failure_costs).max(0);
                }
            }
            // As `next_among` would, had it been asked then: everybody who could have been picked gains, `server` pays.
            Charge::Used {
                server,
                tried,
                eligible,
            } => {
                let mut total = 0;
                for (index, turn) in self.servers.iter_mut().enumerate() {
                    if eligible.contains(index) && !tried.contains(index) {
                        turn.current += turn.effective;
                        total += turn.effective;
                        if turn.effective < turn.weight {
                            turn.effective += 1;
                        }
                    }
                }
                if let Some(turn) = self.servers.get_mut(*server) {
                    turn.current -= total;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::{Group, letters};
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
        let shares = [
            Share {
                weight: 4,
                max_fails: 2,
            },
            Share {
                weight: 4,
                max_fails: 0,
            },
        ];
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
        let picks: Vec<usize> = (0..6).filter_map(|_| turns.next(&both)).collect();
        // A's effective weight 0, 1, 2, 3, 4, 4 against B's 4: the sums of nginx's rule worked out by hand.
        assert_eq!(letters(&picks), "BBABAB");
        assert_eq!(turns.servers[0].effective, 4);
    }
}
