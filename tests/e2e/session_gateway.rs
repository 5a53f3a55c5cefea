//! The gateway in front of the session store, as a client sees it: what it refuses, what it bounds, and what survives its death.

use std::time::{Duration, Instant};

use evenkeel_tests::resp::request;
use evenkeel_tests::{Resp, Server, databases, eventually, gateway};

const RELEASE: &str = "b70c2384248f88e6b75b9f89241a180f856ad852";
const PATIENCE: Duration = Duration::from_secs(20);

#[track_caller]
fn check(client: &mut Resp, rows: &[(&str, &str)]) {
    for (line, expected) in rows {
        assert_eq!(client.ask(line), *expected, "{line}");
    }
}

#[test]
fn the_traces_of_phpredis_are_answered() {
    let gateway = gateway("");
    let sha = format!("EVALSHA {RELEASE} 1 k_LOCK vm|821");
    let rows: &[&[(&str, &str)]] = &[
        &[
            ("GET k", "nil"),
            ("SETEX k 1440 u|i:1;", "+OK"),
            ("GET k", "\"u|i:1;\""),
            ("EXPIRE k 1440", ":1"),
        ],
        &[
            ("GETEX k EX 1440", "\"u|i:1;\""),
            ("SETEX k 1440 \"\"", "+OK"),
            ("GET k", "\"\""),
        ],
        &[
            ("EXISTS old", ":0"),
            ("GET new", "nil"),
            ("SETEX new 1440 x", "+OK"),
        ],
        &[
            ("SET k_LOCK vm|821 NX", "+OK"),
            ("GET k", "\"\""),
            ("SETEX k 1440 x", "+OK"),
            (&sha, ":1"),
            (&sha, ":0"),
        ],
        &[
            ("SET k_LOCK vm|821 NX PX 60000", "+OK"),
            ("GET k_LOCK", "\"vm|821\""),
            (&sha, ":1"),
        ],
        &[
            ("SELECT 2", "+OK"),
            ("GET k", "nil"),
            ("SELECT 2", "+OK"),
            ("SETEX k 9 two", "+OK"),
            ("SELECT 2", "+OK"),
            ("GET k", "\"two\""),
            ("SELECT 0", "+OK"),
            ("GET k", "\"x\""),
        ],
        &[
            ("DEL k", ":1"),
            ("PING", "+PONG"),
            ("ECHO liveness", "\"liveness\""),
            ("CLIENT SETNAME php", "+OK"),
            ("CLIENT GETNAME", "\"php\""),
        ],
        &[
            (
                "SCRIPT EXISTS b70c2384248f88e6b75b9f89241a180f856ad852 0000",
                "[:1 :0]",
            ),
            (
                "EVALSHA 0000 1 k v",
                "-NOSCRIPT No matching script. Please use EVAL.",
            ),
        ],
        &[
            ("MULTI", "+OK"),
            ("SETEX t 9 v", "+QUEUED"),
            ("GET t", "+QUEUED"),
            ("EXEC", "[+OK \"v\"]"),
            ("WATCH t", "+OK"),
            ("UNWATCH", "+OK"),
            ("COMMAND COUNT", ":37"),
        ],
    ];
    let mut client = gateway.connect();
    for rows in rows {
        check(&mut client, rows);
    }
    assert_eq!(client.ask("QUIT"), "+OK");
    assert!(client.read_to_end().unwrap().is_empty());
}

#[test]
fn what_is_not_for_sessions_is_refused() {
    let gateway = gateway("");
    let mut client = gateway.connect();
    for line in [
        "FLUSHALL",
        "FLUSHDB",
        "SWAPDB 0 1",
        "KEYS *",
        "CONFIG GET *",
        "DEBUG SLEEP 1",
        "SHUTDOWN",
        "SAVE",
        "BGSAVE",
        "BGREWRITEAOF",
        "REPLICAOF NO ONE",
        "SLAVEOF NO ONE",
        "FAILOVER",
        "CLUSTER INFO",
        "MODULE LIST",
        "ACL LIST",
        "MONITOR",
        "MIGRATE h 1 k 0 1",
        "RESTORE k 0 v",
        "DUMP k",
        "FUNCTION LIST",
        "SCRIPT FLUSH",
        "SCRIPT KILL",
        "CLIENT KILL ID 1",
        "CLIENT PAUSE 1",
        "CLIENT REPLY OFF",
        "CLIENT TRACKING ON",
        "CLIENT LIST",
        "BLPOP k 1",
        "BRPOP k 1",
        "BLMOVE a b LEFT LEFT 1",
        "BZPOPMIN k 1",
        "XREAD BLOCK 1 STREAMS k 0",
        "WAIT 1 1",
        "SUBSCRIBE c",
        "PSUBSCRIBE c",
        "PUBLISH c m",
        "EVAL x 1 k v",
        "EVAL x 0",
        "FCALL f 1 k",
        "SORT k",
        "SCAN 0",
        "RANDOMKEY",
        "DBSIZE",
        "RENAME a b",
        "COPY a b",
        "MOVE a 1",
        "OBJECT ENCODING k",
        "LPUSH k v",
        "SELECT 16",
        "SELECT -1",
        "SELECT x",
        "XADD s * f v",
        "SYNC",
        "PSYNC ? -1",
        "LATENCY DOCTOR",
        "SLOWLOG GET",
        "SCRIPT LOAD x",
        "LASTSAVE",
        "ROLE",
        "GET",
        "GET a b",
        "\x01\x02",
    ] {
        let answer = client.ask(line);
        assert!(answer.starts_with("-ERR evenkeel: "), "{line:?}: {answer}");
        assert!(!answer.contains("Redis says"), "{line:?}: {answer}");
    }
    assert_eq!(client.ask("PING"), "+PONG");
    // One that is refused spoils its transaction.
    check(&mut client, &[("MULTI", "+OK"), ("SET k v", "+QUEUED")]);
    assert!(client.ask("FLUSHALL").starts_with("-ERR evenkeel"));
    assert!(client.ask("EXEC").contains("EXECABORT"));
    assert_eq!(client.ask("GET k"), "nil");
}

#[test]
fn pieces_pipelines_and_people_are_understood() {
    let gateway = gateway("");
    let mut client = gateway.connect();
    let mut many = Vec::new();
    for at in 0..2_000 {
        many.extend(request(&[
            b"SETEX",
            format!("k{at}").as_bytes(),
            b"100",
            b"v",
        ]));
        many.extend(request(&[b"GET", format!("k{at}").as_bytes()]));
    }
    client.send(&many).unwrap();
    for at in 0..2_000 {
        assert_eq!(
            (
                client.read().unwrap().as_str(),
                client.read().unwrap().as_str()
            ),
            ("+OK", "\"v\""),
            "{at}"
        );
    }
    for byte in request(&[b"GET", b"k1"]) {
        client.send(&[byte]).unwrap();
    }
    assert_eq!(client.read().unwrap(), "\"v\"");
    client.send(b"PING\r\n  GET   k1 \r\n").unwrap();
    assert_eq!(
        (
            client.read().unwrap().as_str(),
            client.read().unwrap().as_str()
        ),
        ("+PONG", "\"v\"")
    );
    let hello = client.ask("HELLO 3");
    assert!(
        hello.starts_with("{\"server\" \"redis\"") && hello.contains("\"proto\" :3"),
        "{hello}"
    );
    check(
        &mut client,
        &[
            ("HSET h f v", ":1"),
            ("HGETALL h", "{\"f\" \"v\"}"),
            (
                "HELLO 4",
                "-ERR evenkeel: unsupported protocol version (NOPROTO)",
            ),
            ("GET none", "nil"),
        ],
    );
    assert!(client.ask("HELLO 2").starts_with("[\"server\""));
    assert_eq!(client.ask("HGETALL h"), "[\"f\" \"v\"]");
    client.send(b"*1\r\n!oops\r\n").unwrap();
    let rest = String::from_utf8(client.read_to_end().unwrap()).unwrap();
    assert_eq!(rest, "-ERR evenkeel: protocol error: expected '$'\r\n");
}

#[test]
fn what_is_over_a_bound_is_refused_and_counted_and_the_connection_goes_on() {
    let gateway = gateway("limits: {value: 4KiB, clients: 3}");
    let mut client = gateway.connect();
    let large = vec![b'x'; 4097];
    let refused = client.ask_words(&[b"SETEX", b"k", b"100", &large]).unwrap();
    assert_eq!(
        refused,
        "-ERR evenkeel: the value is too large (session_store.limits.value)"
    );
    assert_eq!(
        client
            .ask_words(&[b"SETEX", b"k", b"100", &large[1..]])
            .unwrap(),
        "+OK"
    );
    let many: Vec<&[u8]> = std::iter::once(&b"MGET"[..])
        .chain(std::iter::repeat_n(&b"k"[..], 1024))
        .collect();
    assert_eq!(
        client.ask_words(&many).unwrap(),
        "-ERR evenkeel: too many arguments"
    );
    assert_eq!(client.ask("STRLEN k"), ":4096");
    let others = [gateway.connect(), gateway.connect()];
    let mut one_more = gateway.connect();
    assert_eq!(
        one_more.read().unwrap(),
        "-ERR evenkeel: too many clients (session_store.limits.clients)"
    );
    drop(others);
    eventually("there is room again", PATIENCE, || {
        let answer = gateway
            .connect()
            .ask_words(&[b"PING"])
            .map_err(|error| error.to_string())?;
        if answer == "+PONG" {
            Ok(())
        } else {
            Err(answer)
        }
    });
}

#[test]
fn users_see_their_own_and_nothing_before_they_log_in() {
    let gateway = gateway(
        "auth: [{user: default, password: first}, {user: shop, password: second, db: [0, 3], prefix: 'shop:'}]",
    );
    let mut client = gateway.connect();
    let denied = "-ERR evenkeel: log in first (AUTH)";
    check(
        &mut client,
        &[
            ("GET k", denied),
            ("PING", denied),
            ("AUTH wrong", "-ERR evenkeel: wrong user or password"),
            ("GET k", denied),
            ("AUTH first", "+OK"),
            ("SET k 1", "+OK"),
        ],
    );
    assert!(client.ask("SELECT 3").contains("not allowed"));
    let mut shop = Resp::open_unix(&gateway.directory.path().join("resp.sock")).unwrap();
    check(
        &mut shop,
        &[
            ("AUTH shop second", "+OK"),
            ("GET k", "nil"),
            ("SET k 2", "+OK"),
            ("SELECT 3", "+OK"),
            ("GET k", "nil"),
        ],
    );
    check(
        &mut client,
        &[
            ("GET k", "\"1\""),
            ("GET shop:k", "\"2\""),
            (
                "HELLO 3 AUTH shop nonsense",
                "-ERR evenkeel: wrong user or password",
            ),
        ],
    );
    assert!(
        client
            .ask("HELLO 3 AUTH shop second SETNAME php")
            .starts_with("{\"server\"")
    );
    assert_eq!(client.ask("GET k"), "\"2\"");
    // Guessing ends after a while, also for who guesses right by then.
    let mut guesser = gateway.connect();
    let refused = (0..100).find(|_| guesser.ask("AUTH guess").contains("too many failed logins"));
    assert!(refused.is_some());
    assert!(guesser.ask("AUTH first").contains("too many failed logins"));
    let output = gateway.child.output();
    assert!(
        !["first", "second", "guess"]
            .iter()
            .any(|secret| output.contains(&format!("{secret}\""))),
        "{output}"
    );
}

fn lock(client: &mut Resp, pid: u32) {
    let line = format!("SET k_LOCK web|{pid} NX");
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    client.send(&request(&words)).unwrap();
}

#[test]
fn locks_are_given_in_the_order_of_asking_and_freed_when_their_holder_goes() {
    for keys in ["".to_owned(), redis_keys()] {
        let gateway = gateway(&keys);
        let mut holder = gateway.connect();
        assert_eq!(holder.ask("SET k_LOCK web|0 NX"), "+OK");
        let mut waiting: Vec<Resp> = (1..=5).map(|_| gateway.connect()).collect();
        for (at, client) in waiting.iter_mut().enumerate() {
            lock(client, at as u32 + 1);
            // Its place in the queue is that of its arrival, so the next one comes visibly later.
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(
            holder.ask(&format!("EVALSHA {RELEASE} 1 k_LOCK web|0")),
            scripted(&keys)
        );
        if scripted(&keys) != ":1" {
            // A Redis that does not know the script yet is sent its text, as phpredis does.
            let text = "if redis.call(\"get\",KEYS[1]) == ARGV[1] then return redis.call(\"del\",KEYS[1]) else return 0 end";
            let answer = holder
                .ask_words(&[b"EVAL", text.as_bytes(), b"1", b"k_LOCK", b"web|0"])
                .unwrap();
            assert_eq!(answer, ":1");
        }
        // One of them has given up by now, and nobody waits for it.
        let gone = waiting.remove(2);
        drop(gone);
        let start = Instant::now();
        for (at, pid) in [(0, 1), (1, 2), (2, 4), (3, 5)] {
            assert_eq!(waiting[at].read().unwrap(), "+OK", "web|{pid}");
            assert_eq!(
                gateway.connect().ask("GET k_LOCK"),
                format!("\"web|{pid}\"")
            );
            // Killed while it holds the lock: its connection closes, and nothing else.
            waiting[at] = gateway.connect();
        }
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{:?}",
            start.elapsed()
        );
        eventually("the last lock is free", PATIENCE, || {
            match gateway.connect().ask("GET k_LOCK").as_str() {
                "nil" => Ok(()),
                held => Err(held.to_owned()),
            }
        });
    }
}

thread_local! {
    static REDIS: std::cell::RefCell<Option<databases::Database>> = const { std::cell::RefCell::new(None) };
}

/// Keys for a Redis of this test's own.
fn redis_keys() -> String {
    let server = databases::redis("redis", &[]).unwrap();
    let keys = format!("backend: 'redis://{}'", server.address());
    REDIS.with(|redis| *redis.borrow_mut() = Some(server));
    keys
}

fn scripted(keys: &str) -> &'static str {
    if keys.is_empty() {
        ":1"
    } else {
        "-NOSCRIPT No matching script. Please use EVAL."
    }
}

#[test]
fn who_waits_too_long_is_told_nil_and_then_at_once() {
    let gateway = gateway("locks: {wait: 300ms, lease: 1s}, limits: {parked: 1}");
    let (mut holder, mut other, mut third) =
        (gateway.connect(), gateway.connect(), gateway.connect());
    assert_eq!(holder.ask("SET k_LOCK web|1 NX"), "+OK");
    let left: i64 = holder.ask("PTTL k_LOCK")[1..].parse().unwrap();
    assert!((1..=1000).contains(&left), "it has a lease: {left}");
    let start = Instant::now();
    lock(&mut other, 2);
    std::thread::sleep(Duration::from_millis(100));
    assert!(third.ask("SET k_LOCK web|3 NX").contains("too many wait"));
    assert_eq!(other.read().unwrap(), "nil");
    assert!(
        (250..2_000).contains(&start.elapsed().as_millis()),
        "{:?}",
        start.elapsed()
    );
    let start = Instant::now();
    for _ in 0..20 {
        assert_eq!(other.ask("SET k_LOCK web|2 NX"), "nil");
    }
    assert!(
        start.elapsed() < Duration::from_millis(300),
        "{:?}",
        start.elapsed()
    );
    // Any other form is answered at once.
    let start = Instant::now();
    assert_eq!(third.ask("SET k_LOCK x NX"), "nil");
    assert!(start.elapsed() < Duration::from_millis(200));
    // The lease goes on while its holder is there, and three of them have passed.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(third.ask("GET k_LOCK"), "\"web|1\"");
    // Its own time to live ends it, and who waits then gets it.
    check(&mut third, &[("SET other_LOCK web|9 NX PX 100", "+OK")]);
    assert_eq!(other.ask("SET other_LOCK web|2 NX PX 5000"), "+OK");
}

/// 20 times at random moments under load: what was acknowledged is there.
#[test]
fn a_killed_gateway_has_lost_nothing_that_was_acknowledged() {
    let keys = "backend: embedded, path: data";
    let mut gateway = gateway(keys);
    let mut expected = std::collections::BTreeMap::new();
    for round in 0..20_u32 {
        let address = gateway.address;
        let (begun, begins) = std::sync::mpsc::channel();
        let writers: Vec<_> = (0..4_u32)
            .map(|writer| {
                let begun = begun.clone();
                std::thread::spawn(move || {
                    let (mut acknowledged, mut client) = (Vec::new(), Resp::open(address).unwrap());
                    for at in 0_u32.. {
                        let (key, value) =
                            (format!("k{writer}-{}", at % 50), format!("{round}-{at}"));
                        match client.ask_words(&[
                            b"SETEX",
                            key.as_bytes(),
                            b"1000",
                            value.as_bytes(),
                        ]) {
                            Ok(answer) => assert_eq!(answer, "+OK"),
                            Err(_) => return (acknowledged, Some(key)),
                        }
                        acknowledged.push((key, value));
                        begun.send(()).ok();
                    }
                    (acknowledged, None)
                })
            })
            .collect();
        // All four are at it by then.
        for _ in 0..20 {
            begins.recv_timeout(PATIENCE).unwrap();
        }
        std::thread::sleep(Duration::from_millis(u64::from(round * 7 % 50)));
        gateway.child.kill();
        let mut unknown = Vec::new();
        for writer in writers {
            let (acknowledged, last) = writer.join().unwrap();
            expected.extend(acknowledged);
            unknown.extend(last);
        }
        gateway = gateway.killed_and_back(keys);
        let mut client = gateway.connect();
        for (key, value) in &expected {
            let found = client.ask(&format!("GET {key}"));
            // The last write of each was under way: it may be there or not.
            assert!(
                found == format!("\"{value}\"")
                    || unknown.contains(key) && found.starts_with(&format!("\"{round}-")),
                "round {round}: {key} is {found}, not {value}"
            );
        }
        expected.retain(|key, _| !unknown.contains(key));
    }
}

#[test]
fn two_gateways_never_share_a_folder_and_open_ports_need_a_password() {
    let gateway = gateway("path: data");
    let second = evenkeel_tests::ports::free();
    let run = |text: &str| {
        let path = gateway.directory.path().join("second.yaml");
        std::fs::write(&path, text).unwrap();
        let mut command = std::process::Command::new(evenkeel_tests::peers::evenkeel());
        let output = command.arg("store").arg("-c").arg(&path).output().unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, told) = run(&format!(
        "session_store: {{path: data, resp: '{second}'}}\n"
    ));
    assert!(
        code == Some(1) && told.contains("another process uses this folder"),
        "{code:?} {told}"
    );
    let (code, told) = run("session_store: {resp: '0.0.0.0:0'}\n");
    assert!(
        code == Some(2) && told.contains("session_store.resp"),
        "{code:?} {told}"
    );
}
