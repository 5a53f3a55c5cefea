//! What a value of a header or of the query must be like.

use regex::bytes::Regex;

/// One way for a value to match.
#[derive(Debug, Clone)]
pub enum TextPattern {
    Exactly(Box<[u8]>),
    Beginning(Box<[u8]>),
    Ending(Box<[u8]>),
    Containing(Box<[u8]>),
    /// Knows itself whether case matters.
    Regex(Regex),
}

/// Whether capitals and small letters of ASCII are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Case {
    #[default]
    Matters,
    Ignored,
}

/// Longest value that is given to regular expressions: their time grows with it, and a longer one matches none.
const REGEX_VALUE_BYTES_MAX: usize = 4_096;

impl TextPattern {
    pub(super) fn matches(&self, value: &[u8], case: Case) -> bool {
        match self {
            Self::Exactly(text) => case.equal(value, text),
            Self::Beginning(text) => value
                .get(..text.len())
                .is_some_and(|value| case.equal(value, text)),
            Self::Ending(text) => value
                .len()
                .checked_sub(text.len())
                .and_then(|start| value.get(start..))
                .is_some_and(|value| case.equal(value, text)),
            Self::Containing(text) => {
                text.is_empty()
                    || value
                        .windows(text.len())
                        .any(|value| case.equal(value, text))
            }
            Self::Regex(regex) => value.len() <= REGEX_VALUE_BYTES_MAX && regex.is_match(value),
        }
    }
}

impl Case {
    pub(crate) fn equal(self, left: &[u8], right: &[u8]) -> bool {
        match self {
            Self::Matters => left == right,
            Self::Ignored => left.eq_ignore_ascii_case(right),
        }
    }

    /// A key of a table of keys in this case.
    pub(super) fn key(self, text: &[u8]) -> Box<[u8]> {
        match self {
            Self::Matters => text.into(),
            Self::Ignored => text.to_ascii_lowercase().into(),
        }
    }
}
