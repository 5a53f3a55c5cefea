//! The methods by name, and what each needs and forbids.

use super::bounded_load::BoundedLoad;
use super::destination_hash::DestinationHash;
use super::fair::Fair;
use super::first::First;
use super::hash::Hash;
use super::hash_consistent::HashConsistent;
use super::ip_hash::IpHash;
use super::ipvs_least_conn::IpvsLeastConn;
use super::ipvs_two_choices::IpvsTwoChoices;
use super::least_conn::LeastConn;
use super::least_time::LeastTime;
use super::locality_least_conn::LocalityLeastConn;
use super::locality_least_conn_replicated::LocalityLeastConnReplicated;
use super::maglev::Maglev;
use super::never_queue::NeverQueue;
use super::peak_ewma::PeakEwma;
use super::random::Random;
use super::random_two::RandomTwo;
use super::rendezvous::Rendezvous;
use super::round_robin::RoundRobin;
use super::shortest_expected_delay::ShortestExpectedDelay;
use super::source_hash::SourceHash;
use super::weighted_failover::WeightedFailover;
use super::weighted_least_conn::WeightedLeastConn;
use super::weighted_overflow::WeightedOverflow;
use super::weighted_round_robin_ipvs::WeightedRoundRobinIpvs;
use super::{Balancer, LatencyRule};
use crate::config::nearest;

/// A method of balancing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Algorithm {
    #[default]
    RoundRobin,
    WeightedRoundRobinIpvs,
    Random,
    RandomTwo,
    IpHash,
    Hash,
    /// `hash` of the URI, whatever the pool's key.
    UrlHash,
    HashConsistent,
    Maglev,
    Rendezvous,
    SourceHash,
    DestinationHash,
    LocalityLeastConn,
    LocalityLeastConnReplicated,
    LeastConn,
    IpvsLeastConn,
    WeightedLeastConn,
    ShortestExpectedDelay,
    NeverQueue,
    WeightedFailover,
    WeightedOverflow,
    IpvsTwoChoices,
    Fair,
    LeastTime,
    PeakEwma,
    First,
}

/// What a method hashes unless the pool says its own key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyNeed {
    /// Nothing: a key would have no effect.
    None,
    Uri,
    Host,
}

/// Whether a method looks at how busy servers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadNeed {
    /// Nobody need count.
    None,
    /// Requests in flight, of all VMs.
    InFlight,
    /// Requests in flight, and how long servers take to the first byte, averaged by this rule.
    Latency(LatencyRule),
}

/// What a pool says of its method besides the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Parameters {
    /// Most load of a server in percent of its share, above 100; `None`: no bound.
    pub hash_balance_factor: Option<u16>,
}

/// IPVS's own names for its methods.
const ALIASES: [(&str, Algorithm); 12] = [
    ("wrr", Algorithm::WeightedRoundRobinIpvs),
    ("lc", Algorithm::IpvsLeastConn),
    ("wlc", Algorithm::WeightedLeastConn),
    ("sed", Algorithm::ShortestExpectedDelay),
    ("nq", Algorithm::NeverQueue),
    ("sh", Algorithm::SourceHash),
    ("dh", Algorithm::DestinationHash),
    ("lblc", Algorithm::LocalityLeastConn),
    ("lblcr", Algorithm::LocalityLeastConnReplicated),
    ("fo", Algorithm::WeightedFailover),
    ("ovf", Algorithm::WeightedOverflow),
    ("twos", Algorithm::IpvsTwoChoices),
];

impl Algorithm {
    /// Every method that is served.
    pub const ALL: [Self; 26] = [
        Self::RoundRobin,
        Self::WeightedRoundRobinIpvs,
        Self::Random,
        Self::RandomTwo,
        Self::IpHash,
        Self::Hash,
        Self::UrlHash,
        Self::HashConsistent,
        Self::Maglev,
        Self::Rendezvous,
        Self::SourceHash,
        Self::DestinationHash,
        Self::LocalityLeastConn,
        Self::LocalityLeastConnReplicated,
        Self::LeastConn,
        Self::IpvsLeastConn,
        Self::WeightedLeastConn,
        Self::ShortestExpectedDelay,
        Self::NeverQueue,
        Self::WeightedFailover,
        Self::WeightedOverflow,
        Self::IpvsTwoChoices,
        Self::Fair,
        Self::LeastTime,
        Self::PeakEwma,
        Self::First,
    ];

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::WeightedRoundRobinIpvs => "weighted_round_robin_ipvs",
            Self::Random => "random",
            Self::RandomTwo => "random_two",
            Self::IpHash => "ip_hash",
            Self::Hash => "hash",
            Self::UrlHash => "url_hash",
            Self::HashConsistent => "hash_consistent",
            Self::Maglev => "maglev",
            Self::Rendezvous => "rendezvous",
            Self::SourceHash => "source_hash",
            Self::DestinationHash => "destination_hash",
            Self::LocalityLeastConn => "locality_least_conn",
            Self::LocalityLeastConnReplicated => "locality_least_conn_replicated",
            Self::LeastConn => "least_conn",
            Self::IpvsLeastConn => "ipvs_least_conn",
            Self::WeightedLeastConn => "weighted_least_conn",
            Self::ShortestExpectedDelay => "shortest_expected_delay",
            Self::NeverQueue => "never_queue",
            Self::WeightedFailover => "weighted_failover",
            Self::WeightedOverflow => "weighted_overflow",
            Self::IpvsTwoChoices => "ipvs_two_choices",
            Self::Fair => "fair",
            Self::LeastTime => "least_time",
            Self::PeakEwma => "peak_ewma",
            Self::First => "first",
        }
    }

    /// The method of a name or of its short form. The error says what is known.
    pub fn from_name(name: &str) -> Result<Self, String> {
        let named = Self::ALL.map(|algorithm| (algorithm.name(), algorithm));
        let mut known = named.into_iter().chain(ALIASES);
        if let Some((_, algorithm)) = known.clone().find(|(known, _)| *known == name) {
            return Ok(algorithm);
        }
        Err(
            match nearest(name, known.by_ref().map(|(known, _)| known)) {
                Some(near) => format!("no method is named `{name}`; did you mean `{near}`?"),
                None => {
                    let names = Self::ALL.map(Self::name).join(", ");
                    format!("no method is named `{name}`; known: {names}")
                }
            },
        )
    }

    /// A balancer of this method, still without servers.
    pub fn build(self, parameters: &Parameters) -> Box<dyn Balancer> {
        let balancer: Box<dyn Balancer> = match self {
            Self::RoundRobin => Box::new(RoundRobin::default()),
            Self::WeightedRoundRobinIpvs => Box::new(WeightedRoundRobinIpvs::default()),
            Self::Random => Box::new(Random::default()),
            Self::RandomTwo => Box::new(RandomTwo::default()),
            Self::IpHash => Box::new(IpHash::default()),
            Self::Hash | Self::UrlHash => Box::new(Hash::default()),
            Self::HashConsistent => Box::new(HashConsistent::default()),
            Self::Maglev => Box::new(Maglev::default()),
            Self::Rendezvous => Box::new(Rendezvous::default()),
            Self::SourceHash => Box::new(SourceHash::default()),
            Self::DestinationHash => Box::new(DestinationHash::default()),
            Self::LocalityLeastConn => Box::new(LocalityLeastConn::default()),
            Self::LocalityLeastConnReplicated => Box::new(LocalityLeastConnReplicated::default()),
            Self::LeastConn => Box::new(LeastConn::default()),
            Self::IpvsLeastConn => Box::new(IpvsLeastConn::default()),
            Self::WeightedLeastConn => Box::new(WeightedLeastConn::default()),
            Self::ShortestExpectedDelay => Box::new(ShortestExpectedDelay::default()),
            Self::NeverQueue => Box::new(NeverQueue::default()),
            Self::WeightedFailover => Box::new(WeightedFailover::default()),
            Self::WeightedOverflow => Box::new(WeightedOverflow::default()),
            Self::IpvsTwoChoices => Box::new(IpvsTwoChoices::default()),
            Self::Fair => Box::new(Fair::default()),
            Self::LeastTime => Box::new(LeastTime::default()),
            Self::PeakEwma => Box::new(PeakEwma::default()),
            Self::First => Box::new(First::default()),
        };
        match parameters
            .hash_balance_factor
            .filter(|_| self.allows_bounded_load())
        {
            Some(factor) => Box::new(BoundedLoad::around(balancer, factor)),
            None => balancer,
        }
    }

    /// What it hashes.
    pub fn key_need(self) -> KeyNeed {
        match self {
            Self::Hash | Self::UrlHash | Self::HashConsistent | Self::Maglev | Self::Rendezvous => {
                KeyNeed::Uri
            }
            Self::DestinationHash | Self::LocalityLeastConn | Self::LocalityLeastConnReplicated => {
                KeyNeed::Host
            }
            _ => KeyNeed::None,
        }
    }

    /// Whether it looks at load: only then is load counted and told to other VMs.
    pub fn load_need(self) -> LoadNeed {
        match self {
            Self::RoundRobin
            | Self::WeightedRoundRobinIpvs
            | Self::Random
            | Self::IpHash
            | Self::WeightedFailover
            | Self::First
            | Self::Hash
            | Self::UrlHash
            | Self::HashConsistent
            | Self::Maglev
            | Self::Rendezvous
            | Self::SourceHash
            | Self::DestinationHash => LoadNeed::None,
            Self::RandomTwo
            | Self::LeastConn
            | Self::IpvsLeastConn
            | Self::WeightedLeastConn
            | Self::ShortestExpectedDelay
            | Self::NeverQueue
            | Self::WeightedOverflow
            | Self::IpvsTwoChoices
            | Self::Fair
            | Self::LocalityLeastConn
            | Self::LocalityLeastConnReplicated => LoadNeed::InFlight,
            Self::LeastTime => LoadNeed::Latency(LatencyRule::Average),
            Self::PeakEwma => LoadNeed::Latency(LatencyRule::Peak),
        }
    }

    /// Whether a pool of it may have backup servers. nginx's hashes may not: a key has one place. (Neither may its `random`; here
    /// it may, because a second group of servers is none of the first one's business.)
    pub fn allows_backup(self) -> bool {
        !matches!(
            self,
            Self::IpHash | Self::Hash | Self::UrlHash | Self::HashConsistent
        )
    }

    /// Whether a weight says anything: under `first` the order is all there is.
    pub fn allows_weights(self) -> bool {
        self != Self::First
    }

    /// Why a server's weight may not grow slowly after it comes back; `None`: it may. (nginx forbids it with `hash`, `ip_hash` and
    /// `random`.)
    pub fn why_no_slow_start(self) -> Option<&'static str> {
        match self {
            Self::IpHash
            | Self::Hash
            | Self::UrlHash
            | Self::HashConsistent
            | Self::Maglev
            | Self::Rendezvous
            | Self::SourceHash => Some("keys would move with every step of a weight that grows"),
            Self::Random => Some("draws do not follow a weight that grows"),
            Self::First | Self::DestinationHash => Some("it knows no weights"),
            _ => None,
        }
    }

    /// Whether `hash_balance_factor` bounds its load: methods by which the request alone says the server.
    pub fn allows_bounded_load(self) -> bool {
        matches!(
            self,
            Self::IpHash
                | Self::Hash
                | Self::UrlHash
                | Self::HashConsistent
                | Self::Maglev
                | Self::Rendezvous
                | Self::SourceHash
                | Self::DestinationHash
        )
    }
}
