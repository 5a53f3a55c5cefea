//! Loads compared for their weights by cross-multiplication: without division, so without rounding.

use std::cmp::Ordering;

/// A load that a server of some weight carries. Equal are those with the same quotient.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LoadPerWeight {
    /// Below 2⁴⁸, so that a product with a weight fits.
    pub(super) load: u64,
    pub(super) weight: u16,
}

impl Ord for LoadPerWeight {
    fn cmp(&self, other: &Self) -> Ordering {
        // Below 2⁶⁴. (wasm has no product that tells of an overflow: checking for one costs more than all the rest.)
        let across = |one: &Self, other: &Self| one.load.wrapping_mul(u64::from(other.weight));
        across(self, other).cmp(&across(other, self))
    }
}

impl PartialOrd for LoadPerWeight {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for LoadPerWeight {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for LoadPerWeight {}
