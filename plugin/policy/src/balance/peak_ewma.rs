//! Two servers drawn by weight, and the one taken that costs less: time to answer × requests in flight (Finagle's peak EWMA).
//!
//! The time is an average that a slow answer raises at once and faster ones lower slowly, so that a server that begins to stall
//! is avoided after one answer; it fades with time, so that a server that nobody asks is asked again. Two draws, instead of the
//! cheapest of all, because many balancers with the same figures would all run to the same server.
//!
//! Of a server nobody knows anything yet costs nothing while it is idle, and more than every known one while its first answer is
//! outstanding: it gets one request to show what it can, not all of them.

use super::random_two::TwoDraws;
use super::{Balancer, Charge, Choices, LatencyRule, Question, ServerMask, Share};

/// What a server costs whose first answer is outstanding, over its requests in flight. More than an hour with 200 requests.
const UNKNOWN_COSTS: u64 = 1 << 40;
/// Costs are not told apart beyond this.
const COST_MAX: u64 = (1 << 48) - 1;

/// What two draws need.
#[derive(Debug, Default)]
pub(super) struct PeakEwma {
    draws: TwoDraws,
}

impl Balancer for PeakEwma {
    fn rebuild(&mut self, servers: &[Share<'_>], eligible: &ServerMask, start: u32) {
        self.draws.rebuild(servers, eligible, start);
    }

    fn reweigh(&mut self, servers: &[Share<'_>], _eligible: &ServerMask) {
        self.draws.reweigh(servers);
    }

    fn pick(&mut self, question: &mut Question<'_>, choices: &mut Choices) {
        self.draws.fill(question, choices, cost);
    }

    fn charge(&mut self, charge: &Charge<'_>) {
        self.draws.charge(charge);
    }
}

fn cost(question: &Question<'_>, server: usize) -> u64 {
    let active = u64::from(question.active(server));
    let latency = question.latency.get(server).copied().unwrap_or_default();
    if latency.average_us == 0 {
        return if active == 0 {
            0
        } else {
            UNKNOWN_COSTS + active
        };
    }
    let average_us = u64::from(LatencyRule::Peak.at(latency, question.now_us));
    (average_us.max(1) * (active + 1)).min(COST_MAX)
}

#[cfg(test)]
mod tests {
    use super::super::laws::{Group, letters};
    use crate::balance::{Algorithm, Latency};

    /// Who is taken when both are drawn, as one of two always is.
    #[track_caller]
    fn check(average_us: [u32; 2], in_flight: [u32; 2], expected: &str) {
        let mut group = Group::new(Algorithm::PeakEwma, &[1, 1]);
        let latency = |average_us| Latency {
            average_us,
            sampled_us: group.now_us,
        };
        group.latency = average_us.map(latency).to_vec();
        group.in_flight = in_flight.to_vec();
        assert_eq!(
            letters(&group.picks(20)),
            expected.repeat(20),
            "{average_us:?} µs, in flight {in_flight:?}"
        );
    }

    #[test]
    fn time_times_requests_is_what_a_server_costs() {
        check([900, 1_000], [0, 0], "A");
        check([900, 1_000], [1, 0], "B");
        check([5_000, 1_000], [0, 3], "B");
        check([5_000, 1_000], [0, 5], "A");
    }

    #[test]
    fn an_unknown_server_is_asked_once() {
        check([0, 1], [0, 0], "A");
        check([0, 60_000_000], [1, 9], "B");
    }

    #[test]
    fn a_figure_fades() {
        let mut group = Group::new(Algorithm::PeakEwma, &[1, 1]);
        let old = group.now_us;
        group.now_us += 60_000_000;
        let latency = |average_us, sampled_us| Latency {
            average_us,
            sampled_us,
        };
        group.latency = vec![latency(1_000_000, old), latency(5_000, group.now_us)];
        // A second, six times ten seconds later: 2.5 ms.
        assert_eq!(letters(&group.picks(20)), "A".repeat(20));
    }
}
