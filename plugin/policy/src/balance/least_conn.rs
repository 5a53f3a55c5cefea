//! The server with the fewest requests in flight for its weight, exactly as nginx (`ngx_http_upstream_get_least_conn_peer`).
//!
//! Loads are compared by cross-multiplication, without division. Among equals (all idle servers, most of the time) it goes by
//! smooth weighted round robin of the equals alone, so that weights hold also when nobody is busy.

use std::cmp::Ordering;

use super::leaders::Leaders;
use super::load_per_weight::LoadPerWeight;
use super::round_robin::Turns;
use super::{Advance, Balancer, Charge, Choices, Question, ServerMask, Share};
use crate::contract::ENDPOINTS_MAX;

/// Ties are broken in turns.
#[derive(Debug, Default)]
pub(super) struct LeastConn {
    least: LeastLoad,
}

impl Balancer for LeastConn {
    fn rebuild(&mut self, servers: &[Share<'_>], eligible: &ServerMask, start: u32) {
        self.least.rebuild(servers, eligible, start);
    }

    fn reweigh(&mut self, servers: &[Share<'_>], _eligible: &ServerMask) {
        self.least.reweigh(servers);
    }

    fn pick(&mut self, question: &mut Question<'_>, choices: &mut Choices) {
        // Not through the question: what it points at would be looked up again for each server.
        let in_flight = question.in_flight;
        self.least.fill(question, choices, |server| {
            u64::from(in_flight.get(server).copied().unwrap_or(0))
        });
    }

    fn charge(&mut self, charge: &Charge<'_>) {
        match charge {
            Charge::Failed { .. } => self.least.failed(charge),
            Charge::Used {
                server,
                tried,
                eligible,
                in_flight,
            } => self
                .least
                .used(*server, eligible.iter_without(tried), |server| {
                    u64::from(in_flight.get(server).copied().unwrap_or(0))
                }),
        }
    }
}

/// Those of the least load for their weight, equals in turns, as nginx has it for connections and for times.
///
/// # Why one pass
///
/// Each place of a list is who would be picked with those before it left out, so a list of three would take three passes over the group.
/// But it can only be made of those whose load is at most that of the third: one pass finds them, and turns are taken among them.
#[derive(Debug, Default)]
pub(super) struct LeastLoad {
    turns: Turns,
    /// Those who may come into the list, while they are looked for: kept between requests to spare an allocation.
    near: Vec<u16>,
}

impl LeastLoad {
    pub(super) fn rebuild(&mut self, servers: &[Share<'_>], eligible: &ServerMask, start: u32) {
        self.turns.rebuild(servers, eligible, start);
        self.near = vec![0; servers.len().min(ServerMask::SERVERS_MAX)];
    }

    pub(super) fn reweigh(&mut self, servers: &[Share<'_>]) {
        self.turns.reweigh(servers);
    }

    /// Fills `choices`; turns move only among equals. A server's load is below 2⁴⁸.
    pub(super) fn fill(
        &mut self,
        question: &Question<'_>,
        choices: &mut Choices,
        load: impl Fn(usize) -> u64,
    ) {
        let room = choices.room();
        if room == 0 {
            return;
        }
        let (leaders, near) = self.look(question, choices, room, load);
        let is_below = |rank: LoadPerWeight| leaders.bar().is_none_or(|bar| rank < bar);
        // Fewer than there is room for: all of them come in, equals in turns.
        let mut below = leaders.ranked().filter(|(rank, _)| is_below(*rank));
        let mut class = below.next();
        let mut count = 0;
        // Ends: each round takes the next of at most `ENDPOINTS_MAX` leaders.
        while let Some((rank, first)) = class {
            let mut equals = Choices::with_limit(ENDPOINTS_MAX);
            equals.push(first);
            class = below.find(|(next, server)| {
                let is_equal = *next == rank;
                if is_equal {
                    equals.push(*server);
                }
                !is_equal
            });
            count += equals.len();
            self.turns
                .fill_among(equals.iter(), advance(question, equals.len()), choices);
        }
        if leaders.bar().is_some() {
            let advance = advance(question, near.saturating_sub(count));
            let near = self.near.iter().take(near).map(|near| usize::from(*near));
            self.turns.fill_among(near, advance, choices);
        }
    }

    /// The `room` of the least load; if there are so many, those whose load is at most that of the last of them are the first so many
    /// that are `near`.
    fn look(
        &mut self,
        question: &Question<'_>,
        choices: &Choices,
        room: usize,
        load: impl Fn(usize) -> u64,
    ) -> (Leaders<LoadPerWeight, ENDPOINTS_MAX>, usize) {
        let (turns, near) = (self.turns.weights(), self.near.as_mut_slice());
        let rank = |server: usize| {
            let (load, weight) = (load(server), turns(server));
            LoadPerWeight { load, weight }
        };
        let mut leaders = Leaders::new();
        let mut bar: Option<LoadPerWeight> = None;
        let mut count = 0;
        // Those before this place came when the bar was higher.
        let mut settled = 0;
        let mut take = |server: u16, count: usize| {
            near.get_mut(count).map_or(count, |place| {
                *place = server;
                count + 1
            })
        };
        for server in question.left(choices) {
            let known = rank(server);
            if known.weight == 0 {
                break;
            }
            let index = u16::try_from(server).unwrap_or(u16::MAX);
            if let Some(bar) = bar {
                // Nobody is less busy than who is idle, whatever the weights: no products then.
                if bar.load == 0 {
                    if known.load == 0 {
                        count = take(index, count);
                    }
                    continue;
                }
                match known.cmp(&bar) {
                    Ordering::Less => {}
                    Ordering::Equal => {
                        count = take(index, count);
                        continue;
                    }
                    Ordering::Greater => continue,
                }
            }
            count = take(index, count);
            leaders.offer(known, server, room);
            bar = leaders.bar();
            settled = count;
        }
        let Some(bar) = bar else {
            return (leaders, count);
        };
        let mut kept = 0;
        for place in 0..count {
            let Some(server) = near.get(place).copied() else {
                break;
            };
            if place >= settled && kept == place {
                return (leaders, count);
            }
            if place >= settled || rank(usize::from(server)) <= bar {
                if let Some(place) = near.get_mut(kept) {
                    *place = server;
                }
                kept += 1;
            }
        }
        (leaders, kept)
    }

    /// One of `left` was used after others had failed: nginx would have picked it then, and moved the positions of those that were
    /// equal. Who was is not known any more, but who is now.
    fn used(
        &mut self,
        server: usize,
        left: impl Iterator<Item = usize>,
        load: impl Fn(usize) -> u64,
    ) {
        let mut least: Option<LoadPerWeight> = None;
        let (mut count, mut is_equal) = (0, false);
        for candidate in left {
            let weight = self.turns.weight(candidate);
            if weight == 0 {
                break;
            }
            let load = load(candidate);
            let rank = LoadPerWeight { load, weight };
            match least.map_or(Ordering::Less, |least| rank.cmp(&least)) {
                Ordering::Less => (least, count, is_equal) = (Some(rank), 0, false),
                Ordering::Equal => {}
                Ordering::Greater => continue,
            }
            if let Some(place) = self.near.get_mut(count) {
                *place = u16::try_from(candidate).unwrap_or(u16::MAX);
                count += 1;
            }
            is_equal |= candidate == server;
        }
        if is_equal && count > 1 {
            let equals = self.near.iter().take(count).copied().map(usize::from);
            self.turns.used_among(server, equals);
        }
    }

    pub(super) fn failed(&mut self, charge: &Charge<'_>) {
        self.turns.charge(charge);
    }
}

/// A single one moves nobody's position.
fn advance(question: &Question<'_>, equals: usize) -> Advance {
    if equals > 1 {
        question.advance
    } else {
        Advance::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::{Group, letters};
    use crate::balance::Algorithm;

    #[track_caller]
    fn check(weights: &[u16], in_flight: &[u32], expected: &str) {
        let mut group = Group::new(Algorithm::LeastConn, weights);
        group.in_flight = in_flight.to_vec();
        assert_eq!(
            letters(&group.choose(3)),
            expected,
            "weights {weights:?}, in flight {in_flight:?}"
        );
    }

    #[test]
    fn the_least_busy_for_its_weight_comes_first() {
        check(&[1, 1, 1], &[2, 1, 3], "BAC");
        check(&[5, 1], &[4, 1], "AB");
        check(&[5, 1], &[6, 1], "BA");
        check(&[1, 1, 1], &[0, 0, 0], "ABC");
        check(&[2, 3, 1], &[2, 3, 1], "BAC");
    }

    #[test]
    fn idle_servers_go_round_by_weight() {
        let mut group = Group::new(Algorithm::LeastConn, &[5, 1, 1]);
        assert_eq!(letters(&group.picks(7)), "AABACAA");
    }

    /// nginx after A failed: B and C are equal still, so that both move; and neither does where one is less busy.
    #[test]
    fn a_stand_by_that_was_used_moves_those_who_were_equal() {
        let mut group = Group::new(Algorithm::LeastConn, &[1, 1, 1]);
        let choices = group.choose(3);
        assert_eq!(letters(&choices), "ABC");
        group.charge_used(&choices, 1);
        // After A: -2 1 1. B with A left out: -2 0 2. Then as in turns.
        assert_eq!(letters(&group.picks(4)), "CBCA");
        group.in_flight = vec![1, 0, 1];
        group.charge_used(&[0, 1], 1);
        group.in_flight = vec![0; 3];
        assert_eq!(letters(&group.picks(3)), "BCA");
    }

    #[test]
    fn a_single_least_busy_server_moves_nobodys_position() {
        let mut group = Group::new(Algorithm::LeastConn, &[1, 1]);
        group.in_flight = vec![1, 0];
        assert_eq!(letters(&group.picks(3)), "BBB");
        group.in_flight = vec![0, 0];
        assert_eq!(letters(&group.picks(2)), "AB");
    }
}
