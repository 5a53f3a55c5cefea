//! The server that is expected to be done first, as nginx `least_time header` since 1.31 (`ngx_http_upstream_least_time_module.c`).
//!
//! The average time to the response header, in clusters of 20 ms so that servers that are about as fast take turns, times the
//! requests that are in flight there and this one; compared for weights, equals in turns. Above five seconds all are equally bad
//! and only the number of requests counts.
//!
//! A server that was slow gets no requests and so would stay slow for ever: a figure halves with every ten seconds since the
//! server was last taken out of such a pause.

use super::least_conn::LeastLoad;
use super::{Advance, Balancer, Charge, Choices, Question, ServerMask, Share};

/// Servers whose times lie in the same cluster are equally fast, milliseconds.
const CLUSTER_MS: u32 = 20;
/// Slower is not told apart, milliseconds.
const SLOWEST_MS: u32 = 5_000;
/// The pause after which a figure loses weight, seconds: nginx's default `fail_timeout`.
const PAUSE_S: u32 = 10;
/// A figure that was halved so often is nothing.
const HALVINGS_MAX: u32 = 31;

/// Turns for ties, and when each server was last looked at anew.
#[derive(Debug, Default)]
pub(super) struct LeastTime {
    least: LeastLoad,
    /// Seconds on the question's clock.
    checked_s: Vec<u64>,
}

impl Balancer for LeastTime {
    fn rebuild(&mut self, servers: &[Share<'_>], eligible: &ServerMask, start: u32) {
        self.least.rebuild(servers, eligible, start);
        self.checked_s = vec![0; servers.len().min(ServerMask::SERVERS_MAX)];
    }

    fn reweigh(&mut self, servers: &[Share<'_>], _eligible: &ServerMask) {
        self.least.reweigh(servers);
    }

    fn pick(&mut self, question: &mut Question<'_>, choices: &mut Choices) {
        let picks = question.advance == Advance::First && choices.is_empty();
        let now_s = question.now_us / 1_000_000;
        // Not through the question: what it points at would be looked up again for each server.
        let (checked_s, latency) = (self.checked_s.as_slice(), question.latency);
        let in_flight = question.in_flight;
        self.least.fill(question, choices, |server| {
            let average_us = latency.get(server).map_or(0, |known| known.average_us);
            let checked_s = checked_s.get(server).copied().unwrap_or(0);
            let average_ms = faded(average_us / 1_000, now_s.saturating_sub(checked_s));
            let active = in_flight.get(server).copied().unwrap_or(0);
            // Below 2⁴⁵.
            u64::from(clustered(average_ms)) * (u64::from(active) + 1)
        });
        if picks
            && let Some(checked_s) = choices
                .get(0)
                .and_then(|picked| self.checked_s.get_mut(picked))
            && now_s.saturating_sub(*checked_s) > u64::from(PAUSE_S)
        {
            *checked_s = now_s;
        }
    }

    fn charge(&mut self, charge: &Charge<'_>) {
        // Who was as fast then is not known any more: only failures count.
        if let Charge::Failed { .. } = charge {
            self.least.failed(charge);
        }
    }
}

/// An average after a pause. (In 32 bits, as everything here that is divided: wasm has no product of 64 bits and 64 bits, and so a true
/// division where 64 bits are divided by a constant.)
fn faded(average_ms: u32, pause_s: u64) -> u32 {
    let pause_s = u32::try_from(pause_s).unwrap_or(u32::MAX);
    if average_ms > 0 && pause_s > PAUSE_S {
        average_ms >> (pause_s / (PAUSE_S + 1)).min(HALVINGS_MAX)
    } else {
        average_ms
    }
}

/// The end of the cluster that a time lies in.
fn clustered(time_ms: u32) -> u32 {
    if time_ms > SLOWEST_MS {
        SLOWEST_MS
    } else {
        time_ms + CLUSTER_MS - time_ms % CLUSTER_MS
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::{Group, letters};
    use super::*;
    use crate::balance::{Algorithm, Latency};

    fn group(weights: &[u16], average_ms: &[u32]) -> Group {
        let mut group = Group::new(Algorithm::LeastTime, weights);
        // Everybody is taken once, so that no pause is running.
        for server in 0..weights.len() {
            group.only(1 << server);
            group.choose(1);
        }
        group.eligible = ServerMask::first(weights.len());
        let latency = |ms: &u32| Latency {
            average_us: ms * 1_000,
            sampled_us: group.now_us,
        };
        group.latency = average_ms.iter().map(latency).collect();
        group
    }

    #[test]
    fn times_are_clustered_and_capped() {
        let rows = [
            (0, 20),
            (19, 20),
            (20, 40),
            (39, 40),
            (4_999, 5_000),
            (5_000, 5_020),
            (5_001, 5_000),
            (60_000, 5_000),
        ];
        for (time_ms, expected) in rows {
            assert_eq!(clustered(time_ms), expected, "{time_ms} ms");
        }
    }

    #[test]
    fn a_figure_halves_with_every_pause() {
        let rows = [
            (0, 800),
            (10, 800),
            (11, 400),
            (21, 400),
            (22, 200),
            (110, 0),
            (u64::MAX, 0),
        ];
        for (pause_s, expected) in rows {
            assert_eq!(faded(800, pause_s), expected, "{pause_s} s");
        }
    }

    #[test]
    fn the_least_time_for_the_weight_wins_and_equals_take_turns() {
        let mut fast_second = group(&[1, 1, 1], &[95, 5, 12]);
        assert_eq!(
            letters(&fast_second.picks(4)),
            "BCBC",
            "5 and 12 ms are one cluster"
        );
        assert_eq!(letters(&fast_second.choose(3)), "BCA");
        fast_second.in_flight = vec![0, 5, 5];
        // 100 × 1 against 20 × 6; of the equals it is C's turn.
        assert_eq!(letters(&fast_second.choose(3)), "ACB");
        let mut heavy_first = group(&[6, 1, 1], &[95, 5, 12]);
        // 100 / 6 against 20.
        assert_eq!(letters(&heavy_first.choose(1)), "A");
    }

    #[test]
    fn a_slow_server_gets_another_chance_after_a_pause() {
        let mut group = group(&[1, 1], &[900, 5]);
        assert_eq!(letters(&group.picks(3)), "BBB");
        group.now_us += 60_000_000;
        // 900 ms halved five times is 28, and 40 is still more than 20.
        assert_eq!(letters(&group.picks(3)), "BBB");
        group.now_us += 10_000_000;
        group.in_flight = vec![0, 1];
        assert_eq!(letters(&group.choose(1)), "A");
        assert_eq!(
            letters(&group.choose(1)),
            "B",
            "taken out of its pause, it counts in full"
        );
    }
}
