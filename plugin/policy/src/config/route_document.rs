//! `routes` as written: what a request must be like, and what becomes of it.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};

use super::document::{Named, OneOrMany};

/// One route: exactly one of `pool`, `redirect`, `respond` and `deny`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RouteDocument {
    #[serde(rename = "match")]
    pub(super) condition: Option<MatchDocument>,
    pub(super) pool: Option<String>,
    pub(super) redirect: Option<RedirectDocument>,
    pub(super) respond: Option<RespondDocument>,
    pub(super) deny: Option<DenyDocument>,
    pub(super) rewrite: Option<RewriteDocument>,
    pub(super) limit: Option<OneOrMany>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MatchDocument {
    pub(super) host: Option<OneOrMany>,
    pub(super) host_regex: Option<OneOrMany>,
    pub(super) path: Option<OneOrMany>,
    pub(super) path_prefix: Option<OneOrMany>,
    pub(super) path_suffix: Option<OneOrMany>,
    pub(super) path_regex: Option<OneOrMany>,
    pub(super) method: Option<OneOrMany>,
    pub(super) header: Option<Named<WantedDocument>>,
    pub(super) query: Option<Named<WantedDocument>>,
    pub(super) client: Option<ClientDocument>,
    pub(super) not: Option<Matches>,
    pub(super) ignore_case: Option<bool>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RespondDocument {
    pub(super) status: Option<u64>,
    pub(super) body: Option<String>,
    #[serde(default)]
    pub(super) headers: Named<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RewriteDocument {
    pub(super) prefix: Option<String>,
    pub(super) regex: Option<String>,
    pub(super) to: String,
}

/// A location, or a mapping of `location` and `status`.
#[derive(Debug, Clone)]
pub(super) struct RedirectDocument {
    pub(super) location: String,
    pub(super) status: Option<u64>,
}

/// `true`, or a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DenyDocument {
    Flag(bool),
    Status(u64),
}

/// Networks, or a mapping of networks, `in`, and whose address it is, `of`.
#[derive(Debug, Clone)]
pub(super) struct ClientDocument {
    pub(super) networks: OneOrMany,
    pub(super) of: Option<String>,
}

/// Whether it is there, texts of which one is the value, or patterns of which one matches.
#[derive(Debug, Clone)]
pub(super) enum WantedDocument {
    Present(bool),
    Texts(OneOrMany),
    Patterns(Box<PatternsDocument>),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PatternsDocument {
    pub(super) exact: Option<OneOrMany>,
    pub(super) prefix: Option<OneOrMany>,
    pub(super) suffix: Option<OneOrMany>,
    pub(super) contains: Option<OneOrMany>,
    pub(super) regex: Option<OneOrMany>,
}

/// A text; a number counts as one.
struct Word(String);

/// One match, or a list of matches.
#[derive(Debug, Clone)]
pub(super) struct Matches(pub(super) Vec<MatchDocument>);

/// What is made of the shapes in which a value may be written; shapes that are not overridden are refused.
trait Shapes: Sized {
    const EXPECTED: &'static str;

    fn of_bool(_: bool) -> Option<Self> {
        None
    }
    fn of_number(_: u64) -> Option<Self> {
        None
    }
    fn of_text(_: &str) -> Option<Self> {
        None
    }
    fn of_list<'de, A: SeqAccess<'de>>(_: A) -> Result<Self, A::Error> {
        Err(unexpected::<Self, _>(de::Unexpected::Seq))
    }
    fn of_mapping<'de, A: MapAccess<'de>>(_: A) -> Result<Self, A::Error> {
        Err(unexpected::<Self, _>(de::Unexpected::Map))
    }
}

fn unexpected<S: Shapes, E: de::Error>(found: de::Unexpected<'_>) -> E {
    E::invalid_type(found, &S::EXPECTED)
}

struct AnyShape<S>(PhantomData<S>);

impl<'de, S: Shapes> Visitor<'de> for AnyShape<S> {
    type Value = S;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(S::EXPECTED)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<S, E> {
        S::of_bool(value).ok_or_else(|| unexpected::<S, E>(de::Unexpected::Bool(value)))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<S, E> {
        S::of_number(value).ok_or_else(|| unexpected::<S, E>(de::Unexpected::Unsigned(value)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<S, E> {
        S::of_text(text).ok_or_else(|| unexpected::<S, E>(de::Unexpected::Str(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<S, A::Error> {
        S::of_list(items)
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<S, A::Error> {
        S::of_mapping(entries)
    }
}

macro_rules! deserialized_by_shape {
    ($($name:ty),*) => {
        $(impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(AnyShape(PhantomData))
            }
        })*
    };
}

deserialized_by_shape!(
    RedirectDocument,
    DenyDocument,
    ClientDocument,
    WantedDocument,
    Word,
    Matches
);

/// The items of a list, one after the other.
fn items<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(mut list: A) -> Result<Vec<T>, A::Error> {
    let mut found = Vec::new();
    while let Some(item) = list.next_element()? {
        found.push(item);
    }
    Ok(found)
}

fn mapping<'de, T: Deserialize<'de>, A: MapAccess<'de>>(entries: A) -> Result<T, A::Error> {
    T::deserialize(MapAccessDeserializer::new(entries))
}

impl Shapes for RedirectDocument {
    const EXPECTED: &'static str = "a location or a mapping";

    fn of_text(text: &str) -> Option<Self> {
        Some(Self {
            location: text.to_owned(),
            status: None,
        })
    }

    fn of_mapping<'de, A: MapAccess<'de>>(entries: A) -> Result<Self, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Full {
            location: String,
            status: Option<u64>,
        }
        let Full { location, status } = mapping(entries)?;
        Ok(Self { location, status })
    }
}

impl Shapes for DenyDocument {
    const EXPECTED: &'static str = "`true` or a status";

    fn of_bool(value: bool) -> Option<Self> {
        Some(Self::Flag(value))
    }

    fn of_number(value: u64) -> Option<Self> {
        Some(Self::Status(value))
    }
}

impl Shapes for ClientDocument {
    const EXPECTED: &'static str = "a network, a list of networks or a mapping";

    fn of_text(text: &str) -> Option<Self> {
        Some(Self {
            networks: OneOrMany(vec![text.to_owned()]),
            of: None,
        })
    }

    fn of_list<'de, A: SeqAccess<'de>>(list: A) -> Result<Self, A::Error> {
        Ok(Self {
            networks: OneOrMany(items(list)?),
            of: None,
        })
    }

    fn of_mapping<'de, A: MapAccess<'de>>(entries: A) -> Result<Self, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Full {
            r#in: OneOrMany,
            of: Option<String>,
        }
        let Full { r#in: networks, of } = mapping(entries)?;
        Ok(Self { networks, of })
    }
}

impl Shapes for WantedDocument {
    const EXPECTED: &'static str = "a string, a list of strings, `true`, `false` or a mapping";

    fn of_bool(value: bool) -> Option<Self> {
        Some(Self::Present(value))
    }

    /// Who writes `X-Debug: 1` means the text.
    fn of_number(value: u64) -> Option<Self> {
        Some(Self::Texts(OneOrMany(vec![value.to_string()])))
    }

    fn of_text(text: &str) -> Option<Self> {
        Some(Self::Texts(OneOrMany(vec![text.to_owned()])))
    }

    fn of_list<'de, A: SeqAccess<'de>>(list: A) -> Result<Self, A::Error> {
        let words: Vec<Word> = items(list)?;
        let texts = words.into_iter().map(|Word(text)| text);
        Ok(Self::Texts(OneOrMany(texts.collect())))
    }

    fn of_mapping<'de, A: MapAccess<'de>>(entries: A) -> Result<Self, A::Error> {
        Ok(Self::Patterns(Box::new(mapping(entries)?)))
    }
}

impl Shapes for Word {
    const EXPECTED: &'static str = "a string";

    fn of_number(value: u64) -> Option<Self> {
        Some(Self(value.to_string()))
    }

    fn of_text(text: &str) -> Option<Self> {
        Some(Self(text.to_owned()))
    }
}

impl Shapes for Matches {
    const EXPECTED: &'static str = "a mapping or a list of mappings";

    fn of_list<'de, A: SeqAccess<'de>>(list: A) -> Result<Self, A::Error> {
        Ok(Self(items(list)?))
    }

    fn of_mapping<'de, A: MapAccess<'de>>(entries: A) -> Result<Self, A::Error> {
        Ok(Self(vec![mapping(entries)?]))
    }
}
