//! nginx's `limit_req`, exactly (`ngx_http_limit_req_lookup`, `ngx_http_limit_req_account`): a leaky bucket that counts in thousandths of a request.
//!
//! ```text
//!   excess = max(0, excess − rate · ms / 1000 + 1000)        ms since the request before that passed; the first one has 0
//!   excess > burst: refused, and nothing changes             excess > delay: waits (excess − delay) · 1000 / rate ms
//! ```
//!
//! A clock that went back counts as standing still, up to a minute; beyond that, as one millisecond.

/// How much, in thousandths of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// A second; at least 1.
    pub per_second: u32,
    pub burst: u32,
    /// Up to which excess nobody waits; `u32::MAX`: nobody ever does (nginx's `nodelay`).
    pub delay: u32,
}

/// A key's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    pub(super) last_ms: u64,
    pub(super) excess: u32,
}

/// What a request gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Passes,
    Delayed {
        ms: u64,
    },
    /// `after_ms` later it would not be. `status` is the limit's.
    Refused {
        after_ms: u64,
        status: u16,
    },
}

/// A thousandth of a request is 1.
const REQUEST: i64 = 1_000;

impl Rate {
    /// The excess of a request that comes now.
    pub(super) fn excess(self, state: State, now_ms: u64) -> (u32, Elapsed) {
        let ms = i64::try_from(now_ms)
            .unwrap_or(i64::MAX)
            .saturating_sub(i64::try_from(state.last_ms).unwrap_or(i64::MAX));
        let ms = match ms {
            ..-60_000 => 1,
            -60_000..0 => 0,
            _ => ms,
        };
        let leaked = i64::from(self.per_second).saturating_mul(ms) / 1_000;
        let excess = i64::from(state.excess).saturating_sub(leaked) + REQUEST;
        let elapsed = if ms > 0 {
            Elapsed::Some
        } else {
            Elapsed::Nothing
        };
        (u32::try_from(excess.max(0)).unwrap_or(u32::MAX), elapsed)
    }

    pub(super) fn verdict(self, excess: u32) -> Verdict {
        let rate = u64::from(self.per_second.max(1));
        if excess > self.burst {
            let over = u64::from(excess - self.burst);
            return Verdict::Refused {
                after_ms: (over * 1_000).div_ceil(rate),
                status: 0,
            };
        }
        if excess <= self.delay {
            return Verdict::Passes;
        }
        match u64::from(excess - self.delay) * 1_000 / rate {
            0 => Verdict::Passes,
            ms => Verdict::Delayed { ms },
        }
    }
}

/// Whether time has passed since the request before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Elapsed {
    Some,
    Nothing,
}
