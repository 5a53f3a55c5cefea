//! Regular expressions of routes, all tried in one pass over the text.
//!
//! None can backtrack: the time is bounded by the text's length and the expressions' size, which [`SET_BYTES_MAX`] bounds; nearly always it is one
//! step of a table a byte, however many expressions there are. They are over bytes, without Unicode's classes: the texts are ASCII (a path in its
//! normal form, a host), and the classes would be most of the filter's size.

use regex::bytes::{Regex, RegexSet, RegexSetBuilder};
use thiserror::Error;

use super::route_set::RouteSet;

/// Largest compiled set of expressions, bytes.
const SET_BYTES_MAX: usize = 1 << 20;
/// Most memory for tables that are made while matching, bytes a set.
pub(crate) const TABLES_BYTES_MAX: usize = 1 << 20;

/// Expressions and the routes that name them.
#[derive(Debug, Clone, Default)]
pub(super) struct RegexIndex {
    /// `None`: there are no expressions.
    set: Option<RegexSet>,
    /// The route of each expression.
    of: Vec<usize>,
    routes: RouteSet,
}

/// All expressions together are larger than [`SET_BYTES_MAX`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "the regular expressions of all routes together are too large: expected at most {SET_BYTES_MAX} bytes when compiled"
)]
pub struct TooLarge;

impl RegexIndex {
    /// Of pairs of expression and route.
    pub(super) fn new(regexes: &[(&Regex, usize)]) -> Result<Self, TooLarge> {
        if regexes.is_empty() {
            return Ok(Self::default());
        }
        let set = RegexSetBuilder::new(regexes.iter().map(|(regex, _)| regex.as_str()))
            .unicode(false)
            .size_limit(SET_BYTES_MAX)
            .dfa_size_limit(TABLES_BYTES_MAX)
            .build()
            .map_err(|_| TooLarge)?;
        let mut routes = RouteSet::default();
        regexes.iter().for_each(|(_, route)| routes.insert(*route));
        Ok(Self {
            set: Some(set),
            of: regexes.iter().map(|(_, route)| *route).collect(),
            routes,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.set.is_none()
    }

    /// All routes that have an expression.
    pub(super) fn routes(&self) -> &RouteSet {
        &self.routes
    }

    /// Adds the routes of all expressions that match.
    pub(super) fn find(&self, text: &[u8], holds: &mut RouteSet) {
        let Some(set) = &self.set else { return };
        for expression in &set.matches(text) {
            if let Some(route) = self.of.get(expression) {
                holds.insert(*route);
            }
        }
    }
}
