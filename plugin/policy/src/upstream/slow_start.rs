//! A server that comes back begins with a little of its weight and has all of it after a while (nginx's `slow_start`, linear).
//!
//! Caches are cold and processes few after a restart. Only a server that was down and comes up starts slowly: at the start of the
//! proxy, after a reload, or when an operator makes it ready, it has all of its weight at once, or else a restart of the proxy
//! would be a slow start of the whole pool.
//!
//! Methods know whole weights, and of a weight of 1 there is no half. So while anybody starts slowly, the weights of the whole
//! group are told in hundredths, as far as that fits.

/// How finely weights are told while somebody starts slowly.
const PARTS: u16 = 100;

/// The slow start of one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SlowStart {
    /// How long it takes, milliseconds; 0: it does not.
    window_ms: u64,
    /// When it began; `None`: the server has all of its weight.
    risen_ms: Option<u64>,
}

impl SlowStart {
    /// A server with all of its weight, which will take this long when it comes back.
    pub fn new(window_ms: u64) -> Self {
        Self {
            window_ms,
            risen_ms: None,
        }
    }

    /// The server was down and is up.
    pub fn rose(&mut self, now_ms: u64) {
        self.risen_ms = (self.window_ms > 0).then_some(now_ms);
    }

    /// The server is down: whatever had begun is over.
    pub fn fell(&mut self) {
        self.risen_ms = None;
    }

    /// Whether it is starting; the end of it is noticed here. A clock that goes back ends it.
    pub fn goes_on(&mut self, now_ms: u64) -> bool {
        let elapsed_ms = self
            .risen_ms
            .and_then(|risen_ms| now_ms.checked_sub(risen_ms));
        if elapsed_ms.is_none_or(|elapsed_ms| elapsed_ms >= self.window_ms) {
            self.risen_ms = None;
        }
        self.risen_ms.is_some()
    }

    /// What of `weight` counts at a time, at least 1.
    fn part_of(&self, weight: u16, now_ms: u64) -> u16 {
        let Some(risen_ms) = self.risen_ms else {
            return weight;
        };
        let elapsed_ms = now_ms.saturating_sub(risen_ms).min(self.window_ms);
        let part = u128::from(weight) * u128::from(elapsed_ms);
        let part = part.checked_div(u128::from(self.window_ms));
        part.and_then(|part| u16::try_from(part).ok())
            .unwrap_or(weight)
            .max(1)
    }
}

/// The weights of a group as they count at a time, into `out` (cleared before): as configured if nobody is starting, otherwise all
/// of them in finer parts.
pub fn effective_weights(
    servers: &mut [SlowStart],
    weights: &[u16],
    now_ms: u64,
    out: &mut Vec<u16>,
) {
    out.clear();
    // Everybody is asked: whose start is over has to notice it.
    let starting = servers
        .iter_mut()
        .filter_map(|server| server.goes_on(now_ms).then_some(()));
    if starting.count() == 0 {
        out.extend_from_slice(weights);
        return;
    }
    let heaviest = weights.iter().copied().max().unwrap_or(1).max(1);
    let parts = (u16::MAX / heaviest).clamp(1, PARTS);
    let weights = weights.iter().zip(servers);
    out.extend(
        weights.map(|(weight, server)| server.part_of(weight.saturating_mul(parts), now_ms)),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(servers: &mut [SlowStart], weights: &[u16], now_ms: u64, expected: &[u16]) {
        let mut out = vec![9; 3];
        effective_weights(servers, weights, now_ms, &mut out);
        assert_eq!(out, expected, "at {now_ms} ms");
    }

    #[test]
    fn a_weight_grows_from_little_to_all_in_a_line() {
        let mut servers = [SlowStart::new(10_000), SlowStart::new(10_000)];
        check(&mut servers, &[1, 3], 0, &[1, 3]);
        servers[0].rose(5_000);
        for (now_ms, expected) in [
            (5_000, [1, 300]),
            (5_100, [1, 300]),
            (7_500, [25, 300]),
            (10_000, [50, 300]),
            (14_999, [99, 300]),
            (15_000, [1, 3]),
            (15_001, [1, 3]),
        ] {
            check(&mut servers, &[1, 3], now_ms, &expected);
        }
        servers[1].rose(20_000);
        check(&mut servers, &[1, 3], 25_000, &[100, 150]);
        servers[1].fell();
        check(&mut servers, &[1, 3], 25_000, &[1, 3]);
    }

    #[test]
    fn only_who_comes_back_starts_slowly_and_only_if_asked() {
        let mut servers = [SlowStart::default(), SlowStart::new(1_000)];
        check(&mut servers, &[2, 2], 7, &[2, 2]);
        servers[0].rose(7);
        check(&mut servers, &[2, 2], 7, &[2, 2]);
    }

    #[test]
    fn heavy_weights_are_told_as_finely_as_they_fit() {
        let mut servers = [SlowStart::new(1_000), SlowStart::new(1_000)];
        servers[1].rose(0);
        check(&mut servers, &[65_535, 65_535], 500, &[65_535, 32_767]);
        check(&mut servers, &[1_000, 65], 500, &[65_000, 2_112]);
        servers[1].rose(u64::MAX);
        check(&mut servers, &[1, 1], 0, &[1, 1]);
    }
}
