//! Requests of one VM that wait for a pool, first in first out.

use std::collections::BTreeMap;

/// Who waits; `T` is what one needs to go on with a request.
#[derive(Debug)]
pub struct WaitingLine<T> {
    waiting: BTreeMap<u64, Waiting<T>>,
    last_ticket: u64,
}

#[derive(Debug)]
struct Waiting<T> {
    since_us: u64,
    until_us: u64,
    request: T,
}

impl<T> Default for WaitingLine<T> {
    fn default() -> Self {
        Self {
            waiting: BTreeMap::new(),
            last_ticket: 0,
        }
    }
}

impl<T> WaitingLine<T> {
    /// At the end of the line. How long the line may be is the caller's business. Returns a ticket, with which one can leave.
    pub fn join(&mut self, request: T, now_us: u64, timeout_us: u64) -> u64 {
        self.last_ticket += 1;
        let waiting = Waiting {
            since_us: now_us,
            until_us: now_us.saturating_add(timeout_us),
            request,
        };
        self.waiting.insert(self.last_ticket, waiting);
        self.last_ticket
    }

    /// Leaves the line, wherever one stands; `None`: one did already.
    pub fn leave(&mut self, ticket: u64) -> Option<T> {
        self.waiting.remove(&ticket).map(|waiting| waiting.request)
    }

    /// The first of the line: its ticket, and what to go on with.
    pub fn first(&self) -> Option<(u64, &T)> {
        let (ticket, waiting) = self.waiting.first_key_value()?;
        Some((*ticket, &waiting.request))
    }

    /// Since when the first waits, microseconds.
    pub fn since_us(&self) -> Option<u64> {
        let (_, waiting) = self.waiting.first_key_value()?;
        Some(waiting.since_us)
    }

    /// Takes somebody out whose time is up.
    pub fn take_late(&mut self, now_us: u64) -> Option<T> {
        // Not only the first: a reload may have made the time shorter.
        let mut all = self.waiting.iter();
        let (ticket, _) = all.find(|(_, waiting)| waiting.until_us <= now_us)?;
        let ticket = *ticket;
        self.leave(ticket)
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_by_who_came_first_and_nobody_waits_too_long() {
        let mut line = WaitingLine::default();
        let [a, b, c] = [("a", 10, 100), ("b", 20, 30), ("c", 30, 100)]
            .map(|(name, now_us, timeout_us)| line.join(name, now_us, timeout_us));
        assert_eq!((line.first(), line.since_us()), (Some((a, &"a")), Some(10)));
        assert_eq!(line.take_late(49), None);
        assert_eq!(line.take_late(50), Some("b"));
        assert_eq!(line.leave(b), None);
        assert_eq!(line.leave(a), Some("a"));
        assert_eq!((line.first(), line.len()), (Some((c, &"c")), 1));
        assert_eq!(line.take_late(u64::MAX), Some("c"));
        assert!(line.is_empty() && line.since_us().is_none());
        assert_ne!(line.join("d", 0, 1), c, "tickets are not used again");
    }
}
