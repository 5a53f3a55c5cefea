//! From the head of a request to the ordered list of servers, and what its headers become.

use std::net::{IpAddr, SocketAddr};

use super::action::{Action, RouteRule};
use super::edits::Edits;
use super::forwarded::Peer;
use super::hash_key::KeyFacts;
use super::header_rules::HeaderRules;
use super::noted::{Noted, note};
use super::reply::Reply;
use super::steps::{admitted, answer, client, rewritten, steer};
use super::telling::{Addresses, Defaults, Telling, tell};
use super::template::{REQUEST_ID_BYTES, Values, make_request_id};
use crate::balance::{Choices, Facts};
use crate::client_ip::RealIp;
use crate::config::Config;
use crate::limits::{Admission, Admitted, Limit, Refusal, Ticket, Wanted};
use crate::random::Sequence;
use crate::routing::{
    Normal, PathFault, RequestView, Router, is_authority, normalise, split_query,
};
use crate::upstream::{Chosen, InFlight, Pool};

const PATH: &[u8] = b":path";

/// What a configuration says, with the state of its pools: one for each configuration of a VM.
pub struct Policy {
    real_ip: Option<RealIp>,
    telling: Telling,
    defaults: Defaults,
    response_headers: HeaderRules,
    makes_request_ids: MakesRequestIds,
    router: Router,
    rules: Vec<RouteRule>,
    limits: Vec<Limit>,
    pools: Vec<Pool>,
    buffers: Buffers,
    reply: Reply,
    response_edits: Edits,
    tickets: Vec<Ticket>,
    no_route: u64,
}

/// What is written for one request and not needed after it: kept to spare allocations.
#[derive(Debug, Default)]
struct Buffers {
    /// The target in its normal form, where that is not how it came.
    normal: Vec<u8>,
    /// The target as a route rewrites it, before and after it is brought into its normal form.
    rewritten: Vec<u8>,
    rewritten_normal: Vec<u8>,
    hash_key: Vec<u8>,
    /// Keys of limits, one after the other.
    limit_keys: Vec<u8>,
}

/// What a decision needs of the VM.
pub trait Surroundings {
    /// Whether a request is within its limits.
    fn admit(&mut self, wanted: &[Wanted<'_>], random: &mut Sequence) -> Admitted;

    /// Looks at other VMs where that matters, and chooses servers.
    fn choose(&mut self, pool: &mut Pool, facts: &Facts<'_>, random: &mut Sequence) -> Chosen;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MakesRequestIds {
    IfMissing,
    Never,
}

/// The head of a request: its peer, and its headers as pairs of lower-case name and value, pseudo-headers among them.
#[derive(Debug, Clone)]
pub struct Head<H> {
    /// What a PROXY header says, or the socket's.
    pub peer: Option<SocketAddr>,
    /// The socket's, where it was asked for: see [`Policy::needs_tcp_peer`].
    pub tcp_peer: Option<SocketAddr>,
    pub pairs: H,
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// No route matches: 404.
    NoRoute,
    /// It is answered by [`Policy::reply`].
    Answered(Answered),
    /// It has to wait for so long, and is then decided about again with [`Admission::AfterDelay`].
    Delayed { ms: u64 },
    /// No server of the pool is eligible: 503.
    NoServer { pool: usize },
    /// All eligible servers of the pool have as many requests as they take: it waits, or 503.
    AllFull { pool: usize },
    /// These servers of the pool, in this order.
    Steered { pool: usize, choices: Choices },
    /// The pool, and the host chooses in it.
    Routed { pool: usize },
}

/// Why a request gets an answer that no server gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    BadPath(PathFault),
    BadHost,
    Redirected,
    Responded,
    Denied,
    Limited(Refusal),
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

impl Policy {
    /// `start` is the VM's slot (0 without one).
    pub fn new(config: &Config, in_flight: &mut InFlight, start: u32) -> Self {
        let defaults = Defaults::of(&config.telling);
        let in_answers = config.rules.iter().any(|rule| match &rule.action {
            Action::Redirect { location, .. } => location.needs_request_id(),
            Action::Respond(respond) => {
                let mut headers = respond.headers.iter();
                headers.any(|(_, template)| template.needs_request_id())
            }
            Action::Pool { .. } | Action::Deny { .. } => false,
        });
        let needs_id = defaults.request_id()
            || config.telling.rules.needs_request_id()
            || config.response_headers.needs_request_id()
            || in_answers;
        Self {
            real_ip: config.real_ip.clone(),
            telling: config.telling.clone(),
            defaults,
            response_headers: config.response_headers.clone(),
            makes_request_ids: if needs_id {
                MakesRequestIds::IfMissing
            } else {
                MakesRequestIds::Never
            },
            router: config.router.clone(),
            rules: config.rules.clone(),
            limits: config.limits.clone(),
            pools: config
                .pools
                .iter()
                .map(|pool| Pool::new(pool, in_flight, start))
                .collect(),
            buffers: Buffers::default(),
            reply: Reply::default(),
            response_edits: Edits::default(),
            tickets: Vec::new(),
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

    /// Whether [`Head::tcp_peer`] matters.
    pub fn needs_tcp_peer(&self) -> bool {
        self.router.needs_tcp_peer()
    }

    /// The answer to the request that was just decided about, if that is [`Decision::Answered`].
    pub fn reply(&self) -> &Reply {
        &self.reply
    }

    /// What becomes of the headers of the response to the request that was just decided about; `None`: nothing.
    pub fn take_response_edits(&mut self) -> Option<Edits> {
        let edits = std::mem::take(&mut self.response_edits);
        (!edits.is_empty()).then_some(edits)
    }

    /// What the request that was just decided about holds until it ends.
    pub fn take_tickets(&mut self) -> Vec<Ticket> {
        std::mem::take(&mut self.tickets)
    }

    /// Whether requests may have to wait for their turn.
    pub fn delays(&self) -> bool {
        self.limits.iter().any(Limit::delays)
    }

    /// Requests that no route matched, since it was asked last.
    pub fn take_no_route(&mut self) -> u64 {
        std::mem::take(&mut self.no_route)
    }

    /// Decides about a request, and writes into `edits` (cleared before) what its headers become. Allocates nothing once the
    /// buffers have grown, unless the configuration asks for what needs it. `admission`: which limits are still to be looked at.
    pub fn decide<'a, H>(
        &mut self,
        head: &Head<H>,
        random: &mut Sequence,
        edits: &mut Edits,
        admission: Admission,
        surroundings: &mut impl Surroundings,
    ) -> Decided
    where
        H: DoubleEndedIterator<Item = (&'a [u8], &'a [u8])> + Clone,
    {
        edits.clear();
        self.response_edits.clear();
        let peer_ip = head.peer.map(|peer| peer.ip().to_canonical());
        let trust = self
            .real_ip
            .as_ref()
            .zip(peer_ip)
            .filter(|(real_ip, peer)| real_ip.trusted.contains(*peer));
        let whose_word = if trust.is_some() {
            Peer::Trusted
        } else {
            Peer::Stranger
        };
        let real_ip = self.real_ip.as_ref();
        let rules = &self.telling.rules;
        let noted = note(head.pairs.clone(), whose_word, real_ip, rules, edits);
        let client = match trust {
            Some((real_ip, peer)) => Some(client(real_ip, peer, &noted, &head.pairs)),
            None => peer_ip,
        };
        let addresses = Addresses {
            whose_word,
            peer: peer_ip,
            client,
        };
        let mut buffers = std::mem::take(&mut self.buffers);
        let decision = self.decide_for(
            addresses,
            &noted,
            head,
            &mut buffers,
            random,
            edits,
            admission,
            surroundings,
        );
        self.buffers = buffers;
        Decided {
            decision,
            client,
            explain: noted.explain,
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the state of one decision, split for the borrow checker"
    )]
    fn decide_for<'a, H>(
        &mut self,
        addresses: Addresses,
        noted: &Noted<'a>,
        head: &Head<H>,
        buffers: &mut Buffers,
        random: &mut Sequence,
        edits: &mut Edits,
        admission: Admission,
        surroundings: &mut impl Surroundings,
    ) -> Decision
    where
        H: DoubleEndedIterator<Item = (&'a [u8], &'a [u8])> + Clone,
    {
        if !is_authority(noted.host) {
            self.reply.error(400, "bad_host", "the host is refused");
            return Decision::Answered(Answered::BadHost);
        }
        let target = match normalise(noted.target, &mut buffers.normal) {
            Ok(Normal::AsReceived) => noted.target,
            Ok(Normal::Written) => buffers.normal.as_slice(),
            Err(fault) => {
                self.reply.bad_path(fault);
                return Decision::Answered(Answered::BadPath(fault));
            }
        };
        let (path, query) = split_query(target);
        let view = RequestView {
            host: noted.host,
            method: noted.method,
            path,
            query,
            client: addresses.client,
            peer: addresses.peer,
            tcp_peer: head
                .tcp_peer
                .map_or(addresses.peer, |peer| Some(peer.ip().to_canonical())),
            pairs: &head.pairs,
        };
        let route = self.router.route(&view);
        if route.is_none() && self.response_headers.is_empty() {
            self.no_route += 1;
            return Decision::NoRoute;
        }
        let made: [u8; REQUEST_ID_BYTES];
        let request_id = match (noted.request_id, self.makes_request_ids) {
            (Some(id), _) => id,
            (None, MakesRequestIds::Never) => b"",
            (None, MakesRequestIds::IfMissing) => {
                made = make_request_id(random);
                &made
            }
        };
        let values = Values {
            client: addresses.client,
            peer: addresses.peer,
            host: noted.host,
            scheme: noted.scheme,
            method: noted.method,
            target,
            path,
            query,
            request_id,
        };
        if !self.response_headers.is_empty() {
            self.response_headers
                .write(&values, &mut self.response_edits);
        }
        let Some(rule) = route.and_then(|route| self.rules.get(route)) else {
            self.no_route += 1;
            return Decision::NoRoute;
        };
        let keys = KeyFacts {
            path: noted.target,
            host: noted.host,
            client: addresses.client,
            pairs: &head.pairs,
        };
        if !rule.limits.is_empty() && admission != Admission::Granted {
            let limits = rule.limits.iter();
            let limits = limits.filter_map(|limit| self.limits.get(*limit));
            let text = &mut buffers.limit_keys;
            match admitted(limits, &keys, text, random, surroundings) {
                Admitted::Yes(tickets) => self.tickets = tickets,
                Admitted::Delayed { ms } => return Decision::Delayed { ms },
                Admitted::Refused { why, status } => {
                    self.reply.limited(status, why);
                    return Decision::Answered(Answered::Limited(why));
                }
            }
        }
        let (pool_index, rewrite) = match &rule.action {
            Action::Pool { pool, rewrite } => (*pool, rewrite.as_ref()),
            other => return Decision::Answered(answer(other, &values, &mut self.reply)),
        };
        let texts = (&mut buffers.rewritten, &mut buffers.rewritten_normal);
        let sent = match rewrite.map(|rewrite| rewritten(rewrite, path, query, texts)) {
            None | Some(Ok(None)) => target,
            Some(Ok(Some(rewritten))) => rewritten,
            Some(Err(fault)) => {
                self.reply.bad_path(fault);
                return Decision::Answered(Answered::BadPath(fault));
            }
        };
        let Some(pool) = self.pools.get_mut(pool_index) else {
            return Decision::NoRoute;
        };
        buffers.hash_key.clear();
        if let Some(template) = pool.hash_key() {
            template.write(&keys, &mut buffers.hash_key);
        }
        let facts = Facts {
            client: addresses.client,
            hash_key: &buffers.hash_key,
        };
        let choices = match surroundings.choose(pool, &facts, random) {
            Chosen::Servers(choices) => Some(choices),
            Chosen::ByHost => None,
            Chosen::Nobody => return Decision::NoServer { pool: pool_index },
            Chosen::AllFull => return Decision::AllFull { pool: pool_index },
        };
        if sent != noted.target {
            edits.set_with(PATH, |out| out.extend_from_slice(sent));
        }
        let (telling, defaults) = (&self.telling, &self.defaults);
        tell(
            telling,
            defaults,
            noted,
            &head.pairs,
            addresses,
            &values,
            edits,
        );
        let pool = pool_index;
        if let Some(pool) = self.pools.get(pool) {
            steer(pool, choices.as_ref(), noted.method, edits);
        }
        match choices {
            Some(choices) => Decision::Steered { pool, choices },
            None => Decision::Routed { pool },
        }
    }
}
