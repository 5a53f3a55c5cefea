//! Rows of session stores, right and wrong.

use std::path::Path;

use super::super::Config;
use super::*;

fn load(store: &str) -> Result<StoreConfig, String> {
    let text = format!("listeners: [{{bind: 127.0.0.1:8080}}]\nsession_store: {store}\n");
    let config = Config::parse(Path::new("/etc/evenkeel/f.yaml"), &text);
    config
        .map_err(|faults| faults.to_string())
        .map(|config| config.session_store.unwrap())
}

#[track_caller]
fn refused(store: &str, key: &str, words: &str) {
    let told = load(store).map(|_| ()).unwrap_err();
    let start = "/etc/evenkeel/f.yaml:2:";
    assert!(
        told.starts_with(start) && told.contains(&format!(": {key}: ")) && told.contains(words),
        "{store}: {told}"
    );
    assert!(!told.contains("hunter2"), "{told}");
}

#[test]
fn everything_that_is_not_said_has_its_default() {
    let store = load("{}").unwrap();
    let BackendConfig::Embedded(embedded) = &store.backend else {
        panic!("not embedded");
    };
    assert_eq!(
        (
            &embedded.path,
            embedded.fsync.as_secs(),
            embedded.capacity.bytes,
            embedded.capacity.locks
        ),
        (&None, 1, 268_435_456, 100_000)
    );
    assert_eq!(store.listen, [Listen::parse("127.0.0.1:6380").unwrap()]);
    let (limits, locks) = (store.gateway.limits, store.gateway.locks);
    assert_eq!(
        (limits.clients, limits.value, limits.parked),
        (10_000, 8_388_608, 1024)
    );
    assert_eq!((locks.wait.as_secs(), locks.lease.as_secs()), (10, 60));
    assert!(store.gateway.users.is_empty() && store.warnings.is_empty());
}

#[test]
fn everything_that_is_said_is_taken() {
    let store = load(
        "{backend: embedded, path: data, fsync: 0s, max_memory: 64MiB, ack: master, resp: ['0.0.0.0:1', 'unix:r.sock?mode=0600'],
  auth: [{user: shop, password: hunter2, db: [3], prefix: 'shop:', commands: session}], locks: {wait: 1s, lease: 5s, max: 7}, limits: {clients: 5, value: 1MiB, parked: 3}}",
    )
    .unwrap();
    let BackendConfig::Embedded(embedded) = &store.backend else {
        panic!("not embedded");
    };
    assert_eq!(
        embedded.path.as_deref(),
        Some(Path::new("/etc/evenkeel/data"))
    );
    assert_eq!(
        (
            embedded.fsync,
            embedded.capacity.bytes,
            embedded.capacity.locks
        ),
        (Duration::ZERO, 67_108_864, 7)
    );
    assert_eq!(
        store.listen[1],
        Listen::parse("unix:/etc/evenkeel/r.sock?mode=0600").unwrap()
    );
    let user = &store.gateway.users[0];
    assert_eq!(
        (
            user.name.as_str(),
            user.password.as_str(),
            user.databases.as_slice(),
            &user.prefix[..]
        ),
        ("shop", "hunter2", &[3][..], &b"shop:"[..])
    );
    assert_eq!(
        (
            store.gateway.limits.clients,
            store.gateway.limits.value,
            store.gateway.limits.parked
        ),
        (5, 1_048_576, 3)
    );
    assert!(store.warnings.len() == 1 && !store.warnings[0].contains("hunter2"));
    assert!(!format!("{store:?}").contains("hunter2"));
}

#[test]
fn a_redis_and_its_password() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pass");
    std::fs::write(&file, "hunter2\n").unwrap();
    let store = load(&format!(
        "{{backend: 'redis://10.0.0.1:7', username: u, password_file: '{}', failover_wait: 3s}}",
        file.display()
    ))
    .unwrap();
    let BackendConfig::Redis(redis) = &store.backend else {
        panic!("not a Redis");
    };
    assert_eq!(
        (
            redis.login.user.as_deref(),
            redis.login.password.as_deref(),
            redis.failover_wait.as_secs()
        ),
        (Some("u"), Some("hunter2"), 3)
    );
    assert!(store.warnings.is_empty());
    let inline = load("{backend: 'redis://:hunter2@10.0.0.1:7', failover_wait: auto}").unwrap();
    assert!(inline.warnings.len() == 1 && !inline.warnings[0].contains("hunter2"));
}

#[test]
fn what_is_not_served_yet_is_refused_by_name() {
    for (store, key) in [
        ("{formats: [{cookie: PHPSESSID}]}", "session_store.formats"),
        ("{secrets: [s]}", "session_store.secrets"),
        ("{http: '127.0.0.1:8405'}", "session_store.http"),
        ("{bridge_token_file: t}", "session_store.bridge_token_file"),
        ("{ack: replica}", "session_store.ack"),
        ("{backend: 'redis+cluster://a,b'}", "session_store.backend"),
        (
            "{auth: [{password: hunter2, commands: cache}]}",
            "session_store.auth[0].commands",
        ),
    ] {
        refused(store, key, NOT_SERVED);
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for (store, key, words) in [
        (
            "{backed: embedded}",
            "session_store.backed",
            "did you mean `backend`",
        ),
        (
            "{backend: memcached}",
            "session_store.backend",
            "expected embedded",
        ),
        (
            "{backend: 'redis://:hunter2@h/3'}",
            "session_store.backend",
            "no database",
        ),
        (
            "{backend: 'redis://h', path: d}",
            "session_store.path",
            "embedded backend",
        ),
        ("{username: u}", "session_store.username", "for a Redis"),
        (
            "{max_memory: 1KiB}",
            "session_store.max_memory",
            "at least 1MiB",
        ),
        ("{fsync: often}", "session_store.fsync", "often"),
        (
            "{resp: '0.0.0.0:6380'}",
            "session_store.resp",
            "session_store.auth",
        ),
        (
            "{resp: ['127.0.0.1:1', here]}",
            "session_store.resp[1]",
            "127.0.0.1:6380",
        ),
        ("{resp: []}", "session_store.resp", "expected 1 to"),
        ("{resp: 6380}", "session_store.resp", "an address"),
        (
            "{auth: [{user: a}]}",
            "session_store.auth[0]",
            "password_file",
        ),
        (
            "{auth: [{user: a, password: '${EVENKEEL_NO_SUCH}'}]}",
            "session_store.auth[0].password",
            "EVENKEEL_NO_SUCH",
        ),
        (
            "{auth: [{password_file: /nonexistent}]}",
            "session_store.auth[0].password_file",
            "cannot be read",
        ),
        (
            "{auth: [{user: a, password: hunter2}, {user: a, password: hunter2}]}",
            "session_store.auth[1]",
            "second time",
        ),
        (
            "{auth: [{password: hunter2, db: [16]}]}",
            "session_store.auth[0].db",
            "0 to 15",
        ),
        (
            "{backend: 'rediss://h'}",
            "session_store.backend",
            "tls: {ca",
        ),
        (
            "{backend: 'redis://h', tls: {ca: c}}",
            "session_store.tls",
            "rediss://",
        ),
        (
            "{backend: 'rediss://h', tls: {ca: c}}",
            "session_store.tls.ca",
            "PEM",
        ),
        ("{limits: {value: 1}}", "session_store.limits.value", "1KiB"),
        (
            "{locks: {lease: 1ms}}",
            "session_store.locks.lease",
            "expected 1s",
        ),
    ] {
        refused(store, key, words);
    }
}

#[test]
fn a_store_alone_needs_no_listeners() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.yaml");
    std::fs::write(&path, "session_store: {backend: embedded}\n").unwrap();
    assert!(Config::load_store(&path).is_ok());
    assert!(
        Config::load(&path)
            .unwrap_err()
            .to_string()
            .contains("listeners")
    );
    std::fs::write(&path, "workers: 1\n").unwrap();
    assert!(
        Config::load_store(&path)
            .unwrap_err()
            .to_string()
            .contains("session_store: expected one")
    );
}
