//! Another path for the servers: in the place of a prefix, or of what an expression matches.
//!
//! ```text
//!   {prefix: /api, to: /}                     /api/x?a=b is /x?a=b: slashes that come together are one
//!   {regex: "^/([a-z]+)/old/(.*)", to: "/new/$1/$2"}        $0 is the whole match, ${name} a group by name, $$ a dollar sign
//!   {regex: "^/p/([0-9]+)$", to: "/p.php?id=$1"}            a query of `to` comes before the request's own; one that ends in `?` replaces it (nginx)
//! ```
//!
//! What comes out is brought into the normal form again. A path that the rule does not meet stays as it is.

use regex::bytes::{Captures, Regex};

use crate::routing::Case;

/// A rule.
#[derive(Debug, Clone)]
pub struct Rewrite {
    rule: Rule,
}

#[derive(Debug, Clone)]
enum Rule {
    Prefix {
        prefix: Box<[u8]>,
        to: Box<[u8]>,
        case: Case,
    },
    Regex {
        regex: Regex,
        to: Vec<Piece>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Box<[u8]>),
    Group(usize),
}

/// Whether a path was rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rewritten {
    Unchanged,
    /// The new target, path and query, was written; it may not be in its normal form.
    Written,
}

/// Longest `to`, bytes.
const TO_BYTES_MAX: usize = 1_024;
/// Longest path that expressions look at.
const PATH_BYTES_MAX: usize = 8_192;

impl Rewrite {
    pub fn prefix(prefix: Box<[u8]>, to: Box<[u8]>, case: Case) -> Self {
        let rule = Rule::Prefix { prefix, to, case };
        Self { rule }
    }

    /// Reads `to` as what takes the place of what `regex` matches. The error says what was expected.
    pub fn regex(regex: Regex, to: &str) -> Result<Self, String> {
        if to.len() > TO_BYTES_MAX || to.chars().any(char::is_control) || to.contains(['#', ' ']) {
            return Err(format!(
                "expected at most {TO_BYTES_MAX} bytes of a path, without spaces"
            ));
        }
        let (first, mut rest) = match to.split_once('$') {
            None => (to, None),
            Some((first, rest)) => (first, Some(rest)),
        };
        let mut pieces = vec![Piece::Text(first.as_bytes().into())];
        // Ends: each round takes a dollar sign away.
        while let Some(after) = rest {
            let (piece, after) = piece(&regex, after)?;
            pieces.push(piece);
            let (text, next) = match after.split_once('$') {
                None => (after, None),
                Some((text, next)) => (text, Some(next)),
            };
            pieces.push(Piece::Text(text.as_bytes().into()));
            rest = next;
        }
        let rule = Rule::Regex { regex, to: pieces };
        Ok(Self { rule })
    }

    /// Writes the new target to `out` (cleared before), if there is one.
    pub(super) fn apply(&self, path: &[u8], query: &[u8], out: &mut Vec<u8>) -> Rewritten {
        out.clear();
        match &self.rule {
            Rule::Prefix { prefix, to, case } => {
                let Some((begins, rest)) = path.split_at_checked(prefix.len()) else {
                    return Rewritten::Unchanged;
                };
                if !case.equal(begins, prefix) {
                    return Rewritten::Unchanged;
                }
                out.extend_from_slice(to);
                out.extend_from_slice(rest);
            }
            Rule::Regex { regex, to } => {
                if path.len() > PATH_BYTES_MAX {
                    return Rewritten::Unchanged;
                }
                let Some(captures) = regex.captures(path) else {
                    return Rewritten::Unchanged;
                };
                replace(path, &captures, to, out);
            }
        }
        // `?` cannot come from the path, where it is percent-encoded.
        if out.last() == Some(&b'?') {
            out.pop();
            return Rewritten::Written;
        }
        if !query.is_empty() {
            let has_query = out.contains(&b'?');
            out.push(if has_query { b'&' } else { b'?' });
            out.extend_from_slice(query);
        }
        Rewritten::Written
    }
}

fn replace(path: &[u8], captures: &Captures<'_>, to: &[Piece], out: &mut Vec<u8>) {
    let matched = captures.get(0).map_or(0..0, |whole| whole.range());
    out.extend_from_slice(path.get(..matched.start).unwrap_or_default());
    for piece in to {
        out.extend_from_slice(match piece {
            Piece::Text(text) => text,
            Piece::Group(group) => captures.get(*group).map_or(b"", |group| group.as_bytes()),
        });
    }
    out.extend_from_slice(path.get(matched.end..).unwrap_or_default());
}

/// Reads what a dollar sign announces; gives what comes after it too.
fn piece<'a>(regex: &Regex, text: &'a str) -> Result<(Piece, &'a str), String> {
    if let Some(after) = text.strip_prefix('$') {
        return Ok((Piece::Text(b"$"[..].into()), after));
    }
    let (name, after) = match text.strip_prefix('{').and_then(|text| text.split_once('}')) {
        Some(found) => found,
        None => {
            let digits = usize::from(text.starts_with(|digit: char| digit.is_ascii_digit()));
            text.split_at_checked(digits).unwrap_or((text, ""))
        }
    };
    let group = match name.parse::<usize>() {
        Ok(number) => (number < regex.captures_len()).then_some(number),
        Err(_) => regex
            .capture_names()
            .position(|known| known.is_some_and(|known| known == name)),
    };
    match group {
        Some(group) => Ok((Piece::Group(group), after)),
        None => Err(format!(
            "expected a group of the expression after `$`, such as $1 or ${{name}}, found `${}`; `$$` is a dollar sign",
            if name.is_empty() { text } else { name }
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rewrite: &Rewrite, path: &str, query: &str, expected: Option<&str>) {
        let mut out = b"left over".to_vec();
        let rewritten = rewrite.apply(path.as_bytes(), query.as_bytes(), &mut out);
        let found = (rewritten == Rewritten::Written).then(|| String::from_utf8(out).unwrap());
        assert_eq!(found.as_deref(), expected, "{path}");
    }

    fn prefix(prefix: &str, to: &str, case: Case) -> Rewrite {
        Rewrite::prefix(prefix.as_bytes().into(), to.as_bytes().into(), case)
    }

    fn regex(text: &str, to: &str) -> Result<Rewrite, String> {
        Rewrite::regex(Regex::new(text).unwrap(), to)
    }

    #[test]
    fn a_prefix_is_replaced_where_it_is_one() {
        let api = prefix("/api", "/v2", Case::Matters);
        check(&api, "/api/x", "a=b", Some("/v2/x?a=b"));
        check(&api, "/api", "", Some("/v2"));
        check(&api, "/API/x", "", None);
        check(&api, "/ap", "", None);
        let any_case = prefix("/api", "/", Case::Ignored);
        check(&any_case, "/API/x", "", Some("//x"));
    }

    #[test]
    fn what_an_expression_matches_is_replaced() {
        let moved = regex("^/(?<shop>[a-z]+)/old/(.*)$", "/new/${shop}/$2").unwrap();
        check(&moved, "/shop/old/a/b", "q", Some("/new/shop/a/b?q"));
        check(&moved, "/shop/new/a", "q", None);
        let script = regex("^/p/([0-9]+)$", "/p.php?id=$1").unwrap();
        check(&script, "/p/12", "", Some("/p.php?id=12"));
        check(&script, "/p/12", "a=1", Some("/p.php?id=12&a=1"));
        let alone = regex("^/p/([0-9]+)$", "/p.php?id=$1?").unwrap();
        check(&alone, "/p/12", "a=1", Some("/p.php?id=12"));
        let part = regex("b+", "$$$0$0").unwrap();
        check(&part, "/abbc", "", Some("/a$bbbbc"));
        let ten = regex("^/(.)", "/$10").unwrap();
        check(&ten, "/a", "", Some("/a0"));
    }

    #[test]
    fn groups_that_are_not_there_are_refused() {
        for to in ["/$1", "/${name}", "/$", "/$x", "/a b", "/a#"] {
            assert!(regex("^/a", to).is_err(), "{to}");
        }
        assert!(regex("^/a", "/$2").unwrap_err().contains("`$2`"));
    }
}
