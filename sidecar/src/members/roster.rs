//! The servers of one pool that the data plane can reach now, found by their addresses. It never changes: the next one takes its
//! place, and requests under way end on the one they began with.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use evenkeel_policy::config::AdminState;

use super::LEAVING;
use super::table::{Admin, Listed, Source};
use crate::counters::ServerCounters;

type ByAddress = HashMap<Box<[u8]>, usize, foldhash::fast::FixedState>;

/// Members, then those that leave.
pub(crate) struct Roster {
    pub(crate) servers: Vec<Arc<Server>>,
    by_address: ByAddress,
    workers: usize,
}

/// One server.
pub(crate) struct Server {
    pub(crate) id: String,
    pub(crate) address: SocketAddr,
    /// The canonical `ip:port`.
    pub(crate) text: String,
    pub(crate) weight: u16,
    pub(crate) standing: Standing,
    pub(crate) source: Source,
    /// By worker.
    pub(crate) counters: Vec<Arc<ServerCounters>>,
}

/// How a server stands, as far as an operator has a say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Ready,
    Drain,
    Maint,
    /// `down` in the file: takes no request, whoever names it.
    Down,
    /// It is no member any more: who still names it has not been told yet. Since when.
    Leaving(Instant),
}

impl Roster {
    /// For a pool that nobody has changed yet. `before` lends the counters of servers that stay.
    pub(crate) fn first(listed: &[Listed], workers: usize, before: Option<&Self>) -> Self {
        let counters = before.map(Self::counters).unwrap_or_default();
        let server = |listed| Arc::new(Server::new(listed, workers, &counters));
        Self::of(listed.iter().map(server).collect(), workers)
    }

    /// The roster after this one; `None` if it would be the same.
    pub(crate) fn next(&self, listed: &[Listed], now: Instant) -> Option<Self> {
        let is_same = self.servers.len() == listed.len()
            && self
                .servers
                .iter()
                .zip(listed)
                .all(|(server, listed)| server.is(listed));
        if is_same {
            return None;
        }
        let counters = self.counters();
        let mut servers: Vec<Arc<Server>> = listed
            .iter()
            .map(|listed| Arc::new(Server::new(listed, self.workers, &counters)))
            .collect();
        let next = Self::of(servers.clone(), self.workers);
        for server in &self.servers {
            let since = match server.standing {
                Standing::Leaving(since) => since,
                _ => now,
            };
            if next.server_at(server.text.as_bytes()).is_none()
                && now.saturating_duration_since(since) < LEAVING
            {
                servers.push(Arc::new(server.leaving(since)));
            }
        }
        Some(Self::of(servers, self.workers))
    }

    fn of(servers: Vec<Arc<Server>>, workers: usize) -> Self {
        let by_address = servers
            .iter()
            .enumerate()
            .map(|(number, server)| (server.text.as_bytes().into(), number))
            .collect();
        Self {
            servers,
            by_address,
            workers,
        }
    }

    /// The server whose canonical `ip:port` is `address`.
    pub(crate) fn server_at(&self, address: &[u8]) -> Option<usize> {
        self.by_address.get(address).copied()
    }

    /// Those that belong to the pool.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Arc<Server>> {
        let is_member = |server: &&Arc<Server>| !matches!(server.standing, Standing::Leaving(_));
        self.servers.iter().filter(is_member)
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.servers
            .last()
            .is_some_and(|server| matches!(server.standing, Standing::Leaving(_)))
    }

    fn counters(&self) -> HashMap<&str, &Vec<Arc<ServerCounters>>> {
        let mut counters = HashMap::with_capacity(self.servers.len());
        for server in &self.servers {
            counters.insert(server.id.as_str(), &server.counters);
        }
        counters
    }
}

impl Server {
    fn new(
        listed: &Listed,
        workers: usize,
        known: &HashMap<&str, &Vec<Arc<ServerCounters>>>,
    ) -> Self {
        let counters = known.get(listed.id.as_str());
        Self {
            id: listed.id.clone(),
            address: listed.address,
            text: listed.address.to_string(),
            weight: listed.weight,
            standing: Standing::of(listed),
            source: listed.source,
            counters: counters.map_or_else(
                || (0..workers).map(|_| Arc::default()).collect(),
                |counters| (*counters).clone(),
            ),
        }
    }

    /// Whether it has this id, or is of the name that has.
    pub(crate) fn is_of(&self, id: &str) -> bool {
        let name = self.id.split_once('#').map(|(name, _ip)| name);
        self.id == id || name == Some(id)
    }

    fn leaving(&self, since: Instant) -> Self {
        Self {
            id: self.id.clone(),
            text: self.text.clone(),
            standing: Standing::Leaving(since),
            counters: self.counters.clone(),
            ..*self
        }
    }

    fn is(&self, listed: &Listed) -> bool {
        self.id == listed.id
            && self.address == listed.address
            && self.weight == listed.weight
            && self.source == listed.source
            && self.standing == Standing::of(listed)
    }
}

impl Standing {
    fn of(listed: &Listed) -> Self {
        match (listed.configured, listed.admin) {
            (AdminState::Down, _) => Self::Down,
            (AdminState::Ready, Admin::Ready) => Self::Ready,
            (AdminState::Ready, Admin::Drain) => Self::Drain,
            (AdminState::Ready, Admin::Maint) => Self::Maint,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
            Self::Down => "down",
            Self::Leaving(_) => "leaving",
        }
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_policy::config::Tier;

    use super::*;

    fn listed(id: &str, port: u16, admin: Admin) -> Listed {
        Listed {
            id: id.to_owned(),
            address: ([127, 0, 0, 1], port).into(),
            weight: 1,
            tier: Tier::Primary,
            configured: AdminState::Ready,
            admin,
            source: Source::File,
        }
    }

    #[test]
    fn who_leaves_can_be_reached_a_while_and_keeps_his_counters() {
        let start = Instant::now();
        let (a, b) = (listed("a", 1, Admin::Ready), listed("b", 2, Admin::Ready));
        let first = Roster::first(&[a.clone(), b.clone()], 1, None);
        assert!(first.next(&[a.clone(), b.clone()], start).is_none());
        first.servers[0].counters[0].requests.add(7);
        let second = first.next(std::slice::from_ref(&b), start).unwrap();
        assert_eq!(second.servers.len(), 2);
        assert_eq!(second.members().count(), 1);
        let place = second.server_at(b"127.0.0.1:1").unwrap();
        assert_eq!(second.servers[place].counters[0].requests.get(), 7);
        assert!(second.is_leaving());
        let third = second
            .next(std::slice::from_ref(&b), start + LEAVING / 2)
            .unwrap();
        assert!(third.server_at(b"127.0.0.1:1").is_some());
        let fourth = third
            .next(std::slice::from_ref(&b), start + LEAVING)
            .unwrap();
        assert!(fourth.server_at(b"127.0.0.1:1").is_none());
        // At once at another address: the old one stays reachable.
        let moved = fourth.next(&[listed("b", 3, Admin::Drain)], start).unwrap();
        assert!(moved.server_at(b"127.0.0.1:2").is_some());
        assert!(moved.server_at(b"127.0.0.1:3").is_some());
    }
}
