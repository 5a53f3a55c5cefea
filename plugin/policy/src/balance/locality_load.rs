//! How loaded a server is for IPVS's locality-based methods: as `wlc` counts it, and when that is too much.

use super::ipvs_least_conn::overhead;
use super::load_per_weight::LoadPerWeight;
use super::weights::Weights;
use super::{Question, ServerMask};

/// A server's load, to compare; `None` if it is not of the group.
pub(super) fn load(
    weights: &Weights,
    server: usize,
    question: &Question<'_>,
) -> Option<LoadPerWeight> {
    Some(LoadPerWeight {
        load: overhead(question, server),
        weight: weights.get(server)?,
    })
}

/// The first of those with the least load.
pub(super) fn least(
    weights: &Weights,
    servers: impl Iterator<Item = usize>,
    question: &Question<'_>,
) -> Option<usize> {
    let mut least: Option<(LoadPerWeight, usize)> = None;
    for server in servers {
        let load = load(weights, server, question)?;
        if least.is_none_or(|(least, _)| load < least) {
            least = Some((load, server));
        }
    }
    least.map(|(_, server)| server)
}

/// Whether a server has more requests than its weight while one of `others` has less than half of its own (`is_overloaded`).
pub(super) fn is_overloaded(
    weights: &Weights,
    server: usize,
    others: &ServerMask,
    question: &Question<'_>,
) -> bool {
    let weight = |server: usize| weights.get(server).map_or(0, u32::from);
    question.active(server) > weight(server)
        && others
            .iter()
            .any(|other| question.active(other).saturating_mul(2) < weight(other))
}

/// The second of a question.
pub(super) fn seconds(question: &Question<'_>) -> u32 {
    u32::try_from(question.now_us / 1_000_000).unwrap_or(u32::MAX)
}
