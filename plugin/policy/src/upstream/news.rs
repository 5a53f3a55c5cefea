//! How often records of a kind were written: one small key beside many large ones, so that a look every tick costs next to nothing.
//!
//! ```text
//!   evenkeel//health      8  how often the `state` record of any pool was written         (little-endian)
//!   evenkeel//changes     8  how often the `members` record of any pool was written
//! ```
//!
//! Whoever writes a record raises the count afterwards; who reads the count before the records misses nothing. A host's shared data
//! gives a value whole or not at all, and a record of 10,000 servers is half a megabyte; so is one of ten servers in each of 1,000 pools.

use super::shared_data::{ABSENT, SharedData, Written};

/// Whoever loses so many races against other writers has told the news all the same: the number has changed.
const TRIES_MAX: usize = 8;

/// What there may be news of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// What checks found out.
    Health,
    /// What operators changed, and what names resolve to.
    Members,
}

impl News {
    /// The key of the count.
    pub fn key(self) -> &'static [u8] {
        match self {
            Self::Health => b"evenkeel//health",
            Self::Members => b"evenkeel//changes",
        }
    }

    /// The count in a value; 0 in one that is none.
    pub fn count_of(value: &[u8]) -> u64 {
        let bytes = value.first_chunk::<8>();
        bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    /// How often any record was written, as far as it was told; `None`: it never was, which says nothing about records. `value` is a
    /// buffer.
    pub fn read(self, data: &mut impl SharedData, value: &mut Vec<u8>) -> Option<u64> {
        data.get(self.key(), value)?;
        Some(Self::count_of(value))
    }

    /// Says that a record was written. `value` is a buffer.
    pub fn tell(self, data: &mut impl SharedData, value: &mut Vec<u8>) {
        for _ in 0..TRIES_MAX {
            let cas = data.get(self.key(), value);
            let count = cas.map_or(0, |_| Self::count_of(value));
            let next = count.wrapping_add(1).to_le_bytes();
            if data.set(self.key(), &next, cas.unwrap_or(ABSENT)) != Written::Mismatch {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Map;
    use super::*;

    #[test]
    fn news_are_another_number_each_time() {
        for kind in [News::Health, News::Members] {
            let (mut data, mut value) = (Map::default(), Vec::new());
            assert_eq!(kind.read(&mut data, &mut value), None);
            kind.tell(&mut data, &mut value);
            assert_eq!(kind.read(&mut data, &mut value), Some(1));
            kind.tell(&mut data, &mut value);
            assert_eq!(kind.read(&mut data, &mut value), Some(2));
            data.set(kind.key(), b"junk", 0);
            assert_eq!(kind.read(&mut data, &mut value), Some(0));
        }
    }
}
