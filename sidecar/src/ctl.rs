//! `evenkeel ctl`: what an operator asks of a running proxy, over its admin API.
//!
//! Exit codes: 0 done; 1 nobody answers there, or the proxy could not do it; 2 the command line is wrong, or names what the proxy does
//! not have.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use crate::run::Wrong;

/// Where a proxy's admin interface is, unless stated.
const ADMIN_DEFAULT: &str = "127.0.0.1:8404";
/// Longest wait for an answer.
const TIME_MAX: Duration = Duration::from_secs(15);
/// Largest answer: ten thousand servers in some pools.
const ANSWER_MAX: usize = 64 * 1024 * 1024;

/// What can be asked.
#[derive(Debug, clap::Args)]
pub struct Ask {
    /// The proxy's admin interface
    #[arg(long, global = true, value_name = "ADDRESS", default_value = ADMIN_DEFAULT)]
    admin: SocketAddr,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// No new requests; those in flight end as they will
    Drain {
        /// POOL/SERVER; a server that is a name of DNS stands for all its addresses
        #[arg(required = true, value_name = "POOL/SERVER")]
        servers: Vec<Place>,
    },
    /// As the file has it
    Ready {
        #[arg(required = true, value_name = "POOL/SERVER")]
        servers: Vec<Place>,
    },
    /// Nothing at all
    Maint {
        #[arg(required = true, value_name = "POOL/SERVER")]
        servers: Vec<Place>,
    },
    /// Another weight
    Weight {
        /// 1 to 65535
        #[arg(value_parser = clap::value_parser!(u16).range(1..))]
        weight: u16,
        #[arg(required = true, value_name = "POOL/SERVER")]
        servers: Vec<Place>,
    },
    /// Add a server that the file does not have, or bring back one that was removed
    Add {
        #[arg(value_name = "POOL/SERVER")]
        server: Place,
        /// ip:port
        address: String,
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
        weight: u16,
        /// Used only while no other can be
        #[arg(long)]
        backup: bool,
    },
    /// Remove a server; requests in flight on it end as they will
    Remove {
        #[arg(required = true, value_name = "POOL/SERVER")]
        servers: Vec<Place>,
    },
    /// The servers, how they stand, and what is still in flight on them
    Show {
        /// POOL or POOL/SERVER; without it all
        #[arg(value_name = "POOL[/SERVER]")]
        place: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// A server of a pool.
#[derive(Debug, Clone)]
struct Place {
    pool: String,
    server: String,
}

impl std::str::FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((pool, server)) if !pool.is_empty() && !server.is_empty() => Ok(Self {
                pool: pool.to_owned(),
                server: server.to_owned(),
            }),
            _ => Err("expected POOL/SERVER, such as shop/web1"),
        }
    }
}

impl Place {
    fn path(&self) -> String {
        let (pool, server) = (encoded(&self.pool), encoded(&self.server));
        format!("/api/pools/{pool}/servers/{server}")
    }
}

/// Asks, and prints what there is to say. The error is [`Wrong`] where the proxy says that the question was.
pub fn run(ask: &Ask) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut out = String::new();
    // What was done before one of several failed stays done, and is said.
    let outcome = runtime.block_on(carry_out(ask, &mut out));
    print!("{out}");
    outcome
}

async fn carry_out(ask: &Ask, out: &mut String) -> anyhow::Result<()> {
    let admin = ask.admin;
    let all = |servers: &[Place], method: Method, body: Value| {
        let requests = servers
            .iter()
            .map(|place| (method.clone(), place.path(), body.clone()));
        requests.collect::<Vec<_>>()
    };
    let requests = match &ask.what {
        What::Show { place, json } => return show(admin, place.as_deref(), *json, out).await,
        What::Drain { servers } => all(servers, Method::POST, json!({"state": "drain"})),
        What::Ready { servers } => all(servers, Method::POST, json!({"state": "ready"})),
        What::Maint { servers } => all(servers, Method::POST, json!({"state": "maint"})),
        What::Weight { weight, servers } => all(servers, Method::POST, json!({"weight": weight})),
        What::Remove { servers } => all(servers, Method::DELETE, Value::Null),
        What::Add {
            server,
            address,
            weight,
            backup,
        } => {
            let body = json!({"address": address, "weight": weight, "backup": backup});
            all(std::slice::from_ref(server), Method::PUT, body)
        }
    };
    for (method, path, body) in requests {
        let answer = request(admin, method, &path, &body).await?;
        let pool = text(&answer, "pool");
        let servers = answer.get("servers").and_then(Value::as_array);
        let servers = servers.map(Vec::as_slice).unwrap_or_default();
        if servers.is_empty() {
            let _ = writeln!(out, "{pool}: removed");
        }
        for server in servers {
            let _ = writeln!(
                out,
                "{pool}/{}: {}, weight {}, {} in flight",
                text(server, "id"),
                text(server, "state"),
                text(server, "weight"),
                text(server, "in_flight"),
            );
        }
    }
    Ok(())
}

async fn show(
    admin: SocketAddr,
    place: Option<&str>,
    as_json: bool,
    out: &mut String,
) -> anyhow::Result<()> {
    let path = match place.map(|place| (place, place.parse::<Place>())) {
        None => "/api/pools".to_owned(),
        Some((_, Ok(place))) => place.path(),
        Some((pool, Err(_))) => format!("/api/pools/{}", encoded(pool)),
    };
    let answer = request(admin, Method::GET, &path, &Value::Null).await?;
    if as_json {
        let _ = writeln!(out, "{answer}");
        return Ok(());
    }
    let one = std::slice::from_ref(&answer);
    let pools = answer.get("pools").and_then(Value::as_array);
    out.push_str(&table(pools.map_or(one, Vec::as_slice)));
    Ok(())
}

/// What is shown of a server, and the key of it.
const COLUMNS: [(&str, &str); 8] = [
    ("SERVER", "id"),
    ("ADDRESS", "address"),
    ("STATE", "state"),
    ("HEALTH", "health"),
    ("WEIGHT", "weight"),
    ("IN FLIGHT", "in_flight"),
    ("REQUESTS", "requests"),
    ("FAILURES", "failures"),
];

/// Columns as wide as they need be.
fn table(pools: &[Value]) -> String {
    let mut rows = vec![COLUMNS.map(|(title, _)| title.to_owned()).to_vec()];
    for pool in pools {
        let name = ["name", "pool"].map(|key| text(pool, key)).concat();
        for server in pool
            .get("servers")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let mut row: Vec<String> = COLUMNS.iter().map(|(_, key)| text(server, key)).collect();
            if let Some(first) = row.first_mut() {
                *first = format!("{name}/{first}");
            }
            rows.push(row);
        }
    }
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    let mut out = String::new();
    for row in &rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

fn text(value: &Value, key: &str) -> String {
    match value.get(key) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

async fn request(
    admin: SocketAddr,
    method: Method,
    path: &str,
    body: &Value,
) -> anyhow::Result<Value> {
    let asking = exchange(admin, method, path, body);
    let (status, answer) = tokio::time::timeout(TIME_MAX, asking)
        .await
        .map_err(|_| anyhow::anyhow!("{admin} does not answer"))??;
    if status.is_success() {
        return Ok(answer);
    }
    let why = text(&answer, "error");
    match status {
        StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND => Err(Wrong(why).into()),
        _ => Err(anyhow::anyhow!("{admin} answers {status}: {why}")),
    }
}

async fn exchange(
    admin: SocketAddr,
    method: Method,
    path: &str,
    body: &Value,
) -> anyhow::Result<(StatusCode, Value)> {
    let stream = tokio::net::TcpStream::connect(admin)
        .await
        .map_err(|error| anyhow::anyhow!("no proxy has its admin interface at {admin}: {error}"))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let body = match body {
        Value::Null => Bytes::new(),
        body => Bytes::from(body.to_string()),
    };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, admin.to_string())
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(body))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_MAX)
        .collect()
        .await;
    let body = body
        .map_err(|error| anyhow::anyhow!("{admin}: {error}"))?
        .to_bytes();
    driver.abort();
    let answer = serde_json::from_slice(&body).map_err(|_| {
        anyhow::anyhow!("{admin} answers {status}, but is no evenkeel of this version")
    })?;
    Ok((status, answer))
}

/// As a part of a path (RFC 3986 section 3.3): what is not unreserved, `:`, `[` or `]` goes by its number.
fn encoded(part: &str) -> String {
    let mut out = String::with_capacity(part.len());
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_become_paths() {
        let place: Place = "shop/web.internal:80#2001:db8::1".parse().unwrap();
        assert_eq!(
            place.path(),
            "/api/pools/shop/servers/web.internal:80%232001:db8::1"
        );
        for wrong in ["shop", "/web", "shop/", ""] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_table_is_aligned() {
        let pools = [json!({"name": "shop", "servers": [
            {"id": "a", "address": "10.0.0.1:80", "state": "drain", "health": "up", "weight": 5, "in_flight": 2, "requests": 10, "failures": 0},
            {"id": "web2", "address": "10.0.0.200:80", "state": "ready", "weight": 10, "in_flight": 0, "requests": 1234567, "failures": 1},
        ]})];
        assert_eq!(
            table(&pools),
            "\
SERVER     ADDRESS        STATE  HEALTH  WEIGHT  IN FLIGHT  REQUESTS  FAILURES
shop/a     10.0.0.1:80    drain  up      5       2          10        0
shop/web2  10.0.0.200:80  ready          10      0          1234567   1
"
        );
    }
}
