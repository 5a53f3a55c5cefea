//! The text of a configuration file as a tree that knows where each key stands.
//!
//! YAML becomes a generic [`Tree`] first, before any meaning: so an error found later, by the document, by the policy or by the
//! file system, can still be told with line and column, from nothing but the key's path. JSON is a subset and takes the same road.
//!
//! # Bounds
//! The file's size, its depth, its nodes and what aliases expand to are limited here, so nothing behind this needs to be.

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::{Location, Spanned};

/// Largest configuration file, bytes.
pub const FILE_BYTES_MAX: usize = 8 * 1024 * 1024;
const DEPTH_MAX: usize = 32;
const NODES_MAX: usize = 1_000_000;
const ALIASES_MAX: usize = 1_000;
/// Events that all aliases together may expand to: the bound against documents that grow exponentially.
const ALIAS_EVENTS_MAX: usize = 100_000;

/// A place in the file; both count from 1, columns in characters. Zero means unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    pub line: u64,
    pub column: u64,
}

/// A parsed file.
#[derive(Debug)]
pub struct Tree {
    root: Node,
}

/// Where a path leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Of the last key that exists on the path.
    pub key: Position,
    /// Of its value.
    pub value: Position,
}

#[derive(Debug)]
struct Node {
    at: Position,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Debug)]
struct Entry {
    key: String,
    key_at: Position,
    node: Node,
}

impl Tree {
    /// Parses YAML or JSON.
    ///
    /// # Errors
    /// What is wrong with the text and where; duplicate keys and every bound of this module are among it.
    pub fn parse(text: &str) -> Result<Self, (Position, String)> {
        if text.len() > FILE_BYTES_MAX {
            return Err((
                Position::default(),
                format!("the file is larger than {FILE_BYTES_MAX} bytes"),
            ));
        }
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! {
                max_depth: DEPTH_MAX,
                max_nodes: NODES_MAX,
                max_aliases: ALIASES_MAX,
                max_documents: 1,
            },
            alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: ALIAS_EVENTS_MAX },
            strict_booleans: true,
        };
        let root = serde_saphyr::from_str_with_options::<Option<Spanned<Node>>>(text, options)
            .map_err(|error| complaint(&error))?;
        let root = root.map_or(
            Node {
                at: Position::default(),
                kind: Kind::Null,
            },
            at_its_place,
        );
        Ok(Self { root })
    }

    /// The same without places. Keys keep the order of the file.
    pub fn to_json(&self) -> Value {
        self.root.to_json()
    }

    /// Follows a path such as `policy.pools.shop.servers[0].weight` as far as it leads. Keys may contain dots: of several keys
    /// that fit, the longest is meant.
    pub fn locate(&self, path: &str) -> Place {
        let mut node = &self.root;
        let mut place = Place {
            key: node.at,
            value: node.at,
        };
        let mut rest = path;
        // Each turn shortens `rest`, so this ends.
        while !rest.is_empty() {
            match node.step(rest) {
                Some(step) => {
                    place = Place {
                        key: step.key_at,
                        value: step.node.at,
                    };
                    node = step.node;
                    rest = step.rest;
                }
                None => break,
            }
        }
        place
    }
}

struct Step<'t, 'p> {
    key_at: Position,
    node: &'t Node,
    rest: &'p str,
}

impl Node {
    fn step<'p>(&self, path: &'p str) -> Option<Step<'_, 'p>> {
        match &self.kind {
            Kind::Map(entries) => entries
                .iter()
                .filter_map(|entry| {
                    let rest = path.strip_prefix(entry.key.as_str())?;
                    let rest = if rest.is_empty() || rest.starts_with('[') {
                        rest
                    } else {
                        rest.strip_prefix('.')?
                    };
                    Some(Step {
                        key_at: entry.key_at,
                        node: &entry.node,
                        rest,
                    })
                })
                .min_by_key(|step| step.rest.len()),
            Kind::List(nodes) => {
                let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
                let node = nodes.get(index.parse::<usize>().ok()?)?;
                Some(Step {
                    key_at: node.at,
                    node,
                    rest: rest.strip_prefix('.').unwrap_or(rest),
                })
            }
            _ => None,
        }
    }

    /// Recursion is bounded by [`DEPTH_MAX`], which the parser enforced.
    fn to_json(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Number(value) => Value::Number(value.clone()),
            Kind::Text(value) => Value::String(value.clone()),
            Kind::List(nodes) => Value::Array(nodes.iter().map(Self::to_json).collect()),
            Kind::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|entry| (entry.key.clone(), entry.node.to_json()))
                    .collect::<Map<_, _>>(),
            ),
        }
    }
}

fn at_its_place(spanned: Spanned<Node>) -> Node {
    Node {
        at: position(spanned.referenced),
        kind: spanned.value.kind,
    }
}

fn position(location: Location) -> Position {
    Position {
        line: location.line(),
        column: location.column(),
    }
}

fn complaint(error: &serde_saphyr::Error) -> (Position, String) {
    let at = error.location().map_or(Position::default(), position);
    let message = error
        .without_snippet()
        .render_with_options(serde_saphyr::render_options! {
            formatter: &serde_saphyr::UserMessageFormatter,
            snippets: serde_saphyr::SnippetMode::Off,
        });
    // The place is told once, in front; the library repeats it behind or below its message.
    let message = message.lines().next().unwrap_or_default();
    let message = message.split(" at line ").next().unwrap_or(message);
    let message = message.strip_prefix("error: ").unwrap_or(message);
    (at, message.trim().to_owned())
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let kind = deserializer.deserialize_any(KindVisitor)?;
        Ok(Self {
            at: Position::default(),
            kind,
        })
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_none<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Kind, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Kind, E> {
        Ok(Kind::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Kind, E> {
        Ok(Kind::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Kind, E> {
        Ok(Kind::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Kind, E> {
        Number::from_f64(value)
            .map(Kind::Number)
            .ok_or_else(|| E::custom("not a number that a configuration can hold"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Kind, E> {
        Ok(Kind::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Kind, E> {
        Ok(Kind::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Kind, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element::<Spanned<Node>>()? {
            nodes.push(at_its_place(node));
        }
        Ok(Kind::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kind, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<Node>>()? {
            let key_at = position(key.referenced);
            let key = match key.value.kind {
                Kind::Text(key) => key,
                Kind::Number(key) => key.to_string(),
                Kind::Bool(key) => key.to_string(),
                Kind::Null => "null".to_owned(),
                Kind::List(_) | Kind::Map(_) => return Err(A::Error::custom("a key must be text")),
            };
            let node = at_its_place(map.next_value::<Spanned<Node>>()?);
            entries.push(Entry { key, key_at, node });
        }
        Ok(Kind::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "listeners:\n  - name: web\n    bind: 0.0.0.0:8080\npolicy:\n  pools:\n    shop: {servers: [{address: \"10.0.0.1:80\", weight: 5}]}\n    a.b: 1\n    a: {b: 2}\n";

    #[track_caller]
    fn check(path: &str, key: (u64, u64), value: (u64, u64)) {
        let place = Tree::parse(FILE).unwrap().locate(path);
        assert_eq!((place.key.line, place.key.column), key, "key of {path}");
        assert_eq!(
            (place.value.line, place.value.column),
            value,
            "value of {path}"
        );
    }

    #[test]
    fn knows_where_keys_and_values_stand() {
        check("listeners[0].bind", (3, 5), (3, 11));
        check("policy.pools.shop.servers[0].weight", (6, 47), (6, 55));
        check("policy.pools.a.b", (7, 5), (7, 10));
    }

    #[test]
    fn a_path_that_leads_nowhere_ends_at_its_last_key() {
        check("listeners[0].tls.cert", (2, 5), (2, 5));
        check("listeners[9]", (1, 1), (2, 3));
        check("policy.pools.shop.nothing", (6, 5), (6, 11));
    }

    #[test]
    fn scalars_are_of_yaml_1_2() {
        let json = Tree::parse(
            "{a: no, b: 10s, c: 0.0.0.0:80, d: ~, e: 8080, f: true, g: '5', h: 1.5, i: 22:22}",
        )
        .unwrap()
        .to_json();
        let expected = serde_json::json!({"a": "no", "b": "10s", "c": "0.0.0.0:80", "d": null, "e": 8080, "f": true, "g": "5", "h": 1.5, "i": "22:22"});
        assert_eq!(json, expected);
    }

    #[test]
    fn json_is_a_subset() {
        let text = "{\n\t\"a\": [1, 2, {\"b\": \"\\u00e9\"}],\n\t\"c\": null\n}\n";
        assert_eq!(
            Tree::parse(text).unwrap().to_json(),
            serde_json::from_str::<Value>(text).unwrap()
        );
    }

    #[track_caller]
    fn refused(text: &str, line: u64, part: &str) {
        let (at, message) = Tree::parse(text).expect_err("parsed");
        assert!(message.contains(part), "{message:?} lacks {part:?}");
        assert_eq!(at.line, line, "{message}");
        assert!(
            !message.contains('\n') && !message.contains(" line "),
            "{message:?}"
        );
    }

    #[test]
    fn what_is_not_yaml_is_told_with_its_line() {
        refused("a: 1\nb: [1, 2\nc: 3\n", 3, "");
        refused("a: 1\na: 2\n", 2, "duplicate");
        refused("a: 1\n---\nb: 2\n", 2, "document");
    }

    #[test]
    fn documents_that_explode_are_refused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let reference = format!("*a{}, ", level - 1);
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", reference.repeat(10)));
        }
        assert!(Tree::parse(&bomb).is_err());
        assert!(Tree::parse(&"[".repeat(100_000)).is_err());
        assert!(Tree::parse(&format!("a: {}", "x".repeat(FILE_BYTES_MAX))).is_err());
    }
}
