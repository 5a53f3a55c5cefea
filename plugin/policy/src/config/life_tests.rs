//! Options of a server's life and health: what they become, and what contradicts what.

use std::time::Duration;

use serde_json::{Value, json};

use super::tests::{refused, with_pool_key, with_server_key};
use super::*;

fn pool(policy: Value) -> PoolConfig {
    let document = Document::from_value(policy).expect("a document");
    let mut config = Config::from_document(&document).expect("accepted");
    config.pools.remove(0)
}

#[test]
fn without_keys_a_pool_is_as_nginx_has_it() {
    let pool = pool(with_pool_key("retries", json!(2)));
    let expected = ServerLimits {
        max_fails: 1,
        fail_timeout: Duration::from_secs(10),
        slow_start: Duration::ZERO,
        max_conns: 0,
    };
    assert_eq!(pool.servers[0].limits, expected);
    assert_eq!(
        (pool.panic_below, pool.health, pool.passive),
        (0, None, None)
    );
    assert_eq!(pool.retry_on, RetryOn::default());
}

#[test]
fn retries_are_said_in_the_words_of_hosts() {
    for (list, repeatable, unsent, statuses) in [
        (
            json!(["connect-failure", "reset-before-response"]),
            "connect-failure,refused-stream,reset",
            "connect-failure,refused-stream,reset-before-request",
            "",
        ),
        (
            json!(["connect-failure"]),
            "connect-failure,refused-stream",
            "connect-failure,refused-stream",
            "",
        ),
        (
            json!([503, "connect-failure", "502", 503]),
            "connect-failure,refused-stream,retriable-status-codes",
            "connect-failure,refused-stream",
            "503,502",
        ),
        (json!([504]), "retriable-status-codes", "", "504"),
        (json!([]), "", "", ""),
    ] {
        let retry_on = pool(with_pool_key("retry_on", list.clone())).retry_on;
        let found = (
            retry_on.repeatable.as_str(),
            retry_on.unsent.as_str(),
            retry_on.statuses.as_str(),
        );
        assert_eq!(found, (repeatable, unsent, statuses), "{list}");
    }
    assert!(
        pool(with_pool_key("retry_on", json!([])))
            .retry_on
            .is_never()
    );
    for wrong in [json!(500), json!("5xx"), json!(true), json!(131_575)] {
        refused(
            with_pool_key("retry_on", json!([502, wrong])),
            "pools.shop.retry_on[1]",
            "expected connect-failure, reset-before-response, 502, 503 or 504, found",
        );
    }
    let mut policy = with_pool_key("retries", json!(0));
    policy["pools"]["shop"]["retry_on"] = json!([503]);
    refused(
        policy,
        "pools.shop.retry_on",
        "`retries: 0` leaves no server",
    );
}

#[test]
fn checks_are_by_http_unless_a_kind_is_named() {
    let health = |value| pool(with_pool_key("health", value)).health.expect("checks");
    let plain = health(json!({}));
    assert_eq!(
        (plain.interval, plain.fast_interval, plain.timeout),
        (
            Duration::from_secs(2),
            Duration::from_secs(2),
            Duration::from_secs(1)
        )
    );
    assert_eq!((plain.rise, plain.fall), (2, 3));
    let Probe::Http(http) = plain.probe else {
        panic!("HTTP");
    };
    assert_eq!(
        (http.method.as_str(), http.path.as_str(), http.host),
        ("GET", "/", None)
    );
    assert!(http.expect.contains(200) && http.expect.contains(399) && !http.expect.contains(404));
    let quick = health(json!({"interval": "200ms"}));
    assert_eq!(
        quick.timeout,
        Duration::from_millis(200),
        "at most the interval"
    );
    for (value, kind, options) in [
        (json!({"tcp": {}}), "tcp", json!({})),
        (
            json!({"mysql": {"user": "u", "password_file": "p", "query": "SELECT 1", "equals": "1"}}),
            "mysql",
            json!({"user": "u", "password_file": "p", "query": "SELECT 1", "equals": "1"}),
        ),
        (
            json!({"redis": {"role": "master"}}),
            "redis",
            json!({"role": "master"}),
        ),
    ] {
        let Probe::Bridge(bridge) = health(value).probe else {
            panic!("the bridge");
        };
        assert_eq!(
            (bridge.kind, Value::Object(bridge.options)),
            (kind, options)
        );
    }
}

#[test]
fn wrong_checks_are_refused() {
    for (value, path, said) in [
        (
            json!({"interval": "50ms"}),
            "interval",
            "expected 100ms to 24h",
        ),
        (
            json!({"timeout": "3s"}),
            "timeout",
            "expected 1ms to `interval`",
        ),
        (json!({"timeout": "0"}), "timeout", "expected 1ms"),
        (
            json!({"fast_interval": "5s"}),
            "fast_interval",
            "expected 100ms to `interval`",
        ),
        (json!({"rise": 0}), "rise", "expected 1 to 100, found 0"),
        (json!({"fall": 101}), "fall", "expected 1 to 100, found 101"),
        (json!({"path": "x"}), "path", "begins with `/`"),
        (json!({"path": "/a b"}), "path", "without spaces"),
        (json!({"path": "/\r\nX: y"}), "path", "without spaces"),
        (json!({"method": "POST"}), "method", "GET, HEAD or OPTIONS"),
        (json!({"host": "a b"}), "host", "the name of a host"),
        (json!({"host": "a\r\nX: y"}), "host", "the name of a host"),
        (json!({"expect": []}), "expect", "at least one"),
        (json!({"expect": ["2xx"]}), "expect[0]", "such as 200-399"),
        (
            json!({"method": "HEAD", "body": "ok"}),
            "body",
            "has no body",
        ),
        (
            json!({"tcp": {}, "path": "/"}),
            "path",
            "`tcp` stands beside it",
        ),
        (
            json!({"tcp": {}, "redis": {}}),
            "redis",
            "`tcp` stands here too",
        ),
        (json!({"mysql": {}}), "mysql", "the key `user` is required"),
        (
            json!({"mysql": {"user": "u", "query": "SELECT 1"}}),
            "mysql",
            "belong together",
        ),
        (
            json!({"redis": {"role": "sentinel"}}),
            "redis.role",
            "master or replica",
        ),
        (json!({"pathh": "/"}), "pathh", "did you mean `path`?"),
    ] {
        refused(
            with_pool_key("health", value),
            &format!("pools.shop.health.{path}"),
            said,
        );
    }
}

#[test]
fn wrong_limits_are_refused() {
    for (key, value, said) in [
        ("max_fails", json!(65_536), "expected 0 to 65535"),
        ("fail_timeout", json!("soon"), "expected a duration"),
        ("slow_start", json!("1 s"), "expected a duration"),
        (
            "max_conns",
            json!(1_000_001),
            "expected 0 for no bound, or up to 1000000",
        ),
    ] {
        refused(
            with_server_key(key, value),
            &format!("pools.shop.servers[0].{key}"),
            said,
        );
    }
    refused(
        with_pool_key("panic_below", json!(101)),
        "pools.shop.panic_below",
        "expected 0 to 100, found 101",
    );
    for (value, key, said) in [
        (json!({"failures": 0}), "failures", "expected 1 to 1000"),
        (json!({"share_max": 0}), "share_max", "expected 1 to 100"),
        (json!({"ejection": "0"}), "ejection", "more than 0"),
        (
            json!({"ejection": "30s", "ejection_max": "10s"}),
            "ejection_max",
            "at least `ejection`",
        ),
        (
            json!({"statuses": [42]}),
            "statuses[0]",
            "expected a status",
        ),
    ] {
        refused(
            with_pool_key("passive", value),
            &format!("pools.shop.passive.{key}"),
            said,
        );
    }
    let passive = pool(with_pool_key("passive", json!({}))).passive.unwrap();
    assert!(passive.statuses.is_empty());
    assert_eq!((passive.failures, passive.share_max), (5, 50));
    assert_eq!(passive.ejection_max, Duration::from_secs(300));
}

#[test]
fn a_queue_is_read_with_defaults_and_within_its_bounds() {
    let queue = |value| pool(with_pool_key("queue", value)).queue;
    let of = |length, ms| {
        Some(QueueConfig {
            length,
            timeout: Duration::from_millis(ms),
        })
    };
    assert_eq!(queue(json!({})), of(1_000, 5_000));
    assert_eq!(queue(json!({"length": 7, "timeout": "250ms"})), of(7, 250));
    for (value, key, said) in [
        (json!({"length": 0}), "length", "expected 1 to 100000"),
        (json!({"length": 100_001}), "length", "expected 1 to 100000"),
        (json!({"timeout": "0s"}), "timeout", "expected more than 0"),
        (json!({"timeout": "5m"}), "timeout", "at most 240s"),
    ] {
        let path = format!("pools.shop.queue.{key}");
        refused(with_pool_key("queue", value), &path, said);
    }
}
