//! What befell a server, as one VM knows it: it belongs to the server's id and outlives configurations.

use super::ejection::Ejection;
use super::failures::Failures;
use super::health::Health;
use super::slow_start::SlowStart;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct ServerLife {
    pub(super) failures: Failures,
    pub(super) ejection: Ejection,
    /// As the last record said.
    pub(super) health: Health,
    pub(super) slow_start: SlowStart,
}
