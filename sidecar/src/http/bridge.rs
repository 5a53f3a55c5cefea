//! Cluster `session-store`: what filters ask of the host besides HTTP, answered here, in-process and without a socket.
//!
//! | call | answer |
//! |---|---|
//! | `POST /v1/check` `{"kind": "tcp" \| "mysql" \| "redis", "address", "options", "timeout_ms"}` | 200 `{"ok", "reason", "ms"}`; 400: not understood; 503: no such member |
//! | `GET /v1/members` | 200 `{"pools": {NAME: {"servers": [{"id", "address", "weight", "state"}]}}}` |
//!
//! A check is strict, like `<pool>.check`: its address is a member of a pool. And it uses no password but the one that this pool's own
//! `health` names: any filter may call, and none should learn by it what other files hold, or have it sent elsewhere.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use evenkeel_host::embedder::{HttpCall, HttpCallOutcome};
use evenkeel_session_store::check::{self, Check, Mysql, Redis};
use serde_json::{Value, json};

use crate::generation::Generation;

/// Largest file of a password, bytes.
const PASSWORD_BYTES_MAX: u64 = 4096;
/// Longest time a check may be given.
const TIMEOUT_MAX: Duration = Duration::from_secs(300);

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckCall {
    kind: Kind,
    address: SocketAddr,
    #[serde(default)]
    options: Options,
    timeout_ms: u64,
}

#[derive(Clone, Copy, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Tcp,
    Mysql,
    Redis,
}

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    user: Option<String>,
    password_file: Option<String>,
    query: Option<String>,
    equals: Option<String>,
    role: Option<String>,
}

/// What a call is answered: a status, and JSON or a line.
type Answer = (u16, String);

/// Answers a call. Ends within its timeout.
pub(super) async fn answer(generation: &Generation, call: &HttpCall) -> HttpCallOutcome {
    let pseudo = |name: &[u8]| {
        let found = call.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_slice())
    };
    let (status, body) = match (pseudo(b":method"), pseudo(b":path")) {
        (Some(b"POST"), Some(b"/v1/check")) => check(generation, call).await,
        (Some(b"GET"), Some(b"/v1/members")) => (200, members(generation).to_string()),
        _ => (404, "there are /v1/check and /v1/members".to_owned()),
    };
    let kind = if status == 200 {
        "application/json"
    } else {
        "text/plain"
    };
    let headers = vec![
        (b":status".to_vec(), status.to_string().into_bytes()),
        (b"content-type".to_vec(), kind.as_bytes().to_vec()),
    ];
    HttpCallOutcome::Response {
        headers,
        body: body.into_bytes(),
        trailers: Vec::new(),
    }
}

async fn check(generation: &Generation, call: &HttpCall) -> Answer {
    let asked: CheckCall = match serde_json::from_slice(&call.body) {
        Ok(asked) => asked,
        Err(error) => return (400, error.to_string()),
    };
    if !is_member(generation, asked.address) {
        return (503, "no such member".to_owned());
    }
    let what = match what(generation, &asked) {
        Ok(what) => what,
        Err(why) => return (400, why),
    };
    let wanted = Duration::from_millis(asked.timeout_ms);
    let timeout = wanted.min(call.timeout).min(TIMEOUT_MAX);
    let verdict = check::run(&what, asked.address, timeout).await;
    let ms = u64::try_from(verdict.took.as_millis()).unwrap_or(u64::MAX);
    let reason = verdict.outcome.as_ref().err().map_or("", String::as_str);
    let answer = json!({"ok": verdict.outcome.is_ok(), "reason": reason, "ms": ms});
    (200, answer.to_string())
}

fn what(generation: &Generation, asked: &CheckCall) -> Result<Check, String> {
    let options = &asked.options;
    let password = match &options.password_file {
        None => None,
        Some(file) => Some(password(generation, asked.address, file)?),
    };
    Ok(match asked.kind {
        Kind::Tcp => Check::Tcp,
        Kind::Mysql => Check::Mysql(Mysql {
            user: options.user.clone().ok_or("options.user is required")?,
            password: password.unwrap_or_default(),
            query: options.query.clone(),
            equals: options.equals.clone(),
        }),
        Kind::Redis => Check::Redis(Redis {
            username: options.user.clone(),
            password,
            role: options.role.clone(),
        }),
    })
}

fn is_member(generation: &Generation, address: SocketAddr) -> bool {
    let address = address.to_string();
    let mut pools = generation.pools.iter();
    pools.any(|pool| pool.roster().server_at(address.as_bytes()).is_some())
}

/// The password in a file that a pool of this address names.
fn password(generation: &Generation, address: SocketAddr, file: &str) -> Result<String, String> {
    let config = &generation.config;
    let address = address.to_string();
    let names_it = |pool: &str| {
        let health = config
            .policy_json
            .get("pools")
            .and_then(|pools| pools.get(pool)?.get("health"));
        ["mysql", "redis"].iter().any(|kind| {
            let named = health.and_then(|health| health.get(kind)?.get("password_file"));
            named.and_then(Value::as_str) == Some(file)
        })
    };
    let mut pools = generation.pools.iter();
    let is_named = pools
        .any(|pool| names_it(&pool.name) && pool.roster().server_at(address.as_bytes()).is_some());
    if !is_named {
        return Err("options.password_file: no pool of this address names it".to_owned());
    }
    let folder = config.path.parent().unwrap_or(Path::new(""));
    read_password(&folder.join(file))
        .map_err(|error| format!("options.password_file: {file}: {error}"))
}

/// Without the line end after it.
fn read_password(path: &Path) -> std::io::Result<String> {
    // A pipe or a device would keep the worker waiting.
    if !path.metadata()?.is_file() {
        return Err(std::io::Error::other("is no file"));
    }
    let mut text = String::new();
    File::open(path)?
        .take(PASSWORD_BYTES_MAX)
        .read_to_string(&mut text)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn members(generation: &Generation) -> Value {
    let mut pools = serde_json::Map::new();
    for pool in &generation.pools {
        let roster = pool.roster();
        let servers = roster.members().map(|server| {
            json!({
                "id": server.id,
                "address": server.text,
                "weight": server.weight,
                "state": server.standing.name(),
            })
        });
        let servers: Vec<Value> = servers.collect();
        pools.insert(pool.name.clone(), json!({"servers": servers}));
    }
    json!({"pools": pools})
}
