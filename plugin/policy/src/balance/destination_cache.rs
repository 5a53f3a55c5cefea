//! What a destination was given last: the cache behind IPVS's locality-based methods (`ip_vs_lblc.c`, `ip_vs_lblcr.c`).
//!
//! Destinations are known by the XXH64 of their key, so that an entry's size is fixed; the table is bounded as the kernel's
//! is. What has not been asked for during a day counts as gone; a table that is full gives up the quarter that has been idle
//! longest. Each VM has its own, as each kernel has.

use std::collections::BTreeMap;

/// Entries of one group (the kernel's `max_size`: 1024 × 16).
const ENTRIES_MAX: usize = 16_384;
/// Seconds after which an entry that nobody asked for is gone (`sysctl_lblc_expiration`).
const IDLE_MAX_S: u32 = 24 * 60 * 60;

/// Entries by the hash of their destination.
#[derive(Debug)]
pub(super) struct DestinationCache<T> {
    entries: BTreeMap<u64, Entry<T>>,
}

#[derive(Debug)]
struct Entry<T> {
    used_s: u32,
    value: T,
}

impl<T> Default for DestinationCache<T> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
        }
    }
}

impl<T> DestinationCache<T> {
    /// What is known of a destination.
    pub(super) fn get(&self, destination: u64, now_s: u32) -> Option<&T> {
        let entry = self.entries.get(&destination)?;
        (now_s.saturating_sub(entry.used_s) <= IDLE_MAX_S).then_some(&entry.value)
    }

    /// The same, noting that it was asked for.
    pub(super) fn touch(&mut self, destination: u64, now_s: u32) -> Option<&mut T> {
        let entry = self.entries.get_mut(&destination)?;
        if now_s.saturating_sub(entry.used_s) > IDLE_MAX_S {
            return None;
        }
        entry.used_s = now_s;
        Some(&mut entry.value)
    }

    /// Takes a destination in, or gives it another value.
    pub(super) fn insert(&mut self, destination: u64, value: T, now_s: u32) {
        if self.entries.len() >= ENTRIES_MAX && !self.entries.contains_key(&destination) {
            self.make_room();
        }
        self.entries.insert(
            destination,
            Entry {
                used_s: now_s,
                value,
            },
        );
    }

    /// Drops the quarter that has been idle longest; of those used in the same second, the first.
    fn make_room(&mut self) {
        let mut used: Vec<u32> = self.entries.values().map(|entry| entry.used_s).collect();
        let quarter = used.len() / 4;
        let (_, last, _) = used.select_nth_unstable(quarter);
        let last = *last;
        let mut to_drop = quarter.max(1);
        self.entries.retain(|_, entry| {
            let kept = to_drop == 0 || entry.used_s > last;
            to_drop -= usize::from(!kept);
            kept
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_bounded_and_forgets_the_longest_idle_first() {
        let mut cache = DestinationCache::default();
        for destination in 0..40_000_u32 {
            cache.insert(u64::from(destination), destination, destination);
            assert_eq!(
                cache.touch(0, destination),
                Some(&mut 0),
                "what is used stays"
            );
        }
        assert!(cache.entries.len() <= ENTRIES_MAX);
        assert_eq!(cache.get(39_999, 40_000), Some(&39_999));
        assert_eq!(cache.get(20_000, 40_000), None);
        for destination in 0..40_000_u64 {
            cache.insert(destination << 20, 7, 40_000);
            assert!(cache.entries.len() <= ENTRIES_MAX);
        }
    }

    #[test]
    fn a_day_of_idleness_is_the_end() {
        let mut cache = DestinationCache::default();
        cache.insert(1, 'a', 100);
        assert_eq!(cache.get(1, 100 + IDLE_MAX_S), Some(&'a'));
        assert_eq!(cache.get(1, 101 + IDLE_MAX_S), None);
        assert_eq!(cache.touch(1, 101 + IDLE_MAX_S), None);
        assert_eq!(cache.get(1, 0), Some(&'a'), "a clock that went back");
    }
}
