//! What is to change in the headers of a request, or of its response: a list in buffers that are used again for the next request.
//!
//! Nearly all names, and half of the values, are constants: they are kept as they are, because within a VM each copy of a few bytes
//! is a call of the machine's.

/// Changes of headers, in order.
#[derive(Debug, Default)]
pub struct Edits {
    text: Vec<u8>,
    list: Vec<Entry>,
}

/// One change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit<'a> {
    /// One header of this name, in the place of all of this name.
    Set { name: &'a [u8], value: &'a [u8] },
    /// One more header of this name.
    Add { name: &'a [u8], value: &'a [u8] },
    /// No header of this name.
    Remove { name: &'a [u8] },
}

/// A change: its name, and what becomes of it.
#[derive(Debug, Clone, Copy)]
struct Entry {
    name: Bytes,
    change: Change,
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Set(Bytes),
    Add(Bytes),
    Remove,
}

/// Where bytes are.
#[derive(Debug, Clone, Copy)]
enum Bytes {
    Constant(&'static [u8]),
    /// In the text.
    Written {
        start: usize,
        end: usize,
    },
}

impl Edits {
    /// Forgets all changes, and keeps the buffers.
    pub fn clear(&mut self) {
        self.text.clear();
        self.list.clear();
    }

    /// Sets a header to what `write` appends.
    pub fn set_with(&mut self, name: &'static [u8], write: impl FnOnce(&mut Vec<u8>)) {
        let value = self.written(write);
        self.push(Bytes::Constant(name), Change::Set(value));
    }

    /// Sets a header of any name to what `write` appends.
    pub fn set_named(&mut self, name: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        let name = self.written(|text| text.extend_from_slice(name));
        let value = self.written(write);
        self.push(name, Change::Set(value));
    }

    /// Adds a header of any name, with what `write` appends.
    pub fn add_named(&mut self, name: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        let name = self.written(|text| text.extend_from_slice(name));
        let value = self.written(write);
        self.push(name, Change::Add(value));
    }

    /// Sets a header to a constant.
    pub fn set(&mut self, name: &'static [u8], value: &'static [u8]) {
        self.push(Bytes::Constant(name), Change::Set(Bytes::Constant(value)));
    }

    /// Removes a header; once is enough.
    pub fn remove(&mut self, name: &[u8]) {
        if self.iter().any(|edit| edit == Edit::Remove { name }) {
            return;
        }
        let name = self.written(|text| text.extend_from_slice(name));
        self.push(name, Change::Remove);
    }

    fn push(&mut self, name: Bytes, change: Change) {
        self.list.push(Entry { name, change });
    }

    fn written(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
        let start = self.text.len();
        write(&mut self.text);
        let end = self.text.len();
        Bytes::Written { start, end }
    }

    fn bytes(&self, bytes: Bytes) -> Option<&[u8]> {
        match bytes {
            Bytes::Constant(bytes) => Some(bytes),
            Bytes::Written { start, end } => self.text.get(start..end),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The changes in order.
    pub fn iter(&self) -> impl Iterator<Item = Edit<'_>> {
        self.list.iter().filter_map(|entry| {
            let name = self.bytes(entry.name)?;
            Some(match entry.change {
                Change::Set(value) => Edit::Set {
                    name,
                    value: self.bytes(value)?,
                },
                Change::Add(value) => Edit::Add {
                    name,
                    value: self.bytes(value)?,
                },
                Change::Remove => Edit::Remove { name },
            })
        })
    }
}
