//! A set of servers of one group, one bit each.
//!
//! It is as large as its group and lives as long: a pool keeps it up to date and lends it to its method, so that a request
//! neither allocates nor copies one. Who was chosen already is asked of the choices, never taken out of a copy.

use super::Choices;

const BITS: usize = u64::BITS as usize;

/// Indexes of servers below [`ServerMask::SERVERS_MAX`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerMask {
    words: Vec<u64>,
    count: usize,
}

impl ServerMask {
    /// Most servers of one group.
    pub const SERVERS_MAX: usize = 10_000;

    /// None of `size` servers.
    pub fn none(size: usize) -> Self {
        Self {
            words: vec![0; size.min(Self::SERVERS_MAX).div_ceil(BITS)],
            count: 0,
        }
    }

    /// The first `count` servers.
    pub fn first(count: usize) -> Self {
        let count = count.min(Self::SERVERS_MAX);
        let mut mask = Self::none(count);
        (0..count).for_each(|server| mask.insert(server));
        mask
    }

    /// Takes a server in; nothing happens to one that is not of the group.
    pub fn insert(&mut self, server: usize) {
        if let Some(word) = self.words.get_mut(server / BITS) {
            let bit = 1 << (server % BITS);
            self.count += usize::from(*word & bit == 0);
            *word |= bit;
        }
    }

    pub fn remove(&mut self, server: usize) {
        if let Some(word) = self.words.get_mut(server / BITS) {
            let bit = 1 << (server % BITS);
            self.count -= usize::from(*word & bit != 0);
            *word &= !bit;
        }
    }

    /// Keeps those that are in `others`, too.
    pub fn keep(&mut self, others: &Self) {
        let others = others.words.iter().copied().chain(std::iter::repeat(0));
        self.change(others, |word, other| word & other);
    }

    /// Takes out those that are in `others`.
    pub fn take_out(&mut self, others: &Self) {
        let others = others.words.iter().copied().chain(std::iter::repeat(0));
        self.change(others, |word, other| word & !other);
    }

    fn change(&mut self, others: impl Iterator<Item = u64>, change: impl Fn(u64, u64) -> u64) {
        self.count = 0;
        for (word, other) in self.words.iter_mut().zip(others) {
            *word = change(*word, other);
            self.count += word.count_ones() as usize;
        }
    }

    pub fn contains(&self, server: usize) -> bool {
        self.words
            .get(server / BITS)
            .is_some_and(|word| word >> (server % BITS) & 1 == 1)
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many servers are in it: known, not counted.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The servers in it as bits, the first in the lowest of the first word.
    pub(super) fn words(&self) -> &[u64] {
        &self.words
    }

    /// In which word a server is.
    pub(super) fn word_of(server: usize) -> usize {
        server / BITS
    }

    /// The servers of the word at a place.
    pub(super) fn servers_of(place: usize, word: u64) -> Servers<'static> {
        Servers {
            words: [].iter(),
            word,
            base: place * BITS,
        }
    }

    /// The servers in it, in their order.
    pub fn iter(&self) -> Servers<'_> {
        self.iter_from(0)
    }

    /// The servers in it from `first` on, in their order.
    pub fn iter_from(&self, first: usize) -> Servers<'_> {
        let place = first / BITS;
        let mut words = self.words.get(place..).unwrap_or_default().iter();
        let word = words
            .next()
            .map_or(0, |word| *word & (!0 << (first % BITS)));
        Servers {
            words,
            word,
            base: place * BITS,
        }
    }

    /// The servers in it that were not chosen, in their order. Looks at the choices once for each word, not for each server.
    pub fn iter_without<'a>(&'a self, chosen: &'a Choices) -> Left<'a> {
        let mut words = self.words.iter();
        let word = words.next().map_or(0, |word| *word & !bits_of(chosen, 0));
        Left {
            words,
            word,
            base: 0,
            chosen,
        }
    }

    /// The servers in it, once round: from `first` on, then those before it.
    pub fn round_from(&self, first: usize) -> impl Iterator<Item = usize> + '_ {
        let before = self.iter().take_while(move |server| *server < first);
        self.iter_from(first).chain(before)
    }
}

/// The servers of a mask, the lowest index first.
#[derive(Debug, Clone)]
pub struct Servers<'a> {
    words: std::slice::Iter<'a, u64>,
    /// What is left of the word that is being read.
    word: u64,
    base: usize,
}

impl Iterator for Servers<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        // Ends: each round takes a word.
        while self.word == 0 {
            self.word = *self.words.next()?;
            self.base += BITS;
        }
        let server = self.base + self.word.trailing_zeros() as usize;
        self.word &= self.word - 1;
        Some(server)
    }
}

/// The servers of a mask without those that were chosen, the lowest index first.
#[derive(Debug, Clone)]
pub struct Left<'a> {
    words: std::slice::Iter<'a, u64>,
    /// What is left of the word that is being read.
    word: u64,
    base: usize,
    chosen: &'a Choices,
}

impl Iterator for Left<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        // Ends: each round takes a word.
        while self.word == 0 {
            let word = *self.words.next()?;
            self.base += BITS;
            self.word = word & !bits_of(self.chosen, self.base);
        }
        let server = self.base + self.word.trailing_zeros() as usize;
        self.word &= self.word - 1;
        Some(server)
    }
}

/// Those that were chosen, as bits of the word that begins with the server `base`.
fn bits_of(chosen: &Choices, base: usize) -> u64 {
    let of_word = chosen.iter().filter(|server| server / BITS * BITS == base);
    of_word.fold(0, |bits, server| bits | 1 << (server % BITS))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn is_the_set_of_what_was_put_in_and_not_taken_out() {
        proptest!(|(size in 0usize..300, steps in proptest::collection::vec((0usize..300, any::<bool>()), 0..80))| {
            let (mut mask, mut set) = (ServerMask::none(size), BTreeSet::new());
            for (server, inserted) in steps.into_iter().filter(|(server, _)| *server < size) {
                if inserted {
                    mask.insert(server);
                    set.insert(server);
                } else {
                    mask.remove(server);
                    set.remove(&server);
                }
            }
            prop_assert_eq!(mask.iter().collect::<Vec<_>>(), set.iter().copied().collect::<Vec<_>>());
            for first in [0, 1, 63, 64, 65, 130, 299, 400] {
                let round: Vec<_> = set.range(first..).chain(set.range(..first)).copied().collect();
                prop_assert_eq!(mask.round_from(first).collect::<Vec<_>>(), round, "from {}", first);
            }
            let mut chosen = Choices::with_limit(8);
            set.iter().step_by(7).for_each(|server| chosen.push(*server));
            let left: Vec<_> = set.iter().copied().filter(|server| !chosen.contains(*server)).collect();
            prop_assert_eq!(mask.iter_without(&chosen).collect::<Vec<_>>(), left);
            prop_assert_eq!((mask.count(), mask.is_empty()), (set.len(), set.is_empty()));
            let mut third = ServerMask::none(size);
            (0..size).filter(|server| server % 3 == 0).for_each(|server| third.insert(server));
            let (mut kept, mut rest) = (mask.clone(), mask.clone());
            kept.keep(&third);
            rest.take_out(&third);
            prop_assert!(kept.iter().eq(set.iter().copied().filter(|server| server % 3 == 0)));
            prop_assert!(rest.iter().eq(set.iter().copied().filter(|server| server % 3 != 0)));
            prop_assert_eq!(kept.count() + rest.count(), set.len());
            prop_assert!((0..300).all(|server| mask.contains(server) == set.contains(&server)));
        });
    }

    #[test]
    fn is_as_large_as_the_largest_group() {
        let mut mask = ServerMask::first(ServerMask::SERVERS_MAX + 1_000);
        assert_eq!(mask.count(), 10_000);
        mask.insert(1_000_000);
        assert_eq!(mask.count(), 10_000);
        mask.remove(9_999);
        assert_eq!(mask.iter().last(), Some(9_998));
    }
}
