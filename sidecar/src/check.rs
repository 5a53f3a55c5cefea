//! `evenkeel check`: what a valid configuration means, in a few lines.

use std::fmt::Write;

use evenkeel_policy::client_ip::Walk;
use evenkeel_policy::config::{AdminState, Chooser, PoolConfig, Tier};

use crate::config::{Accept, BackendConfig, Config, StoreConfig};
use evenkeel_session_store::gateway::Listen;

/// Most trusted networks that are listed.
const TRUSTED_SHOWN_MAX: usize = 8;

/// Explains a configuration to the one who wrote it. Ends with a line end.
pub fn explain(config: &Config) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{}: valid", config.path.display());
    for listener in &config.listeners {
        let protocols = if listener.tls.is_some() {
            "https (HTTP/1.1, HTTP/2)"
        } else {
            "http (HTTP/1.1, HTTP/2 by prior knowledge)"
        };
        let accept = match listener.accept {
            Accept::Reuseport => "spread by the kernel",
            Accept::Balanced => "to the worker with the fewest",
        };
        let _ = writeln!(
            out,
            "listener {}: {} {protocols}, connections {accept}",
            listener.name, listener.bind
        );
    }
    match config.admin {
        Some(bind) => {
            let open = if bind.ip().is_loopback() {
                ""
            } else {
                " (not only for this machine: it has no password)"
            };
            let _ = writeln!(out, "admin: {bind}{open}");
        }
        None => out.push_str("admin: none\n"),
    }
    let log = match &config.access_log {
        Some(log) => log.target.to_string(),
        None => "none".to_owned(),
    };
    let _ = writeln!(out, "workers: {}, access log: {log}", config.workers);
    if let Some(store) = &config.session_store {
        explain_store(&mut out, store);
    }
    for (index, filter) in config.filters.iter().enumerate() {
        let _ = writeln!(
            out,
            "filter {}, before evenkeel's own: {}",
            index + 1,
            filter.path.display()
        );
    }
    explain_trust(&mut out, config);
    for (index, route) in config.policy.routes.iter().enumerate() {
        let condition = if route.condition.is_empty() {
            "every request"
        } else {
            &route.condition
        };
        let _ = writeln!(out, "route {}: {condition} -> {}", index + 1, route.action);
    }
    if config
        .policy
        .routes
        .last()
        .is_none_or(|route| !route.condition.is_empty())
    {
        out.push_str("every other request: 404\n");
    }
    for pool in &config.policy.pools {
        explain_pool(&mut out, pool);
    }
    out
}

fn explain_store(out: &mut String, store: &StoreConfig) {
    let backend = match &store.backend {
        BackendConfig::Redis(_) => "in a Redis".to_owned(),
        BackendConfig::Embedded(embedded) => match &embedded.path {
            Some(path) => format!(
                "in {}, on this machine only: more than one machine means Redis",
                path.display()
            ),
            None => {
                "in memory: they end with this process, and are on this machine only".to_owned()
            }
        },
    };
    let _ = writeln!(out, "sessions: {backend}");
    let login = match store.gateway.users.len() {
        0 => "without a password".to_owned(),
        1 => "with a password".to_owned(),
        users => format!("for {users} users"),
    };
    for listen in &store.listen {
        let save_path = match listen {
            Listen::Tcp(address) => format!("tcp://{address}"),
            Listen::Unix { path, .. } => format!("unix://{}", path.display()),
        };
        let _ = writeln!(
            out,
            "sessions for PHP, {login}: session.save_path = \"{save_path}\""
        );
    }
    for warning in &store.warnings {
        let _ = writeln!(out, "  note: {warning}");
    }
}

fn explain_trust(out: &mut String, config: &Config) {
    let Some(real_ip) = &config.policy.real_ip else {
        out.push_str("client address: the peer's; nobody's X-Forwarded-* is trusted\n");
        return;
    };
    let header = String::from_utf8_lossy(real_ip.header.name());
    let walk = match real_ip.walk {
        Walk::PastTrusted => "the last one there that is not trusted itself",
        Walk::LastOnly => "the last one there",
    };
    let trusted = match config.policy_json.pointer("/real_ip/trusted") {
        Some(serde_json::Value::Array(networks)) => {
            let shown: Vec<_> = networks
                .iter()
                .filter_map(serde_json::Value::as_str)
                .take(TRUSTED_SHOWN_MAX)
                .collect();
            let more = networks.len().saturating_sub(shown.len());
            if more > 0 {
                format!("{} and {more} more", shown.join(", "))
            } else {
                shown.join(", ")
            }
        }
        Some(serde_json::Value::String(network)) => network.clone(),
        _ => "nobody".to_owned(),
    };
    let _ = writeln!(out, "client address: {header} of {trusted}: {walk}");
}

fn explain_pool(out: &mut String, pool: &PoolConfig) {
    let known = pool.servers.len() + pool.named.len();
    let more = usize::from(pool.retries).min(known.saturating_sub(1));
    let method = match pool.chooser {
        Chooser::Filter => pool.algorithm.name(),
        Chooser::Envoy => "Envoy takes turns by itself (`evenkeel run` refuses this pool)",
    };
    let _ = writeln!(
        out,
        "pool {}: {method}, {more} more tried when one fails",
        pool.name,
    );
    let usable = |tier| {
        pool.servers
            .iter()
            .filter(move |server| server.tier == tier && server.admin == AdminState::Ready)
    };
    for server in &pool.servers {
        let total: u32 = usable(server.tier)
            .map(|server| u32::from(server.weight))
            .sum();
        let name = if server.id == server.address.to_string() {
            server.id.clone()
        } else {
            format!("{} ({})", server.id, server.address)
        };
        let use_of_it = match (server.admin, server.tier) {
            (AdminState::Down, _) => "down: takes no requests".to_owned(),
            (AdminState::Ready, Tier::Backup) => format!(
                "weight {} of {total} among the backups, used when no other can be",
                server.weight
            ),
            (AdminState::Ready, Tier::Primary) => format!("weight {} of {total}", server.weight),
        };
        let _ = writeln!(out, "  {name}: {use_of_it}");
    }
    for named in &pool.named {
        let _ = writeln!(
            out,
            "  {}: each address of {}, asked every {:?}, with weight {}",
            named.server.id, named.host, pool.resolve, named.server.weight
        );
    }
    if usable(Tier::Primary).next().is_none() && pool.named.is_empty() {
        out.push_str("  note: no server of it is neither down nor backup\n");
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let config =
            Config::parse(Path::new("f.yaml"), text).unwrap_or_else(|faults| panic!("{faults}"));
        assert_eq!(explain(&config), expected);
    }

    #[test]
    fn says_what_a_small_file_means() {
        check(
            "
listeners: [{name: web, bind: 127.0.0.1:8080}]
workers: 2
policy:
  pools: {shop: {servers: [{address: 10.0.0.1:80}]}}
",
            "\
f.yaml: valid
listener web: 127.0.0.1:8080 http (HTTP/1.1, HTTP/2 by prior knowledge), connections spread by the kernel
admin: none
workers: 2, access log: none
client address: the peer's; nobody's X-Forwarded-* is trusted
every other request: 404
pool shop: round_robin, 0 more tried when one fails
  10.0.0.1:80: weight 1 of 1
",
        );
    }

    #[test]
    fn says_what_every_part_means() {
        check(
            "
listeners: [{name: web, bind: 127.0.0.1:8080, accept: balanced}]
admin: {bind: 0.0.0.0:8404}
workers: 2
access_log: {path: /var/log/a.log}
session_store: {path: /var/lib/e, resp: ['127.0.0.1:6380', 'unix:/run/e.sock'], auth: [{password: hunter2}]}
policy:
  real_ip: {trusted: [10.0.0.0/8, 192.168.139.131], header: X-Forwarded-For, recursive: true}
  routes: [{match: {host: a.example.org}, pool: shop}, {pool: shop}]
  pools:
    shop:
      balance: least_conn
      retries: 2
      servers:
        - {address: 10.0.0.1:80, weight: 5}
        - {address: 10.0.0.2:80, weight: 3, id: web2}
        - {address: 10.0.0.3:80, backup: true}
        - {address: 10.0.0.4:80, down: true}
        - {address: 'web.internal:80', weight: 2}
",
            "\
f.yaml: valid
listener web: 127.0.0.1:8080 http (HTTP/1.1, HTTP/2 by prior knowledge), connections to the worker with the fewest
admin: 0.0.0.0:8404 (not only for this machine: it has no password)
workers: 2, access log: /var/log/a.log
sessions: in /var/lib/e, on this machine only: more than one machine means Redis
sessions for PHP, with a password: session.save_path = \"tcp://127.0.0.1:6380\"
sessions for PHP, with a password: session.save_path = \"unix:///run/e.sock\"
  note: session_store.auth[0].password: stands in the file itself; password_file or ${NAME} keeps it out
client address: x-forwarded-for of 10.0.0.0/8, 192.168.139.131: the last one there that is not trusted itself
route 1: host a.example.org -> pool shop
route 2: every request -> pool shop
pool shop: least_conn, 2 more tried when one fails
  10.0.0.1:80: weight 5 of 8
  web2 (10.0.0.2:80): weight 3 of 8
  10.0.0.3:80: weight 1 of 1 among the backups, used when no other can be
  10.0.0.4:80: down: takes no requests
  web.internal:80: each address of web.internal, asked every 30s, with weight 2
",
        );
    }
}
