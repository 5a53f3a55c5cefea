//! Hosts of routes: exact names, and everything below a name. Without port and trailing dot, case apart.

use super::Route;
use super::prefix_index::{PrefixTable, SortedTable};
use super::route_set::RouteSet;

/// A host of a route, lower-case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPattern {
    /// This name.
    Exactly(Box<[u8]>),
    /// `*.` and this name: every name below it, at any depth, but not itself.
    Below(Box<[u8]>),
}

/// Hosts and the routes that name them.
#[derive(Debug, Clone, Default)]
pub(super) struct HostIndex {
    exact: SortedTable,
    /// Keys are `.name` backwards: they begin the host read backwards.
    below: PrefixTable,
    any: RouteSet,
}

impl HostIndex {
    pub(super) fn new(routes: &[Route]) -> Self {
        let (mut exact, mut below, mut any) = (Vec::new(), Vec::new(), RouteSet::default());
        for (index, route) in routes.iter().enumerate() {
            if route.conditions.hosts.is_empty() {
                any.insert(index);
            }
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
        Self {
            exact: SortedTable::new(exact),
            below: PrefixTable::new(below),
            any,
        }
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
