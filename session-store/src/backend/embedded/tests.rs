//! The store over its log: what is answered is there after an end without warning.

use super::*;

const CAPACITY: Capacity = Capacity {
    bytes: 64 * 1024 * 1024,
    locks: 100,
};

fn open(path: Option<&Path>) -> Embedded {
    let settings = Settings {
        path: path.map(Path::to_owned),
        fsync: Duration::from_secs(1),
        capacity: CAPACITY,
    };
    Embedded::open(&settings).unwrap().0
}

fn request(line: &str) -> Request {
    let words = line
        .split(' ')
        .map(|word| Bytes::copy_from_slice(word.as_bytes()));
    Request::new(words.collect(), b"").unwrap()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

#[track_caller]
fn check(store: &Embedded, line: &str, expected: Reply) {
    assert_eq!(run(store.submit(0, request(line))), Ok(expected), "{line}");
}

#[test]
fn what_was_answered_is_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(Some(folder.path()));
    check(&store, "SETEX k 100 v", Reply::OK);
    check(&store, "GET k", Reply::bulk("v"));
    check(&store, "HSET h f 1", Reply::Integer(1));
    check(&store, "SET gone v", Reply::OK);
    check(&store, "DEL gone", Reply::Integer(1));
    check(&store, "SET old v PX 1", Reply::OK);
    // The files as they are now are what a killed process leaves.
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(folder.path().join("log-0"), copy.path().join("log-0")).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    let again = open(Some(copy.path()));
    check(&again, "GET k", Reply::bulk("v"));
    check(&again, "TTL k", Reply::Integer(100));
    check(&again, "HGET h f", Reply::bulk("1"));
    check(&again, "EXISTS gone old", Reply::Integer(0));
    assert!(
        again
            .shared
            .lock()
            .table
            .get(wall_clock(), 0, b"k")
            .is_some()
    );
    assert_eq!(again.figures().entries, 2);
}

/// All who are served in one round of the runtime are written at once.
#[test]
fn answers_of_one_round_are_written_together() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(Some(folder.path()));
    run(async {
        let answers: Vec<_> = (0..50)
            .map(|at| store.submit(0, request(&format!("SET k{at} v"))))
            .collect();
        assert_eq!(store.shared.written.load(Ordering::Acquire), 0);
        let mut first = true;
        for answer in answers {
            assert_eq!(answer.await, Ok(Reply::OK));
            if std::mem::take(&mut first) {
                let end = store.shared.lock().table.journal.end();
                assert_eq!(store.shared.written.load(Ordering::Acquire), end);
            }
        }
    });
}

#[test]
fn a_transaction_is_not_executed_when_a_watched_key_has_changed() {
    let store = open(None);
    let watch = |key: &'static str| {
        run(store.watch(0, &[Bytes::from_static(key.as_bytes())], None)).unwrap()
    };
    let (absent, present) = (watch("k"), {
        check(&store, "SET other v", Reply::OK);
        watch("other")
    });
    check(&store, "SET k v", Reply::OK);
    let exec = |watched| {
        run(store.transact(
            0,
            vec![request("GET k"), request("INCR k"), request("SET n 1")],
            Some(watched),
        ))
    };
    assert_eq!(exec(absent), Ok(Reply::Nil));
    let Ok(Reply::Array(answers)) = exec(present) else {
        panic!("not executed");
    };
    assert_eq!(answers[0], Reply::bulk("v"));
    assert!(matches!(&answers[1], Reply::Error(_)));
    assert_eq!(answers[2], Reply::OK);
    let watched = watch("other");
    check(&store, "DEL other", Reply::Integer(1));
    assert_eq!(exec(watched), Ok(Reply::Nil));
}

#[test]
fn only_the_known_script_is_run() {
    let store = open(None);
    check(&store, "SET k_LOCK host|1 NX PX 60000", Reply::OK);
    let sha = scripts::RELEASE_SHA;
    check(
        &store,
        &format!("EVALSHA {sha} 1 k_LOCK host|2"),
        Reply::Integer(0),
    );
    check(
        &store,
        &format!("EVALSHA {sha} 1 k_LOCK host|1"),
        Reply::Integer(1),
    );
    check(
        &store,
        &format!("EVALSHA {sha} 1 k_LOCK host|1"),
        Reply::Integer(0),
    );
    let words =
        ["EVAL", "return 1", "1", "k", "v"].map(|word| Bytes::copy_from_slice(word.as_bytes()));
    let other = Request::new(words.to_vec(), b"").unwrap();
    assert!(matches!(
        run(store.submit(0, other)),
        Err(Failure::Impossible(_))
    ));
}
