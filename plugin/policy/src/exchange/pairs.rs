//! Header pairs in the ABI's encoding, where the host put them: read in place, from either end, nothing copied.
//!
//! ```text
//!   count   count × (length of name, length of value)   name NUL value NUL   name NUL value NUL …     (u32, little-endian)
//! ```
//!
//! The buffer is the host's word, and the host may be anybody's: lengths that do not fit end the iteration.

/// Pairs of name and value, in the order received. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pairs<'a> {
    lengths: &'a [[u8; 8]],
    text: &'a [u8],
}

impl<'a> Pairs<'a> {
    /// The pairs of an encoded map; none if it is not one.
    pub fn new(map: &'a [u8]) -> Self {
        let none = Self {
            lengths: &[],
            text: &[],
        };
        let Some((count, rest)) = map.split_first_chunk::<4>() else {
            return none;
        };
        let count = u32::from_le_bytes(*count) as usize;
        let Some((lengths, text)) = count
            .checked_mul(8)
            .and_then(|size| rest.split_at_checked(size))
        else {
            return none;
        };
        Self {
            lengths: lengths.as_chunks::<8>().0,
            text,
        }
    }
}

/// The lengths of a name and of a value.
fn lengths([a, b, c, d, e, f, g, h]: [u8; 8]) -> (usize, usize) {
    (
        u32::from_le_bytes([a, b, c, d]) as usize,
        u32::from_le_bytes([e, f, g, h]) as usize,
    )
}

/// A name and a value of a pair's bytes.
fn pair(bytes: &[u8], name: usize) -> Option<(&[u8], &[u8])> {
    let (name, rest) = bytes.split_at_checked(name)?;
    let (_, rest) = rest.split_first()?;
    let (_, value) = rest.split_last()?;
    Some((name, value))
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (first, rest) = self.lengths.split_first()?;
        let (name, value) = lengths(*first);
        let size = name.checked_add(value)?.checked_add(2)?;
        let (bytes, text) = self.text.split_at_checked(size)?;
        self.lengths = rest;
        self.text = text;
        pair(bytes, name)
    }
}

impl DoubleEndedIterator for Pairs<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let (last, rest) = self.lengths.split_last()?;
        let (name, value) = lengths(*last);
        let size = name.checked_add(value)?.checked_add(2)?;
        let (text, bytes) = self
            .text
            .split_at_checked(self.text.len().checked_sub(size)?)?;
        self.lengths = rest;
        self.text = text;
        pair(bytes, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(pairs: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        let size = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_le_bytes();
        let mut map = u32::try_from(pairs.len()).unwrap().to_le_bytes().to_vec();
        for (name, value) in pairs {
            map.extend(size(name).into_iter().chain(size(value)));
        }
        for (name, value) in pairs {
            map.extend(name.iter().chain(&[0]).chain(value).chain(&[0]));
        }
        map
    }

    #[test]
    fn pairs_are_read_from_both_ends() {
        let pairs: Vec<(Vec<u8>, Vec<u8>)> = [("a", "1"), ("", ""), ("b", "\u{ff}\0x")]
            .map(|(name, value)| (name.into(), value.into()))
            .into();
        let map = encoded(&pairs);
        let forwards: Vec<_> = Pairs::new(&map)
            .map(|(name, value)| (name.to_vec(), value.to_vec()))
            .collect();
        let mut backwards: Vec<_> = Pairs::new(&map)
            .rev()
            .map(|(name, value)| (name.to_vec(), value.to_vec()))
            .collect();
        backwards.reverse();
        assert_eq!((&forwards, &backwards), (&pairs, &pairs));
        let mut both = Pairs::new(&map);
        assert_eq!(both.next().map(|(name, _)| name), Some(&b"a"[..]));
        assert_eq!(both.next_back().map(|(name, _)| name), Some(&b"b"[..]));
        assert_eq!(both.next().map(|(name, _)| name), Some(&b""[..]));
        assert_eq!((both.next(), both.next_back()), (None, None));
    }

    #[test]
    fn an_empty_map_has_no_pairs() {
        for map in [
            &[][..],
            &[0],
            &[0, 0, 0, 0],
            &[1, 0, 0, 0],
            &[255; 4],
            &[255; 40],
        ] {
            assert_eq!(
                (Pairs::new(map).next(), Pairs::new(map).next_back()),
                (None, None),
                "{map:?}"
            );
        }
    }

    #[test]
    fn any_bytes_end() {
        proptest!(|(map in proptest::collection::vec(any::<u8>(), 0..80), count in 0u8..9, small in any::<bool>())| {
            let mut map = map;
            if small {
                map.iter_mut().take(4 + usize::from(count) * 8).enumerate().for_each(|(index, byte)| if index % 4 > 0 { *byte = 0 } else { *byte %= 8 });
            }
            prop_assert!(Pairs::new(&map).count() <= map.len());
            prop_assert!(Pairs::new(&map).rev().count() <= map.len());
        });
    }
}
