//! The server with the fewest connections, whatever its weight, exactly as IPVS `lc` (`net/netfilter/ipvs/ip_vs_lc.c`).
//!
//! An idle connection counts for a 256th of one in use. Weights are not looked at, and of equals the first in the
//! configuration always wins: with nobody busy it is the first server that answers, every time.

use super::leaders::fill_lowest;
use super::weights::Weights;
use super::{Balancer, Charge, Choices, Question, ServerMask, Share};

/// Keeps nothing but who is of the group.
#[derive(Debug, Default)]
pub(super) struct IpvsLeastConn {
    weights: Weights,
}

impl Balancer for IpvsLeastConn {
    fn rebuild(&mut self, servers: &[Share<'_>], _eligible: &ServerMask, _start: u32) {
        self.weights.rebuild(servers);
    }

    fn pick(&mut self, question: &mut Question<'_>, choices: &mut Choices) {
        fill_lowest(question, choices, |server| {
            self.weights.get(server)?;
            Some(overhead(question, server))
        });
    }

    fn charge(&mut self, _charge: &Charge<'_>) {}
}

/// What IPVS takes for a server's load: 256 for a connection in use, 1 for an idle one (`ip_vs_dest_conn_overhead`). Below 2⁴¹.
pub(super) fn overhead(question: &Question<'_>, server: usize) -> u64 {
    let idle = question.idle.get(server).copied().unwrap_or(0);
    (u64::from(question.active(server)) << 8) + u64::from(idle)
}

#[cfg(test)]
mod tests {
    use super::super::laws::{Group, letters};
    use crate::balance::Algorithm;

    #[track_caller]
    fn check(in_flight: &[u32], idle: &[u32], expected: &str) {
        let mut group = Group::new(Algorithm::IpvsLeastConn, &[9, 1, 1]);
        group.in_flight = in_flight.to_vec();
        group.idle = idle.to_vec();
        assert_eq!(
            letters(&group.choose(3)),
            expected,
            "in flight {in_flight:?}, idle {idle:?}"
        );
    }

    #[test]
    fn the_fewest_connections_win_and_the_first_of_equals() {
        check(&[0, 0, 0], &[], "ABC");
        check(&[2, 1, 1], &[], "BCA");
        check(&[1, 1, 1], &[3, 2, 2], "BCA");
        check(&[1, 0, 1], &[2, 257, 1], "BCA");
        check(&[1, 0, 1], &[0, 256, 1], "ABC");
    }
}
