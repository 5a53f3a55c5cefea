//! The weights of a group laid side by side: a point below their sum falls to one server (nginx's `ranges`).

use super::{ServerMask, Share};

/// Where each server's range ends.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    /// The sum of the weights up to each server. The sum of all fits: 10,000 × 65,535.
    ends: Vec<u32>,
}

impl Ranges {
    pub(super) fn rebuild(&mut self, servers: &[Share<'_>]) {
        let mut sum: u32 = 0;
        self.ends.clear();
        let ends = servers.iter().take(ServerMask::SERVERS_MAX).map(|share| {
            sum = sum.saturating_add(u32::from(share.weight));
            sum
        });
        self.ends.extend(ends);
    }

    /// How many servers there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The sum of the weights.
    pub(super) fn sum(&self) -> u32 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// In whose range a point is; `None` if it is not below the sum.
    pub(super) fn at(&self, point: u32) -> Option<usize> {
        let server = self.ends.partition_point(|end| *end <= point);
        (server < self.ends.len()).then_some(server)
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::shares;
    use super::*;

    #[test]
    fn every_point_below_the_sum_is_in_one_range() {
        let mut ranges = Ranges::default();
        assert_eq!((ranges.sum(), ranges.at(0)), (0, None));
        ranges.rebuild(&shares(&[1, 3, 2]));
        let servers: Vec<_> = (0..7).map(|point| ranges.at(point)).collect();
        let expected = [Some(0), Some(1), Some(1), Some(1), Some(2), Some(2), None];
        assert_eq!((ranges.sum(), servers.as_slice()), (6, &expected[..]));
    }
}
