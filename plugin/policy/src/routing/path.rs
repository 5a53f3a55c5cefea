//! Paths of routes: whole paths, beginnings, endings and regular expressions, any of which is enough.

use super::Route;
use super::prefix_index::{PrefixTable, SortedTable};
use super::regex_index::{RegexIndex, TooLarge};
use super::route_set::RouteSet;
use super::text_pattern::Case;

/// Longest path that is given to regular expressions: their time grows with it, and a longer one matches none.
const REGEX_PATH_BYTES_MAX: usize = 8_192;
/// Endings of names of PHP scripts (Debian's libapache2-mod-php and php-fpm hand these to PHP).
const SCRIPTS: [&[u8]; 4] = [b".php", b".phtml", b".phar", b".phps"];

/// Paths and the routes that name them.
#[derive(Debug, Clone, Default)]
pub(super) struct PathIndex {
    exactly: PathTables,
    /// Of routes that ignore case: keys are in lower case.
    ignoring_case: Option<Box<PathTables>>,
    regexes: RegexIndex,
    any: RouteSet,
}

#[derive(Debug, Clone, Default)]
struct PathTables {
    exact: SortedTable,
    prefixes: PrefixTable,
    /// Keys are suffixes backwards: they begin the path read backwards.
    suffixes: PrefixTable,
}

impl PathIndex {
    pub(super) fn new(routes: &[Route]) -> Result<Self, TooLarge> {
        let mut regexes = Vec::new();
        let mut any = RouteSet::default();
        for (index, route) in routes.iter().enumerate() {
            let conditions = &route.conditions;
            if conditions.any_path() {
                any.insert(index);
            }
            regexes.extend(conditions.path_regexes.iter().map(|regex| (regex, index)));
        }
        let ignores_case = routes
            .iter()
            .any(|route| route.conditions.case == Case::Ignored);
        Ok(Self {
            exactly: PathTables::new(routes, Case::Matters),
            ignoring_case: ignores_case.then(|| Box::new(PathTables::new(routes, Case::Ignored))),
            regexes: RegexIndex::new(&regexes)?,
            any,
        })
    }

    /// Leaves those candidates whose path condition holds. Expressions are tried only if the first of those that need none is not
    /// certain to be the first of all: `certain` are the routes that have no further conditions.
    pub(super) fn restrict(
        &self,
        candidates: &mut RouteSet,
        path: &[u8],
        certain: &RouteSet,
        words: usize,
    ) {
        let mut holds = self.any;
        let suffix_text = suffix_text(path);
        self.exactly
            .find(path.iter().copied(), suffix_text, &mut holds, words);
        if let Some(tables) = &self.ignoring_case {
            let lower = path.to_ascii_lowercase();
            let suffix_text = lower.get(..suffix_text.len()).unwrap_or_default();
            tables.find(lower.iter().copied(), suffix_text, &mut holds, words);
        }
        if !self.regexes.is_empty() && path.len() <= REGEX_PATH_BYTES_MAX {
            let mut plain = *candidates;
            plain.intersect(&holds, words);
            let first = plain.first_common(certain, words);
            let expression = candidates.first_common(self.regexes.routes(), words);
            if expression.is_some_and(|route| first.is_none_or(|first| route < first)) {
                self.regexes.find(path, &mut holds);
            }
        }
        candidates.intersect(&holds, words);
    }
}

impl PathTables {
    fn new(routes: &[Route], case: Case) -> Self {
        let (mut exact, mut prefixes, mut suffixes) = (Vec::new(), Vec::new(), Vec::new());
        let of_case = |route: &&(usize, &Route)| route.1.conditions.case == case;
        let routes: Vec<(usize, &Route)> = routes.iter().enumerate().collect();
        for (index, route) in routes.iter().filter(of_case) {
            let conditions = &route.conditions;
            let keys = |texts: &[Box<[u8]>]| -> Vec<(Box<[u8]>, usize)> {
                texts.iter().map(|text| (case.key(text), *index)).collect()
            };
            exact.extend(keys(&conditions.paths));
            prefixes.extend(keys(&conditions.path_prefixes));
            for (mut suffix, index) in keys(&conditions.path_suffixes) {
                suffix.reverse();
                suffixes.push((suffix, index));
            }
        }
        Self {
            exact: SortedTable::new(exact),
            prefixes: PrefixTable::new(prefixes),
            suffixes: PrefixTable::new(suffixes),
        }
    }

    fn find(
        &self,
        path: impl Iterator<Item = u8> + Clone,
        suffix_text: &[u8],
        holds: &mut RouteSet,
        words: usize,
    ) {
        if let Some(routes) = self.exact.exactly(path.clone()) {
            holds.unite(routes, words);
        }
        if let Some(routes) = self.prefixes.beginning(path) {
            holds.unite(routes, words);
        }
        if !self.suffixes.is_empty()
            && !suffix_text.is_empty()
            && let Some(routes) = self.suffixes.beginning(suffix_text.iter().rev().copied())
        {
            holds.unite(routes, words);
        }
    }
}

/// The beginning of a path whose end tells what is asked for: without parameters of the last segment (`;jsessionid=…`), and empty if
/// an earlier segment names a script. Such a path is handed to that script (PATH_INFO), and what it ends in says nothing of what it is:
/// otherwise `/index.php/x.css` would be served, and cached, as a static file.
pub(super) fn suffix_text(path: &[u8]) -> &[u8] {
    let last = path
        .iter()
        .rposition(|byte| *byte == b'/')
        .map_or(0, |slash| slash + 1);
    let (before, segment) = path.split_at_checked(last).unwrap_or((path, b""));
    if before.contains(&b'.') && before.split(|byte| *byte == b'/').any(is_script) {
        return b"";
    }
    let parameters = segment.iter().position(|byte| *byte == b';');
    let end = last + parameters.unwrap_or(segment.len());
    path.get(..end).unwrap_or(path)
}

/// Whether a segment names a script: `x.php`, `x.php7`, `x.PHTML`, and the same with parameters.
fn is_script(segment: &[u8]) -> bool {
    let name = segment
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default();
    let digits = name
        .iter()
        .rev()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let name = name
        .get(..name.len().saturating_sub(digits))
        .unwrap_or_default();
    SCRIPTS.iter().any(|script| {
        name.len()
            .checked_sub(script.len())
            .and_then(|start| name.get(start..))
            .is_some_and(|end| end.eq_ignore_ascii_case(script))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_path_ends_in_counts_only_where_it_tells_what_it_is() {
        for (path, expected) in [
            ("/x.css", "/x.css"),
            ("/x.css;v=1", "/x.css"),
            ("/x.php;.css", "/x.php"),
            ("/index.php/x.css", ""),
            ("/index.PHP/x.css", ""),
            ("/index.php7/x.css", ""),
            ("/index.phtml;a/b/x.css", ""),
            ("/.php/x.css", ""),
            ("/x.php.d/x.css", "/x.php.d/x.css"),
            ("/xphp/x.css", "/xphp/x.css"),
            ("/x.php", "/x.php"),
            ("/", "/"),
            ("", ""),
        ] {
            assert_eq!(suffix_text(path.as_bytes()), expected.as_bytes(), "{path}");
        }
    }
}
