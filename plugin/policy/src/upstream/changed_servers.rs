//! Servers that come and go at run time: a pool's configuration as the record has it.
//!
//! # Why a new pool, and not a changed one
//!
//! Streams know servers by their index, and methods keep tables by it, so the indexes of a pool stay what they are for its life. A
//! reload has the same need, and an answer to it: a new policy beside the old one, on which its streams end, over counts in flight that
//! both share by server id. A server that comes or goes is a reload of the filter to itself.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::{AdminChange, Member, Members, SharedData};
use crate::config::{
    AdminState, Config, PoolConfig, SERVERS_MAX, ServerConfig, ServerLimits, Tier,
};

/// The configuration with the servers that its pools have now.
pub fn with_members(config: &Config, data: &mut impl SharedData) -> Config {
    let mut config = config.clone();
    let mut value = Vec::new();
    for pool in &mut config.pools {
        if data.get(&Members::key(&pool.name), &mut value).is_some()
            && let Some(members) = Members::decode(&value)
        {
            pool.servers = servers(pool, &members);
        }
    }
    config
}

/// The servers that a pool has by a record: those of its configuration that were not removed, then those that were added.
fn servers(pool: &PoolConfig, members: &Members) -> Vec<ServerConfig> {
    let removed: BTreeSet<&str> = members
        .servers
        .iter()
        .filter(|member| member.admin == AdminChange::Removed)
        .map(|member| member.id.as_str())
        .collect();
    let configured: BTreeSet<&str> = pool
        .servers
        .iter()
        .map(|server| server.id.as_str())
        .collect();
    let kept = pool
        .servers
        .iter()
        .filter(|server| !removed.contains(server.id.as_str()));
    let mut servers: Vec<ServerConfig> = kept.cloned().collect();
    for member in &members.servers {
        if let Some(address) = member.address
            && member.admin != AdminChange::Removed
            && servers.len() < SERVERS_MAX
            && !configured.contains(member.id.as_str())
        {
            servers.push(added(pool, member, address));
        }
    }
    servers
}

/// A server that only the record names: one of a name of the configuration, or one with the defaults of all options.
fn added(pool: &PoolConfig, member: &Member, address: SocketAddr) -> ServerConfig {
    let name = member.id.rsplit_once('#').map(|(name, _ip)| name);
    let named = pool
        .named
        .iter()
        .find(|named| name == Some(&named.server.id));
    let mut server = match named {
        Some(named) => named.at(address.ip()),
        None => ServerConfig {
            tier: member.tier,
            weight: member.weight.unwrap_or(1),
            ..ServerConfig::of(member.id.clone(), address)
        },
    };
    server.address = address;
    if server.tier == Tier::Backup && !pool.algorithm.allows_backup() {
        server.tier = Tier::Primary;
    }
    server
}

impl ServerConfig {
    /// A server with the defaults of all options.
    pub fn of(id: String, address: SocketAddr) -> Self {
        Self {
            id,
            address,
            weight: 1,
            tier: Tier::Primary,
            admin: AdminState::Ready,
            limits: ServerLimits::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Document;

    fn member(id: &str, address: Option<&str>, admin: AdminChange) -> Member {
        Member {
            id: id.to_owned(),
            address: address.map(|address| address.parse().unwrap()),
            weight: None,
            admin,
            tier: Tier::Backup,
        }
    }

    #[track_caller]
    fn check(members: Vec<Member>, expected: &[&str]) {
        let document = json!({"pools": {"shop": {"servers": [
            {"address": "10.0.0.1:80", "id": "a"},
            {"address": "10.0.0.2:80", "id": "b"},
            {"address": "web.internal:80", "id": "n", "weight": 7},
        ]}}});
        let document = Document::from_value(document).unwrap();
        let config = Config::from_document(&document).unwrap();
        let (version, servers) = (1, members);
        let changed = super::servers(&config.pools[0], &Members { version, servers });
        let told = changed.iter().map(|server| {
            format!(
                "{} {} {} {:?}",
                server.id, server.address, server.weight, server.tier
            )
        });
        assert_eq!(told.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn servers_come_and_go_by_the_record() {
        let (a, b) = ("a 10.0.0.1:80 1 Primary", "b 10.0.0.2:80 1 Primary");
        check(vec![], &[a, b]);
        check(vec![member("a", None, AdminChange::Removed)], &[b]);
        check(vec![member("b", None, AdminChange::Drain)], &[a, b]);
        check(vec![member("x", None, AdminChange::Ready)], &[a, b]);
        let added = member("x", Some("10.0.0.9:81"), AdminChange::Maint);
        check(vec![added], &[a, b, "x 10.0.0.9:81 1 Backup"]);
        let resolved = member("n#10.0.1.1", Some("10.0.1.1:80"), AdminChange::Ready);
        check(vec![resolved], &[a, b, "n#10.0.1.1 10.0.1.1:80 7 Primary"]);
    }
}
