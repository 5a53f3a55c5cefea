//! Sorted tables of keys with the routes that name each: exact keys, and keys that begin a text.
//!
//! All texts that begin with a key stand together in sorted order, right after the key. So the keys that begin a text are the last
//! key not after the text, and those of *its* own beginnings among the keys, which are known beforehand: each entry of a
//! [`PrefixTable`] names the longest other key that begins it, and holds the routes of all of these together. Texts are given
//! as bytes in either direction, which makes the same table serve suffixes and the labels of host names.

use std::cmp::Ordering;

use super::route_set::RouteSet;

/// Keys and their routes, found only whole.
#[derive(Debug, Clone, Default)]
pub(super) struct SortedTable {
    entries: Vec<(Box<[u8]>, RouteSet)>,
}

impl SortedTable {
    /// Of pairs of key and route, in any order.
    pub(super) fn new(mut keys: Vec<(Box<[u8]>, usize)>) -> Self {
        keys.sort_unstable();
        let mut entries: Vec<(Box<[u8]>, RouteSet)> = Vec::new();
        for (key, route) in keys {
            if entries.last().is_none_or(|(last, _)| *last != key) {
                entries.push((key, RouteSet::default()));
            }
            if let Some((_, routes)) = entries.last_mut() {
                routes.insert(route);
            }
        }
        Self { entries }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The routes of the key that is this text.
    pub(super) fn exactly(&self, text: impl Iterator<Item = u8> + Clone) -> Option<&RouteSet> {
        let found = self
            .entries
            .binary_search_by(|(key, _)| key.iter().copied().cmp(text.clone()));
        found
            .ok()
            .and_then(|index| self.entries.get(index))
            .map(|(_, routes)| routes)
    }
}

/// Keys and their routes, found when they begin a text.
#[derive(Debug, Clone, Default)]
pub(super) struct PrefixTable {
    table: SortedTable,
    /// Of each entry, the longest other key that begins it.
    parents: Vec<Option<usize>>,
}

impl PrefixTable {
    pub(super) fn new(keys: Vec<(Box<[u8]>, usize)>) -> Self {
        let mut table = SortedTable::new(keys);
        let mut parents = Vec::with_capacity(table.entries.len());
        for index in 0..table.entries.len() {
            let (before, rest) = table.entries.split_at_mut(index);
            let Some((key, routes)) = rest.first_mut() else {
                break;
            };
            // The candidates are the key before this one, and that one's beginnings.
            let mut candidate = index.checked_sub(1);
            while let Some((parent, parent_routes)) =
                candidate.and_then(|candidate| before.get(candidate))
            {
                if key.starts_with(parent) {
                    routes.unite(parent_routes, usize::MAX);
                    break;
                }
                candidate =
                    candidate.and_then(|candidate| parents.get(candidate).copied().flatten());
            }
            parents.push(candidate);
        }
        Self { table, parents }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The routes of all keys that begin this text. Ends: a parent is shorter than its entry.
    pub(super) fn beginning(&self, text: impl Iterator<Item = u8> + Clone) -> Option<&RouteSet> {
        let not_after = |(key, _): &(Box<[u8]>, RouteSet)| {
            key.iter().copied().cmp(text.clone()) != Ordering::Greater
        };
        let mut candidate = self
            .table
            .entries
            .partition_point(not_after)
            .checked_sub(1)?;
        loop {
            let (key, routes) = self.table.entries.get(candidate)?;
            let mut text = text.clone();
            if key.iter().all(|byte| text.next() == Some(*byte)) {
                return Some(routes);
            }
            candidate = self.parents.get(candidate).copied().flatten()?;
        }
    }
}
