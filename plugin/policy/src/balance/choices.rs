//! The ordered list of servers that a request may try: short, without repetition, without allocation.

use crate::contract::ENDPOINTS_MAX;

/// At most [`ENDPOINTS_MAX`] different servers, by index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choices {
    servers: [u16; ENDPOINTS_MAX],
    len: u8,
    limit: u8,
}

impl Choices {
    /// An empty list for at most `limit` servers; at least one, at most [`ENDPOINTS_MAX`].
    pub fn with_limit(limit: usize) -> Self {
        let limit = u8::try_from(limit.clamp(1, ENDPOINTS_MAX)).unwrap_or(1);
        Self {
            servers: [0; ENDPOINTS_MAX],
            len: 0,
            limit,
        }
    }

    /// Appends a server; nothing happens if the list is full or has it already.
    pub fn push(&mut self, server: usize) {
        let Ok(index) = u16::try_from(server) else {
            return;
        };
        if self.is_full() || self.contains(server) {
            return;
        }
        if let Some(place) = self.servers.get_mut(usize::from(self.len)) {
            *place = index;
            self.len += 1;
        }
    }

    /// Whether a server is in it.
    pub fn contains(&self, server: usize) -> bool {
        self.iter().any(|known| known == server)
    }

    pub fn is_full(&self) -> bool {
        self.len >= self.limit
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// How many more it takes.
    pub fn room(&self) -> usize {
        usize::from(self.limit.saturating_sub(self.len))
    }

    /// The server at a place, the first at 0.
    pub fn get(&self, place: usize) -> Option<usize> {
        self.servers
            .get(..self.len())
            .and_then(|servers| servers.get(place))
            .map(|server| usize::from(*server))
    }

    /// The servers in order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.servers
            .iter()
            .take(self.len())
            .map(|server| usize::from(*server))
    }
}
