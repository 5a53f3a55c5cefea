//! When to ask the host how many servers a request needed.
//!
//! Asking costs a call and an allocation, and nearly always the answer is one. So the first answer after each tick is asked about,
//! and as long as failures are seen every one is: then stand-by servers that were used are charged, and the load of a server
//! that is gone is shared by all others instead of falling on the one that happens to stand by for it.

/// Ticks for which every answer is asked about after a failure was seen (two seconds).
const WATCHFUL_TICKS: u8 = 8;

/// Whether to ask.
#[derive(Debug, Default)]
pub(super) struct AttemptsWatch {
    watchful_ticks: u8,
    asked_since_tick: Asked,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Asked {
    #[default]
    No,
    Yes,
}

impl AttemptsWatch {
    pub(super) fn tick(&mut self) {
        self.watchful_ticks = self.watchful_ticks.saturating_sub(1);
        self.asked_since_tick = Asked::No;
    }

    /// Whether this answer should be asked about.
    pub(super) fn wants(&mut self) -> bool {
        let first = std::mem::replace(&mut self.asked_since_tick, Asked::Yes) == Asked::No;
        first || self.watchful_ticks > 0
    }

    pub(super) fn saw(&mut self, attempts: usize) {
        if attempts > 1 {
            self.watchful_ticks = WATCHFUL_TICKS;
        }
    }
}
