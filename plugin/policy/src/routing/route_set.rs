//! A set of routes, one bit each, in the order of the file: the lowest bit is the first route.

/// Most routes; wider sets would cost every request.
pub const ROUTES_MAX: usize = 1_024;

const BITS: usize = u64::BITS as usize;
const WORDS: usize = ROUTES_MAX / BITS;

/// Indexes of routes below [`ROUTES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct RouteSet([u64; WORDS]);

impl RouteSet {
    /// Words that sets of `routes` routes use: operations need look at no more.
    pub(super) fn words_of(routes: usize) -> usize {
        routes.div_ceil(BITS).min(WORDS)
    }

    pub(super) fn insert(&mut self, route: usize) {
        if let Some(word) = self.0.get_mut(route / BITS) {
            *word |= 1 << (route % BITS);
        }
    }

    pub(super) fn contains(&self, route: usize) -> bool {
        self.0
            .get(route / BITS)
            .is_some_and(|word| word >> (route % BITS) & 1 == 1)
    }

    pub(super) fn unite(&mut self, other: &Self, words: usize) {
        self.0
            .iter_mut()
            .zip(&other.0)
            .take(words)
            .for_each(|(word, other)| *word |= other);
    }

    pub(super) fn intersect(&mut self, other: &Self, words: usize) {
        self.0
            .iter_mut()
            .zip(&other.0)
            .take(words)
            .for_each(|(word, other)| *word &= other);
    }

    /// Takes the first route out of the set.
    pub(super) fn take_first(&mut self, words: usize) -> Option<usize> {
        let mut words = self.0.iter_mut().take(words).enumerate();
        let (index, word) = words.find(|(_, word)| **word != 0)?;
        let bit = word.trailing_zeros() as usize;
        *word &= *word - 1;
        Some(index * BITS + bit)
    }

    /// The first route of both sets.
    pub(super) fn first_common(&self, other: &Self, words: usize) -> Option<usize> {
        let common = |(index, (left, right)): (usize, (&u64, &u64))| {
            let both = left & right;
            (both != 0).then(|| index * BITS + both.trailing_zeros() as usize)
        };
        self.0
            .iter()
            .zip(&other.0)
            .take(words)
            .enumerate()
            .find_map(common)
    }
}
