//! The methods by name: those that are served, and those that are only understood.

use super::bounded_load::BoundedLoad;
use super::destination_hash::DestinationHash;
use super::hash::Hash;
use super::hash_consistent::HashConsistent;
use super::ip_hash::IpHash;
use super::least_conn::LeastConn;
use super::locality_least_conn::LocalityLeastConn;
use super::locality_least_conn_replicated::LocalityLeastConnReplicated;
use super::maglev::Maglev;
use super::random_two::RandomTwo;
use super::rendezvous::Rendezvous;
use super::round_robin::RoundRobin;
use super::source_hash::SourceHash;
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
const NOT_SERVED_YET: [&str; 20] = [
    "weighted_round_robin_ipvs",
    "wrr",
    "random",
    "ipvs_least_conn",
    "lc",
    "weighted_least_conn",
    "wlc",
    "shortest_expected_delay",
    "sed",
    "never_queue",
    "nq",
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
    pub const ALL: [Self; 13] = [
        Self::RoundRobin,
        Self::LeastConn,
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
    ];

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::LeastConn => "least_conn",
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
        }
    }

    /// IPVS's short name for it, which does as well.
    fn short_name(self) -> Option<&'static str> {
        match self {
            Self::SourceHash => Some("sh"),
            Self::DestinationHash => Some("dh"),
            Self::LocalityLeastConn => Some("lblc"),
            Self::LocalityLeastConnReplicated => Some("lblcr"),
            _ => None,
        }
    }

    /// The method of a name. The error says what is known.
    pub fn from_name(name: &str) -> Result<Self, String> {
        if let Some(algorithm) = Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name || algorithm.short_name() == Some(name))
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
    pub fn build(self, parameters: &Parameters) -> Box<dyn Balancer> {
        let balancer: Box<dyn Balancer> = match self {
            Self::RoundRobin => Box::new(RoundRobin::default()),
            Self::LeastConn => Box::new(LeastConn::default()),
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
        };
        match parameters.hash_balance_factor.filter(|_| self.hashes()) {
            Some(factor) => Box::new(BoundedLoad::around(balancer, factor)),
            None => balancer,
        }
    }

    /// Whether the request alone says the server: only then is there a bound to set (`hash_balance_factor`).
    pub fn hashes(self) -> bool {
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
            Self::LeastConn
            | Self::RandomTwo
            | Self::LocalityLeastConn
            | Self::LocalityLeastConnReplicated => LoadNeed::InFlight,
            _ => LoadNeed::None,
        }
    }

    /// Whether a pool of it may have backup servers (nginx: `ip_hash`, `hash` and `random` may not; here those that draw may, because a
    /// second group of servers is none of the first one's business).
    pub fn allows_backup(self) -> bool {
        !matches!(
            self,
            Self::IpHash | Self::Hash | Self::UrlHash | Self::HashConsistent
        )
    }
}
