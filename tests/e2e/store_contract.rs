//! One contract for every backend of the session store, and a real Redis is what it says: each row runs on the embedded store, on our
//! Redis backend, and on redis-server itself; all three give the same answer.

use std::time::Duration;

use bytes::Bytes;
use evenkeel_session_store::backend::embedded::{self, Capacity, Embedded};
use evenkeel_session_store::backend::remote::address::{Host, Place};
use evenkeel_session_store::backend::remote::{self, Login, Redis};
use evenkeel_session_store::backend::{Backend, Failure};
use evenkeel_session_store::command::Request;
use evenkeel_session_store::resp::Reply;
use evenkeel_tests::tls::Certificate;
use evenkeel_tests::{Resp, Server, databases, gateway, http2::block_on, ports};

const RELEASE: &str = "if redis.call(\"get\",KEYS[1]) == ARGV[1] then return redis.call(\"del\",KEYS[1]) else return 0 end";

/// Commands, and what the last of them is answered. Keys of a group are its own.
const ROWS: &[&str] = &[
    "GET a",
    "SET a 1",
    "GET a",
    "SET a 2 NX",
    "SET a 2 XX",
    "SET b 1 XX",
    "GET b",
    "SET b 1 NX",
    "SET b 2 GET",
    "GET b",
    "SET n 1 NX GET",
    "SET a 3 EX 100",
    "TTL a",
    "SET a 4 KEEPTTL",
    "TTL a",
    "SET a 5",
    "TTL a",
    "PTTL a",
    "PTTL missing",
    "TTL missing",
    "SET a 1 EX 0",
    "SET a 1 EX -1",
    "SET a 1 EX x",
    "SET a 1 PX 100 EX 1",
    "SET a 1 NX XX",
    "SET a 1 EX",
    "SET a 1 NONSENSE",
    "SET a 1 EXAT 1",
    "GET a",
    "SET a 1 PXAT 99999999999999",
    "EXISTS a",
    "SETEX a 100 v",
    "GET a",
    "TTL a",
    "SETEX a 0 v",
    "SETEX a x v",
    "PSETEX a 100000 v",
    "TTL a",
    "SETNX a w",
    "SETNX new w",
    "GETEX a",
    "GETEX a EX 50",
    "TTL a",
    "GETEX a PERSIST",
    "TTL a",
    "GETEX missing EX 5",
    "GETEX a EX 0",
    "GETEX a KEEPTTL",
    "GETDEL new",
    "GETDEL new",
    "MGET a missing b",
    "STRLEN a",
    "STRLEN missing",
    "APPEND a x",
    "APPEND fresh x",
    "GET a",
    "SET num 10",
    "INCR num",
    "DECR num",
    "INCRBY num 5",
    "DECRBY num 3",
    "INCRBY num x",
    "INCRBY num 9223372036854775807",
    "INCR a",
    "DECRBY num -9223372036854775808",
    "SET num 007",
    "INCR num",
    "SET num -0",
    "INCR num",
    "SET num +1",
    "INCR num",
    "INCR counter",
    "TTL counter",
    "EXISTS a a missing b",
    "DEL a missing",
    "DEL a",
    "UNLINK b",
    "SET e v",
    "EXPIRE e 100",
    "TTL e",
    "EXPIRE e x",
    "EXPIRE missing 5",
    "PERSIST e",
    "PERSIST e",
    "PERSIST missing",
    "PEXPIRE e 100000",
    "TTL e",
    "EXPIREAT e 99999999999",
    "PEXPIREAT e 99999999999999",
    "EXPIRE e 9223372036854775807",
    "EXPIRE e -1",
    "GET e",
    "SET e v",
    "EXPIRE e 0",
    "EXISTS e",
    "SET e v",
    "EXPIREAT e 1",
    "GET e",
    "TYPE missing",
    "SET t v",
    "TYPE t",
    "HSET h f 1 g 2",
    "TYPE h",
    "HSET h f 3",
    "HSET h f 1 g",
    "HGET h f",
    "HGET h x",
    "HGET missing f",
    "HMSET h a 1 b 2",
    "HMGET h a x b",
    "HMGET missing a",
    "HLEN h",
    "HEXISTS h a",
    "HEXISTS h x",
    "HSETNX h a 9",
    "HSETNX h z 9",
    "HDEL h a x z",
    "HDEL missing a",
    "HINCRBY h n 5",
    "HINCRBY h n -7",
    "HINCRBY h n x",
    "HSET h text v",
    "HINCRBY h text 1",
    "HINCRBY h f 9223372036854775807",
    "EXPIRE h 100",
    "HSET h f 1",
    "TTL h",
    "HDEL h f g b n text",
    "EXISTS h",
    "HSET one f v",
    "HGETALL one",
    "HGETALL missing",
    "GET one",
    "SET one v GET",
    "APPEND one x",
    "INCR one",
    "HGET t f",
    "HSET t f v",
    "HGETALL t",
    "MGET one t",
    "STRLEN one",
    "GETEX one",
    "GETDEL one",
    "SETNX one v",
    "SET one v",
    "GET one",
    "SET k_LOCK host|1 NX PX 60000",
    "SET k_LOCK host|2 NX PX 60000",
    "GET k_LOCK",
    "EVAL @RELEASE 1 k_LOCK host|2",
    "EVAL @RELEASE 1 k_LOCK host|1",
    "EXISTS k_LOCK",
    "SET k_LOCK host|1 NX",
    "TTL k_LOCK",
    "EVALSHA b70c2384248f88e6b75b9f89241a180f856ad852 1 k_LOCK host|1",
    "EXISTS k_LOCK",
    "SET empty \"\"",
    "GET empty",
    "STRLEN empty",
];

fn words(line: &str) -> Vec<Bytes> {
    let word = |word| match word {
        "@RELEASE" => Bytes::from_static(RELEASE.as_bytes()),
        "\"\"" => Bytes::new(),
        word => Bytes::copy_from_slice(word.as_bytes()),
    };
    line.split(' ').map(word).collect()
}

fn request(line: &str) -> Request {
    Request::new(words(line), b"").unwrap()
}

/// In the words of [`Resp::read`].
fn told(outcome: Result<Reply, Failure>) -> String {
    match outcome {
        Err(failure) => format!("{failure:?}"),
        Ok(Reply::Simple(text)) => format!("+{text}"),
        Ok(Reply::Error(text)) => format!("-{text}"),
        Ok(Reply::Integer(number)) => format!(":{number}"),
        Ok(Reply::Bulk(text)) => format!("\"{}\"", String::from_utf8_lossy(&text)),
        Ok(Reply::Nil) => "nil".to_owned(),
        Ok(Reply::Array(items) | Reply::Map(items)) => {
            let items: Vec<String> = items.into_iter().map(|item| told(Ok(item))).collect();
            format!("[{}]", items.join(" "))
        }
    }
}

fn embedded() -> Embedded {
    let settings = embedded::Settings {
        path: None,
        fsync: Duration::from_secs(1),
        capacity: Capacity {
            bytes: 64 * 1024 * 1024,
            locks: 100,
        },
    };
    Embedded::open(&settings).unwrap().0
}

fn redis_at(address: std::net::SocketAddr) -> Redis {
    let place = Place::Tcp(Host {
        name: address.ip().to_string(),
        port: address.port(),
    });
    Redis::new(remote::Settings {
        login: Login {
            place,
            tls: None,
            user: None,
            password: None,
        },
        failover_wait: Duration::from_secs(20),
        parked_max: 100,
    })
}

/// Every row on one backend. `database` is its own.
async fn answers<B: Backend>(backend: &B, database: u8) -> Vec<String> {
    let mut answers = Vec::new();
    for line in ROWS {
        answers.push(told(backend.submit(database, request(line)).await));
    }
    answers
}

#[test]
fn every_backend_answers_as_redis_does() {
    let Some(server) = databases::redis("redis", &[]) else {
        return;
    };
    let mut client = Resp::open(server.address()).unwrap();
    let oracle: Vec<String> = ROWS
        .iter()
        .map(|line| {
            let words = words(line);
            let words: Vec<&[u8]> = words.iter().map(AsRef::as_ref).collect();
            client.ask_words(&words).unwrap()
        })
        .collect();
    let (ours, theirs) = block_on(async {
        (
            answers(&embedded(), 1).await,
            answers(&redis_at(server.address()), 1).await,
        )
    });
    let mut wrong = Vec::new();
    for (at, line) in ROWS.iter().enumerate() {
        for (name, answer) in [("embedded", &ours[at]), ("redis", &theirs[at])] {
            // Clocks: a time to live in milliseconds differs by what passed between two commands.
            if *answer != oracle[at] && !line.starts_with("PTTL") {
                wrong.push(format!("{name}: {line}: {answer}, not {}", oracle[at]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a transaction and a watch come to on a backend.
async fn transactions<B: Backend>(store: &B) -> Vec<String> {
    let mut told_all = Vec::new();
    let run = |lines: &[&str]| lines.iter().map(|line| request(line)).collect::<Vec<_>>();
    told_all.push(told(
        store
            .transact(2, run(&["SET a 1", "INCR a", "GET a"]), None)
            .await,
    ));
    let key = [Bytes::from_static(b"a")];
    let watch = store.watch(2, &key, None).await.unwrap();
    told_all.push(told(store.transact(2, run(&["INCR a"]), Some(watch)).await));
    let watch = store.watch(2, &key, None).await.unwrap();
    store.submit(2, request("SET a 7")).await.unwrap();
    told_all.push(told(store.transact(2, run(&["INCR a"]), Some(watch)).await));
    let watch = store
        .watch(2, &[Bytes::from_static(b"absent")], None)
        .await
        .unwrap();
    let watch = store.watch(2, &key, Some(watch)).await.unwrap();
    store.submit(2, request("SET absent 1")).await.unwrap();
    told_all.push(told(store.transact(2, run(&["INCR a"]), Some(watch)).await));
    told_all.push(told(store.submit(2, request("GET a")).await));
    told_all
}

#[test]
fn transactions_are_all_or_nothing_on_every_backend() {
    let Some(server) = databases::redis("redis", &[]) else {
        return;
    };
    let (ours, theirs) = block_on(async {
        (
            transactions(&embedded()).await,
            transactions(&redis_at(server.address())).await,
        )
    });
    assert_eq!(ours, ["[+OK :2 \"2\"]", "[:3]", "nil", "nil", "\"7\""]);
    assert_eq!(theirs, ours);
}

#[test]
fn databases_are_apart_on_every_backend() {
    async fn check<B: Backend>(store: &B) {
        store.submit(3, request("SET k three")).await.unwrap();
        store.submit(4, request("SET k four")).await.unwrap();
        assert_eq!(told(store.submit(3, request("GET k")).await), "\"three\"");
        assert_eq!(told(store.submit(5, request("GET k")).await), "nil");
    }
    let Some(server) = databases::redis("redis", &[]) else {
        return;
    };
    block_on(async {
        check(&embedded()).await;
        check(&redis_at(server.address())).await;
    });
}

/// A Redis that goes and comes back: what was not answered is answered then, in order, and nothing is made up meanwhile.
#[test]
fn what_is_asked_while_redis_is_away_is_answered_when_it_is_back() {
    let Some(mut server) =
        databases::redis("redis", &["--appendonly", "yes", "--appendfsync", "always"])
    else {
        return;
    };
    let address = server.address();
    block_on(async {
        let store = redis_at(address);
        assert_eq!(
            told(store.submit(0, request("SETEX k 100 before")).await),
            "+OK"
        );
        server.kill();
        // What is sent on a connection that is dead already may have been executed for all we know.
        while store.figures().is_connected {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let (get, set, again) = (
            store.submit(0, request("GET k")),
            store.submit(0, request("SETEX k 100 after")),
            store.submit(0, request("GET k")),
        );
        let dropped = store.submit(0, request("SETEX k 100 dropped"));
        drop(dropped);
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(
            !store.figures().is_connected && store.figures().waiting >= 3,
            "{:?}",
            store.figures()
        );
        let _back = databases::redis_at(
            address,
            server.directory.path(),
            &["--appendonly", "yes", "--appendfsync", "always"],
        );
        assert_eq!(
            [told(get.await), told(set.await), told(again.await)],
            ["\"before\"", "+OK", "\"after\""]
        );
        assert_eq!(told(store.submit(0, request("GET k")).await), "\"after\"");
    });
}

#[test]
fn a_redis_that_stays_away_is_an_error_and_never_a_nil() {
    let address = evenkeel_tests::ports::refusing();
    block_on(async {
        let place = Place::Tcp(Host {
            name: address.ip().to_string(),
            port: address.port(),
        });
        let store = Redis::new(remote::Settings {
            login: Login {
                place,
                tls: None,
                user: None,
                password: None,
            },
            failover_wait: Duration::from_millis(300),
            parked_max: 2,
        });
        let first = store.submit(0, request("GET k"));
        let second = store.submit(0, request("GET k"));
        assert_eq!(told(first.await), "Refused(Unreachable)");
        assert_eq!(told(second.await), "Refused(Unreachable)");
        let waiting = [
            store.submit(0, request("GET k")),
            store.submit(0, request("GET k")),
        ];
        assert_eq!(
            told(store.submit(0, request("GET k")).await),
            "Refused(Crowded)"
        );
        drop(waiting);
    });
}

/// A replica says "no such key" for what its master has: it is not asked.
#[test]
fn a_replica_is_not_asked() {
    let Some(master) = databases::redis("master", &[]) else {
        return;
    };
    let (host, port) = (
        master.address().ip().to_string(),
        master.address().port().to_string(),
    );
    let Some(replica) = databases::redis("replica", &["--replicaof", &host, &port]) else {
        return;
    };
    block_on(async {
        let store = redis_at(replica.address());
        let get = store.submit(0, request("GET k"));
        let mut client = Resp::open(replica.address()).unwrap();
        let early = tokio::time::timeout(Duration::from_millis(500), get).await;
        assert!(early.is_err(), "{early:?}");
        let get = store.submit(0, request("GET k"));
        // Promoted, it is a master.
        assert_eq!(client.ask("REPLICAOF NO ONE"), "+OK");
        assert_eq!(told(get.await), "nil");
        // Demoted while connected, it refuses writes without executing them; they are executed when it is a master again.
        assert_eq!(client.ask(&format!("REPLICAOF {host} {port}")), "+OK");
        let set = store.submit(0, request("SETEX k 100 v"));
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(client.ask("REPLICAOF NO ONE"), "+OK");
        assert_eq!(told(set.await), "+OK");
    });
}

#[test]
fn a_redis_is_reached_by_socket_and_by_tls_with_a_user_and_a_certificate() {
    let certificate = Certificate::new();
    let (cert, key) = (certificate.certificate(), certificate.key());
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let (folder, address) = (tempfile::TempDir::new().unwrap(), ports::free());
    let socket = folder.path().join("redis.sock");
    let port = address.port().to_string();
    let options = [
        "--port",
        "0",
        "--tls-port",
        &port,
        "--tls-cert-file",
        cert,
        "--tls-key-file",
        key,
        "--tls-ca-cert-file",
        cert,
        "--tls-auth-clients",
        "yes",
        "--unixsocket",
        socket.to_str().unwrap(),
        "--user",
        "php",
        "on",
        ">hunter2",
        "~*",
        "&*",
        "+@all",
        "--user",
        "default",
        "off",
    ];
    let Some(_server) = databases::redis_at(address, folder.path(), &options) else {
        return;
    };
    let login = "username: php, password: hunter2";
    let tls = format!("tls: {{ca: '{cert}', cert: '{cert}', key: '{key}'}}");
    for backend in [
        format!("backend: 'redis+unix://{}', {login}", socket.display()),
        format!("backend: 'rediss://localhost:{port}', {login}, {tls}"),
    ] {
        let gateway = gateway(&backend);
        assert_eq!(gateway.connect().ask("SETEX k 100 v"), "+OK", "{backend}");
        assert!(!gateway.child.output().contains("hunter2"));
    }
    for (backend, why) in [
        (
            format!(
                "backend: 'rediss://localhost:{port}', {login}, tls: {{ca: '{cert}'}}, failover_wait: 300ms"
            ),
            "no certificate",
        ),
        (
            format!("backend: 'rediss://127.0.0.1:{port}', {login}, {tls}, failover_wait: 300ms"),
            "another name",
        ),
        (
            format!(
                "backend: 'redis+unix://{}', username: php, password: wrong, failover_wait: 300ms",
                socket.display()
            ),
            "wrong password",
        ),
    ] {
        let answer = gateway(&backend).connect().ask("GET k");
        assert_eq!(
            answer, "-ERR evenkeel: Redis cannot be reached, nothing was executed",
            "{why}"
        );
    }
}
