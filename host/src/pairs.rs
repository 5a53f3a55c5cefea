//! The ABI's encoding of header pairs.
//!
//! `u32 count`, then `count` times `u32 name length, u32 value length`, then for each pair `name NUL value NUL`; little-endian.
//! An empty map is zero bytes, as in Envoy (the spec's "one zero byte" makes the SDK panic).

use crate::embedder::Pairs;
use crate::status::Status;

/// Most pairs a guest may hand over at once (as Envoy's `limits.h`).
pub(crate) const PAIRS_MAX: u32 = 1024;
/// Most bytes of one encoded map from a guest (as Envoy's `limits.h`).
pub(crate) const PAIRS_BYTES_MAX: usize = 1 << 20;

/// What it takes to encode a map: filled by visiting its pairs once.
#[derive(Default, Clone, Copy)]
pub(crate) struct Measure {
    pub(crate) count: usize,
    bytes: usize,
}

impl Measure {
    pub(crate) fn add(&mut self, name: &[u8], value: &[u8]) {
        self.count += 1;
        self.bytes += name.len() + value.len();
    }

    /// Encoded length: 0 for an empty map.
    pub(crate) fn encoded(&self) -> usize {
        if self.count == 0 {
            0
        } else {
            4 + self.count * 10 + self.bytes
        }
    }

    /// Bytes of all names and values, what `proxy_get_header_map_size` answers.
    pub(crate) fn plain(&self) -> usize {
        self.bytes
    }
}

/// Writes a measured map into its place, pair by pair.
pub(crate) struct Writer<'a> {
    lengths: &'a mut [u8],
    texts: &'a mut [u8],
    fits: bool,
    left: usize,
}

impl<'a> Writer<'a> {
    /// `None` if `target` is not of the measured length.
    pub(crate) fn new(target: &'a mut [u8], measure: Measure) -> Option<Self> {
        if target.len() != measure.encoded() {
            return None;
        }
        let (count, rest) = target.split_at_mut_checked(4)?;
        count.copy_from_slice(&u32::try_from(measure.count).ok()?.to_le_bytes());
        let (lengths, texts) = rest.split_at_mut_checked(measure.count.checked_mul(8)?)?;
        Some(Self {
            lengths,
            texts,
            fits: true,
            left: measure.count,
        })
    }

    pub(crate) fn add(&mut self, name: &[u8], value: &[u8]) {
        self.fits = self.fits && self.put(name, value).is_some();
    }

    fn put(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        self.left = self.left.checked_sub(1)?;
        for text in [name, value] {
            let (length, lengths) = std::mem::take(&mut self.lengths).split_at_mut_checked(4)?;
            length.copy_from_slice(&u32::try_from(text.len()).ok()?.to_le_bytes());
            self.lengths = lengths;
            let (place, texts) =
                std::mem::take(&mut self.texts).split_at_mut_checked(text.len())?;
            place.copy_from_slice(text);
            let (end, texts) = texts.split_first_mut()?;
            *end = 0;
            self.texts = texts;
        }
        Some(())
    }

    /// Whether exactly what was measured has been written.
    pub(crate) fn complete(&self) -> bool {
        self.fits && self.left == 0 && self.texts.is_empty()
    }
}

/// Pairs a guest encoded, checked as a whole before the first is read.
#[derive(Clone, Copy)]
pub(crate) struct Decoded<'a> {
    lengths: &'a [u8],
    texts: &'a [u8],
}

impl<'a> Decoded<'a> {
    /// BadArgument: too many, too long, or lengths that leave the data. No bytes at all are no pairs.
    pub(crate) fn parse(data: &'a [u8]) -> Result<Self, Status> {
        if data.is_empty() {
            return Ok(Self {
                lengths: &[],
                texts: &[],
            });
        }
        if data.len() > PAIRS_BYTES_MAX {
            return Err(Status::BadArgument);
        }
        let (count, rest) = data.split_first_chunk::<4>().ok_or(Status::BadArgument)?;
        let count = u32::from_le_bytes(*count);
        if count > PAIRS_MAX {
            return Err(Status::BadArgument);
        }
        let (lengths, texts) = rest
            .split_at_checked(count as usize * 8)
            .ok_or(Status::BadArgument)?;
        let needed = lengths
            .chunks_exact(4)
            .map(|chunk| u64::from(length(chunk)) + 1)
            .sum::<u64>();
        // The last NUL may be left out, as in Envoy's reader.
        if needed > texts.len() as u64 + 1 {
            return Err(Status::BadArgument);
        }
        Ok(Self { lengths, texts })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let mut texts = self.texts;
        self.lengths.chunks_exact(8).map_while(move |pair| {
            let (name_length, value_length) = pair.split_at_checked(4)?;
            let (name, rest) = texts.split_at_checked(length(name_length) as usize)?;
            let rest = rest.get(1..)?;
            let (value, rest) = rest.split_at_checked(length(value_length) as usize)?;
            texts = rest.get(1..).unwrap_or_default();
            Some((name, value))
        })
    }

    pub(crate) fn to_owned(self) -> Pairs {
        self.iter()
            .map(|(name, value)| (name.to_vec(), value.to_vec()))
            .collect()
    }
}

fn length(chunk: &[u8]) -> u32 {
    chunk
        .first_chunk::<4>()
        .map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(pairs: &[(&[u8], &[u8])]) -> Vec<u8> {
        let mut measure = Measure::default();
        pairs
            .iter()
            .for_each(|(name, value)| measure.add(name, value));
        let mut out = vec![0xAA; measure.encoded()];
        if !out.is_empty() {
            let mut writer = Writer::new(&mut out, measure).unwrap();
            pairs
                .iter()
                .for_each(|(name, value)| writer.add(name, value));
            assert!(writer.complete());
        }
        out
    }

    #[test]
    fn encodes_as_the_abi_says() {
        assert_eq!(encode(&[]), b"");
        assert_eq!(
            encode(&[(b"a", b"bc"), (b"", b"")]),
            b"\x02\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0a\0bc\0\0\0"
        );
    }

    #[test]
    fn reads_back_what_it_wrote() {
        let pairs: [(&[u8], &[u8]); 3] = [(b":path", b"/"), (b"x", b""), (b"y", b"\xFF\xFE")];
        let data = encode(&pairs);
        assert_eq!(
            Decoded::parse(&data).unwrap().iter().collect::<Vec<_>>(),
            pairs
        );
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let rows: [&[u8]; 5] = [
            b"\x01",
            b"\x01\0\0\0\x01\0\0\0\x01\0\0\0a",
            b"\x01\0\0\0",
            b"\xFF\xFF\xFF\xFF\0\0\0\0",
            b"\x01\0\0\0\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFFabc",
        ];
        for row in rows {
            assert!(Decoded::parse(row).is_err(), "{row:?}");
        }
        assert!(
            Decoded::parse(b"\x01\0\0\0\x01\0\0\0\x01\0\0\0a\0b").is_ok(),
            "a missing last NUL is tolerated"
        );
    }
}
