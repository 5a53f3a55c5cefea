//! Checks that a filter cannot make itself, against real servers: MariaDB and Redis; and by a filter, through the bridge.

use std::net::SocketAddr;
use std::time::Duration;

use evenkeel_session_store::check::{Check, Mysql, Redis, run};
use evenkeel_tests::databases::{mariadb, redis};
use evenkeel_tests::{Cluster, Host, Server, doubles, eventually, ports};

const TIMEOUT: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(60);

/// `None`: it is well; otherwise words of the reason.
#[track_caller]
fn check(what: &Check, address: SocketAddr, expected: Option<&str>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let verdict = runtime.block_on(run(what, address, TIMEOUT));
    match (verdict.outcome, expected) {
        (Ok(()), None) => {}
        (Err(reason), Some(words)) => {
            assert!(reason.contains(words), "{what:?}: {reason}");
            assert!(!reason.contains("secret"), "{reason}");
        }
        (outcome, expected) => panic!("{what:?}: {outcome:?}, not {expected:?}"),
    }
}

fn mysql(user: &str, password: &str, query: Option<&str>, equals: Option<&str>) -> Check {
    Check::Mysql(Mysql {
        user: user.to_owned(),
        password: password.to_owned(),
        query: query.map(str::to_owned),
        equals: equals.map(str::to_owned),
    })
}

#[test]
fn mariadb_lets_in_and_answers() {
    let Some(database) = mariadb("db") else {
        return;
    };
    let at = database.address();
    let read_only = Some("SELECT @@global.read_only");
    // Users are made after the port is open, this one after the other that is let in.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    eventually("the users are there", PATIENCE, || {
        runtime
            .block_on(run(&mysql("nobody", "", None, None), at, TIMEOUT))
            .outcome
    });
    check(&mysql("evenkeel", "secret", read_only, Some("0")), at, None);
    check(
        &mysql("evenkeel", "secret", read_only, Some("1")),
        at,
        Some("`0`, not `1`"),
    );
    check(
        &mysql("evenkeel", "secret", Some("DO 1"), Some("1")),
        at,
        Some("no value"),
    );
    check(
        &mysql("evenkeel", "secret", Some("SELECT NULL"), Some("1")),
        at,
        Some("no value"),
    );
    check(
        &mysql(
            "evenkeel",
            "secret",
            Some("SELECT 7, 'x' FROM (SELECT 1 UNION SELECT 2) AS t"),
            Some("7"),
        ),
        at,
        None,
    );
    check(
        &mysql("evenkeel", "secret", Some("SELEKT"), None),
        at,
        Some("error 1064"),
    );
    check(
        &mysql(
            "evenkeel",
            "secret",
            Some("SELECT REPEAT('x', 100000)"),
            None,
        ),
        at,
        Some("a packet of"),
    );
    check(
        &mysql(
            "evenkeel",
            "secret",
            Some("SELECT seq FROM seq_1_to_100000"),
            None,
        ),
        at,
        Some("error 1046"),
    );
    check(&mysql("nobody", "", None, None), at, None);
    check(
        &mysql("evenkeel", "wrong", None, None),
        at,
        Some("error 1045"),
    );
    check(&mysql("local", "secret", None, None), at, Some("error"));
    check(&Check::Tcp, at, None);
}

#[test]
fn redis_pings_and_tells_its_role() {
    let Some(open) = redis("open", &[]) else {
        return;
    };
    let Some(shut) = redis("shut", &["--requirepass", "secret"]) else {
        return;
    };
    let with = |password: Option<&str>, role: Option<&str>| {
        Check::Redis(Redis {
            username: None,
            password: password.map(str::to_owned),
            role: role.map(str::to_owned),
        })
    };
    check(&with(None, None), open.address(), None);
    check(&with(None, Some("master")), open.address(), None);
    check(
        &with(None, Some("slave")),
        open.address(),
        Some("`master`, not `slave`"),
    );
    check(&with(Some("secret"), Some("master")), shut.address(), None);
    check(&with(None, None), shut.address(), Some("NOAUTH"));
    check(&with(Some("wrong"), None), shut.address(), Some(""));
}

#[test]
fn who_is_no_such_server_is_told_and_nobody_is_waited_for() {
    let (web, silent) = (doubles::babbles("web"), doubles::silent("silent"));
    let refusing = ports::refusing();
    for what in [
        Check::Tcp,
        mysql("evenkeel", "secret", None, None),
        Check::Redis(Redis::default()),
    ] {
        check(&what, refusing, Some("refused"));
    }
    // One waits for a request that never comes, the other for a greeting.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let short = Duration::from_millis(300);
    for double in [&web, &silent] {
        for what in [
            mysql("evenkeel", "secret", None, None),
            Check::Redis(Redis::default()),
        ] {
            let verdict = runtime.block_on(run(&what, double.address(), short));
            assert!(verdict.outcome.is_err(), "{what:?} {}", double.name());
            assert!(verdict.took < short + Duration::from_secs(2), "{verdict:?}");
        }
    }
}

/// The filter asks the bridge; what it is told stands in the state.
#[test]
fn a_pool_of_databases_is_checked_through_the_bridge() {
    let Some(mut database) = mariadb("db") else {
        return;
    };
    std::fs::write(database.directory.path().join("pass"), "secret\n").unwrap();
    let pass = database.directory.path().join("pass");
    let health = format!(
        "health: {{interval: 3s, timeout: 3s, rise: 1, fall: 2, mysql: {{user: evenkeel, password_file: '{}', query: 'SELECT @@global.read_only', equals: '0'}}}}",
        pass.display()
    );
    let cluster = Cluster::new()
        .server(&database)
        .name("other", &ports::refusing().to_string());
    let proxy = cluster
        .pool(&health, &[("db", ""), ("other", "")])
        .on(Host::Sidecar);
    let state = |id: &str| {
        let told = proxy.admin_get("/api/pools/web").json();
        let servers = told["servers"].as_array().unwrap().clone();
        servers
            .into_iter()
            .find(|server| server["id"] == id)
            .unwrap()
    };
    eventually("db is up, the other is down", PATIENCE, || {
        let (db, other) = (state("db"), state("other"));
        (db["health"] == "up" && other["health"] == "down")
            .then_some(())
            .ok_or((db, other))
    });
    assert!(
        state("other")["reason"]
            .as_str()
            .unwrap()
            .contains("refused"),
        "{}",
        state("other")
    );
    assert_eq!(proxy.admin_get("/readyz").status, 200);
    database.kill();
    eventually("db is down, and so nobody is ready", PATIENCE, || {
        let (db, ready) = (state("db"), proxy.admin_get("/readyz").status);
        (db["health"] == "down" && ready == 503)
            .then_some(())
            .ok_or((db, ready))
    });
}
