//! The table of the embedded store: keys, values, deadlines, and who goes first when memory is short.
//!
//! # Who goes first
//! Expired entries; then values that are empty (a visitor whose session holds nothing); then values that nobody ever read after they were
//! first written (a client that does not send its cookie back makes one with each request); oldest write first within each. After
//! these nobody goes: a new key is refused, because whoever holds a session that is in use would be logged out silently. New keys may
//! use [`NEW_SHARE`] of the memory, so that sessions which are there can still grow a little. Locks are apart: they are counted, never
//! evicted, and take nothing from sessions.
//!
//! Memory is counted as bytes of keys and values and [`ENTRY_COST`] for each entry: what an entry really takes was measured, and is less.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;

use super::record::{Journal, Record};
use crate::backend::{DATABASES, Failure, Why};

/// What an entry costs besides its key and value: slot, two maps, allocations.
pub(super) const ENTRY_COST: usize = 256;
/// What a field of a hash costs besides its name and value.
const FIELD_COST: usize = 128;
/// Of so many sixteenths of the memory may new keys make use.
const NEW_SHARE: u64 = 15;
/// How a session's lock is named: by phpredis, by CodeIgniter 4.
const LOCK_ENDINGS: [&[u8]; 2] = [b"_LOCK", b":lock"];
/// A longer value is no lock.
const LOCK_VALUE_MAX: usize = 512;
/// Expired entries that one command clears away at most, besides those it asks for: no command pays for a whole night.
const EXPIRED_AT_ONCE: usize = 64;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(Bytes),
    Hash(BTreeMap<Bytes, Bytes>),
}

/// Milliseconds of the wall clock, 0: never.
pub(super) type Deadline = u64;

#[derive(Debug)]
pub(super) struct Entry {
    database: u8,
    key: Bytes,
    pub(super) value: Value,
    pub(super) deadline: Deadline,
    /// It was read after its first write.
    is_read: bool,
    /// Number of the change that wrote it last: its place among those that may be evicted, and what `WATCH` compares.
    change: u64,
}

/// Which bound an entry counts against, and who goes before whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Empty,
    Unread,
    Kept,
    Lock,
}

/// How many of each kind were put out.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Evicted {
    pub empty: u64,
    pub unread: u64,
}

/// What the table may hold.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    pub bytes: u64,
    pub locks: usize,
}

/// All databases of one store.
pub(super) struct Table {
    databases: Vec<HashMap<Bytes, u32>>,
    slots: Vec<Option<Entry>>,
    free: Vec<u32>,
    deadlines: BTreeSet<(Deadline, u32)>,
    empty: BTreeMap<u64, u32>,
    unread: BTreeMap<u64, u32>,
    bytes: u64,
    locks: usize,
    changes: u64,
    capacity: Capacity,
    pub(super) journal: Journal,
    pub(super) evicted: Evicted,
    pub(super) expired: u64,
}

impl Table {
    pub(super) fn new(capacity: Capacity, journal: Journal) -> Self {
        Self {
            databases: (0..DATABASES).map(|_| HashMap::new()).collect(),
            slots: Vec::new(),
            free: Vec::new(),
            deadlines: BTreeSet::new(),
            empty: BTreeMap::new(),
            unread: BTreeMap::new(),
            bytes: 0,
            locks: 0,
            changes: 0,
            capacity,
            journal,
            evicted: Evicted::default(),
            expired: 0,
        }
    }

    /// The entry of a key that has not expired.
    pub(super) fn get(&mut self, now: u64, database: u8, key: &[u8]) -> Option<&Entry> {
        let slot = self.live(now, database, key)?;
        self.entry(slot)
    }

    /// The same, and it counts as read.
    pub(super) fn read(&mut self, now: u64, database: u8, key: &[u8]) -> Option<&Entry> {
        let slot = self.live(now, database, key)?;
        let entry = self.entry(slot)?;
        if !entry.is_read {
            let change = entry.change;
            self.unread.remove(&change);
            if let Some(Some(entry)) = self.slots.get_mut(slot as usize) {
                entry.is_read = true;
            }
            self.journal.append(&Record::Seen { database, key });
        }
        self.entry(slot)
    }

    /// The text of a key that has not expired.
    pub(super) fn peek(&self, now: u64, database: u8, key: &[u8]) -> Option<&[u8]> {
        let entry = self.entry(self.slot_of(database, key)?)?;
        match &entry.value {
            Value::Text(text) if entry.deadline == 0 || entry.deadline > now => Some(text),
            _ => None,
        }
    }

    /// Number of the last change of a key; 0: there is none.
    pub(super) fn change_of(&mut self, now: u64, database: u8, key: &[u8]) -> u64 {
        self.get(now, database, key).map_or(0, |entry| entry.change)
    }

    /// Writes a value. Who has read the one before counts as a reader of this one.
    ///
    /// # Errors
    /// [`Why::Full`] and [`Why::Locks`]; then nothing has changed.
    pub(super) fn put(
        &mut self,
        now: u64,
        database: u8,
        key: &[u8],
        value: Value,
        deadline: Deadline,
    ) -> Result<(), Failure> {
        let old = self.live(now, database, key);
        let is_read = old
            .and_then(|slot| self.entry(slot))
            .is_some_and(|entry| entry.is_read);
        let key = old
            .and_then(|slot| self.entry(slot))
            .map_or_else(|| Bytes::copy_from_slice(key), |entry| entry.key.clone());
        self.changes += 1;
        let entry = Entry {
            database,
            key,
            value,
            deadline,
            is_read,
            change: self.changes,
        };
        self.make_room(now, &entry, old)?;
        self.journal.append(&Record::Put {
            database,
            key: &entry.key,
            value: &entry.value,
            deadline,
            is_read,
        });
        self.insert(entry, old);
        Ok(())
    }

    /// As [`Table::put`], from a log that is read at the start: what was acknowledged is taken whatever the bounds are now.
    pub(super) fn restore(
        &mut self,
        database: u8,
        key: Bytes,
        value: Value,
        deadline: Deadline,
        is_read: bool,
    ) {
        let old = self.slot_of(database, &key);
        self.changes += 1;
        let entry = Entry {
            database,
            key,
            value,
            deadline,
            is_read,
            change: self.changes,
        };
        self.insert(entry, old);
    }

    /// Marks a restored entry as read.
    pub(super) fn restore_seen(&mut self, database: u8, key: &[u8]) {
        if let Some(slot) = self.slot_of(database, key)
            && let Some(mut entry) = self.take(slot)
        {
            entry.is_read = true;
            self.place(slot, entry);
        }
    }

    /// Removes a key; whether it was there.
    pub(super) fn remove(&mut self, now: u64, database: u8, key: &[u8]) -> bool {
        let Some(slot) = self.live(now, database, key) else {
            return false;
        };
        self.journal.append(&Record::Delete { database, key });
        self.drop_slot(slot);
        true
    }

    /// Gives a key another deadline; whether it was there. One that has passed removes it.
    pub(super) fn set_deadline(
        &mut self,
        now: u64,
        database: u8,
        key: &[u8],
        deadline: Deadline,
    ) -> bool {
        if deadline != 0 && deadline <= now {
            return self.remove(now, database, key);
        }
        let Some(slot) = self.live(now, database, key) else {
            return false;
        };
        self.changes += 1;
        let change = self.changes;
        if let Some(mut entry) = self.take(slot) {
            (entry.deadline, entry.change) = (deadline, change);
            self.place(slot, entry);
        }
        self.journal.append(&Record::Deadline {
            database,
            key,
            deadline,
        });
        true
    }

    /// Entries, and the bytes they count for.
    pub(super) fn size(&self) -> (usize, u64) {
        (self.slots.len() - self.free.len(), self.bytes)
    }

    /// Everything that is there, for a new base of the log.
    pub(super) fn entries(&self) -> impl Iterator<Item = Record<'_>> {
        self.slots.iter().flatten().map(|entry| Record::Put {
            database: entry.database,
            key: &entry.key,
            value: &entry.value,
            deadline: entry.deadline,
            is_read: entry.is_read,
        })
    }

    /// Clears away what has expired, [`EXPIRED_AT_ONCE`] at most. Its expiry is in the log already.
    pub(super) fn expire(&mut self, now: u64) {
        for _ in 0..EXPIRED_AT_ONCE {
            match self.deadlines.first() {
                Some((deadline, slot)) if *deadline <= now => {
                    let slot = *slot;
                    self.expired += 1;
                    self.drop_slot(slot);
                }
                _ => break,
            }
        }
    }

    fn slot_of(&self, database: u8, key: &[u8]) -> Option<u32> {
        self.databases.get(usize::from(database))?.get(key).copied()
    }

    fn entry(&self, slot: u32) -> Option<&Entry> {
        self.slots.get(slot as usize)?.as_ref()
    }

    fn live(&mut self, now: u64, database: u8, key: &[u8]) -> Option<u32> {
        let slot = self.slot_of(database, key)?;
        let deadline = self.entry(slot)?.deadline;
        if deadline != 0 && deadline <= now {
            self.expired += 1;
            self.drop_slot(slot);
            return None;
        }
        Some(slot)
    }

    /// Puts out who may go until the entry has room.
    fn make_room(&mut self, now: u64, entry: &Entry, old: Option<u32>) -> Result<(), Failure> {
        let before = old.and_then(|slot| self.entry(slot));
        if entry.standing() == Standing::Lock {
            let is_new = before.is_none_or(|before| before.standing() != Standing::Lock);
            return if is_new && self.locks >= self.capacity.locks {
                Err(Failure::Refused(Why::Locks))
            } else {
                Ok(())
            };
        }
        let most = match before {
            Some(_) => self.capacity.bytes,
            None => self.capacity.bytes / 16 * NEW_SHARE,
        };
        let freed = before.map_or(0, Entry::counted);
        let needed = entry.cost();
        // Ends: each turn removes an entry, or returns.
        while self.bytes - freed + needed > most {
            let due = self.deadlines.first();
            let expired = due.filter(|(deadline, slot)| *deadline <= now && Some(*slot) != old);
            if let Some((_, slot)) = expired {
                let slot = *slot;
                self.expired += 1;
                self.drop_slot(slot);
                continue;
            }
            let other = |(_, slot): &(&u64, &u32)| Some(**slot) != old;
            let empty = self.empty.iter().find(other).map(|(_, slot)| *slot);
            let unread = || self.unread.iter().find(other).map(|(_, slot)| *slot);
            let Some(slot) = empty.or_else(unread) else {
                return Err(Failure::Refused(Why::Full));
            };
            match empty {
                Some(_) => self.evicted.empty += 1,
                None => self.evicted.unread += 1,
            }
            if let Some(Some(out)) = self.slots.get(slot as usize) {
                self.journal.append(&Record::Delete {
                    database: out.database,
                    key: &out.key,
                });
            }
            self.drop_slot(slot);
        }
        Ok(())
    }

    fn insert(&mut self, entry: Entry, old: Option<u32>) {
        if let Some(slot) = old {
            drop(self.take(slot));
            return self.place(slot, entry);
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(keys) = self.databases.get_mut(usize::from(entry.database)) {
            keys.insert(entry.key.clone(), slot);
        }
        self.place(slot, entry);
    }

    /// Takes an entry out of its slot and out of every order; its key stays.
    fn take(&mut self, slot: u32) -> Option<Entry> {
        let entry = self.slots.get_mut(slot as usize)?.take()?;
        if entry.deadline != 0 {
            self.deadlines.remove(&(entry.deadline, slot));
        }
        match entry.standing() {
            Standing::Empty => drop(self.empty.remove(&entry.change)),
            Standing::Unread => drop(self.unread.remove(&entry.change)),
            Standing::Kept => {}
            Standing::Lock => self.locks -= 1,
        }
        self.bytes -= entry.counted();
        Some(entry)
    }

    fn place(&mut self, slot: u32, entry: Entry) {
        if entry.deadline != 0 {
            self.deadlines.insert((entry.deadline, slot));
        }
        match entry.standing() {
            Standing::Empty => drop(self.empty.insert(entry.change, slot)),
            Standing::Unread => drop(self.unread.insert(entry.change, slot)),
            Standing::Kept => {}
            Standing::Lock => self.locks += 1,
        }
        self.bytes += entry.counted();
        if let Some(place) = self.slots.get_mut(slot as usize) {
            *place = Some(entry);
        }
    }

    fn drop_slot(&mut self, slot: u32) {
        if let Some(entry) = self.take(slot) {
            if let Some(keys) = self.databases.get_mut(usize::from(entry.database)) {
                keys.remove(&entry.key);
            }
            self.free.push(slot);
        }
    }
}

impl Entry {
    fn standing(&self) -> Standing {
        match &self.value {
            Value::Text(text) if text.len() <= LOCK_VALUE_MAX && is_lock(&self.key) => {
                Standing::Lock
            }
            Value::Text(text) if text.is_empty() => Standing::Empty,
            _ if self.is_read => Standing::Kept,
            _ => Standing::Unread,
        }
    }

    fn cost(&self) -> u64 {
        let value = match &self.value {
            Value::Text(text) => text.len(),
            Value::Hash(fields) => fields
                .iter()
                .map(|(name, value)| name.len() + value.len() + FIELD_COST)
                .sum(),
        };
        (self.key.len() + value + ENTRY_COST) as u64
    }

    /// What of it counts against the memory of sessions.
    fn counted(&self) -> u64 {
        match self.standing() {
            Standing::Lock => 0,
            _ => self.cost(),
        }
    }
}

fn is_lock(key: &[u8]) -> bool {
    LOCK_ENDINGS.iter().any(|ending| key.ends_with(ending))
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
