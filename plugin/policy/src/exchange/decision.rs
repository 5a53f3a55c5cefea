//! From the head of a request to the ordered list of servers, and what its headers become.

use std::net::{IpAddr, SocketAddr};

use super::edits::Edits;
use super::forwarded::{Peer, must_go};
use super::hash_key::KeyFacts;
use super::template::{HeaderTemplates, Values, make_request_id};
use crate::balance::{Choices, Facts};
use crate::client_ip::{AddressHeader, RealIp, write_ip};
use crate::config::Config;
use crate::contract::{
    EXPLAIN_HEADER, MAX_RETRIES_HEADER, POOL_HEADER, RETRIABLE_STATUSES_HEADER, RETRY_ON_HEADER,
    STEERING_HEADER,
};
use crate::random::Sequence;
use crate::routing::Router;
use crate::upstream::{Chosen, InFlight, Pool};

const REAL_IP: &[u8] = b"x-real-ip";
const FORWARDED_FOR: &[u8] = b"x-forwarded-for";
const FORWARDED_PROTO: &[u8] = b"x-forwarded-proto";

/// What a configuration says, with the state of its pools: one for each configuration of a VM.
pub struct Policy {
    real_ip: Option<RealIp>,
    request_headers: HeaderTemplates,
    makes_request_ids: MakesRequestIds,
    router: Router,
    pools: Vec<Pool>,
    /// The key of the request that is being decided about: kept between requests to spare an allocation.
    hash_key: Vec<u8>,
    no_route: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MakesRequestIds {
    IfMissing,
    Never,
}

/// The head of a request: its peer, and its headers as pairs of lower-case name and value, pseudo-headers among them.
#[derive(Debug, Clone)]
pub struct Head<H> {
    pub peer: Option<SocketAddr>,
    pub pairs: H,
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// No route matches: 404.
    NoRoute,
    /// No server of the pool is eligible: 503.
    NoServer { pool: usize },
    /// All eligible servers of the pool have as many requests as they take: it waits, or 503.
    AllFull { pool: usize },
    /// These servers of the pool, in this order.
    Steered { pool: usize, choices: Choices },
    /// The pool, and the host chooses in it.
    Routed { pool: usize },
}

/// What was decided, for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decided {
    pub decision: Decision,
    pub client: Option<IpAddr>,
    /// A proxy asked for the reasons.
    pub explain: Explain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Explain {
    Asked,
    NotAsked,
}

/// What a request's headers say, in one pass.
struct Noted<'a> {
    method: &'a [u8],
    path: &'a [u8],
    host: &'a [u8],
    scheme: &'static [u8],
    request_id: Option<&'a [u8]>,
    forwarded_proto: Option<&'a [u8]>,
    forwarded_for: Lines<'a>,
    explain: Explain,
}

/// The lines of a header that may come more than once, and nearly never does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lines<'a> {
    None,
    One(&'a [u8]),
    /// To be looked for once more.
    Several,
}

impl<'a> Lines<'a> {
    fn and(self, line: &'a [u8]) -> Self {
        match self {
            Self::None => Self::One(line),
            Self::One(_) | Self::Several => Self::Several,
        }
    }
}

impl Policy {
    /// `start` is the VM's slot (0 without one).
    pub fn new(config: &Config, in_flight: &mut InFlight, start: u32) -> Self {
        let needs_id = config
            .request_headers
            .iter()
            .any(|(_, template)| template.needs_request_id());
        Self {
            real_ip: config.real_ip.clone(),
            request_headers: config.request_headers.clone(),
            makes_request_ids: if needs_id {
                MakesRequestIds::IfMissing
            } else {
                MakesRequestIds::Never
            },
            router: config.router.clone(),
            pools: config
                .pools
                .iter()
                .map(|pool| Pool::new(pool, in_flight, start))
                .collect(),
            hash_key: Vec::new(),
            no_route: 0,
        }
    }

    /// The pools, in the order of the configuration's.
    pub fn pools(&self) -> &[Pool] {
        &self.pools
    }

    pub fn pools_mut(&mut self) -> &mut [Pool] {
        &mut self.pools
    }

    /// Requests that no route matched, since it was asked last.
    pub fn take_no_route(&mut self) -> u64 {
        std::mem::take(&mut self.no_route)
    }

    /// Decides about a request, and writes into `edits` (cleared before) what its headers become. Allocates nothing once the
    /// buffers have grown. `choose` is called with the pool: it looks at other VMs where that matters, and chooses.
    pub fn decide<'a, H>(
        &mut self,
        head: &Head<H>,
        random: &mut Sequence,
        edits: &mut Edits,
        choose: impl FnOnce(&mut Pool, &Facts<'_>, &mut Sequence) -> Chosen,
    ) -> Decided
    where
        H: DoubleEndedIterator<Item = (&'a [u8], &'a [u8])> + Clone,
    {
        edits.clear();
        let peer_ip = head.peer.map(|peer| peer.ip().to_canonical());
        let trust = self
            .real_ip
            .as_ref()
            .zip(peer_ip)
            .filter(|(real_ip, peer)| real_ip.trusted.contains(*peer));
        let peer = if trust.is_some() {
            Peer::Trusted
        } else {
            Peer::Stranger
        };
        let noted = self.note(head.pairs.clone(), peer, edits);
        let client = match trust {
            Some((real_ip, peer)) => match (&real_ip.header, noted.forwarded_for) {
                (AddressHeader::ForwardedFor, Lines::None) => {
                    Some(real_ip.client(peer, std::iter::empty()))
                }
                (AddressHeader::ForwardedFor, Lines::One(line)) => {
                    Some(real_ip.client(peer, std::iter::once(line)))
                }
                _ => {
                    let lines = head
                        .pairs
                        .clone()
                        .filter(|(name, _)| *name == real_ip.header.name());
                    Some(real_ip.client(peer, lines.map(|(_, value)| value)))
                }
            },
            None => peer_ip,
        };
        let decided = |decision| Decided {
            decision,
            client,
            explain: noted.explain,
        };
        let Some(pool_index) = self.router.pool(noted.host, noted.path, noted.method) else {
            self.no_route += 1;
            return decided(Decision::NoRoute);
        };
        let Some(pool) = self.pools.get_mut(pool_index) else {
            return decided(Decision::NoRoute);
        };
        self.hash_key.clear();
        if let Some(template) = pool.hash_key() {
            let facts = KeyFacts {
                path: noted.path,
                host: noted.host,
                client,
                pairs: &head.pairs,
            };
            template.write(&facts, &mut self.hash_key);
        }
        let facts = Facts {
            client,
            hash_key: &self.hash_key,
        };
        let choices = match choose(pool, &facts, random) {
            Chosen::Servers(choices) => Some(choices),
            Chosen::ByHost => None,
            Chosen::Nobody => return decided(Decision::NoServer { pool: pool_index }),
            Chosen::AllFull => return decided(Decision::AllFull { pool: pool_index }),
        };
        self.tell_servers(&noted, head, (peer, peer_ip, client), random, edits);
        let pool = pool_index;
        if let Some(pool) = self.pools.get(pool) {
            route(pool, choices.as_ref(), noted.method, edits);
        }
        decided(match choices {
            Some(choices) => Decision::Steered { pool, choices },
            None => Decision::Routed { pool },
        })
    }

    /// Why: for people, only when asked for. At most a few hundred bytes.
    pub fn explain(&self, decided: &Decided, out: &mut Vec<u8>) {
        out.clear();
        let mut say = |text: &str| out.extend_from_slice(text.as_bytes());
        let (pool, choices) = match decided.decision {
            Decision::NoRoute => return say("no route matches"),
            Decision::NoServer { pool }
            | Decision::AllFull { pool }
            | Decision::Routed { pool } => (pool, None),
            Decision::Steered { pool, choices } => (pool, Some(choices)),
        };
        let Some(pool) = self.pools.get(pool) else {
            return;
        };
        say("pool ");
        say(pool.name());
        let Some(choices) = choices else {
            return say(match decided.decision {
                Decision::AllFull { .. } => ": all servers have as many requests as they take",
                Decision::Routed { .. } => ": the host chooses",
                _ => ": no server is eligible",
            });
        };
        say(": ");
        say(pool.algorithm().name());
        for (place, server) in choices.iter().enumerate() {
            say(match place {
                0 => " chose ",
                1 => "; next ",
                _ => ", ",
            });
            say(pool.id(server));
            if place == 0 {
                say(" of ");
                say(&pool.len().to_string());
            }
        }
    }

    /// Reads the headers once, and marks for removal those that must not go on.
    fn note<'a>(
        &self,
        pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        peer: Peer,
        edits: &mut Edits,
    ) -> Noted<'a> {
        let mut noted = Noted {
            method: b"",
            path: b"",
            host: b"",
            scheme: b"http",
            request_id: None,
            forwarded_proto: None,
            forwarded_for: Lines::None,
            explain: Explain::NotAsked,
        };
        let address_header = self
            .real_ip
            .as_ref()
            .and_then(|real_ip| match &real_ip.header {
                AddressHeader::ForwardedFor => None,
                AddressHeader::Named(name) => Some(name.as_slice()),
            });
        let removes = self.request_headers.removes();
        for (name, value) in pairs {
            // Most headers are let through by their first letter.
            match name.first() {
                Some(b':') => {
                    noted.pseudo(name, value);
                    continue;
                }
                Some(b'x') if noted.is_told(name, value, peer) => continue,
                _ => {}
            }
            let removed = removes && self.request_headers.removes_header(name);
            if removed || (must_go(name, peer, address_header) && !is_set(name)) {
                edits.remove(name);
            }
        }
        noted
    }

    /// X-Real-IP, X-Forwarded-For, X-Forwarded-Proto, and what the configuration sets.
    fn tell_servers<'a, H>(
        &self,
        noted: &Noted<'a>,
        head: &Head<H>,
        (peer, peer_ip, client): (Peer, Option<IpAddr>, Option<IpAddr>),
        random: &mut Sequence,
        edits: &mut Edits,
    ) where
        H: Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    {
        let templates = &self.request_headers;
        if !templates.names(REAL_IP) {
            match client {
                Some(client) => edits.set_with(REAL_IP, |out| write_ip(client, out)),
                None => edits.remove(REAL_IP),
            }
        }
        if !templates.names(FORWARDED_FOR) {
            match peer_ip {
                Some(peer_ip) => edits.set_with(FORWARDED_FOR, |out| {
                    let mut before = |line: &[u8]| {
                        if !line.is_empty() {
                            out.extend_from_slice(line);
                            out.extend_from_slice(b", ");
                        }
                    };
                    match noted.forwarded_for {
                        _ if peer == Peer::Stranger => {}
                        Lines::None => {}
                        Lines::One(line) => before(line),
                        Lines::Several => head
                            .pairs
                            .clone()
                            .filter(|(name, _)| *name == FORWARDED_FOR)
                            .for_each(|(_, line)| before(line)),
                    }
                    // The hop that was really there, never the address that was found for it.
                    write_ip(peer_ip, out);
                }),
                None => edits.remove(FORWARDED_FOR),
            }
        }
        if !templates.names(FORWARDED_PROTO) && noted.forwarded_proto.is_none() {
            edits.set(FORWARDED_PROTO, noted.scheme);
        }
        let made = match (self.makes_request_ids, noted.request_id) {
            (MakesRequestIds::IfMissing, None) => Some(make_request_id(random)),
            _ => None,
        };
        let (host, scheme, request_id) = (noted.host, noted.scheme, noted.request_id);
        let values = Values {
            client,
            peer: peer_ip,
            host,
            scheme,
            request_id,
            made_request_id: made,
        };
        for (name, template) in templates.iter() {
            if !template.is_empty() {
                edits.set_named(name, |out| template.write(&values, out));
            } else if [REAL_IP, FORWARDED_FOR, FORWARDED_PROTO].contains(&name) {
                edits.remove(name);
            }
        }
    }
}

impl<'a> Noted<'a> {
    fn pseudo(&mut self, name: &[u8], value: &'a [u8]) {
        match name {
            b":method" => self.method = value,
            b":path" => self.path = value,
            b":authority" => self.host = value,
            b":scheme" if value.eq_ignore_ascii_case(b"https") => self.scheme = b"https",
            _ => {}
        }
    }

    /// Takes note of a header that is set or removed later, once: whether it is one.
    fn is_told(&mut self, name: &[u8], value: &'a [u8], peer: Peer) -> bool {
        match name {
            REAL_IP => {}
            FORWARDED_FOR => self.forwarded_for = self.forwarded_for.and(value),
            FORWARDED_PROTO => {
                if peer == Peer::Trusted && self.forwarded_proto.is_none() {
                    self.forwarded_proto = Some(value);
                }
            }
            b"x-request-id" if self.request_id.is_none() => {
                self.request_id = Some(value);
                return false;
            }
            _ => {
                if name == EXPLAIN_HEADER.as_bytes() {
                    self.explain = Explain::Asked;
                }
                return false;
            }
        }
        true
    }
}

/// What is set anyway need not be removed before.
fn is_set(name: &[u8]) -> bool {
    let set = [
        STEERING_HEADER,
        POOL_HEADER,
        RETRY_ON_HEADER,
        MAX_RETRIES_HEADER,
    ];
    set.iter().any(|set| set.as_bytes() == name)
}

/// The headers that name the pool, its servers (unless the host chooses them), and how to go on to the next.
fn route(pool: &Pool, choices: Option<&Choices>, method: &[u8], edits: &mut Edits) {
    match choices {
        Some(choices) => edits.set_with(STEERING_HEADER.as_bytes(), |out| {
            for (place, server) in choices.iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(pool.endpoint(server).as_bytes());
            }
        }),
        // What a client sent would steer.
        None => edits.remove(STEERING_HEADER.as_bytes()),
    }
    edits.set_with(POOL_HEADER.as_bytes(), |out| {
        out.extend_from_slice(pool.name().as_bytes());
    });
    // `reset` also covers a server that breaks off in the middle of its work, which is only harmless to repeat for methods that
    // may be repeated (RFC 9110 section 9.2.2).
    let retry_on = pool.retry_on();
    let repeatable = matches!(
        method,
        b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE"
    );
    let conditions = if repeatable {
        &retry_on.repeatable
    } else {
        &retry_on.unsent
    };
    edits.set_with(RETRY_ON_HEADER.as_bytes(), |out| {
        out.extend_from_slice(conditions.as_bytes());
    });
    if repeatable && !retry_on.statuses.is_empty() {
        let statuses = retry_on.statuses.as_bytes();
        edits.set_with(RETRIABLE_STATUSES_HEADER.as_bytes(), |out| {
            out.extend_from_slice(statuses);
        });
    }
    // At most ENDPOINTS_MAX - 1, one digit.
    let retries = match choices {
        Some(choices) => u8::try_from(choices.len().saturating_sub(1)).unwrap_or(0),
        None => pool.retries(),
    };
    let retries = retries.min(9);
    edits.set_with(MAX_RETRIES_HEADER.as_bytes(), |out| {
        out.push(b'0' + retries)
    });
}
