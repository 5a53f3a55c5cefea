//! A set of a pool's servers, as one mask for each tier, because that is what methods are asked with.

use crate::balance::ServerMask;

/// Servers by their index in the pool: primaries, then backups.
#[derive(Debug)]
pub(super) struct TierMasks {
    pub(super) primary: ServerMask,
    pub(super) backup: ServerMask,
    first_backup: usize,
}

impl TierMasks {
    /// None of so many.
    pub(super) fn none(primaries: usize, backups: usize) -> Self {
        Self {
            primary: ServerMask::none(primaries),
            backup: ServerMask::none(backups),
            first_backup: primaries,
        }
    }

    pub(super) fn insert(&mut self, server: usize) {
        match server.checked_sub(self.first_backup) {
            Some(backup) => self.backup.insert(backup),
            None => self.primary.insert(server),
        }
    }

    pub(super) fn remove(&mut self, server: usize) {
        match server.checked_sub(self.first_backup) {
            Some(backup) => self.backup.remove(backup),
            None => self.primary.remove(server),
        }
    }

    pub(super) fn contains(&self, server: usize) -> bool {
        match server.checked_sub(self.first_backup) {
            Some(backup) => self.backup.contains(backup),
            None => self.primary.contains(server),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.primary.count() + self.backup.count()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// The first from `server` on, or else the first of all.
    pub(super) fn next(&self, server: usize) -> Option<usize> {
        let backup_from = server.saturating_sub(self.first_backup);
        let in_backup = |from: usize| {
            let found = self.backup.iter_from(from).next();
            found.map(|backup| backup + self.first_backup)
        };
        let ahead = self.primary.iter_from(server).next();
        ahead
            .or_else(|| in_backup(backup_from))
            .or_else(|| self.primary.iter().next())
            .or_else(|| in_backup(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_round_over_both_tiers() {
        let mut masks = TierMasks::none(70, 3);
        [2, 69, 71]
            .into_iter()
            .for_each(|server| masks.insert(server));
        let rows = [(0, 2), (2, 2), (3, 69), (70, 71), (72, 2), (1_000, 2)];
        for (from, next) in rows {
            assert_eq!(masks.next(from), Some(next), "from {from}");
        }
        masks.remove(2);
        masks.remove(69);
        assert_eq!((masks.next(72), masks.count()), (Some(71), 1));
        masks.remove(71);
        assert_eq!((masks.next(0), masks.is_empty()), (None, true));
    }
}
