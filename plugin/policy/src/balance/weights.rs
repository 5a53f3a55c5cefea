//! The weights of a group, for methods that keep nothing else.

use super::{ServerMask, Share};

/// Weights by server.
#[derive(Debug, Default)]
pub(super) struct Weights(Vec<u16>);

impl Weights {
    pub(super) fn rebuild(&mut self, servers: &[Share<'_>]) {
        let servers = servers.iter().take(ServerMask::SERVERS_MAX);
        self.0 = servers.map(|share| share.weight).collect();
    }

    /// A server's weight, 1–65535; `None` if it is not of the group.
    pub(super) fn get(&self, server: usize) -> Option<u16> {
        self.0.get(server).copied()
    }

    /// The weights in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.0.iter().copied()
    }
}
