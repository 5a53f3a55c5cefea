//! `evenkeel check`: what a valid configuration means, in a few lines.

use std::fmt::Write;

use evenkeel_policy::config::{AdminState, PoolConfig, Tier};

use crate::config::{Accept, Config, LogTarget};

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
        Some(log) => match &log.target {
            LogTarget::Stdout => "standard output".to_owned(),
            LogTarget::File(path) => path.display().to_string(),
        },
        None => "none".to_owned(),
    };
    let _ = writeln!(out, "workers: {}, access log: {log}", config.workers);
    for (index, filter) in config.filters.iter().enumerate() {
        let _ = writeln!(
            out,
            "filter {}, before evenkeel's own: {}",
            index + 1,
            filter.path.display()
        );
    }
    for pool in &config.policy.pools {
        explain_pool(&mut out, pool);
    }
    out
}

fn explain_pool(out: &mut String, pool: &PoolConfig) {
    let _ = writeln!(
        out,
        "pool {}: {} more tried when one fails",
        pool.name, pool.retries
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
    if usable(Tier::Primary).next().is_none() {
        out.push_str("  note: no server of it is neither down nor backup\n");
    }
}
