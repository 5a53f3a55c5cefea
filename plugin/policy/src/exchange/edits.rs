//! What is to change in a request's headers: a list in buffers that are used again for the next request.

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
    /// No header of this name.
    Remove { name: &'a [u8] },
}

/// Where a change stands in the text: its name, and its value up to `end`.
#[derive(Debug, Clone, Copy)]
struct Entry {
    kind: Kind,
    start: usize,
    name_end: usize,
    end: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Set,
    Remove,
}

impl Edits {
    /// Forgets all changes, and keeps the buffers.
    pub fn clear(&mut self) {
        self.text.clear();
        self.list.clear();
    }

    /// Sets a header to what `write` appends.
    pub fn set_with(&mut self, name: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.text.len();
        self.text.extend_from_slice(name);
        let name_end = self.text.len();
        write(&mut self.text);
        self.list.push(Entry {
            kind: Kind::Set,
            start,
            name_end,
            end: self.text.len(),
        });
    }

    /// Sets a header.
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        self.set_with(name, |text| text.extend_from_slice(value));
    }

    /// Removes a header; once is enough.
    pub fn remove(&mut self, name: &[u8]) {
        if self.iter().any(|edit| edit == Edit::Remove { name }) {
            return;
        }
        let start = self.text.len();
        self.text.extend_from_slice(name);
        let end = self.text.len();
        self.list.push(Entry {
            kind: Kind::Remove,
            start,
            name_end: end,
            end,
        });
    }

    /// The changes in order.
    pub fn iter(&self) -> impl Iterator<Item = Edit<'_>> {
        self.list.iter().filter_map(|entry| {
            let name = self.text.get(entry.start..entry.name_end)?;
            Some(match entry.kind {
                Kind::Set => Edit::Set {
                    name,
                    value: self.text.get(entry.name_end..entry.end)?,
                },
                Kind::Remove => Edit::Remove { name },
            })
        })
    }
}
