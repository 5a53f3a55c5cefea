//! IPVS's idea of a server's load, for the locality-based methods: `active × 256 + inactive`, for the weight (`ip_vs_dest_conn_overhead`).
//!
//! Active are requests in flight, inactive are idle connections to the server. Comparisons are strict, so that of equals the first counts.

use super::load_per_weight::LoadPerWeight;
use super::{Choices, Question, ServerMask, Share};

/// The weights of a group.
#[derive(Debug, Default)]
pub(super) struct Weights(Vec<u16>);

impl Weights {
    pub(super) fn rebuild(&mut self, servers: &[Share<'_>]) {
        self.0.clear();
        self.0.extend(
            servers
                .iter()
                .take(ServerMask::SERVERS_MAX)
                .map(|share| share.weight),
        );
    }

    /// A server's load, to compare; `None` if it is not of the group.
    pub(super) fn load(&self, server: usize, question: &Question<'_>) -> Option<LoadPerWeight> {
        let idle = question.idle.get(server).copied().unwrap_or(0);
        let load = (u64::from(question.active(server)) << 8) + u64::from(idle);
        Some(LoadPerWeight {
            load,
            weight: *self.0.get(server)?,
        })
    }

    /// The first of those with the least load.
    pub(super) fn least(
        &self,
        servers: impl Iterator<Item = usize>,
        question: &Question<'_>,
    ) -> Option<usize> {
        let mut least: Option<(LoadPerWeight, usize)> = None;
        for server in servers {
            let Some(load) = self.load(server, question) else {
                continue;
            };
            if least.is_none_or(|(least, _)| load < least) {
                least = Some((load, server));
            }
        }
        least.map(|(_, server)| server)
    }

    /// Whether a server has more requests than its weight while another has less than half of its own (`is_overloaded`).
    pub(super) fn is_overloaded(&self, server: usize, question: &Question<'_>) -> bool {
        let weight = |server: usize| self.0.get(server).map_or(0, |weight| u32::from(*weight));
        question.active(server) > weight(server)
            && question
                .eligible
                .iter()
                .any(|other| question.active(other).saturating_mul(2) < weight(other))
    }

    /// Fills the rest of `choices` with those of the least load.
    pub(super) fn fill(&self, question: &Question<'_>, choices: &mut Choices) {
        // Ends: each round appends a server, or nobody is left.
        while !choices.is_full() {
            let Some(server) = self.least(question.left(choices), question) else {
                return;
            };
            choices.push(server);
        }
    }
}

/// The second of a question.
pub(super) fn seconds(question: &Question<'_>) -> u32 {
    u32::try_from(question.now_us / 1_000_000).unwrap_or(u32::MAX)
}
