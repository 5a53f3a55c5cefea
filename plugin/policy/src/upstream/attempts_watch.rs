//! When to ask the host how many servers a request needed.
//!
//! Asking costs a call and an allocation, and nearly always the answer is one. So the first few answers after each tick are asked
//! about, so are those that took long, and as long as failures are seen every one is: then stand-by servers that were used are charged, and the load of a server
//! that is gone is shared by all others instead of falling on the one that happens to stand by for it.

/// Ticks for which every answer is asked about after a failure was seen (two seconds).
const WATCHFUL_TICKS: u8 = 8;
/// Answers that are asked about in each tick: enough to see every one of a pool with little to do.
const ASKED_EACH_TICK: u8 = 16;
/// An answer that took more ticks than this is asked about (a quarter of a second to half of one): it may be no answer at all.
const SLOW_TICKS: u32 = 1;

/// Whether to ask.
#[derive(Debug, Default)]
pub(super) struct AttemptsWatch {
    ticks: u32,
    watchful_ticks: u8,
    asked_since_tick: u8,
}

impl AttemptsWatch {
    pub(super) fn tick(&mut self) {
        self.ticks = self.ticks.wrapping_add(1);
        self.watchful_ticks = self.watchful_ticks.saturating_sub(1);
        self.asked_since_tick = 0;
    }

    /// Ticks so far: what a request that begins now has to say when it is answered.
    pub(super) fn ticks(&self) -> u32 {
        self.ticks
    }

    /// Whether this answer, to a request that began at that tick, should be asked about.
    pub(super) fn wants(&mut self, began: u32) -> bool {
        let is_slow = self.ticks.wrapping_sub(began) > SLOW_TICKS;
        let is_early = self.asked_since_tick < ASKED_EACH_TICK;
        self.asked_since_tick = self.asked_since_tick.saturating_add(u8::from(is_early));
        is_early || is_slow || self.watchful_ticks > 0
    }

    pub(super) fn saw(&mut self, attempts: usize) {
        if attempts > 1 {
            self.watchful_ticks = WATCHFUL_TICKS;
        }
    }
}
