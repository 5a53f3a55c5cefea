//! What operators changed at run time, and what names resolved to. Pure: the file is an argument.
//!
//! A change outlives a reload as long as the file has the pool and, where it is about a server of the file, that server. What was
//! added at run time stays until it is removed, or until the file has a server of that id or address itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use evenkeel_policy::config::{AdminState, PoolConfig, SERVERS_MAX, ServerConfig, Tier};
use evenkeel_policy::upstream::{AdminChange, Member, Members, id_hash};

/// Most addresses of one name that are used; further ones are not.
pub(crate) const RESOLVED_MAX: usize = 256;
/// Most servers that can be changed or added at run time, in all pools.
const CHANGES_MAX: usize = 65_536;
/// Longest id of a server: an id of the file, and behind it an address of a name.
pub(crate) const ID_BYTES_MAX: usize = 255;

/// All pools' changes.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pools: BTreeMap<String, PoolChanges>,
    /// Of the last change: records are told apart by it.
    version: u64,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct PoolChanges {
    /// By the id of a server, or of what several servers of one name begin with.
    overrides: BTreeMap<String, Override>,
    added: BTreeMap<String, NewServer>,
    /// Servers of the file that are no servers any more.
    removed: BTreeSet<String>,
    /// By the id of the named server.
    resolved: BTreeMap<String, BTreeSet<SocketAddr>>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Override {
    admin: Option<Admin>,
    weight: Option<u16>,
}

/// What an operator wants of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admin {
    /// As the file has it.
    Ready,
    /// Nothing new.
    Drain,
    /// Nothing at all.
    Maint,
}

/// A server that the file does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NewServer {
    pub(crate) address: SocketAddr,
    pub(crate) weight: u16,
    pub(crate) tier: Tier,
}

/// Where a server comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    File,
    Name,
    Added,
}

/// A server of a pool as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) id: String,
    pub(crate) address: SocketAddr,
    pub(crate) weight: u16,
    pub(crate) tier: Tier,
    pub(crate) configured: AdminState,
    pub(crate) admin: Admin,
    pub(crate) source: Source,
}

/// Why a change cannot be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Wrong {
    #[error("no such server: pool {pool} has {}", list(known))]
    UnknownServer { pool: String, known: Vec<String> },
    #[error("{0}")]
    Conflict(String),
}

/// Most ids that an error names.
const NAMED_MAX: usize = 8;

fn list(ids: &[String]) -> String {
    let shown = ids.get(..NAMED_MAX).unwrap_or(ids).join(", ");
    match ids.len().saturating_sub(NAMED_MAX) {
        _ if ids.is_empty() => "none".to_owned(),
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

impl Table {
    /// The servers of a pool as they are now, those of the file first.
    pub(crate) fn list(&self, pool: &PoolConfig) -> Vec<Listed> {
        let none = PoolChanges::default();
        let changes = self.pools.get(&pool.name).unwrap_or(&none);
        let mut listed = Vec::with_capacity(pool.servers.len());
        for server in &pool.servers {
            listed.extend(changes.listed(server, None, Source::File));
        }
        for (name, addresses) in &changes.resolved {
            // A name that only the configuration of a reload under way has: its filters may steer there already.
            let named = pool.named.iter().find(|named| named.server.id == *name);
            let whole = changes.overrides.get(name).copied();
            for address in addresses {
                let server = match named {
                    Some(named) => named.at(address.ip()),
                    None => ServerConfig::of(format!("{name}#{}", address.ip()), *address),
                };
                listed.extend(changes.listed(&server, whole, Source::Name));
            }
        }
        for (id, new) in &changes.added {
            let change = changes.overrides.get(id).copied().unwrap_or_default();
            listed.push(Listed {
                id: id.clone(),
                address: new.address,
                weight: change.weight.unwrap_or(new.weight),
                tier: new.tier,
                configured: AdminState::Ready,
                admin: change.admin.unwrap_or(Admin::Ready),
                source: Source::Added,
            });
        }
        listed
    }

    /// What the filters are told, by pool.
    pub(crate) fn records(&self) -> impl Iterator<Item = (&str, Members)> {
        self.pools.iter().map(|(name, changes)| {
            let servers = changes.members();
            let version = self.version;
            (name.as_str(), Members { version, servers })
        })
    }

    /// Changes what an operator wants of a server, or of all servers of a name.
    pub(crate) fn set_admin(
        &mut self,
        pool: &PoolConfig,
        id: &str,
        admin: Admin,
    ) -> Result<(), Wrong> {
        self.change(pool, id, |change| {
            change.admin = (admin != Admin::Ready).then_some(admin);
        })
    }

    pub(crate) fn set_weight(
        &mut self,
        pool: &PoolConfig,
        id: &str,
        weight: u16,
    ) -> Result<(), Wrong> {
        self.change(pool, id, |change| change.weight = Some(weight))
    }

    fn change(
        &mut self,
        pool: &PoolConfig,
        id: &str,
        make: impl FnOnce(&mut Override),
    ) -> Result<(), Wrong> {
        self.find(pool, id)?;
        self.has_room()?;
        let changes = self.changed(&pool.name);
        let change = changes.overrides.entry(id.to_owned()).or_default();
        make(change);
        if *change == Override::default() {
            changes.overrides.remove(id);
        }
        Ok(())
    }

    /// Adds a server, or gives the one that was added under this id another address and weight. A server of the file that
    /// was removed comes back by its own id and address.
    pub(crate) fn add(&mut self, pool: &PoolConfig, id: &str, new: NewServer) -> Result<(), Wrong> {
        let conflict = |text: String| Err(Wrong::Conflict(text));
        if let Some(server) = pool.servers.iter().find(|server| server.id == id) {
            if server.address != new.address {
                return conflict(format!("the file has {id} at {}", server.address));
            }
            let changes = self.changed(&pool.name);
            changes.removed.remove(id);
            changes.overrides.remove(id);
            if new.weight != server.weight {
                let weight = Some(new.weight);
                let change = Override {
                    admin: None,
                    weight,
                };
                changes.overrides.insert(id.to_owned(), change);
            }
            return Ok(());
        }
        if pool.named.iter().any(|named| named.server.id == id) {
            return conflict(format!("{id} is a name of the file"));
        }
        if new.tier == Tier::Backup && !pool.algorithm.allows_backup() {
            return conflict(format!(
                "`{}` knows no backup servers",
                pool.algorithm.name()
            ));
        }
        let listed = self.list(pool);
        let others = || listed.iter().filter(|server| server.id != id);
        if let Some(other) = others().find(|server| server.address == new.address) {
            return conflict(format!("{} has this address", other.id));
        }
        if others().any(|server| id_hash(&server.id) == id_hash(id)) {
            return conflict(format!("`{id}` cannot be told from another id"));
        }
        if others().count() >= SERVERS_MAX {
            return conflict(format!("a pool has at most {SERVERS_MAX} servers"));
        }
        self.has_room()?;
        let changes = self.changed(&pool.name);
        changes.overrides.remove(id);
        changes.added.insert(id.to_owned(), new);
        Ok(())
    }

    /// Removes a server: one that was added for good, one of the file until it is added again or the file changes.
    pub(crate) fn remove(&mut self, pool: &PoolConfig, id: &str) -> Result<(), Wrong> {
        let found = self.find(pool, id)?;
        if found == Source::Name {
            let text = format!("{id} is of a name, which would bring it back: use maint");
            return Err(Wrong::Conflict(text));
        }
        self.has_room()?;
        let changes = self.changed(&pool.name);
        changes.overrides.remove(id);
        if found == Source::File {
            changes.removed.insert(id.to_owned());
        } else {
            changes.added.remove(id);
        }
        Ok(())
    }

    /// What a name resolved to; whether that is news.
    pub(crate) fn resolve(
        &mut self,
        pool: &str,
        id: &str,
        addresses: BTreeSet<SocketAddr>,
    ) -> bool {
        let known = self
            .pools
            .get(pool)
            .and_then(|changes| changes.resolved.get(id));
        let is_news = known != Some(&addresses);
        if is_news {
            self.changed(pool).resolved.insert(id.to_owned(), addresses);
        }
        is_news
    }

    /// Whether a name has addresses.
    pub(crate) fn is_resolved(&self, pool: &str, id: &str) -> bool {
        let changes = self.pools.get(pool);
        changes.is_some_and(|changes| changes.resolved.contains_key(id))
    }

    /// Forgets what is about servers that the file no longer has.
    pub(crate) fn forget_gone(&mut self, pools: &[PoolConfig]) {
        let before: Vec<String> = self.pools.keys().cloned().collect();
        for name in before {
            let Some(pool) = pools.iter().find(|pool| pool.name == name) else {
                // The record stays as it is, and nobody reads it: it is emptied if the pool comes back.
                *self.changed(&name) = PoolChanges::default();
                continue;
            };
            let Some(changes) = self.pools.get(&name) else {
                continue;
            };
            let next = changes.without_gone(pool);
            if next != *changes {
                *self.changed(&name) = next;
            }
        }
    }

    fn find(&self, pool: &PoolConfig, id: &str) -> Result<Source, Wrong> {
        if pool.named.iter().any(|named| named.server.id == id) {
            return Ok(Source::Name);
        }
        let listed = self.list(pool);
        match listed.iter().find(|server| server.id == id) {
            Some(server) => Ok(server.source),
            None => Err(Wrong::UnknownServer {
                pool: pool.name.clone(),
                known: listed.into_iter().map(|server| server.id).collect(),
            }),
        }
    }

    fn has_room(&self) -> Result<(), Wrong> {
        let held = |changes: &PoolChanges| {
            changes.overrides.len() + changes.added.len() + changes.removed.len()
        };
        if self.pools.values().map(held).sum::<usize>() < CHANGES_MAX {
            return Ok(());
        }
        let text = format!("at most {CHANGES_MAX} servers can be changed at run time");
        Err(Wrong::Conflict(text))
    }

    fn changed(&mut self, pool: &str) -> &mut PoolChanges {
        self.version += 1;
        self.pools.entry(pool.to_owned()).or_default()
    }
}

impl PoolChanges {
    /// A server of the file or of a name; `whole` is what was changed for all servers of the name.
    fn listed(
        &self,
        server: &ServerConfig,
        whole: Option<Override>,
        source: Source,
    ) -> Option<Listed> {
        if self.removed.contains(&server.id) {
            return None;
        }
        let change = self.merged(&server.id, whole);
        Some(Listed {
            id: server.id.clone(),
            address: server.address,
            weight: change.weight.unwrap_or(server.weight),
            tier: server.tier,
            configured: server.admin,
            admin: change.admin.unwrap_or(Admin::Ready),
            source,
        })
    }

    fn merged(&self, id: &str, whole: Option<Override>) -> Override {
        let own = self.overrides.get(id).copied().unwrap_or_default();
        let whole = whole.unwrap_or_default();
        Override {
            admin: own.admin.or(whole.admin),
            weight: own.weight.or(whole.weight),
        }
    }

    /// How the pool differs from its file.
    fn members(&self) -> Vec<Member> {
        let member = |id: &str, address, change: Override, tier| Member {
            id: id.to_owned(),
            address,
            weight: change.weight,
            admin: match change.admin {
                None | Some(Admin::Ready) => AdminChange::Ready,
                Some(Admin::Drain) => AdminChange::Drain,
                Some(Admin::Maint) => AdminChange::Maint,
            },
            tier,
        };
        let mut members = Vec::new();
        for (name, addresses) in &self.resolved {
            for address in addresses {
                let id = format!("{name}#{}", address.ip());
                let change = self.merged(&id, self.overrides.get(name).copied());
                members.push(member(&id, Some(*address), change, Tier::Primary));
            }
        }
        for (id, new) in &self.added {
            let change = self.overrides.get(id).copied().unwrap_or_default();
            let change = Override {
                weight: change.weight.or(Some(new.weight)),
                ..change
            };
            members.push(member(id, Some(new.address), change, new.tier));
        }
        for id in &self.removed {
            members.push(Member {
                admin: AdminChange::Removed,
                ..member(id, None, Override::default(), Tier::Primary)
            });
        }
        let is_named = |id: &str| {
            let name = id.split_once('#').map_or(id, |(name, _ip)| name);
            self.resolved.contains_key(name)
        };
        for (id, change) in &self.overrides {
            if !self.added.contains_key(id) && !is_named(id) {
                members.push(member(id, None, *change, Tier::Primary));
            }
        }
        members
    }

    fn without_gone(&self, pool: &PoolConfig) -> Self {
        let mut next = self.clone();
        let in_file = |id: &str| pool.servers.iter().any(|server| server.id == id);
        let is_name = |id: &str| pool.named.iter().any(|named| named.server.id == id);
        next.removed.retain(|id| in_file(id));
        next.resolved.retain(|id, _| is_name(id));
        next.added.retain(|id, new| {
            let is_taken = pool
                .servers
                .iter()
                .any(|server| server.address == new.address);
            !in_file(id) && !is_name(id) && !is_taken
        });
        let added = &next.added;
        next.overrides.retain(|id, _| {
            let name = id.split_once('#').map_or(id.as_str(), |(name, _ip)| name);
            in_file(id) || is_name(name) || added.contains_key(id)
        });
        next
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_policy::config::{Config, Document};

    use super::*;

    fn pool(servers: serde_json::Value) -> PoolConfig {
        let document = serde_json::json!({"pools": {"shop": {"servers": servers}}});
        let document = Document::from_value(document).unwrap();
        Config::from_document(&document).unwrap().pools.remove(0)
    }

    fn shop() -> PoolConfig {
        pool(serde_json::json!([
            {"address": "10.0.0.1:80", "id": "a", "weight": 5},
            {"address": "10.0.0.2:80", "id": "b", "down": true},
            {"address": "web.internal:80", "id": "n"},
        ]))
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn new(address: &str) -> NewServer {
        let (address, weight, tier) = (at(address), 2, Tier::Primary);
        NewServer {
            address,
            weight,
            tier,
        }
    }

    /// `id=weight@state` of each server.
    #[track_caller]
    fn check(table: &Table, pool: &PoolConfig, expected: &str) {
        let listed = table.list(pool).into_iter().map(|server| {
            let state = match (server.configured, server.admin) {
                (AdminState::Down, _) => "down",
                (_, Admin::Ready) => "ready",
                (_, Admin::Drain) => "drain",
                (_, Admin::Maint) => "maint",
            };
            format!("{}={}@{state}", server.id, server.weight)
        });
        assert_eq!(listed.collect::<Vec<_>>().join(" "), expected);
    }

    #[test]
    fn changes_are_laid_over_the_file_and_ready_returns_to_it() {
        let (mut table, pool) = (Table::default(), shop());
        check(&table, &pool, "a=5@ready b=1@down");
        table.set_admin(&pool, "a", Admin::Drain).unwrap();
        table.set_weight(&pool, "a", 9).unwrap();
        check(&table, &pool, "a=9@drain b=1@down");
        table.set_admin(&pool, "a", Admin::Ready).unwrap();
        table.set_admin(&pool, "b", Admin::Ready).unwrap();
        check(&table, &pool, "a=9@ready b=1@down");
        let unknown = table.set_weight(&pool, "c", 1).unwrap_err();
        assert_eq!(unknown.to_string(), "no such server: pool shop has a, b");
    }

    #[test]
    fn servers_come_and_go() {
        let (mut table, pool) = (Table::default(), shop());
        table.add(&pool, "c", new("10.0.0.3:80")).unwrap();
        table.remove(&pool, "a").unwrap();
        check(&table, &pool, "b=1@down c=2@ready");
        for (id, address) in [
            ("d", "10.0.0.3:80"),
            ("n", "10.0.0.9:80"),
            ("a", "10.0.0.9:80"),
        ] {
            assert!(
                table.add(&pool, id, new(address)).is_err(),
                "{id} {address}"
            );
        }
        table.add(&pool, "a", new("10.0.0.1:80")).unwrap();
        table.remove(&pool, "c").unwrap();
        check(&table, &pool, "a=2@ready b=1@down");
        assert!(table.remove(&pool, "c").is_err());
    }

    #[test]
    fn addresses_of_a_name_are_servers_of_their_own() {
        let (mut table, pool) = (Table::default(), shop());
        let two = BTreeSet::from([at("10.0.1.1:80"), at("10.0.1.2:80")]);
        assert!(table.resolve("shop", "n", two.clone()));
        assert!(!table.resolve("shop", "n", two));
        table.set_admin(&pool, "n#10.0.1.1", Admin::Maint).unwrap();
        table.set_weight(&pool, "n", 7).unwrap();
        check(
            &table,
            &pool,
            "a=5@ready b=1@down n#10.0.1.1=7@maint n#10.0.1.2=7@ready",
        );
        assert!(table.remove(&pool, "n#10.0.1.1").is_err());
        // Who comes back is as he was.
        table.resolve("shop", "n", BTreeSet::from([at("10.0.1.2:80")]));
        table.resolve("shop", "n", BTreeSet::from([at("10.0.1.1:80")]));
        check(&table, &pool, "a=5@ready b=1@down n#10.0.1.1=7@maint");
    }

    #[test]
    fn a_reload_forgets_what_the_file_no_longer_has() {
        let (mut table, before) = (Table::default(), shop());
        table.set_admin(&before, "a", Admin::Drain).unwrap();
        table.set_weight(&before, "b", 3).unwrap();
        table.add(&before, "c", new("10.0.0.3:80")).unwrap();
        table.add(&before, "d", new("10.0.0.4:80")).unwrap();
        let after = pool(serde_json::json!([
            {"address": "10.0.0.1:80", "id": "a", "weight": 1},
            {"address": "10.0.0.4:80", "id": "e"},
        ]));
        table.forget_gone(std::slice::from_ref(&after));
        check(&table, &after, "a=1@drain e=1@ready c=2@ready");
        table.forget_gone(&[]);
        check(&table, &after, "a=1@ready e=1@ready");
        assert!(table.records().all(|(_, record)| record.servers.is_empty()));
    }

    #[test]
    fn filters_are_told_the_differences_only() {
        let (mut table, pool) = (Table::default(), shop());
        table.set_admin(&pool, "a", Admin::Maint).unwrap();
        table.add(&pool, "c", new("10.0.0.3:80")).unwrap();
        table.remove(&pool, "b").unwrap();
        table.resolve("shop", "n", BTreeSet::from([at("10.0.1.1:80")]));
        let records: Vec<_> = table.records().collect();
        let told: Vec<String> = records[0]
            .1
            .servers
            .iter()
            .map(|member| {
                format!(
                    "{} {:?} {:?} {:?}",
                    member.id, member.address, member.weight, member.admin
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                "n#10.0.1.1 Some(10.0.1.1:80) None Ready",
                "c Some(10.0.0.3:80) Some(2) Ready",
                "b None None Removed",
                "a None None Maint",
            ]
        );
    }
}
