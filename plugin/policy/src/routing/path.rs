//! Paths of routes: whole paths, beginnings, endings and regular expressions, any of which is enough.

use regex_lite::Regex;

use super::Route;
use super::prefix_index::{PrefixTable, SortedTable};
use super::route_set::RouteSet;

/// Longest path that is given to regular expressions: their time grows with it, and a longer one matches none.
const REGEX_PATH_BYTES_MAX: usize = 8_192;

/// Paths and the routes that name them.
#[derive(Debug, Clone, Default)]
pub(super) struct PathIndex {
    exact: SortedTable,
    prefixes: PrefixTable,
    /// Keys are suffixes backwards: they begin the path read backwards.
    suffixes: PrefixTable,
    regexes: Vec<(Regex, usize)>,
    any: RouteSet,
}

impl PathIndex {
    pub(super) fn new(routes: &[Route]) -> Self {
        let (mut exact, mut prefixes, mut suffixes, mut regexes) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut any = RouteSet::default();
        for (index, route) in routes.iter().enumerate() {
            let conditions = &route.conditions;
            if conditions.any_path() {
                any.insert(index);
            }
            exact.extend(conditions.paths.iter().map(|path| (path.clone(), index)));
            prefixes.extend(
                conditions
                    .path_prefixes
                    .iter()
                    .map(|prefix| (prefix.clone(), index)),
            );
            let backwards = |suffix: &[u8]| suffix.iter().rev().copied().collect::<Box<[u8]>>();
            suffixes.extend(
                conditions
                    .path_suffixes
                    .iter()
                    .map(|suffix| (backwards(suffix), index)),
            );
            regexes.extend(
                conditions
                    .path_regexes
                    .iter()
                    .map(|regex| (regex.clone(), index)),
            );
        }
        Self {
            exact: SortedTable::new(exact),
            prefixes: PrefixTable::new(prefixes),
            suffixes: PrefixTable::new(suffixes),
            regexes,
            any,
        }
    }

    /// The first of the candidates whose path condition holds.
    pub(super) fn first(&self, candidates: &RouteSet, path: &[u8], words: usize) -> Option<usize> {
        let path = without_query(path);
        let mut holds = self.any;
        if let Some(routes) = self.exact.exactly(path.iter().copied()) {
            holds.unite(routes, words);
        }
        if let Some(routes) = self.prefixes.beginning(path.iter().copied()) {
            holds.unite(routes, words);
        }
        if !self.suffixes.is_empty()
            && let Some(routes) = self.suffixes.beginning(path.iter().rev().copied())
            && !passes_through_a_script(path)
        {
            holds.unite(routes, words);
        }
        let first = candidates.first_common(&holds, words);
        let earlier = self
            .regexes
            .iter()
            .take_while(|(_, route)| first.is_none_or(|first| *route < first));
        let mut earlier = earlier
            .filter(|(_, route)| candidates.contains(*route))
            .peekable();
        // Expressions are over text of bounded length: any other path matches none.
        let text = || {
            let is_short = path.len() <= REGEX_PATH_BYTES_MAX;
            std::str::from_utf8(path).ok().filter(|_| is_short)
        };
        let by_expression = earlier.peek().is_some().then(text).flatten();
        by_expression
            .and_then(|path| earlier.find(|(regex, _)| regex.is_match(path)))
            .map(|(_, route)| *route)
            .or(first)
    }
}

/// A request's path without its query.
pub fn without_query(path: &[u8]) -> &[u8] {
    path.iter()
        .position(|byte| matches!(byte, b'?' | b'#'))
        .and_then(|end| path.get(..end))
        .unwrap_or(path)
}

/// Whether an earlier segment than the last ends in `.php`: then the path is handed to that script (PATH_INFO), and what it
/// ends in says nothing of what it is. Without this, `/index.php/x.css` would be served as a static file.
fn passes_through_a_script(path: &[u8]) -> bool {
    path.windows(b".php/".len())
        .any(|window| window == b".php/")
}
