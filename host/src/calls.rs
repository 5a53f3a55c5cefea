//! The calls of one VM that are under way: whom each belongs to, and how much they hold.
//!
//! A call holds a copy of what the guest sent until the embedder tells its outcome; so both their number and their bytes are bounded. Numbers
//! are multiples of 4, as in Envoy.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use crate::contexts::IdHasher;

/// Most calls of one VM under way.
pub(crate) const CALLS_MAX: usize = 65_536;
/// Most bytes of their names, headers, bodies and trailers. A call alone may have them all.
pub(crate) const CALL_BYTES_MAX: usize = 64 << 20;

#[derive(Default)]
pub(crate) struct Calls {
    known: HashMap<u32, Call, BuildHasherDefault<IdHasher>>,
    bytes: usize,
    last_token: u32,
}

struct Call {
    root: u32,
    bytes: usize,
}

impl Calls {
    /// A new call's token. `None`: a bound is reached.
    pub(crate) fn begin(&mut self, root: u32, bytes: usize) -> Option<u32> {
        let total = self.bytes.checked_add(bytes)?;
        if self.known.len() >= CALLS_MAX || total > CALL_BYTES_MAX {
            return None;
        }
        let token = self.free_token();
        self.known.insert(token, Call { root, bytes });
        self.bytes = total;
        Some(token)
    }

    /// The root context that waits for it; `None`: nobody does.
    pub(crate) fn end(&mut self, token: u32) -> Option<u32> {
        let call = self.known.remove(&token)?;
        self.bytes = self.bytes.saturating_sub(call.bytes);
        Some(call.root)
    }

    pub(crate) fn clear(&mut self) {
        self.known.clear();
        self.bytes = 0;
    }

    fn free_token(&mut self) -> u32 {
        // Ends: there are fewer calls than numbers.
        loop {
            self.last_token = self.last_token.wrapping_add(4);
            if self.last_token != 0 && !self.known.contains_key(&self.last_token) {
                return self.last_token;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn their_number_is_bounded() {
        let mut calls = Calls::default();
        assert!((0..CALLS_MAX).all(|_| calls.begin(1, 0).is_some()));
        assert_eq!((calls.begin(1, 0), calls.end(4)), (None, Some(1)));
        assert_eq!((calls.end(4), calls.begin(2, 0).is_some()), (None, true));
    }

    #[test]
    fn their_bytes_are_bounded() {
        let mut calls = Calls::default();
        assert_eq!(calls.begin(1, CALL_BYTES_MAX + 1), None);
        assert_eq!(calls.begin(1, CALL_BYTES_MAX), Some(4));
        assert_eq!(
            (calls.begin(1, 1), calls.begin(1, usize::MAX)),
            (None, None)
        );
        assert_eq!(calls.end(4), Some(1));
        assert_eq!(calls.begin(1, CALL_BYTES_MAX), Some(8));
    }
}
