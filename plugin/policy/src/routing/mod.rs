//! Which route a request takes: the first whose conditions all hold.
//!
//! Routes are not scanned. Every distinct host, path, prefix, suffix and method of the configuration has the set of routes that
//! name it, as bits; a look-up finds the sets of this request in sorted tables, and the lowest bit that is in the sets of all
//! kinds is the first route that matches. The cost grows with the depth of nesting among prefixes, not with their number.
//! Regular expressions are tried all at once, and only if a route that has one could still come first. What no table tells
//! (headers, query, addresses, `not`) is looked at last, for the routes that are left, in their order.

mod authority;
mod conditions;
mod host;
mod normal_path;
mod path;
mod prefix_index;
mod regex_index;
mod request_view;
mod route_set;
mod text_pattern;

#[cfg(test)]
mod tests;

use host::HostIndex;
use path::PathIndex;
use prefix_index::SortedTable;
use route_set::RouteSet;

pub use authority::is_authority;
pub use conditions::{AddressOf, ClientCondition, Conditions, Field, FieldCondition, Wanted};
pub use host::{HostPattern, without_port};
pub use normal_path::{Normal, PathFault, normalise};
pub(crate) use normal_path::{write_bytes, write_normal};
pub(crate) use regex_index::TABLES_BYTES_MAX;
pub use regex_index::TooLarge;
pub use request_view::{RequestView, split_query};
pub use route_set::ROUTES_MAX;
pub use text_pattern::{Case, TextPattern};

/// One route: what a request must be like to take it.
#[derive(Debug, Clone, Default)]
pub struct Route {
    pub conditions: Conditions,
}

/// The routes of a configuration, ready to be looked up.
#[derive(Debug, Clone, Default)]
pub struct Router {
    words: usize,
    hosts: HostIndex,
    paths: PathIndex,
    methods: SortedTable,
    any_method: RouteSet,
    /// Routes about which tables tell everything.
    certain: RouteSet,
    /// Conditions of the others, by route.
    rest: Vec<(usize, Conditions)>,
    needs_tcp_peer: bool,
}

impl Router {
    /// Takes the first [`ROUTES_MAX`] routes (the configuration refuses more).
    pub fn new(routes: &[Route]) -> Result<Self, TooLarge> {
        let routes = routes.get(..ROUTES_MAX).unwrap_or(routes);
        let mut methods = Vec::new();
        let (mut any_method, mut certain) = (RouteSet::default(), RouteSet::default());
        let mut rest = Vec::new();
        for (index, route) in routes.iter().enumerate() {
            let conditions = &route.conditions;
            if conditions.methods.is_empty() {
                any_method.insert(index);
            }
            let named = conditions.methods.iter();
            methods.extend(named.map(|method| (method.clone(), index)));
            if conditions.has_rest() {
                rest.push((index, conditions.clone()));
            } else {
                certain.insert(index);
            }
        }
        Ok(Self {
            words: RouteSet::words_of(routes.len()),
            hosts: HostIndex::new(routes)?,
            paths: PathIndex::new(routes)?,
            methods: SortedTable::new(methods),
            any_method,
            certain,
            needs_tcp_peer: rest.iter().any(|(_, rest)| rest.needs_tcp_peer()),
            rest,
        })
    }

    /// Whether any route looks at the socket's address, which may have to be asked for.
    pub fn needs_tcp_peer(&self) -> bool {
        self.needs_tcp_peer
    }

    /// The index of the first route that matches, or `None`. Does not allocate unless routes ignore case, have regular expressions or look at
    /// the query.
    pub fn route<'a, H>(&self, request: &RequestView<'_, H>) -> Option<usize>
    where
        H: Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    {
        let words = self.words;
        let mut candidates = self.any_method;
        if let Some(set) = self.methods.exactly(request.method.iter().copied()) {
            candidates.unite(set, words);
        }
        self.hosts.restrict(&mut candidates, request.host, words);
        let certain = &self.certain;
        self.paths
            .restrict(&mut candidates, request.path, certain, words);
        // Ends: each round takes a route out of the set.
        while let Some(route) = candidates.take_first(words) {
            if certain.contains(route) || self.rest_holds(route, request) {
                return Some(route);
            }
        }
        None
    }

    fn rest_holds<'a, H>(&self, route: usize, request: &RequestView<'_, H>) -> bool
    where
        H: Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    {
        let found = self.rest.binary_search_by_key(&route, |(route, _)| *route);
        let rest = found.ok().and_then(|place| self.rest.get(place));
        rest.is_some_and(|(_, conditions)| conditions.rest_holds(request))
    }
}
