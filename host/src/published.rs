//! What the filters of a stream leave for others: `set_property` and `set_envoy_filter_state`.
//!
//! Envoy keeps both in the stream's filter state; `set_property(k)` under the key `wasm.<k>`. So does this table. A handful of
//! entries, searched in order.

/// Most entries of one stream.
pub(crate) const ENTRIES_MAX: usize = 64;
/// Longest key, bytes.
pub(crate) const KEY_BYTES_MAX: usize = 256;
/// Longest value, bytes.
pub(crate) const VALUE_BYTES_MAX: usize = 16 << 10;

/// What a key from `set_property` is prefixed with (Envoy `context.cc`).
const PROPERTY_PREFIX: &[u8] = b"wasm.";

struct Entry {
    property: bool,
    key_length: usize,
    /// The key, then the value: one allocation.
    text: Vec<u8>,
}

impl Entry {
    fn key(&self) -> &[u8] {
        self.text.get(..self.key_length).unwrap_or_default()
    }

    fn value(&self) -> &[u8] {
        self.text.get(self.key_length..).unwrap_or_default()
    }

    fn is(&self, property: bool, key: &[u8]) -> bool {
        self.property == property && self.key() == key
    }
}

#[derive(Default)]
pub(crate) struct Published {
    entries: Vec<Entry>,
}

impl Published {
    /// `false`: the table is full, or the key or value too long.
    pub(crate) fn set_property(&mut self, key: &[u8], value: &[u8]) -> bool {
        self.set(true, key, value)
    }

    pub(crate) fn set_state(&mut self, path: &[u8], value: &[u8]) -> bool {
        self.set(false, path, value)
    }

    pub(crate) fn property(&self, key: &[u8]) -> Option<&[u8]> {
        self.find(true, key)
    }

    /// By the filter state's own key: `wasm.<k>` for properties.
    pub(crate) fn state(&self, path: &[u8]) -> Option<&[u8]> {
        self.find(false, path)
            .or_else(|| self.property(path.strip_prefix(PROPERTY_PREFIX)?))
    }

    fn find(&self, property: bool, key: &[u8]) -> Option<&[u8]> {
        self.entries
            .iter()
            .find(|entry| entry.is(property, key))
            .map(Entry::value)
    }

    fn set(&mut self, property: bool, key: &[u8], value: &[u8]) -> bool {
        if key.len() > KEY_BYTES_MAX || value.len() > VALUE_BYTES_MAX {
            return false;
        }
        if let Some(entry) = self
            .entries
            .iter_mut()
            .find(|entry| entry.is(property, key))
        {
            entry.text.truncate(entry.key_length);
            entry.text.extend_from_slice(value);
            return true;
        }
        if self.entries.len() >= ENTRIES_MAX {
            return false;
        }
        self.entries.push(Entry {
            property,
            key_length: key.len(),
            text: [key, value].concat(),
        });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_filter_state_with_a_prefix() {
        let mut table = Published::default();
        assert!(
            table.set_property(b"a", b"1")
                && table.set_property(b"a", b"2")
                && table.set_state(b"envoy.x", b"3")
        );
        assert_eq!(table.property(b"a"), Some(&b"2"[..]));
        assert_eq!(table.state(b"wasm.a"), Some(&b"2"[..]));
        assert_eq!(table.state(b"envoy.x"), Some(&b"3"[..]));
        assert_eq!(
            (table.state(b"a"), table.property(b"envoy.x")),
            (None, None)
        );
    }

    #[test]
    fn the_table_is_bounded() {
        let mut table = Published::default();
        assert!((0..ENTRIES_MAX).all(|n| table.set_property(n.to_string().as_bytes(), b"")));
        assert!(!table.set_property(b"one more", b"") && table.set_property(b"0", b"again"));
        assert!(
            !table.set_property(b"1", &[0; VALUE_BYTES_MAX + 1])
                && !table.set_property(&[b'k'; KEY_BYTES_MAX + 1], b"")
        );
    }
}
