//! Who goes when memory is short, and who never does.

use super::*;

/// Room for about ten small entries.
const BYTES: u64 = 16 * ENTRY_COST as u64;

fn table() -> Table {
    let capacity = Capacity {
        bytes: BYTES,
        locks: 2,
    };
    Table::new(capacity, Journal::default())
}

fn put(table: &mut Table, now: u64, key: &str, text: &str, deadline: u64) -> Result<(), Failure> {
    let value = Value::Text(Bytes::copy_from_slice(text.as_bytes()));
    table.put(now, 0, key.as_bytes(), value, deadline)
}

/// The keys that are there, in the order of their names.
fn keys(table: &Table) -> String {
    let mut keys: Vec<_> = table
        .databases
        .iter()
        .flat_map(HashMap::keys)
        .map(|key| String::from_utf8_lossy(key).into_owned())
        .collect();
    keys.sort();
    keys.join(" ")
}

/// Fills the table with new keys until one is refused or `count` were taken.
fn fill(table: &mut Table, now: u64, count: usize) -> Result<(), Failure> {
    (0..count).try_for_each(|at| put(table, now, &format!("new{at:03}"), "x", 0))
}

#[test]
fn expired_then_empty_then_never_read_again_and_nobody_else() {
    let mut table = table();
    put(&mut table, 1, "expires", "data", 10).unwrap();
    put(&mut table, 1, "empty", "", 0).unwrap();
    put(&mut table, 1, "unread", "data", 0).unwrap();
    put(&mut table, 1, "used", "data", 0).unwrap();
    assert!(table.read(1, 0, b"used").is_some());
    put(&mut table, 1, "used", "new data", 0).unwrap();
    let mut gone = Vec::new();
    for at in 0..40 {
        let before = keys(&table);
        put(&mut table, 20, &format!("new{at:03}"), "x", 0).unwrap();
        gone.extend(
            before
                .split(' ')
                .filter(|key| !keys(&table).contains(key))
                .map(str::to_owned),
        );
    }
    assert_eq!(gone[..4], ["expires", "empty", "unread", "new000"]);
    assert!(keys(&table).contains("used"));
    assert_eq!((table.evicted.empty, table.expired), (1, 1));
    let (entries, bytes) = table.size();
    assert!(
        bytes <= BYTES && entries >= 10,
        "{entries} entries, {bytes} bytes"
    );
}

#[test]
fn a_store_full_of_sessions_in_use_refuses_new_ones_and_keeps_all() {
    let mut table = table();
    let mut held = 0;
    for at in 0..100 {
        let key = format!("s{at:03}");
        if put(&mut table, 1, &key, "data", 0).is_err() {
            break;
        }
        assert!(table.read(1, 0, key.as_bytes()).is_some());
        held += 1;
    }
    assert!((10..16).contains(&held), "{held}");
    assert_eq!(fill(&mut table, 1, 1), Err(Failure::Refused(Why::Full)));
    assert_eq!(table.size().0, held);
    // Who is there can still write.
    put(&mut table, 1, "s000", "more data", 0).unwrap();
    assert_eq!(
        put(&mut table, 1, "s000", &"x".repeat(10_000), 0),
        Err(Failure::Refused(Why::Full))
    );
    assert!(
        matches!(&table.get(1, 0, b"s000").unwrap().value, Value::Text(text) if text == "more data")
    );
}

#[test]
fn locks_are_bounded_by_number_and_never_go() {
    let mut table = table();
    put(&mut table, 1, "a_LOCK", "host|1", 0).unwrap();
    put(&mut table, 1, "b:lock", "host|1", 0).unwrap();
    assert_eq!(
        put(&mut table, 1, "c_LOCK", "host|1", 0),
        Err(Failure::Refused(Why::Locks))
    );
    assert_eq!(table.size(), (2, 0));
    fill(&mut table, 1, 100).unwrap();
    assert!(keys(&table).starts_with("a_LOCK b:lock new"));
    assert!(table.remove(1, 0, b"a_LOCK"));
    put(&mut table, 1, "c_LOCK", "host|1", 0).unwrap();
}

#[test]
fn the_count_of_bytes_returns_to_nothing() {
    let mut table = table();
    fill(&mut table, 1, 100).unwrap();
    for at in 0..100 {
        table.remove(1, 0, format!("new{at:03}").as_bytes());
    }
    assert_eq!(table.size(), (0, 0));
    assert!(table.deadlines.is_empty() && table.empty.is_empty() && table.unread.is_empty());
}

#[test]
fn what_has_expired_is_not_there_even_before_it_is_cleared_away() {
    let mut table = table();
    put(&mut table, 1, "k", "data", 10).unwrap();
    assert!(table.get(9, 0, b"k").is_some());
    assert_eq!(table.peek(10, 0, b"k"), None);
    assert!(table.get(10, 0, b"k").is_none());
    assert_eq!(table.size(), (0, 0));
}
