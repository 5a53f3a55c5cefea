//! `/api/pools/{pool}/servers/{id}`: what an operator changes while the proxy runs.
//!
//! | method | body | does |
//! |---|---|---|
//! | `POST` | `{"state": "ready" \| "drain" \| "maint", "weight": 1–65535}`, one of them or both | changes a server |
//! | `PUT` | `{"address": "ip:port", "weight": 1, "backup": false}` | adds a server |
//! | `DELETE` | none | removes it |
//!
//! Nobody is asked for a password, so only this machine may change anything: the peer's address is a loopback one, the request says
//! `Content-Type: application/json` (what no page of another origin can send without being asked first) and names this machine as
//! its `Host`, by address or as `localhost` (a name of somebody else's that resolves to it would make his page one of this origin), and an
//! `Origin`, if there is one, is this very interface.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use bytes::Bytes;
use evenkeel_policy::config::{PoolConfig, Tier, parse_server_address};
use http::header::{CONTENT_TYPE, HOST, HeaderMap, ORIGIN};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::json;

use super::state;
use crate::members::{self, Admin, ID_BYTES_MAX, NewServer, Table, Wrong};
use crate::shared::Shared;

/// Largest body of a request, bytes.
const BODY_MAX: usize = 16 * 1024;
/// How long it may take to come.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);

/// What is said to the client: a status and JSON.
pub(super) type Answer = (StatusCode, serde_json::Value);

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    state: Option<State>,
    weight: Option<NonZeroU16>,
}

#[derive(Debug, Clone, Copy, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ready,
    Drain,
    Maint,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Addition {
    address: String,
    #[serde(default = "one")]
    weight: u16,
    #[serde(default)]
    backup: bool,
}

const fn one() -> u16 {
    1
}

/// Carries out what a request asks for. `pool` and `id` are from its path, decoded.
pub(super) async fn answer(
    shared: &Shared,
    peer: IpAddr,
    request: Request<Incoming>,
    pool: &str,
    id: &str,
) -> Answer {
    let method = request.method().clone();
    if let Err(why) = may_change(peer, request.headers()) {
        return refusal(StatusCode::FORBIDDEN, why);
    }
    let body = match read(request.into_body()).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    change(shared, &method, pool, id, &body).unwrap_or_else(|refusal| refusal)
}

fn change(
    shared: &Shared,
    method: &Method,
    pool: &str,
    id: &str,
    body: &[u8],
) -> Result<Answer, Answer> {
    let generation = shared.generation.load_full();
    let place = generation.pool_named(pool.as_bytes());
    let found = place.and_then(|place| {
        let config = generation.config.policy.pools.get(place)?;
        Some((config, generation.pools.get(place)?))
    });
    let Some((config, now)) = found else {
        return Err(refusal(
            StatusCode::NOT_FOUND,
            &format!("no such pool: {pool}"),
        ));
    };
    let mut table = shared.members.table();
    let status = match *method {
        Method::POST => {
            let change: Change = parse(body)?;
            post(&mut table, config, id, &change).map(|()| StatusCode::OK)
        }
        Method::PUT => put(&mut table, config, id, &parse(body)?)?.map(|()| StatusCode::CREATED),
        _ => table.remove(config, id).map(|()| StatusCode::OK),
    };
    drop(table);
    let status = status.map_err(|wrong| match &wrong {
        Wrong::UnknownServer { .. } => refusal(StatusCode::NOT_FOUND, &wrong.to_string()),
        Wrong::Conflict(_) => refusal(StatusCode::CONFLICT, &wrong.to_string()),
    })?;
    members::put_into_force(shared, None)
        .map_err(|why| refusal(StatusCode::SERVICE_UNAVAILABLE, &why))?;
    tracing::info!(
        "admin: {method} {pool}/{id}: {}",
        String::from_utf8_lossy(body)
    );
    let roster = now.roster();
    let servers = roster.members().filter(|server| server.is_of(id));
    let checks = state::Checks::read(shared, pool);
    let servers: Vec<_> = servers.map(|one| state::server(one, &checks)).collect();
    Ok((status, json!({"pool": pool, "servers": servers})))
}

fn post(table: &mut Table, pool: &PoolConfig, id: &str, change: &Change) -> Result<(), Wrong> {
    if let Some(state) = change.state {
        let admin = match state {
            State::Ready => Admin::Ready,
            State::Drain => Admin::Drain,
            State::Maint => Admin::Maint,
        };
        table.set_admin(pool, id, admin)?;
    }
    if let Some(weight) = change.weight {
        table.set_weight(pool, id, weight.get())?;
    }
    Ok(())
}

fn put(
    table: &mut Table,
    pool: &PoolConfig,
    id: &str,
    addition: &Addition,
) -> Result<Result<(), Wrong>, Answer> {
    let wrong = |text: &str| refusal(StatusCode::BAD_REQUEST, text);
    let address =
        parse_server_address(&addition.address).map_err(|why| wrong(&format!("address: {why}")))?;
    if addition.weight == 0 {
        return Err(wrong("weight: expected 1 to 65535, found 0"));
    }
    let tier = if addition.backup {
        Tier::Backup
    } else {
        Tier::Primary
    };
    let is_id = !id.is_empty()
        && id.len() <= ID_BYTES_MAX
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:[]".contains(&byte));
    if !is_id {
        return Err(wrong("a server's id is of letters, digits and - _ . : [ ]"));
    }
    let new = NewServer {
        address,
        weight: addition.weight,
        tier,
    };
    Ok(table.add(pool, id, new))
}

/// Whether a request may change anything; the error says why not.
fn may_change(peer: IpAddr, headers: &HeaderMap) -> Result<(), &'static str> {
    if !peer.to_canonical().is_loopback() {
        return Err("servers can be changed from this machine only");
    }
    let text = |name| {
        headers
            .get(name)
            .map(|value: &http::HeaderValue| value.to_str().unwrap_or("?"))
    };
    let kind = text(CONTENT_TYPE).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err("expected Content-Type: application/json");
    }
    let host = text(HOST).unwrap_or_default();
    if !is_this_machine(host) {
        return Err("expected this machine's address, or localhost, as Host");
    }
    match text(ORIGIN) {
        Some(origin) if origin.strip_prefix("http://") != Some(host) => {
            Err("the page that sends this is of another origin")
        }
        _ => Ok(()),
    }
}

fn is_this_machine(host: &str) -> bool {
    let Ok(authority) = host.parse::<http::uri::Authority>() else {
        return false;
    };
    let name = authority.host();
    let ip = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || ip.parse::<IpAddr>().is_ok()
}

async fn read(body: Incoming) -> Result<Bytes, Answer> {
    let reading = Limited::new(body, BODY_MAX).collect();
    match tokio::time::timeout(BODY_TIME_MAX, reading).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) => Err(refusal(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is too long, or broke off",
        )),
        Err(_) => Err(refusal(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not come in time",
        )),
    }
}

fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Answer> {
    serde_json::from_slice(body)
        .map_err(|error| refusal(StatusCode::BAD_REQUEST, &format!("the body: {error}")))
}

/// `{"error": …}`.
pub(super) fn refusal(status: StatusCode, why: &str) -> Answer {
    (status, json!({"error": why}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(peer: &str, headers: &[(&str, &str)], expected: bool) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().unwrap();
            map.append(name, value.parse().unwrap());
        }
        let outcome = may_change(peer.parse().unwrap(), &map);
        assert_eq!(outcome.is_ok(), expected, "{peer} {headers:?} {outcome:?}");
    }

    #[test]
    fn only_this_machine_and_no_page_of_somebody_else_changes_anything() {
        let json = ("content-type", "application/json");
        let host = ("host", "127.0.0.1:8404");
        check("127.0.0.1", &[json, host], true);
        check(
            "::1",
            &[
                ("content-type", "application/json; charset=utf-8"),
                ("host", "[::1]:8404"),
            ],
            true,
        );
        check(
            "::ffff:127.0.0.1",
            &[json, ("host", "localhost:8404")],
            true,
        );
        check(
            "127.0.0.1",
            &[json, host, ("origin", "http://127.0.0.1:8404")],
            true,
        );
        check("10.0.0.1", &[json, host], false);
        check("127.0.0.1", &[host], false);
        check("127.0.0.1", &[("content-type", "text/plain"), host], false);
        check(
            "127.0.0.1",
            &[json, host, ("origin", "http://evil.example")],
            false,
        );
        check("127.0.0.1", &[json, host, ("origin", "null")], false);
        check(
            "127.0.0.1",
            &[
                json,
                ("host", "evil.example:8404"),
                ("origin", "http://evil.example:8404"),
            ],
            false,
        );
        check("127.0.0.1", &[json], false);
    }
}
