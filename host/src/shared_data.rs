//! `proxy_get_shared_data` and `proxy_set_shared_data`: one table per `vm_id`, compare-and-swap, no deletion, bounded.
//!
//! The table is read and written by every thread on the path of a request: it is split into [`SHARDS`] locks by the key's hash, a look-up
//! borrows the key and copies the value into the caller's buffer, a write reuses the value's room.
//!
//! Rules (cpp-host `shared_data.cc`): numbers come from one counter of the process, beginning with 1; 0 writes unconditionally; another number
//! on a *missing* key succeeds; on a key that has changed since it is a mismatch.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use foldhash::fast::RandomState;

/// Locks of one table; a power of two.
const SHARDS: usize = 16;
/// Most keys of one `vm_id`.
pub(crate) const KEYS_MAX: usize = 65_536;
/// Longest key, bytes.
pub(crate) const KEY_BYTES_MAX: usize = 1024;
/// Longest value, bytes.
pub(crate) const VALUE_BYTES_MAX: usize = 4 << 20;
/// Most bytes of keys and values of one `vm_id`.
pub(crate) const BYTES_MAX: usize = 64 << 20;

/// The process's source of compare-and-swap numbers.
#[derive(Default)]
pub(crate) struct CasNumbers(AtomicU32);

impl CasNumbers {
    fn next(&self) -> u32 {
        // 0 means unconditional: after 2^32 writes it is passed over.
        match self.0.fetch_add(1, Ordering::Relaxed).wrapping_add(1) {
            0 => self.0.fetch_add(1, Ordering::Relaxed).wrapping_add(1),
            number => number,
        }
    }
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    Yes,
    Mismatch,
    Full,
}

struct Entry {
    value: Vec<u8>,
    cas: u32,
}

#[repr(align(128))]
#[derive(Default)]
struct Shard {
    entries: RwLock<HashMap<Box<[u8]>, Entry, RandomState>>,
}

/// The shared data of one `vm_id`.
pub(crate) struct Space {
    shards: [Shard; SHARDS],
    choose: RandomState,
    keys: AtomicUsize,
    bytes: AtomicUsize,
    cas: Arc<CasNumbers>,
}

impl Space {
    pub(crate) fn new(cas: Arc<CasNumbers>) -> Self {
        let (keys, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self {
            shards: Default::default(),
            choose: RandomState::default(),
            keys,
            bytes,
            cas,
        }
    }

    /// Puts the value into `out` (emptied first) and returns its number.
    pub(crate) fn read(&self, key: &[u8], out: &mut Vec<u8>) -> Option<u32> {
        out.clear();
        let entries = self
            .shard(key)?
            .entries
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(key)?;
        out.extend_from_slice(&entry.value);
        Some(entry.cas)
    }

    pub(crate) fn write(&self, key: &[u8], value: &[u8], cas: u32) -> Written {
        if key.len() > KEY_BYTES_MAX || value.len() > VALUE_BYTES_MAX {
            return Written::Full;
        }
        let Some(shard) = self.shard(key) else {
            return Written::Full;
        };
        let mut entries = shard
            .entries
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get_mut(key) {
            if cas != 0 && cas != entry.cas {
                return Written::Mismatch;
            }
            if !self.reserve(value.len(), entry.value.len()) {
                return Written::Full;
            }
            entry.value.clear();
            entry.value.extend_from_slice(value);
            entry.cas = self.cas.next();
            return Written::Yes;
        }
        if self.keys.fetch_add(1, Ordering::Relaxed) >= KEYS_MAX {
            self.keys.fetch_sub(1, Ordering::Relaxed);
            return Written::Full;
        }
        if !self.reserve(key.len() + value.len(), 0) {
            self.keys.fetch_sub(1, Ordering::Relaxed);
            return Written::Full;
        }
        entries.insert(
            key.into(),
            Entry {
                value: value.to_vec(),
                cas: self.cas.next(),
            },
        );
        Written::Yes
    }

    /// Counts `more` bytes in and `less` out, unless that would be too many.
    fn reserve(&self, more: usize, less: usize) -> bool {
        if more <= less {
            self.bytes.fetch_sub(less - more, Ordering::Relaxed);
            return true;
        }
        let added = more - less;
        if self.bytes.fetch_add(added, Ordering::Relaxed) + added > BYTES_MAX {
            self.bytes.fetch_sub(added, Ordering::Relaxed);
            return false;
        }
        true
    }

    fn shard(&self, key: &[u8]) -> Option<&Shard> {
        let hash = usize::try_from(self.choose.hash_one(key) >> 48).unwrap_or(0);
        self.shards.get(hash % SHARDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(space: &Space, key: &[u8]) -> Option<(Vec<u8>, u32)> {
        let mut value = Vec::new();
        space.read(key, &mut value).map(|cas| (value, cas))
    }

    #[test]
    fn follows_the_rules_of_compare_and_swap() {
        let space = Space::new(Arc::default());
        assert_eq!(read(&space, b"k"), None);
        assert_eq!(
            space.write(b"k", b"one", 99),
            Written::Yes,
            "any number on a missing key"
        );
        assert_eq!(read(&space, b"k"), Some((b"one".to_vec(), 1)));
        assert_eq!(space.write(b"k", b"two", 1), Written::Yes);
        assert_eq!(space.write(b"k", b"three", 1), Written::Mismatch);
        assert_eq!(space.write(b"k", b"", 0), Written::Yes);
        assert_eq!(read(&space, b"k"), Some((Vec::new(), 3)));
    }

    #[test]
    fn one_of_many_threads_wins_each_number() {
        let space = Space::new(Arc::default());
        space.write(b"n", &0_u64.to_le_bytes(), 0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        loop {
                            let (value, cas) = read(&space, b"n").unwrap();
                            let next = u64::from_le_bytes(value.try_into().unwrap()) + 1;
                            if space.write(b"n", &next.to_le_bytes(), cas) == Written::Yes {
                                break;
                            }
                        }
                    }
                });
            }
        });
        assert_eq!(read(&space, b"n").unwrap().0, 2000_u64.to_le_bytes());
    }

    #[test]
    fn the_table_is_bounded() {
        let space = Space::new(Arc::default());
        assert_eq!(space.write(&[0; KEY_BYTES_MAX + 1], b"", 0), Written::Full);
        assert_eq!(
            space.write(b"k", &vec![0; VALUE_BYTES_MAX + 1], 0),
            Written::Full
        );
        let value = vec![0; VALUE_BYTES_MAX];
        let fits = BYTES_MAX / (VALUE_BYTES_MAX + 1);
        for n in 0..fits {
            assert_eq!(
                space.write(&[u8::try_from(n).unwrap()], &value, 0),
                Written::Yes
            );
        }
        assert_eq!(space.write(b"xx", &value, 0), Written::Full);
        assert_eq!(space.write(&[0], b"small", 0), Written::Yes);
        assert_eq!(space.write(b"xx", &value, 0), Written::Yes);
        for n in 0..u32::try_from(KEYS_MAX).unwrap() {
            space.write(&n.to_le_bytes(), b"", 0);
        }
        assert_eq!(space.write(b"one more", b"", 0), Written::Full);
        assert_eq!(space.write(&[0], b"old ones still go", 0), Written::Yes);
    }
}
