//! What a request must be like for a route: the kinds of conditions, and how they hold.
//!
//! Within one list any value is enough; exact path, prefix, suffix and expression count as one list, and so do a host's; all kinds must hold, and an
//! empty kind does. Hosts, paths and methods of routes are looked up in tables; the rest ([`Conditions::rest_holds`]) is tried one by one, for
//! routes that have nothing else against them.

use std::net::IpAddr;

use regex::bytes::Regex;

use super::host::{HostPattern, without_port};
use super::path::suffix_text;
use super::request_view::{RequestView, parameters};
use super::text_pattern::{Case, TextPattern};
use crate::client_ip::TrustedNetworks;

/// What a request must be like.
#[derive(Debug, Clone, Default)]
pub struct Conditions {
    pub hosts: Vec<HostPattern>,
    /// Over the host in lower case.
    pub host_regexes: Vec<Regex>,
    pub methods: Vec<Box<[u8]>>,
    pub paths: Vec<Box<[u8]>>,
    pub path_prefixes: Vec<Box<[u8]>>,
    pub path_suffixes: Vec<Box<[u8]>>,
    /// Know themselves whether case matters.
    pub path_regexes: Vec<Regex>,
    /// Of paths (not of expressions), and of the values in `fields`.
    pub case: Case,
    /// All of them must hold.
    pub fields: Vec<FieldCondition>,
    pub client: Option<ClientCondition>,
    /// None of them may hold as a whole.
    pub not: Vec<Conditions>,
}

/// What a header or a parameter of the query must be.
#[derive(Debug, Clone)]
pub struct FieldCondition {
    pub field: Field,
    pub wanted: Wanted,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// By lower-case name; each line is a value.
    Header(Box<[u8]>),
    /// By name; each parameter of the name has a value.
    Query(Box<[u8]>),
}

#[derive(Debug, Clone)]
pub enum Wanted {
    Present,
    Absent,
    /// Any value matches any of these.
    Any(Vec<TextPattern>),
}

/// Where an address must be from.
#[derive(Debug, Clone)]
pub struct ClientCondition {
    pub of: AddressOf,
    pub networks: TrustedNetworks,
}

/// Which address is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressOf {
    /// The client's, as `real_ip` finds it.
    Client,
    /// The peer's: what a PROXY header says, or else the socket's.
    Peer,
    /// The socket's.
    TcpPeer,
}

impl Conditions {
    /// How many values it has in all lists.
    pub(crate) fn values(&self) -> usize {
        let lists = [
            &self.methods,
            &self.paths,
            &self.path_prefixes,
            &self.path_suffixes,
        ];
        let fields = self.fields.iter().map(|field| match &field.wanted {
            Wanted::Present | Wanted::Absent => 1,
            Wanted::Any(patterns) => patterns.len(),
        });
        lists.iter().map(|list| list.len()).sum::<usize>()
            + self.hosts.len()
            + self.host_regexes.len()
            + self.path_regexes.len()
            + fields.sum::<usize>()
            + usize::from(self.client.is_some())
            + self.not.iter().map(Self::values).sum::<usize>()
    }

    /// How many regular expressions it has.
    pub(crate) fn regexes(&self) -> usize {
        let is_regex = |pattern: &&TextPattern| matches!(pattern, TextPattern::Regex(_));
        let fields = self.fields.iter().map(|field| match &field.wanted {
            Wanted::Any(patterns) => patterns.iter().filter(is_regex).count(),
            Wanted::Present | Wanted::Absent => 0,
        });
        self.host_regexes.len()
            + self.path_regexes.len()
            + fields.sum::<usize>()
            + self.not.iter().map(Self::regexes).sum::<usize>()
    }

    /// Whether it looks at the socket's address.
    pub(super) fn needs_tcp_peer(&self) -> bool {
        let own = self.client.as_ref();
        own.is_some_and(|client| client.of == AddressOf::TcpPeer)
            || self.not.iter().any(Self::needs_tcp_peer)
    }

    pub(super) fn any_host(&self) -> bool {
        self.hosts.is_empty() && self.host_regexes.is_empty()
    }

    pub(super) fn any_path(&self) -> bool {
        self.paths.is_empty()
            && self.path_prefixes.is_empty()
            && self.path_suffixes.is_empty()
            && self.path_regexes.is_empty()
    }

    /// Whether there is more to it than tables tell.
    pub(super) fn has_rest(&self) -> bool {
        !self.fields.is_empty() || self.client.is_some() || !self.not.is_empty()
    }

    /// Whether what no table tells holds.
    pub(super) fn rest_holds<'a, H>(&self, request: &RequestView<'_, H>) -> bool
    where
        H: Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    {
        self.fields
            .iter()
            .all(|field| field.holds(request, self.case))
            && self
                .client
                .as_ref()
                .is_none_or(|client| client.holds(request))
            && !self.not.iter().any(|not| not.holds(request))
    }

    /// Whether all of it holds, without tables: for conditions within `not`, which have none within them.
    fn holds<'a, H>(&self, request: &RequestView<'_, H>) -> bool
    where
        H: Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    {
        let method = self.methods.is_empty()
            || self
                .methods
                .iter()
                .any(|method| **method == *request.method);
        method
            && self.host_holds(request.host)
            && self.path_holds(request.path)
            && self
                .fields
                .iter()
                .all(|field| field.holds(request, self.case))
            && self
                .client
                .as_ref()
                .is_none_or(|client| client.holds(request))
    }

    fn host_holds(&self, host: &[u8]) -> bool {
        if self.any_host() {
            return true;
        }
        let host = without_port(host).to_ascii_lowercase();
        self.hosts.iter().any(|pattern| pattern.matches(&host))
            || self.host_regexes.iter().any(|regex| regex.is_match(&host))
    }

    fn path_holds(&self, path: &[u8]) -> bool {
        let begins = |prefix: &[u8]| {
            path.get(..prefix.len())
                .is_some_and(|path| self.case.equal(path, prefix))
        };
        let suffix_text = suffix_text(path);
        let ends = |suffix: &[u8]| {
            let start = suffix_text.len().checked_sub(suffix.len());
            let end = start.and_then(|start| suffix_text.get(start..));
            end.is_some_and(|end| self.case.equal(end, suffix))
        };
        self.any_path()
            || self
                .paths
                .iter()
                .any(|wanted| self.case.equal(path, wanted))
            || self.path_prefixes.iter().any(|prefix| begins(prefix))
            || (!suffix_text.is_empty() && self.path_suffixes.iter().any(|suffix| ends(suffix)))
            || self.path_regexes.iter().any(|regex| regex.is_match(path))
    }
}

impl FieldCondition {
    fn holds<'a, H>(&self, request: &RequestView<'_, H>, case: Case) -> bool
    where
        H: Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    {
        match &self.field {
            Field::Header(name) => {
                let lines = request.pairs.clone().filter(|(known, _)| **name == **known);
                self.wanted.among(lines.map(|(_, value)| value), case)
            }
            Field::Query(name) => {
                let values = parameters(request.query).filter(|(known, _)| **name == **known);
                self.wanted.among(values.map(|(_, value)| value), case)
            }
        }
    }
}

impl Wanted {
    fn among<V: AsRef<[u8]>>(&self, mut values: impl Iterator<Item = V>, case: Case) -> bool {
        match self {
            Self::Present => values.next().is_some(),
            Self::Absent => values.next().is_none(),
            Self::Any(patterns) => values.any(|value| {
                patterns
                    .iter()
                    .any(|pattern| pattern.matches(value.as_ref(), case))
            }),
        }
    }
}

impl ClientCondition {
    /// An address that is not known is in no network.
    fn holds<H>(&self, request: &RequestView<'_, H>) -> bool {
        let address: Option<IpAddr> = match self.of {
            AddressOf::Client => request.client,
            AddressOf::Peer => request.peer,
            AddressOf::TcpPeer => request.tcp_peer,
        };
        address.is_some_and(|address| self.networks.contains(address))
    }
}
