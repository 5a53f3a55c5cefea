//! A table of numbered slots that are reused: what the janitor walks over.

/// Values by a small number that stays theirs until they are removed.
pub(crate) struct Slots<T> {
    entries: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Slots<T> {
    pub(crate) const fn new() -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
        }
    }

    pub(crate) fn insert(&mut self, value: T) -> usize {
        while let Some(number) = self.free.pop() {
            if let Some(slot) = self.entries.get_mut(number) {
                *slot = Some(value);
                return number;
            }
        }
        self.entries.push(Some(value));
        self.entries.len() - 1
    }

    pub(crate) fn remove(&mut self, number: usize) -> Option<T> {
        let value = self.entries.get_mut(number)?.take()?;
        self.free.push(number);
        Some(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().flatten()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_slot_is_used_again() {
        let mut slots = Slots::new();
        let first = slots.insert('a');
        let second = slots.insert('b');
        assert_eq!(slots.remove(first), Some('a'));
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.insert('c'), first);
        assert_ne!(first, second);
        assert_eq!(slots.len(), 2);
        assert_eq!(slots.iter().collect::<String>(), "cb");
    }
}
