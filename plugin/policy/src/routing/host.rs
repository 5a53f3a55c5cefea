//! Hosts of routes: exact names, everything below a name, and regular expressions. Without port and trailing dot, case apart.

use super::Route;
use super::prefix_index::{PrefixTable, SortedTable};
use super::regex_index::{RegexIndex, TooLarge};
use super::route_set::RouteSet;

/// A host of a route, lower-case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPattern {
    /// This name.
    Exactly(Box<[u8]>),
    /// `*.` and this name: every name below it, at any depth, but not itself.
    Below(Box<[u8]>),
}

/// Longest host that is given to regular expressions: more than the longest name (RFC 1035 section 2.3.4). A longer one matches none.
const REGEX_HOST_BYTES_MAX: usize = 256;

impl HostPattern {
    /// Whether a host in lower case, without port and trailing dot, is of this pattern.
    pub(super) fn matches(&self, host: &[u8]) -> bool {
        match self {
            Self::Exactly(name) => host == &**name,
            Self::Below(name) => {
                let below = host
                    .strip_suffix(&**name)
                    .and_then(|rest| rest.strip_suffix(b"."));
                below.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(b"."))
            }
        }
    }
}

/// Hosts and the routes that name them.
#[derive(Debug, Clone, Default)]
pub(super) struct HostIndex {
    exact: SortedTable,
    /// Keys are `.name` backwards: they begin the host read backwards.
    below: PrefixTable,
    regexes: RegexIndex,
    any: RouteSet,
}

impl HostIndex {
    pub(super) fn new(routes: &[Route]) -> Result<Self, TooLarge> {
        let (mut exact, mut below, mut any) = (Vec::new(), Vec::new(), RouteSet::default());
        let mut regexes = Vec::new();
        for (index, route) in routes.iter().enumerate() {
            if route.conditions.any_host() {
                any.insert(index);
            }
            let expressions = &route.conditions.host_regexes;
            regexes.extend(expressions.iter().map(|regex| (regex, index)));
            for host in &route.conditions.hosts {
                match host {
                    HostPattern::Exactly(name) => exact.push((name.clone(), index)),
                    HostPattern::Below(name) => {
                        below.push((
                            name.iter()
                                .rev()
                                .copied()
                                .chain([b'.'])
                                .collect::<Box<[u8]>>(),
                            index,
                        ));
                    }
                }
            }
        }
        Ok(Self {
            exact: SortedTable::new(exact),
            below: PrefixTable::new(below),
            regexes: RegexIndex::new(&regexes)?,
            any,
        })
    }

    /// Leaves those candidates whose host condition holds.
    pub(super) fn restrict(&self, candidates: &mut RouteSet, host: &[u8], words: usize) {
        let mut holds = self.any;
        if !self.exact.is_empty() || !self.below.is_empty() {
            let host = without_port(host);
            let lower = host.iter().map(u8::to_ascii_lowercase);
            if let Some(routes) = self.exact.exactly(lower.clone()) {
                holds.unite(routes, words);
            }
            // A name below another is longer than `.name`: the dot alone before it is not a name.
            let backwards = host.iter().rev().map(u8::to_ascii_lowercase);
            if host.first() != Some(&b'.')
                && let Some(routes) = self.below.beginning(backwards)
            {
                holds.unite(routes, words);
            }
        }
        if !self.regexes.is_empty() {
            let host = without_port(host);
            if host.len() <= REGEX_HOST_BYTES_MAX {
                self.regexes.find(&host.to_ascii_lowercase(), &mut holds);
            }
        }
        candidates.intersect(&holds, words);
    }
}

/// A host without its port and trailing dot: `Example.org.:8080` is `Example.org`, `[::1]:80` is `[::1]`.
pub fn without_port(host: &[u8]) -> &[u8] {
    let digits = host
        .iter()
        .rev()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let name = host
        .len()
        .checked_sub(digits)
        .and_then(|end| host.get(..end))
        .and_then(|name| name.strip_suffix(b":"));
    // The last colon of a bare IPv6 address is not a port's; brackets tell, and bare ones are not legal hosts.
    let name = name.unwrap_or(host);
    name.strip_suffix(b".").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_and_trailing_dot_are_no_part_of_a_host() {
        let rows: [(&str, &str); 10] = [
            ("example.org", "example.org"),
            ("example.org:80", "example.org"),
            ("example.org.", "example.org"),
            ("example.org.:80", "example.org"),
            ("example.org:", "example.org"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("127.0.0.1:8080", "127.0.0.1"),
            ("127.0.0.1", "127.0.0.1"),
            ("", ""),
        ];
        for (host, expected) in rows {
            assert_eq!(without_port(host.as_bytes()), expected.as_bytes(), "{host}");
        }
    }
}
