//! Header pairs where the host put them: read in place, from either end, nothing copied.
//!
//! ```text
//!   count   count × (length of name, length of value)   name NUL value NUL   name NUL value NUL …     (u32, little-endian)
//! ```
//!
//! The buffer is the host's word, and the host may be anybody's: lengths that do not fit end the iteration.

/// Pairs of name and value, in the order received. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Pairs<'a> {
    lengths: &'a [[u8; 8]],
    text: &'a [u8],
}

impl<'a> Pairs<'a> {
    /// The pairs of an encoded map; none if it is not one.
    pub(crate) fn new(map: &'a [u8]) -> Self {
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
