//! The methods by name: those that are served, and those that are only understood.

use super::ip_hash::IpHash;
use super::least_conn::LeastConn;
use super::random_two::RandomTwo;
use super::round_robin::RoundRobin;
use super::{Balancer, LatencyRule};
use crate::config::nearest;

/// A method of balancing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Algorithm {
    #[default]
    RoundRobin,
    LeastConn,
    RandomTwo,
    IpHash,
}

/// Whether a method looks at how busy servers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadNeed {
    /// Nobody need count.
    None,
    /// Requests in flight, of all VMs.
    InFlight,
    /// Requests in flight, and how long servers take to the first byte.
    Latency(LatencyRule),
}

/// What a pool says of its method besides the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Parameters {
    /// Most load of a server in percent of its share, above 100; `None`: no bound.
    pub hash_balance_factor: Option<u16>,
}

/// Names of the reference configuration that are understood but not served yet.
const NOT_SERVED_YET: [&str; 33] = [
    "weighted_round_robin_ipvs",
    "wrr",
    "random",
    "hash",
    "hash_consistent",
    "url_hash",
    "maglev",
    "rendezvous",
    "ipvs_least_conn",
    "lc",
    "weighted_least_conn",
    "wlc",
    "shortest_expected_delay",
    "sed",
    "never_queue",
    "nq",
    "source_hash",
    "sh",
    "destination_hash",
    "dh",
    "locality_least_conn",
    "lblc",
    "locality_least_conn_replicated",
    "lblcr",
    "weighted_failover",
    "fo",
    "weighted_overflow",
    "ovf",
    "ipvs_two_choices",
    "twos",
    "fair",
    "least_time",
    "peak_ewma",
];

impl Algorithm {
    /// Every method that is served.
    pub const ALL: [Self; 4] = [
        Self::RoundRobin,
        Self::LeastConn,
        Self::RandomTwo,
        Self::IpHash,
    ];

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::LeastConn => "least_conn",
            Self::RandomTwo => "random_two",
            Self::IpHash => "ip_hash",
        }
    }

    /// The method of a name. The error says what is known.
    pub fn from_name(name: &str) -> Result<Self, String> {
        if let Some(algorithm) = Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
        {
            return Ok(algorithm);
        }
        if NOT_SERVED_YET.contains(&name) || name == "first" {
            return Err(format!(
                "`{name}` is understood, but not served by this version"
            ));
        }
        let names = Self::ALL.map(Self::name);
        Err(match nearest(name, names.into_iter()) {
            Some(near) => format!("no method is named `{name}`; did you mean `{near}`?"),
            None => format!("no method is named `{name}`; known: {}", names.join(", ")),
        })
    }

    /// A balancer of this method, still without servers.
    pub fn build(self, _parameters: &Parameters) -> Box<dyn Balancer> {
        match self {
            Self::RoundRobin => Box::new(RoundRobin::default()),
            Self::LeastConn => Box::new(LeastConn::default()),
            Self::RandomTwo => Box::new(RandomTwo::default()),
            Self::IpHash => Box::new(IpHash::default()),
        }
    }

    /// Whether it looks at load: only then is load counted and told to other VMs.
    pub fn load_need(self) -> LoadNeed {
        match self {
            Self::LeastConn | Self::RandomTwo => LoadNeed::InFlight,
            Self::RoundRobin | Self::IpHash => LoadNeed::None,
        }
    }

    /// Whether a pool of it may have backup servers (nginx: `ip_hash` and `random` may not; here `random_two` may, because a
    /// second group of servers is none of the first one's business).
    pub fn allows_backup(self) -> bool {
        self != Self::IpHash
    }
}
