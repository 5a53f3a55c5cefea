//! How often, and how many at a time: requests of one client, of one session, or of whatever a key says, over all VMs of the process.
//!
//! ```text
//!   policy:
//!     limits:
//!       login: {rate: 5r/m, burst: 10, nodelay: true}              nginx's limit_req: a leaky bucket for each key
//!       pages: {rate: 20r/s, burst: 40, delay: 20, key: "$cookie(PHPSESSID)", table: 50000, status: 503}
//!       at_once: {in_flight: 20}                                    nginx's limit_conn: requests that have begun and not ended
//!     routes:
//!       - {match: {path: /login.php}, limit: [login, at_once], pool: shop}
//!
//!   evenkeel//limit/<name>/r<buckets>/<bucket>      8  hash of the key   8  last, ms   4  excess                    ([`rate_table`])
//!   evenkeel//limit/<name>/c<buckets>/<bucket>      8  hash of the key   8  owner      8  touched, ms   4  requests  ([`in_flight_table`])
//!   evenkeel//limit-seed                            8  what keys are hashed with        (little-endian; values are lists of these)
//! ```
//!
//! # Why shared, and how
//! A table in each VM would let every client through as often as there are workers. So states are in the process's shared data, where every
//! change is a compare-and-swap: what is counted is counted exactly, whichever VM a client's connection comes to. Shared data knows no
//! deletion, and each key costs; so a state is not a key of its own, but lies with others in one of a fixed number of buckets, by the hash of its
//! key. A full bucket forgets the state that was used longest ago, as nginx forgets those of a full zone. Keys are known by 64 bits of
//! a hash whose seed nobody outside knows, so that nobody can choose a key that shares another's state.
//!
//! # Order
//! All rates of a route come first, as in nginx: if one refuses, none is charged; the longest delay counts. What may be in flight is looked at
//! after that delay. A request whose key is empty is not limited.
//!
//! # What cannot be written
//! Where the host takes no more, rates let requests pass (a request too many is no outage), and nothing more may be in flight (what is not
//! counted would never end).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use thiserror::Error;

use crate::exchange::HashKey;
use crate::upstream::{SharedData, Slots, Written};

mod in_flight_table;
mod leaky_bucket;
mod rate_table;

#[cfg(test)]
mod tests;

pub use leaky_bucket::{Rate, Verdict};

/// Most limits of one route.
pub const ROUTE_LIMITS_MAX: usize = 8;
/// Lost races after which a change is given up.
const TRIES_MAX: usize = 8;
/// The number with which shared data is written only if it is not there.
const ABSENT: u32 = u32::MAX;
/// States that one bucket is meant for.
const BUCKET_STATES: u32 = 16;

/// One limit.
#[derive(Debug, Clone)]
pub struct Limit {
    pub name: String,
    /// Whose requests are counted together.
    pub key: HashKey,
    /// Of the answer to who is refused.
    pub status: u16,
    pub kind: Kind,
    /// A power of two.
    pub buckets: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Rate(Rate),
    /// Most requests in flight.
    InFlight {
        max: u32,
    },
}

impl Limit {
    /// Whether requests may have to wait under it.
    pub fn delays(&self) -> bool {
        matches!(self.kind, Kind::Rate(rate) if rate.delay < rate.burst)
    }
}

/// A request's key under one limit.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub limit: &'a Limit,
    /// Not empty.
    pub key: &'a [u8],
}

/// What is still to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Everything: the request just came.
    Ask,
    /// It has waited for its turn: what may be in flight.
    AfterDelay,
    /// Nothing.
    Granted,
}

/// Whether a request may go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admitted {
    /// With what it holds until it ends.
    Yes(Vec<Ticket>),
    /// After this time, milliseconds, it is to be asked for again with [`Admission::AfterDelay`].
    Delayed {
        ms: u64,
    },
    Refused {
        why: Refusal,
        status: u16,
    },
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// With the seconds after which it would not be.
    #[error("too many requests in a short time")]
    Rate { retry_after_s: u32 },
    #[error("too many requests at a time")]
    InFlight,
}

/// One request in flight under a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    place: Place,
    hash: u64,
}

/// A limit's table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    name: String,
    buckets: u32,
}

/// What one VM knows of limits, whichever configurations come and go.
#[derive(Debug, Default)]
pub struct LimitState {
    seed: Option<u64>,
    /// This VM's requests in flight.
    own: BTreeMap<Place, BTreeMap<u64, Own>>,
    key: String,
    value: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Own {
    requests: u32,
    told: Told,
}

/// Whether shared data says what is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Yes,
    NotYet,
}

impl LimitState {
    /// Whether a request may go on. `seed` is a random number, used once in the life of a process.
    pub fn admit(
        &mut self,
        wanted: &[Wanted<'_>],
        admission: Admission,
        (now_ms, seed): (u64, u64),
        slots: &Slots,
        data: &mut impl SharedData,
    ) -> Admitted {
        if wanted.is_empty() || admission == Admission::Granted {
            return Admitted::Yes(Vec::new());
        }
        let seed = self.seed(seed, data);
        let hash = |key: &[u8]| xxhash_rust::xxh64::xxh64(key, seed);
        if admission == Admission::Ask {
            match self.rates(wanted, hash, now_ms, data) {
                Verdict::Passes => {}
                Verdict::Delayed { ms } => return Admitted::Delayed { ms },
                Verdict::Refused { after_ms, status } => {
                    let seconds = u32::try_from(after_ms.div_ceil(1_000)).unwrap_or(u32::MAX);
                    let retry_after_s = seconds.max(1);
                    let why = Refusal::Rate { retry_after_s };
                    return Admitted::Refused { why, status };
                }
            }
        }
        let mut tickets: Vec<Ticket> = Vec::new();
        for wanted in wanted {
            let Kind::InFlight { max } = wanted.limit.kind else {
                continue;
            };
            let ticket = Ticket {
                place: Place {
                    name: wanted.limit.name.clone(),
                    buckets: wanted.limit.buckets,
                },
                hash: hash(wanted.key),
            };
            if !self.take(&ticket, max, now_ms, slots, data) {
                for ticket in tickets {
                    self.release(&ticket, now_ms, slots, data);
                }
                let (why, status) = (Refusal::InFlight, wanted.limit.status);
                return Admitted::Refused { why, status };
            }
            tickets.push(ticket);
        }
        Admitted::Yes(tickets)
    }

    /// A request has ended.
    pub fn release(
        &mut self,
        ticket: &Ticket,
        now_ms: u64,
        slots: &Slots,
        data: &mut impl SharedData,
    ) {
        let own = self.own.get_mut(&ticket.place);
        let Some(own) = own.and_then(|table| table.get_mut(&ticket.hash)) else {
            return;
        };
        own.requests = own.requests.saturating_sub(1);
        own.told = Told::NotYet;
        self.tell(ticket, now_ms, slots, data);
    }

    /// Tells what could not be told before. Most of these ticks have nothing to do.
    pub fn tick(&mut self, now_ms: u64, slots: &Slots, data: &mut impl SharedData) {
        let late: Vec<Ticket> = self
            .own
            .iter()
            .flat_map(|(place, table)| {
                let late = table.iter().filter(|(_, own)| own.told == Told::NotYet);
                late.map(|(hash, _)| Ticket {
                    place: place.clone(),
                    hash: *hash,
                })
            })
            .take(LATE_AT_ONCE_MAX)
            .collect();
        for ticket in late {
            self.tell(&ticket, now_ms, slots, data);
        }
        self.own.retain(|_, table| !table.is_empty());
    }

    /// What keys are hashed with: the same in all VMs.
    fn seed(&mut self, fresh: u64, data: &mut impl SharedData) -> u64 {
        const KEY: &[u8] = b"evenkeel//limit-seed";
        if let Some(seed) = self.seed {
            return seed;
        }
        data.set(KEY, &fresh.to_le_bytes(), ABSENT);
        // Whoever came first; without shared data this VM's own.
        let known = data.get(KEY, &mut self.value).and_then(|_| {
            let bytes = self.value.first_chunk::<8>()?;
            Some(u64::from_le_bytes(*bytes))
        });
        let seed = known.unwrap_or(fresh);
        self.seed = Some(seed);
        seed
    }

    /// The rates of a request: all are looked at before any but the last is charged (`ngx_http_limit_req_handler`).
    fn rates(
        &mut self,
        wanted: &[Wanted<'_>],
        hash: impl Fn(&[u8]) -> u64,
        now_ms: u64,
        data: &mut impl SharedData,
    ) -> Verdict {
        let rate = |wanted: &Wanted<'_>| match wanted.limit.kind {
            Kind::Rate(rate) => Some(rate),
            Kind::InFlight { .. } => None,
        };
        let rates = || {
            let rates = wanted.iter();
            rates.filter_map(|wanted| Some((wanted, rate(wanted)?)))
        };
        let count = rates().count();
        let mut delay_ms = 0;
        for (index, (wanted, rate)) in rates().enumerate() {
            let charge = if index + 1 == count {
                rate_table::Charge::IfPasses
            } else {
                rate_table::Charge::No
            };
            let hash = hash(wanted.key);
            match self.rate(wanted.limit, rate, hash, now_ms, charge, data) {
                Verdict::Passes => {}
                Verdict::Delayed { ms } => delay_ms = delay_ms.max(ms),
                Verdict::Refused { after_ms, .. } => {
                    let status = wanted.limit.status;
                    return Verdict::Refused { after_ms, status };
                }
            }
        }
        for (wanted, rate) in rates().take(count.saturating_sub(1)) {
            let (hash, charge) = (hash(wanted.key), rate_table::Charge::Always);
            if let Verdict::Delayed { ms } =
                self.rate(wanted.limit, rate, hash, now_ms, charge, data)
            {
                delay_ms = delay_ms.max(ms);
            }
        }
        match delay_ms {
            0 => Verdict::Passes,
            ms => Verdict::Delayed { ms },
        }
    }

    fn rate(
        &mut self,
        limit: &Limit,
        rate: Rate,
        hash: u64,
        now_ms: u64,
        charge: rate_table::Charge,
        data: &mut impl SharedData,
    ) -> Verdict {
        self.write_key(&limit.name, 'r', limit.buckets, hash);
        let mut verdict = Verdict::Passes;
        // Ends after a bounded number of lost races: then the request is judged by what was read last, and not charged.
        for _ in 0..TRIES_MAX {
            let cas = data.get(self.key.as_bytes(), &mut self.value);
            if cas.is_none() {
                self.value.clear();
            }
            let (found, changed) = rate_table::judge(&mut self.value, hash, rate, now_ms, charge);
            verdict = found;
            if changed == rate_table::Changed::No {
                break;
            }
            match data.set(self.key.as_bytes(), &self.value, cas.unwrap_or(ABSENT)) {
                Written::Done | Written::Failed => break,
                Written::Mismatch => {}
            }
        }
        verdict
    }

    /// Takes a place; `false`: there is none, or it could not be written that it is taken.
    fn take(
        &mut self,
        ticket: &Ticket,
        max: u32,
        now_ms: u64,
        slots: &Slots,
        data: &mut impl SharedData,
    ) -> bool {
        let table = self.own.entry(ticket.place.clone()).or_default();
        let own = table.get(&ticket.hash).map_or(0, |own| own.requests);
        self.write_key(&ticket.place.name, 'c', ticket.place.buckets, ticket.hash);
        for _ in 0..TRIES_MAX {
            let cas = data.get(self.key.as_bytes(), &mut self.value);
            if cas.is_none() {
                self.value.clear();
            }
            let others = in_flight_table::others(&self.value, ticket.hash, now_ms, slots);
            if others.saturating_add(own) >= max {
                return false;
            }
            let requests = own + 1;
            if !in_flight_table::write(&mut self.value, ticket.hash, requests, now_ms, slots) {
                return false;
            }
            match data.set(self.key.as_bytes(), &self.value, cas.unwrap_or(ABSENT)) {
                Written::Done => {
                    let own = Own {
                        requests,
                        told: Told::Yes,
                    };
                    let table = self.own.entry(ticket.place.clone()).or_default();
                    table.insert(ticket.hash, own);
                    return true;
                }
                Written::Mismatch => {}
                Written::Failed => return false,
            }
        }
        false
    }

    /// Writes how many requests of a key this VM has, and forgets the key if there are none.
    fn tell(&mut self, ticket: &Ticket, now_ms: u64, slots: &Slots, data: &mut impl SharedData) {
        let own = self.own.get(&ticket.place);
        let Some(own) = own.and_then(|table| table.get(&ticket.hash)).copied() else {
            return;
        };
        self.write_key(&ticket.place.name, 'c', ticket.place.buckets, ticket.hash);
        for _ in 0..TRIES_MAX {
            let Some(cas) = data.get(self.key.as_bytes(), &mut self.value) else {
                return;
            };
            let requests = own.requests;
            in_flight_table::write(&mut self.value, ticket.hash, requests, now_ms, slots);
            match data.set(self.key.as_bytes(), &self.value, cas) {
                Written::Done => return self.told(ticket),
                Written::Mismatch => {}
                Written::Failed => return,
            }
        }
    }

    fn told(&mut self, ticket: &Ticket) {
        if let Some(table) = self.own.get_mut(&ticket.place) {
            match table.get_mut(&ticket.hash) {
                Some(own) if own.requests > 0 => own.told = Told::Yes,
                _ => drop(table.remove(&ticket.hash)),
            }
        }
    }

    fn write_key(&mut self, name: &str, kind: char, buckets: u32, hash: u64) {
        let bucket = hash & u64::from(buckets.saturating_sub(1));
        self.key.clear();
        // Writing to a String does not fail.
        let _ = write!(self.key, "evenkeel//limit/{name}/{kind}{buckets}/{bucket}");
    }
}

/// Keys that are told again in one tick.
const LATE_AT_ONCE_MAX: usize = 1_024;

/// Buckets for a table of so many states: a power of two.
pub fn buckets(states: u32) -> u32 {
    states.div_ceil(BUCKET_STATES).next_power_of_two()
}
