//! How a server of a group is chosen: one file per method, all with the same verbs.
//!
//! A request gets an ordered list of servers: the first is *picked*, which moves the method's position; the others stand by, and
//! are chosen as the method would choose next, without moving anything, because most of them are never used. When the host tells
//! that one of them was used after all, that is *charged*, and then the position moves as the next pick would have moved it.
//!
//! ```text
//!   rebuild(servers, start)          the group as configured; forgets positions
//!   pick(question, choices)          fills the list: first entry picked, the others looked ahead
//!   charge(what really happened)     a stand-by was used; a server failed
//! ```
//!
//! Who may be chosen at all (down, tried, full) is a mask, not the method's business. Facts, load and randomness come with the
//! question, so that the same question has the same answer everywhere.

mod algorithm;
mod choices;
mod ip_hash;
mod least_conn;
mod random_two;
mod round_robin;
mod server_mask;

#[cfg(test)]
mod laws;

use std::net::IpAddr;

use crate::random::Sequence;

pub use algorithm::{Algorithm, LoadNeed};
pub use choices::Choices;
pub use server_mask::ServerMask;

/// A method of choosing among the servers of one group. Servers are named by their index in the group.
pub trait Balancer {
    /// Takes a new group of servers, at most [`ServerMask::SERVERS_MAX`], and forgets positions. Methods that take turns begin
    /// after `start` virtual turns (taken modulo the sum of the weights), so that the VMs of a process do not all begin with
    /// the same server. `eligible` are those that take part in these turns.
    fn rebuild(&mut self, servers: &[Share], eligible: &ServerMask, start: u32);

    /// Appends servers to `choices` until it is full or every eligible server is in it, in the order in which they should be
    /// tried. None is appended if and only if none is eligible; one that is not eligible never is, and none twice.
    fn pick(&mut self, question: &mut Question<'_>, choices: &mut Choices);

    /// Takes note of what happened to a request after its pick.
    fn charge(&mut self, charge: &Charge);
}

/// One server's part in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// 1–65535.
    pub weight: u16,
    /// Failures after which the whole weight is taken away; 0: failures change nothing.
    pub max_fails: u16,
}

/// What a pick may depend on.
pub struct Question<'a> {
    /// Who may be chosen.
    pub eligible: ServerMask,
    /// Requests in flight, by server: own and those of other VMs together. Missing ones count as 0.
    pub in_flight: &'a [u32],
    pub facts: &'a Facts<'a>,
    pub random: &'a mut Sequence,
    pub advance: Advance,
}

/// What methods know of the request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts<'a> {
    /// The client's address after the proxies that are trusted; `None` if the peer has none.
    pub client: Option<IpAddr>,
    /// What the hashing methods hash; empty where there is nothing to hash.
    pub hash_key: &'a [u8],
}

/// Whether the first entry is a pick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advance {
    /// The first entry is picked: the position moves.
    First,
    /// Every entry only stands by.
    Nothing,
}

/// What happened to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charge {
    /// The stand-by `server` was used after those in `tried` had failed; `eligible` are those that could have been.
    Used {
        server: usize,
        tried: ServerMask,
        eligible: ServerMask,
    },
    /// `server` failed.
    Failed { server: usize },
}
