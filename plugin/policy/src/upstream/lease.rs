//! Who of a process's VMs checks the servers: whoever holds the lease.
//!
//! ```text
//!   evenkeel//lease      1  version (1)     8  owner (0: free)     8  beat            (little-endian)
//! ```
//!
//! It is taken by a compare-and-swap on a record that was just seen missing, free or still. The owner raises the beat each tick;
//! whoever sees the same beat on [`STILL_TICKS_MAX`] of its own ticks takes over. Times are not compared, so clocks do not
//! matter; an owner that only stood still finds at its next tick that it is none any more.

use super::STILL_TICKS_MAX;
use super::beat_record::{decode, encode};
use super::shared_data::{ABSENT, SharedData, Written};

const KEY: &[u8] = b"evenkeel//lease";

/// One VM's view of the lease.
#[derive(Debug, Default)]
pub struct Lease {
    held: Held,
    /// Owner and beat as seen last, and on how many ticks since then.
    seen: (u64, u64),
    still_ticks: u8,
    value: Vec<u8>,
}

/// Whether this VM is the one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Held {
    Yes,
    #[default]
    No,
}

impl Lease {
    pub fn held(&self) -> Held {
        self.held
    }

    /// Each tick of a VM that has something to check: beats, or looks whether it is its turn. `owner` is the VM's identity.
    pub fn tick(&mut self, owner: u64, data: &mut impl SharedData) -> Held {
        let (cas, known) = match data.get(KEY, &mut self.value) {
            None => (ABSENT, (0, 0)),
            Some(cas) => (cas, decode(&self.value).unwrap_or((0, 0))),
        };
        if known == self.seen {
            self.still_ticks = self.still_ticks.saturating_add(1);
        } else {
            self.seen = known;
            self.still_ticks = 0;
        }
        let (by, beat) = known;
        let is_free = by == 0 || by == owner || self.still_ticks >= STILL_TICKS_MAX;
        let next = (owner, beat.wrapping_add(1));
        self.held = if is_free && data.set(KEY, &encode(next.0, next.1), cas) == Written::Done {
            self.seen = next;
            self.still_ticks = 0;
            Held::Yes
        } else {
            Held::No
        };
        self.held
    }

    /// Lets it go, so that the next VM need not wait; nothing happens to one that is not held.
    pub fn release(&mut self, owner: u64, data: &mut impl SharedData) {
        if self.held == Held::No {
            return;
        }
        self.held = Held::No;
        let Some(cas) = data.get(KEY, &mut self.value) else {
            return;
        };
        if let Some((by, beat)) = decode(&self.value)
            && by == owner
        {
            // A mismatch means that somebody took it over.
            data.set(KEY, &encode(0, beat), cas);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Map;
    use super::*;

    #[test]
    fn one_of_many_holds_it_and_keeps_it() {
        let mut data = Map::default();
        let mut vms: Vec<Lease> = (0..4).map(|_| Lease::default()).collect();
        for _ in 0..20 {
            let held: Vec<Held> = vms
                .iter_mut()
                .zip(1..)
                .map(|(lease, owner)| lease.tick(owner, &mut data))
                .collect();
            assert_eq!(held, [Held::Yes, Held::No, Held::No, Held::No]);
        }
    }

    #[test]
    fn it_moves_after_five_ticks_without_a_beat() {
        let mut data = Map::default();
        let (mut first, mut second, mut third) =
            (Lease::default(), Lease::default(), Lease::default());
        first.tick(1, &mut data);
        assert_eq!(second.tick(2, &mut data), Held::No, "the first look");
        for _ in 1..STILL_TICKS_MAX {
            assert_eq!(second.tick(2, &mut data), Held::No);
        }
        assert_eq!(third.tick(3, &mut data), Held::No);
        assert_eq!(second.tick(2, &mut data), Held::Yes);
        // The first one only stood still.
        assert_eq!(first.tick(1, &mut data), Held::No);
        assert_eq!(third.tick(3, &mut data), Held::No);
        assert_eq!(second.tick(2, &mut data), Held::Yes);
    }

    #[test]
    fn a_released_one_is_free_at_once() {
        let mut data = Map::default();
        let (mut first, mut second) = (Lease::default(), Lease::default());
        first.tick(1, &mut data);
        second.tick(2, &mut data);
        second.release(2, &mut data);
        assert_eq!(
            first.tick(1, &mut data),
            Held::Yes,
            "not the second's to release"
        );
        first.release(1, &mut data);
        assert_eq!(second.tick(2, &mut data), Held::Yes);
    }

    #[test]
    fn a_record_that_is_none_is_free() {
        let mut data = Map::default();
        data.set(KEY, b"what is this", 0);
        assert_eq!(Lease::default().tick(7, &mut data), Held::Yes);
    }

    /// The record changes between the look and the write.
    #[test]
    fn of_two_at_the_same_moment_one_gets_it() {
        struct Late<'a>(&'a mut Map);
        impl SharedData for Late<'_> {
            fn get(&mut self, key: &[u8], value: &mut Vec<u8>) -> Option<u32> {
                let seen = self.0.get(key, value);
                Lease::default().tick(1, self.0);
                seen
            }
            fn set(&mut self, key: &[u8], value: &[u8], cas: u32) -> Written {
                self.0.set(key, value, cas)
            }
        }
        let mut data = Map::default();
        assert_eq!(Lease::default().tick(2, &mut Late(&mut data)), Held::No);
    }
}
