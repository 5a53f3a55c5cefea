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
mod destination_cache;
mod ipvs_buckets;
mod ketama_ring;
mod latency;
mod leaders;
mod load_per_weight;
mod locality_load;
mod maglev_table;
mod ranges;
mod server_mask;
mod weight_sums;
mod weighted_score;
mod weights;

mod bounded_load;
mod destination_hash;
mod fair;
mod first;
mod hash;
mod hash_consistent;
mod ip_hash;
mod ipvs_least_conn;
mod ipvs_two_choices;
mod least_conn;
mod least_time;
mod locality_least_conn;
mod locality_least_conn_replicated;
mod maglev;
mod never_queue;
mod peak_ewma;
mod random;
mod random_two;
mod rendezvous;
mod round_robin;
mod shortest_expected_delay;
mod source_hash;
mod weighted_failover;
mod weighted_least_conn;
mod weighted_overflow;
mod weighted_round_robin_ipvs;

#[cfg(test)]
mod kernel;
#[cfg(test)]
mod kernel_locality;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod movement;

use std::net::IpAddr;

use crate::random::Sequence;

pub use algorithm::{Algorithm, KeyNeed, LoadNeed, Parameters};
pub use choices::Choices;
pub use latency::{Latency, LatencyRule, MergedLatency};
pub use server_mask::ServerMask;

/// A method of choosing among the servers of one group. Servers are named by their index in the group.
pub trait Balancer {
    /// Takes a new group of servers, at most [`ServerMask::SERVERS_MAX`], and forgets positions. Methods that take turns begin
    /// after `start` virtual turns (taken modulo the sum of the weights), so that the VMs of a process do not all begin with
    /// the same server. `eligible` are those that take part in these turns. Called before the first pick, and again when
    /// addresses have changed; never because somebody is eligible or not.
    fn rebuild(&mut self, servers: &[Share<'_>], eligible: &ServerMask, start: u32);

    /// Takes other weights for the same servers, and keeps positions as far as they still say something: a weight that grows in
    /// steps must not send the first server every request that comes after a step.
    fn reweigh(&mut self, servers: &[Share<'_>], eligible: &ServerMask) {
        self.rebuild(servers, eligible, 0);
    }

    /// Appends servers to `choices` until it is full or every eligible server is in it, in the order in which they should be
    /// tried. None is appended if and only if none is eligible; one that is not eligible never is, and none twice. What is in
    /// `choices` already was chosen before, and is not chosen again. Allocates nothing.
    fn pick(&mut self, question: &mut Question<'_>, choices: &mut Choices);

    /// Takes note of what happened to a request after its pick.
    fn charge(&mut self, charge: &Charge<'_>);
}

/// One server's part in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share<'a> {
    /// 1–65535.
    pub weight: u16,
    /// Failures after which the whole weight is taken away; 0: failures change nothing.
    pub max_fails: u16,
    /// Its name, which stays over reloads.
    pub id: &'a str,
    /// Its address, `ip:port` or `[v6]:port`, canonical.
    pub endpoint: &'a str,
}

/// What a pick may depend on.
pub struct Question<'a> {
    /// Who may be chosen.
    pub eligible: &'a ServerMask,
    /// Requests in flight, by server: own and those of other VMs together. Missing ones count as 0.
    pub in_flight: &'a [u32],
    /// Idle connections to servers (IPVS's "inactive"), by server. Missing ones count as 0; no host tells them today.
    pub idle: &'a [u32],
    /// How long servers take to the first byte of an answer, by server. Missing ones are unknown.
    pub latency: &'a [Latency],
    /// Microseconds on the clock that [`Latency::sampled_us`] was read on. It may stand still, and go back.
    pub now_us: u64,
    pub facts: &'a Facts<'a>,
    pub random: &'a mut Sequence,
    pub advance: Advance,
}

impl Question<'_> {
    /// Requests in flight on a server.
    pub(super) fn active(&self, server: usize) -> u32 {
        self.in_flight.get(server).copied().unwrap_or(0)
    }

    /// The only one that may still be chosen; `None` if there are more, or none. Whatever is tried, it comes to this one.
    pub(super) fn only_left(&self, choices: &Choices) -> Option<usize> {
        let left = self.eligible.count().checked_sub(choices.len());
        left.filter(|left| *left == 1)
            .and_then(|_| self.left(choices).next())
    }

    /// Those that may still be chosen: eligible, and not in `choices`.
    pub(super) fn left<'q>(&'q self, choices: &'q Choices) -> impl Iterator<Item = usize> + 'q {
        self.eligible.iter_without(choices)
    }
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
#[derive(Debug, Clone, Copy)]
pub enum Charge<'a> {
    /// The stand-by `server` was used after those in `tried` had failed; `eligible` are those that can be chosen, and `in_flight` is
    /// as [`Question::in_flight`], with this very request on the first of `tried`.
    Used {
        server: usize,
        tried: &'a Choices,
        eligible: &'a ServerMask,
        in_flight: &'a [u32],
    },
    /// `server` failed.
    Failed { server: usize },
}
