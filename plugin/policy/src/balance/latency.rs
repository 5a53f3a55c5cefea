//! How long a server takes to the first byte of its answers, averaged by the rule of the method that asks.
//!
//! All in integers, so that every machine has the same average.

/// What is known of a server's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Latency {
    /// The average, microseconds; 0: nothing is known yet.
    pub average_us: u32,
    /// When the last answer was seen, microseconds on the caller's clock.
    pub sampled_us: u64,
}

/// How answers become an average, and the averages of several VMs one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LatencyRule {
    /// Each answer counts for a twentieth, in whole milliseconds (nginx's `ngx_http_upstream_response_time_avg`).
    Average,
    /// An answer slower than the average replaces it; others lower it the more, the longer ago the last one was; the average
    /// fades without answers. The time constant is ten seconds (Finagle's).
    Peak,
}

/// An average so much older than another VM's says nothing beside it, microseconds.
const MERGED_AGE_US: u64 = 10_000_000;
/// The time in which a peak halves, microseconds: ten seconds × ln 2.
const HALF_LIFE_US: u64 = 6_931_472;
/// 2^(-1/64), in units of 2⁻³².
const STEP_Q32: u64 = 4_248_701_965;
/// 2^(-n/64) for n up to 64, in units of 2⁻³².
const FADING_Q32: [u64; 65] = fading();

const fn fading() -> [u64; 65] {
    let mut table = [1 << 32; 65];
    let mut rest: &mut [u64] = &mut table;
    let mut value: u64 = 1 << 32;
    // Ends: each round takes one place.
    while let [first, others @ ..] = rest {
        *first = value;
        // At most 2³² × less than 2³².
        value = (value * STEP_Q32) >> 32;
        rest = others;
    }
    table
}

impl LatencyRule {
    /// The average after one more answer.
    #[must_use]
    pub fn sampled(self, known: Latency, first_byte_us: u64, now_us: u64) -> Latency {
        let sample_us = u32::try_from(first_byte_us).unwrap_or(u32::MAX);
        let average_us = match self {
            Self::Average => {
                let (known_ms, sample_ms) = (known.average_us / 1_000, sample_us / 1_000);
                let average_ms = if known_ms == 0 {
                    sample_ms
                } else {
                    // 0.5 + 0.05 × sample + 0.95 × known, rounded down.
                    let twentieths = 10 + u64::from(sample_ms) + 19 * u64::from(known_ms);
                    u32::try_from(twentieths / 20).unwrap_or(u32::MAX)
                };
                average_ms.saturating_mul(1_000)
            }
            Self::Peak => {
                let faded_us = self.at(known, now_us);
                if sample_us >= faded_us {
                    sample_us.max(1)
                } else {
                    // What faded of the old average is made up for by the new answer.
                    let elapsed_us = now_us.saturating_sub(known.sampled_us);
                    let gone = u64::from(u32::MAX).saturating_sub(fading_q32(elapsed_us));
                    let made_up = (u64::from(sample_us) * gone) >> 32;
                    u32::try_from(u64::from(faded_us) + made_up)
                        .unwrap_or(u32::MAX)
                        .max(1)
                }
            }
        };
        Latency {
            average_us,
            sampled_us: now_us,
        }
    }

    /// The average as it is worth at a time.
    pub fn at(self, known: Latency, now_us: u64) -> u32 {
        match self {
            Self::Average => known.average_us,
            Self::Peak => {
                let elapsed_us = now_us.saturating_sub(known.sampled_us);
                let faded_us = (u64::from(known.average_us) * fading_q32(elapsed_us)) >> 32;
                u32::try_from(faded_us).unwrap_or(u32::MAX)
            }
        }
    }
}

/// The averages that several VMs have of one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MergedLatency {
    latency: Latency,
    /// VMs whose averages are in it.
    parts: u32,
}

impl MergedLatency {
    /// With one more VM's: the mean of those that are of about the same time, or the greatest peak.
    #[must_use]
    pub fn with(self, rule: LatencyRule, part: Latency) -> Self {
        let known = self.latency;
        let alone = Self {
            latency: part,
            parts: 1,
        };
        if part.average_us == 0 {
            return self;
        }
        if self.parts == 0 {
            return alone;
        }
        let sampled_us = known.sampled_us.max(part.sampled_us);
        let is_old = |one: Latency| sampled_us - one.sampled_us > MERGED_AGE_US;
        match rule {
            LatencyRule::Average if is_old(part) => self,
            LatencyRule::Average if is_old(known) => alone,
            LatencyRule::Average => {
                let parts = u64::from(self.parts);
                let sum = u64::from(known.average_us) * parts + u64::from(part.average_us);
                let average_us = u32::try_from(sum / (parts + 1)).unwrap_or(u32::MAX);
                Self {
                    latency: Latency {
                        average_us,
                        sampled_us,
                    },
                    parts: self.parts + 1,
                }
            }
            LatencyRule::Peak => {
                let average_us = rule.at(known, sampled_us).max(rule.at(part, sampled_us));
                Self {
                    latency: Latency {
                        average_us: average_us.max(1),
                        sampled_us,
                    },
                    parts: self.parts + 1,
                }
            }
        }
    }

    /// The average of all.
    pub fn latency(self) -> Latency {
        self.latency
    }
}

/// What is left of 1 after a time, in units of 2⁻³².
fn fading_q32(elapsed_us: u64) -> u64 {
    let halvings = elapsed_us / HALF_LIFE_US;
    if halvings >= 32 {
        return 0;
    }
    // In 64ths of a half-life, and what is left over of one, drawn as a straight line.
    let fine = (elapsed_us % HALF_LIFE_US) * 64;
    let place = usize::try_from(fine / HALF_LIFE_US).unwrap_or(0);
    let (Some(from), Some(to)) = (FADING_Q32.get(place), FADING_Q32.get(place + 1)) else {
        return 0;
    };
    let drop = (from - to) * (fine % HALF_LIFE_US) / HALF_LIFE_US;
    (from - drop) >> halvings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(average_us: u32) -> Latency {
        Latency {
            average_us,
            sampled_us: 0,
        }
    }

    #[test]
    fn an_average_moves_by_a_twentieth_in_whole_milliseconds() {
        let rows = [
            (0, 7_900, 7_000),
            (100_000, 200_000, 105_000),
            (100_000, 0, 95_000),
            // 0.5 + 0.75 + 9.5 = 10.75
            (10_000, 15_000, 10_000),
            // 0.5 + 1 + 9.5 = 11
            (10_000, 20_000, 11_000),
        ];
        for (average_us, sample_us, expected) in rows {
            let after = LatencyRule::Average.sampled(known(average_us), sample_us, 5);
            assert_eq!(
                (after.average_us, after.sampled_us),
                (expected, 5),
                "{average_us} and {sample_us} µs"
            );
        }
    }

    #[test]
    fn a_peak_fades_as_the_exponential_does() {
        for elapsed_ms in (0_u32..200_000).step_by(777) {
            let expected = 3e9 * (-f64::from(elapsed_ms) / 10_000.0).exp();
            let faded = LatencyRule::Peak.at(known(3_000_000_000), u64::from(elapsed_ms) * 1_000);
            let difference = (f64::from(faded) - expected).abs();
            assert!(
                difference <= expected / 10_000.0 + 2.0,
                "{elapsed_ms} ms: {faded}, expected {expected}"
            );
        }
        assert_eq!(LatencyRule::Peak.at(known(u32::MAX), u64::MAX), 0);
    }

    #[test]
    fn a_slow_answer_counts_at_once_and_fast_ones_slowly() {
        let peak = LatencyRule::Peak;
        assert_eq!(peak.sampled(known(5_000), 80_000, 0).average_us, 80_000);
        // Nothing faded yet: a fast answer in the same instant changes nothing.
        assert_eq!(peak.sampled(known(80_000), 5_000, 0).average_us, 80_000);
        // After one time constant: 80/e + 5 × (1 - 1/e).
        let after = peak.sampled(known(80_000), 5_000, 10_000_000).average_us;
        assert!((32_580..=32_600).contains(&after), "{after}");
        // A clock that went back fades nothing.
        let later = Latency {
            average_us: 70,
            sampled_us: 1_000,
        };
        assert_eq!(peak.at(later, 1), 70);
    }

    #[test]
    fn averages_of_vms_are_merged_to_their_mean_or_their_peak() {
        let at = |average_us, sampled_us| Latency {
            average_us,
            sampled_us,
        };
        let merged = |rule, parts: &[Latency]| {
            let add = |merged: MergedLatency, part: &Latency| merged.with(rule, *part);
            let merged = parts.iter().fold(MergedLatency::default(), add);
            (merged.latency().average_us, merged.latency().sampled_us)
        };
        let now = 60_000_000;
        let (average, peak) = (LatencyRule::Average, LatencyRule::Peak);
        assert_eq!(merged(average, &[]), (0, 0));
        let three = [
            at(10_000, now),
            at(0, 0),
            at(40_000, now - 9),
            at(40_000, now),
        ];
        assert_eq!(merged(average, &three), (30_000, now));
        // Of a minute ago: it says nothing, in whatever order they come.
        let (old, new) = (at(900_000, 0), at(10_000, now));
        assert_eq!(merged(average, &[old, new]), (10_000, now));
        assert_eq!(merged(average, &[new, old]), (10_000, now));
        assert_eq!(merged(peak, &three), (40_000, now));
        // 900 ms, six time constants later: 2.2 ms.
        assert_eq!(merged(peak, &[old, new]), (10_000, now));
        assert_eq!(merged(peak, &[at(10_000, 0), old]), (900_000, 0));
    }
}
