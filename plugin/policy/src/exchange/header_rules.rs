//! What the configuration does to headers: sets, adds and removes them.

use super::edits::Edits;
use super::template::{Template, Values};

/// Headers by lower-case name; each name stands in one of the lists only.
#[derive(Debug, Clone, Default)]
pub struct HeaderRules {
    pub set: Vec<(Box<[u8]>, Template)>,
    pub add: Vec<(Box<[u8]>, Template)>,
    pub remove: Vec<Box<[u8]>>,
}

impl HeaderRules {
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }

    /// Whether `name` is set or removed.
    pub(super) fn decides(&self, name: &[u8]) -> bool {
        self.set.iter().any(|(known, _)| **known == *name) || self.removes(name)
    }

    /// Whether `name` is removed, by itself or as one that is set to nothing.
    pub fn removes(&self, name: &[u8]) -> bool {
        self.remove.iter().any(|known| **known == *name)
    }

    pub(super) fn needs_request_id(&self) -> bool {
        let templates = self.set.iter().chain(&self.add);
        templates
            .clone()
            .any(|(_, template)| template.needs_request_id())
    }

    /// Writes what is set and added. What is removed is removed only if it is there, which the caller knows.
    pub(super) fn write_values(&self, values: &Values<'_>, edits: &mut Edits) {
        for (name, template) in &self.set {
            edits.set_named(name, |out| template.write(values, out));
        }
        for (name, template) in &self.add {
            edits.add_named(name, |out| template.write(values, out));
        }
    }

    /// Writes all of it.
    pub(super) fn write(&self, values: &Values<'_>, edits: &mut Edits) {
        self.remove.iter().for_each(|name| edits.remove(name));
        self.write_values(values, edits);
    }
}
