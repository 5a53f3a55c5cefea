//! What is on disk after any end of a process.

use std::collections::BTreeMap;

use super::super::record::Journal;
use super::super::table::Value;
use super::*;
use bytes::Bytes;

fn text(text: &str) -> Value {
    Value::Text(Bytes::copy_from_slice(text.as_bytes()))
}

fn records() -> Vec<Restored> {
    let fields =
        [("a", "1"), ("b", "")].map(|(name, value)| (Bytes::from(name), Bytes::from(value)));
    vec![
        Restored::Put {
            database: 0,
            key: "k".into(),
            value: text("v"),
            deadline: 5,
            is_read: true,
        },
        Restored::Put {
            database: 15,
            key: "h".into(),
            value: Value::Hash(BTreeMap::from(fields)),
            deadline: 0,
            is_read: false,
        },
        Restored::Deadline {
            database: 0,
            key: "k".into(),
            deadline: 9,
        },
        Restored::Seen {
            database: 15,
            key: "h".into(),
        },
        Restored::Delete {
            database: 0,
            key: Bytes::new(),
        },
    ]
}

fn append(journal: &mut Journal, restored: &Restored) {
    let record = match restored {
        Restored::Put {
            database,
            key,
            value,
            deadline,
            is_read,
        } => Record::Put {
            database: *database,
            key,
            value,
            deadline: *deadline,
            is_read: *is_read,
        },
        Restored::Delete { database, key } => Record::Delete {
            database: *database,
            key,
        },
        Restored::Deadline {
            database,
            key,
            deadline,
        } => Record::Deadline {
            database: *database,
            key,
            deadline: *deadline,
        },
        Restored::Seen { database, key } => Record::Seen {
            database: *database,
            key,
        },
    };
    journal.append(&record);
}

fn open(folder: &Path) -> (Log, Loaded, Vec<Restored>) {
    let mut told = Vec::new();
    let (log, loaded) = Log::open(folder, &mut |restored| told.push(restored)).unwrap();
    (log, loaded, told)
}

fn written(folder: &Path) -> Log {
    let (mut log, _, _) = open(folder);
    let mut journal = Journal::kept();
    records()
        .iter()
        .for_each(|record| append(&mut journal, record));
    log.append(journal.waiting()).unwrap();
    log
}

#[test]
fn everything_that_was_appended_is_told_in_order() {
    let folder = tempfile::tempdir().unwrap();
    drop(written(folder.path()));
    let (log, loaded, told) = open(folder.path());
    assert_eq!(told, records());
    assert_eq!(
        loaded,
        Loaded {
            records: 5,
            torn: 0
        }
    );
    assert!(
        Log::open(folder.path(), &mut |_| {}).is_err(),
        "a second process"
    );
    drop(log);
    drop(written(folder.path()));
    assert_eq!(open(folder.path()).2.len(), 10);
}

/// Cut at every byte, and with every byte of the end made another: what is whole is told, and writing goes on after it.
#[test]
fn a_torn_end_costs_what_was_torn() {
    let folder = tempfile::tempdir().unwrap();
    drop(written(folder.path()));
    let name = folder.path().join("log-0");
    let whole = std::fs::read(&name).unwrap();
    for at in 0..whole.len() {
        std::fs::write(&name, &whole[..at]).unwrap();
        let told = open(folder.path()).2;
        assert!(
            told.len() < 5 && told[..] == records()[..told.len()],
            "cut at {at}"
        );
        drop(written(folder.path()));
        assert_eq!(
            open(folder.path()).2.len(),
            told.len() + 5,
            "cut at {at}, then written"
        );
    }
    for at in MAGIC.len()..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        std::fs::write(&name, &damaged).unwrap();
        let (_, loaded, told) = open(folder.path());
        assert!(
            told.len() < 5 && told[..] == records()[..told.len()],
            "damaged at {at}"
        );
        assert!(loaded.torn > 0);
    }
}

#[test]
fn a_new_base_replaces_what_was_before() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = written(folder.path());
    let value = text("kept");
    let kept = Record::Put {
        database: 1,
        key: b"kept",
        value: &value,
        deadline: 0,
        is_read: true,
    };
    log.rewrite(encode_all([kept].into_iter())).unwrap();
    let mut journal = Journal::kept();
    journal.append(&Record::Delete {
        database: 1,
        key: b"later",
    });
    log.append(journal.waiting()).unwrap();
    let start = std::time::Instant::now();
    while log.rewriting.load(Ordering::Acquire) {
        assert!(start.elapsed().as_secs() < 20, "no new base");
        std::thread::yield_now();
    }
    drop(log);
    let mut names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["base-1", "lock", "log-1"]);
    let told = open(folder.path()).2;
    assert_eq!(
        told,
        [
            Restored::Put {
                database: 1,
                key: "kept".into(),
                value: text("kept"),
                deadline: 0,
                is_read: true
            },
            Restored::Delete {
                database: 1,
                key: "later".into()
            }
        ]
    );
    // A base is synced before it counts, so a damaged one means that sessions are missing.
    let base = folder.path().join("base-1");
    let bytes = std::fs::read(&base).unwrap();
    std::fs::write(&base, &bytes[..bytes.len() - 1]).unwrap();
    assert!(
        Log::open(folder.path(), &mut |_| {})
            .unwrap_err()
            .to_string()
            .contains("damaged")
    );
}

#[test]
fn a_file_of_something_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("log-0"), "REDIS0009 and so on and so on").unwrap();
    assert!(Log::open(folder.path(), &mut |_| {}).is_err());
}
