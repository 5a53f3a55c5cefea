//! The server with the fewest requests in flight for its weight, exactly as nginx (`ngx_http_upstream_get_least_conn_peer`).
//!
//! Loads are compared by cross-multiplication, without division. Among equals (all idle servers, most of the time) it goes by
//! smooth weighted round robin of the equals alone, so that weights hold also when nobody is busy.

use super::round_robin::Turns;
use super::{Advance, Balancer, Charge, Choices, Question, ServerMask, Share};

/// Ties are broken in turns.
#[derive(Debug, Default)]
pub(super) struct LeastConn {
    turns: Turns,
}

impl Balancer for LeastConn {
    fn rebuild(&mut self, servers: &[Share], eligible: &ServerMask, start: u32) {
        self.turns.rebuild(servers, eligible, start);
    }

    fn pick(&mut self, question: &mut Question<'_>, choices: &mut Choices) {
        let mut left = question.eligible;
        choices.iter().for_each(|server| left.remove(server));
        if question.advance == Advance::First && choices.is_empty() {
            let least = self.least(&left, question.in_flight);
            let Some(picked) = (if least.count() == 1 {
                only(&least)
            } else {
                self.turns.next(&least)
            }) else {
                return;
            };
            choices.push(picked);
            left.remove(picked);
        }
        // Each round takes at least one server out of `left`.
        while !choices.is_full() && !left.is_empty() {
            let least = self.least(&left, question.in_flight);
            let before = choices.len();
            self.turns.look_ahead(least, choices);
            choices
                .iter()
                .skip(before)
                .for_each(|server| left.remove(server));
        }
    }

    fn charge(&mut self, charge: &Charge) {
        // nginx moves positions only among equals, and who was equal then is not known any more: only failures count.
        if let Charge::Failed { .. } = charge {
            self.turns.charge(charge);
        }
    }
}

impl LeastConn {
    /// Those with the least load for their weight: empty only if `left` is.
    fn least(&self, left: &ServerMask, in_flight: &[u32]) -> ServerMask {
        let mut least = ServerMask::default();
        let mut best: Option<(i64, i64)> = None;
        for server in
            (0..ServerMask::SERVERS_MAX).take_while(|server| self.turns.weight(*server) > 0)
        {
            if !left.contains(server) {
                continue;
            }
            let busy = in_flight.get(server).map_or(0, |count| i64::from(*count));
            let weight = self.turns.weight(server);
            let ordering = best.map_or(std::cmp::Ordering::Less, |(best_busy, best_weight)| {
                (busy * best_weight).cmp(&(best_busy * weight))
            });
            match ordering {
                std::cmp::Ordering::Less => {
                    least = ServerMask::default();
                    least.insert(server);
                    best = Some((busy, weight));
                }
                std::cmp::Ordering::Equal => least.insert(server),
                std::cmp::Ordering::Greater => {}
            }
        }
        least
    }
}

/// The one server of a mask of one.
fn only(mask: &ServerMask) -> Option<usize> {
    (0..ServerMask::SERVERS_MAX).find(|server| mask.contains(*server))
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

    #[test]
    fn a_single_least_busy_server_moves_nobodys_position() {
        let mut group = Group::new(Algorithm::LeastConn, &[1, 1]);
        group.in_flight = vec![1, 0];
        assert_eq!(letters(&group.picks(3)), "BBB");
        group.in_flight = vec![0, 0];
        assert_eq!(letters(&group.picks(2)), "AB");
    }
}
