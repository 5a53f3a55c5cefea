//! The methods by name: those that are served, and those that are only understood.

use super::fair::Fair;
use super::first::First;
use super::ip_hash::IpHash;
use super::ipvs_least_conn::IpvsLeastConn;
use super::ipvs_two_choices::IpvsTwoChoices;
use super::least_conn::LeastConn;
use super::least_time::LeastTime;
use super::never_queue::NeverQueue;
use super::peak_ewma::PeakEwma;
use super::random::Random;
use super::random_two::RandomTwo;
use super::round_robin::RoundRobin;
use super::shortest_expected_delay::ShortestExpectedDelay;
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
const ALIASES: [(&str, Algorithm); 8] = [
    ("wrr", Algorithm::WeightedRoundRobinIpvs),
    ("lc", Algorithm::IpvsLeastConn),
    ("wlc", Algorithm::WeightedLeastConn),
    ("sed", Algorithm::ShortestExpectedDelay),
    ("nq", Algorithm::NeverQueue),
    ("fo", Algorithm::WeightedFailover),
    ("ovf", Algorithm::WeightedOverflow),
    ("twos", Algorithm::IpvsTwoChoices),
];

/// Names of the reference configuration that are understood but not served yet.
const NOT_SERVED_YET: [&str; 13] = [
    "hash",
    "hash_consistent",
    "url_hash",
    "maglev",
    "rendezvous",
    "source_hash",
    "sh",
    "destination_hash",
    "dh",
    "locality_least_conn",
    "lblc",
    "locality_least_conn_replicated",
    "lblcr",
];

impl Algorithm {
    /// Every method that is served.
    pub const ALL: [Self; 17] = [
        Self::RoundRobin,
        Self::WeightedRoundRobinIpvs,
        Self::Random,
        Self::RandomTwo,
        Self::IpHash,
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
        if NOT_SERVED_YET.contains(&name) {
            return Err(format!(
                "`{name}` is understood, but not served by this version"
            ));
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
    pub fn build(self, _parameters: &Parameters) -> Box<dyn Balancer> {
        match self {
            Self::RoundRobin => Box::new(RoundRobin::default()),
            Self::WeightedRoundRobinIpvs => Box::new(WeightedRoundRobinIpvs::default()),
            Self::Random => Box::new(Random::default()),
            Self::RandomTwo => Box::new(RandomTwo::default()),
            Self::IpHash => Box::new(IpHash::default()),
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
            | Self::First => LoadNeed::None,
            Self::RandomTwo
            | Self::LeastConn
            | Self::IpvsLeastConn
            | Self::WeightedLeastConn
            | Self::ShortestExpectedDelay
            | Self::NeverQueue
            | Self::WeightedOverflow
            | Self::IpvsTwoChoices
            | Self::Fair => LoadNeed::InFlight,
            Self::LeastTime => LoadNeed::Latency(LatencyRule::Average),
            Self::PeakEwma => LoadNeed::Latency(LatencyRule::Peak),
        }
    }

    /// Whether a pool of it may have backup servers. nginx's hashes may not: a key has one place. (Neither may its `random`; here
    /// it may, because a second group of servers is none of the first one's business.)
    pub fn allows_backup(self) -> bool {
        self != Self::IpHash
    }

    /// Whether a weight says anything: under `first` the order is all there is.
    pub fn allows_weights(self) -> bool {
        self != Self::First
    }

    /// Why a server's weight may not grow slowly after it comes back; `None`: it may. (nginx forbids it with `hash`, `ip_hash` and
    /// `random`.)
    pub fn why_no_slow_start(self) -> Option<&'static str> {
        match self {
            Self::IpHash => Some("keys would move with every step of a weight that grows"),
            Self::Random => Some("draws do not follow a weight that grows"),
            Self::First => Some("it knows no weights"),
            _ => None,
        }
    }

    /// Whether `hash_balance_factor` bounds its load: methods that hash a key.
    pub fn allows_bounded_load(self) -> bool {
        false
    }
}
