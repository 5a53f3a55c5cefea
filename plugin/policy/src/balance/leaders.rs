//! The few best of many, found in one pass.

use super::{Choices, Question};
use crate::contract::ENDPOINTS_MAX;

/// Those of the lowest rank so far, in order; the first offered goes before its equals.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leaders<R, const ROOM: usize> {
    best: [(R, u16); ROOM],
    len: u8,
    /// What must be undercut once there is no room: most offers end here.
    bar: Option<R>,
}

impl<R: Ord + Copy + Default, const ROOM: usize> Leaders<R, ROOM> {
    pub(super) fn new() -> Self {
        Self {
            best: [(R::default(), 0); ROOM],
            len: 0,
            bar: None,
        }
    }

    /// Takes a server in if it is among the `keep` best, which are 1 to `ROOM` and the same for all offers.
    #[inline]
    pub(super) fn offer(&mut self, rank: R, server: usize, keep: usize) {
        if self.bar.is_none_or(|bar| rank < bar) {
            self.take_in(rank, server, keep);
        }
    }

    #[inline(never)]
    fn take_in(&mut self, rank: R, server: usize, keep: usize) {
        let len = usize::from(self.len);
        let (Some(kept), Ok(server)) = (self.best.get_mut(..keep), u16::try_from(server)) else {
            return;
        };
        let behind = kept
            .iter()
            .take(len)
            .take_while(|(known, _)| *known <= rank)
            .count();
        let mut carried = (rank, server);
        // Everybody worse moves on by one; the last one falls out if there is no room.
        for known in kept.iter_mut().take(len + 1).skip(behind) {
            std::mem::swap(known, &mut carried);
        }
        if len < keep {
            self.len += 1;
        }
        if len + 1 >= keep {
            self.bar = kept.last().map(|(worst, _)| *worst);
        }
    }

    /// What must be undercut, once there is no room.
    pub(super) fn bar(&self) -> Option<R> {
        self.bar
    }

    /// The servers, the best first.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.ranked().map(|(_, server)| server)
    }

    /// The servers and their ranks, the best first.
    pub(super) fn ranked(&self) -> impl Iterator<Item = (R, usize)> + '_ {
        let best = self.best.iter().take(usize::from(self.len));
        best.map(|(rank, server)| (*rank, usize::from(*server)))
    }
}

/// Fills `choices` with those of the lowest rank, the first in the group before its equals. `rank` has no answer for a server that
/// is not of the group.
pub(super) fn fill_lowest<R: Ord + Copy + Default>(
    question: &Question<'_>,
    choices: &mut Choices,
    rank: impl Fn(usize) -> Option<R>,
) {
    let keep = choices.room();
    if keep == 0 {
        return;
    }
    let mut leaders = Leaders::<R, ENDPOINTS_MAX>::new();
    for server in question.left(choices) {
        let Some(rank) = rank(server) else { break };
        leaders.offer(rank, server, keep);
    }
    leaders.iter().for_each(|server| choices.push(server));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn are_what_a_stable_sort_puts_first() {
        proptest!(|(ranks in proptest::collection::vec(0u8..12, 0..40), keep in 1usize..=ENDPOINTS_MAX)| {
            let mut leaders = Leaders::<u8, ENDPOINTS_MAX>::new();
            for (server, rank) in ranks.iter().enumerate() {
                leaders.offer(*rank, server, keep);
            }
            let mut sorted: Vec<usize> = (0..ranks.len()).collect();
            sorted.sort_by_key(|server| ranks[*server]);
            sorted.truncate(keep);
            prop_assert_eq!(leaders.iter().collect::<Vec<_>>(), sorted);
        });
    }
}
