//! One check as a call of the host, and its answer as a verdict.
//!
//! A check by HTTP goes to `<pool>.check`, whose steering names one server: nobody else answers for it. Hosts answer calls that
//! reached nobody themselves, with a status and a text of Envoy's; those never pass for an answer of the server, whatever statuses
//! are expected.
//!
//! Of an answer's body 64 KiB are looked at. One that does not end in time has failed. One that is longer is cut by the proxy of our
//! own, and judged by what there is; Envoy breaks it off without saying of what status it was, so there it has failed: a health
//! endpoint should be short, or be asked with `method: HEAD`.

use serde_json::{Value, json};

use super::health::Verdict;
use super::transition::Cause;
use crate::config::{BridgeProbe, HttpProbe, Probe};
use crate::contract::{CHECK_CLUSTER_SUFFIX, SESSION_STORE_CLUSTER, STEERING_HEADER};

/// How much of a body is looked at, bytes.
pub const BODY_BYTES_MAX: usize = 64 << 10;
/// What Envoy says where a server was not reached, and what that means.
const HOST_ANSWERS: [(u16, &[u8], Cause, &str); 3] = [
    (
        503,
        b"upstream connect error",
        Cause::Connect,
        "no connection, or closed without an answer",
    ),
    (
        503,
        b"no healthy upstream",
        Cause::Connect,
        "the host knows no such server",
    ),
    (
        504,
        b"upstream request timeout",
        Cause::Timeout,
        "no answer in time",
    ),
];
const USER_AGENT: &str = "evenkeel-check";

/// A call to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeCall {
    pub cluster: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

/// The call that checks one server.
pub(super) fn call(probe: &Probe, pool: &str, endpoint: &str, timeout_ms: u64) -> ProbeCall {
    match probe {
        Probe::Http(http) => ProbeCall {
            cluster: format!("{pool}{CHECK_CLUSTER_SUFFIX}"),
            headers: vec![
                (":method", http.method.clone()),
                (":path", http.path.clone()),
                (":scheme", "http".to_owned()),
                (
                    ":authority",
                    http.host.clone().unwrap_or_else(|| endpoint.to_owned()),
                ),
                ("user-agent", USER_AGENT.to_owned()),
                (STEERING_HEADER, endpoint.to_owned()),
            ],
            body: Vec::new(),
        },
        Probe::Bridge(bridge) => ask_bridge(bridge, endpoint, timeout_ms),
    }
}

fn ask_bridge(bridge: &BridgeProbe, endpoint: &str, timeout_ms: u64) -> ProbeCall {
    let body = json!({
        "kind": bridge.kind,
        "address": endpoint,
        "options": bridge.options,
        "timeout_ms": timeout_ms,
    });
    ProbeCall {
        cluster: SESSION_STORE_CLUSTER.to_owned(),
        headers: vec![
            (":method", "POST".to_owned()),
            (":path", "/v1/check".to_owned()),
            (":scheme", "http".to_owned()),
            (":authority", SESSION_STORE_CLUSTER.to_owned()),
            ("content-type", "application/json".to_owned()),
        ],
        body: body.to_string().into_bytes(),
    }
}

/// What an answer means. `status` is `None` if there was none, or it did not end; `body` is at most [`BODY_BYTES_MAX`].
pub(super) fn judge(probe: &Probe, status: Option<u16>, body: &[u8]) -> Verdict {
    match probe {
        Probe::Http(http) => judge_http(http, status, body),
        Probe::Bridge(_) => judge_bridge(status, body),
    }
}

fn judge_http(http: &HttpProbe, status: Option<u16>, body: &[u8]) -> Verdict {
    let failed = |cause, reason: &str| Verdict::Failed {
        cause,
        reason: reason.to_owned(),
    };
    let Some(status) = status else {
        return failed(
            Cause::Broken,
            "an answer that broke off, was too long or too slow",
        );
    };
    let of_host = HOST_ANSWERS
        .iter()
        .find(|(code, text, ..)| *code == status && body.starts_with(text));
    if let Some((_, _, cause, reason)) = of_host {
        return failed(*cause, reason);
    }
    if !http.expect.contains(status) {
        return failed(Cause::Status, &format!("status {status}"));
    }
    let wanted = http.body.as_bytes();
    if !wanted.is_empty() && !body.windows(wanted.len()).any(|part| part == wanted) {
        return failed(Cause::Body, "the expected text is not in the body");
    }
    Verdict::Passed
}

/// A bridge that does not answer says nothing about the servers behind it.
fn judge_bridge(status: Option<u16>, body: &[u8]) -> Verdict {
    if status != Some(200) {
        return Verdict::Unknown;
    }
    let Ok(answer) = serde_json::from_slice::<Value>(body) else {
        return Verdict::Unknown;
    };
    match answer.get("ok").and_then(Value::as_bool) {
        Some(true) => Verdict::Passed,
        Some(false) => {
            let reason = answer.get("reason").and_then(Value::as_str);
            Verdict::Failed {
                cause: Cause::Bridge,
                reason: plain(reason.unwrap_or("the check failed")),
            }
        }
        None => Verdict::Unknown,
    }
}

/// One line: what a server says of itself goes to logs.
fn plain(text: &str) -> String {
    text.chars()
        .take(super::health::REASON_BYTES_MAX)
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Document};

    fn probe(health: Value) -> Probe {
        let servers = json!([{"address": "10.0.0.1:80"}]);
        let policy = json!({"pools": {"shop": {"servers": servers, "health": health}}});
        let config = Config::from_document(&Document::from_value(policy).unwrap()).unwrap();
        config.pools[0].health.clone().unwrap().probe
    }

    #[track_caller]
    fn check(health: Value, status: Option<u16>, body: &[u8], expected: Option<(Cause, &str)>) {
        let expected = match expected {
            None => Verdict::Passed,
            Some((cause, reason)) => Verdict::Failed {
                cause,
                reason: reason.to_owned(),
            },
        };
        assert_eq!(judge(&probe(health), status, body), expected);
    }

    #[test]
    fn an_answer_is_judged_by_its_status_and_its_body() {
        check(json!({}), Some(200), b"", None);
        check(json!({}), Some(399), b"", None);
        check(
            json!({}),
            Some(404),
            b"",
            Some((Cause::Status, "status 404")),
        );
        check(json!({"expect": [404]}), Some(404), b"", None);
        check(
            json!({"expect": [404]}),
            Some(200),
            b"",
            Some((Cause::Status, "status 200")),
        );
        check(
            json!({"body": "all is well"}),
            Some(200),
            b"I say all is well.",
            None,
        );
        let missing = Some((Cause::Body, "the expected text is not in the body"));
        check(
            json!({"body": "all is well"}),
            Some(200),
            b"all is wel",
            missing,
        );
        check(json!({"body": "x"}), Some(200), b"", missing);
        let broken = Some((
            Cause::Broken,
            "an answer that broke off, was too long or too slow",
        ));
        check(json!({}), None, b"", broken);
    }

    #[test]
    fn an_answer_of_the_host_is_none_of_the_server() {
        let any = json!({"expect": ["100-599"]});
        let refused = b"upstream connect error or disconnect/reset before headers. reset reason: x";
        let no_connection = Some((Cause::Connect, "no connection, or closed without an answer"));
        check(any.clone(), Some(503), refused, no_connection);
        check(
            any.clone(),
            Some(503),
            b"no healthy upstream",
            Some((Cause::Connect, "the host knows no such server")),
        );
        check(
            any.clone(),
            Some(504),
            b"upstream request timeout",
            Some((Cause::Timeout, "no answer in time")),
        );
        check(any, Some(503), b"closed for repairs", None);
    }

    #[test]
    fn a_check_names_one_server() {
        let http = probe(json!({"path": "/up?full=1", "method": "HEAD"}));
        let made = call(&http, "shop", "[2001:db8::1]:80", 1_000);
        assert_eq!(made.cluster, "shop.check");
        let header = |wanted: &str| {
            let found = made.headers.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(
            header("x-gateway-destination-endpoint"),
            Some("[2001:db8::1]:80")
        );
        assert_eq!(header(":authority"), Some("[2001:db8::1]:80"));
        assert_eq!(
            (header(":path"), header(":method")),
            (Some("/up?full=1"), Some("HEAD"))
        );
        let named = call(
            &probe(json!({"host": "shop.example"})),
            "shop",
            "10.0.0.1:80",
            1,
        );
        assert!(
            named
                .headers
                .contains(&(":authority", "shop.example".to_owned()))
        );
    }

    #[test]
    fn what_a_filter_cannot_speak_is_asked_of_the_bridge() {
        let redis = probe(json!({"redis": {"role": "master"}}));
        let made = call(&redis, "cache", "10.0.0.1:6379", 500);
        assert_eq!(made.cluster, "session-store");
        let body: Value = serde_json::from_slice(&made.body).unwrap();
        let expected = json!({"kind": "redis", "address": "10.0.0.1:6379", "options": {"role": "master"}, "timeout_ms": 500});
        assert_eq!(body, expected);
        assert_eq!(
            judge(&redis, Some(200), br#"{"ok":true,"ms":1}"#),
            Verdict::Passed
        );
        let failed = Verdict::Failed {
            cause: Cause::Bridge,
            reason: "role  slave".to_owned(),
        };
        assert_eq!(
            judge(
                &redis,
                Some(200),
                br#"{"ok":false,"reason":"role\r\nslave"}"#
            ),
            failed
        );
        for (status, body) in [
            (None, &b""[..]),
            (Some(503), br#"{"ok":false}"#),
            (Some(200), b"junk"),
            (Some(200), b"{}"),
        ] {
            assert_eq!(judge(&redis, status, body), Verdict::Unknown, "{status:?}");
        }
    }
}
