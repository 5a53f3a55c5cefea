//! A set of servers of one group, one bit each.

const BITS: usize = u64::BITS as usize;
const WORDS: usize = 4;

/// Indexes of servers below [`ServerMask::SERVERS_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServerMask([u64; WORDS]);

impl ServerMask {
    /// Most servers of one group.
    pub const SERVERS_MAX: usize = WORDS * BITS;

    /// The first `count` servers.
    pub fn first(count: usize) -> Self {
        let mut mask = Self::default();
        (0..count.min(Self::SERVERS_MAX)).for_each(|server| mask.insert(server));
        mask
    }

    pub fn insert(&mut self, server: usize) {
        if let Some(word) = self.0.get_mut(server / BITS) {
            *word |= 1 << (server % BITS);
        }
    }

    pub fn remove(&mut self, server: usize) {
        if let Some(word) = self.0.get_mut(server / BITS) {
            *word &= !(1 << (server % BITS));
        }
    }

    pub fn contains(&self, server: usize) -> bool {
        self.0
            .get(server / BITS)
            .is_some_and(|word| word >> (server % BITS) & 1 == 1)
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// How many servers are in it.
    pub fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Those that are not in `other`.
    #[must_use]
    pub fn without(mut self, other: &Self) -> Self {
        self.0
            .iter_mut()
            .zip(&other.0)
            .for_each(|(word, other)| *word &= !other);
        self
    }
}
