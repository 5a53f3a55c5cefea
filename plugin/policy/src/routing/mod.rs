//! Which pool a request goes to: the first route whose conditions all hold.
//!
//! Routes are not scanned. Every distinct host, path, prefix, suffix and method of the configuration has the set of routes that
//! name it, as bits; a look-up finds the sets of this request in sorted tables, and the lowest bit that is in the sets of all
//! kinds is the first route that matches. The cost grows with the depth of nesting among prefixes, not with their number.
//! Only regular expressions are tried one by one, and only those of routes that could still come first.

mod host;
mod path;
mod prefix_index;
mod route_set;

#[cfg(test)]
mod tests;

use regex_lite::Regex;

use host::HostIndex;
use path::PathIndex;
use prefix_index::SortedTable;
use route_set::RouteSet;

pub use host::{HostPattern, without_port};
pub use path::without_query;
pub use route_set::ROUTES_MAX;

/// One route: its conditions, and the index of its pool.
#[derive(Debug, Clone)]
pub struct Route {
    pub conditions: Conditions,
    pub pool: usize,
}

/// What a request must be like. Within one list any value; path, prefix, suffix and expression count as one list; an empty
/// kind holds for every request.
#[derive(Debug, Clone, Default)]
pub struct Conditions {
    pub hosts: Vec<HostPattern>,
    pub methods: Vec<Box<[u8]>>,
    pub paths: Vec<Box<[u8]>>,
    pub path_prefixes: Vec<Box<[u8]>>,
    pub path_suffixes: Vec<Box<[u8]>>,
    pub path_regexes: Vec<Regex>,
}

impl Conditions {
    /// How many values it has in all lists.
    pub(crate) fn values(&self) -> usize {
        let paths = [&self.paths, &self.path_prefixes, &self.path_suffixes]
            .map(Vec::len)
            .iter()
            .sum::<usize>();
        self.hosts.len() + self.methods.len() + paths + self.path_regexes.len()
    }

    fn any_path(&self) -> bool {
        self.paths.is_empty()
            && self.path_prefixes.is_empty()
            && self.path_suffixes.is_empty()
            && self.path_regexes.is_empty()
    }
}

/// The routes of a configuration, ready to be looked up.
#[derive(Debug, Clone, Default)]
pub struct Router {
    pools: Vec<usize>,
    hosts: HostIndex,
    paths: PathIndex,
    methods: SortedTable,
    any_method: RouteSet,
}

impl Router {
    /// Takes the first [`ROUTES_MAX`] routes (the configuration refuses more).
    pub fn new(routes: &[Route]) -> Self {
        let routes = routes.get(..ROUTES_MAX).unwrap_or(routes);
        let mut methods = Vec::new();
        let mut any_method = RouteSet::default();
        for (index, route) in routes.iter().enumerate() {
            if route.conditions.methods.is_empty() {
                any_method.insert(index);
            }
            methods.extend(
                route
                    .conditions
                    .methods
                    .iter()
                    .map(|method| (method.clone(), index)),
            );
        }
        Self {
            pools: routes.iter().map(|route| route.pool).collect(),
            hosts: HostIndex::new(routes),
            paths: PathIndex::new(routes),
            methods: SortedTable::new(methods),
            any_method,
        }
    }

    /// The index of the pool, or `None` if no route matches. `host` may have a port, `path` a query. Does not allocate.
    pub fn pool(&self, host: &[u8], path: &[u8], method: &[u8]) -> Option<usize> {
        let words = RouteSet::words_of(self.pools.len());
        let mut candidates = self.any_method;
        if let Some(set) = self.methods.exactly(method.iter().copied()) {
            candidates.unite(set, words);
        }
        self.hosts.restrict(&mut candidates, host, words);
        let route = self.paths.first(&candidates, path, words)?;
        self.pools.get(route).copied()
    }
}
