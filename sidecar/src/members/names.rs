//! Servers that are configured by a name: what the system's resolver says of it, at the start, at a reload, and on an interval.
//!
//! Each address is a server of its own, `id#ip`, and what is known about it stays as long as the address does. A name that cannot be
//! resolved is no reason not to start: its servers are missing, with a warning, until it can be; and one that no longer can
//! be keeps the addresses it had. (HAProxy's `init-addr last,libc,none`, and its `hold` for errors, without an end.)
//!
//! # Why the system's resolver
//! It is the one that knows `/etc/hosts`, search domains, mDNS and whatever else the machine is set up with, so `evenkeel` and `ping` agree.
//! It blocks, and tells no TTL: hence threads, at most [`LOOK_UPS_MAX`], and the pool's `resolve` interval.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use evenkeel_policy::config::PoolConfig;

use super::put_into_force;
use super::table::RESOLVED_MAX;
use crate::shared::Shared;

/// How a name becomes addresses. It may block.
pub type Resolve = Arc<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// Look-ups under way; who comes when there are so many is told that the resolver is stuck.
const LOOK_UPS_MAX: usize = 16;
/// How long a start, a reload or an interval waits for look-ups.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// How often is looked whether a name is due.
const LOOK: Duration = Duration::from_millis(250);

/// The resolver, and how busy it is.
#[derive(Clone)]
pub(crate) struct Names {
    resolve: Resolve,
    under_way: Arc<AtomicUsize>,
}

type Found = BTreeMap<String, Result<BTreeSet<IpAddr>, String>>;

impl Names {
    /// With the system's resolver unless another is given.
    pub(crate) fn new(resolve: Option<Resolve>) -> Self {
        Self {
            resolve: resolve.unwrap_or_else(|| Arc::new(ask_system)),
            under_way: Arc::default(),
        }
    }

    /// Looks names up, several at a time; returns after [`WAIT_MAX`] at the latest, with errors for those that were not found by then.
    pub(crate) fn look_up(&self, hosts: BTreeSet<String>) -> Found {
        let mut found: Found = hosts
            .iter()
            .map(|host| (host.clone(), Err("the resolver does not answer".to_owned())))
            .collect();
        let threads = hosts.len();
        let queue = Arc::new(Mutex::new(hosts));
        let (told, answers) = mpsc::channel();
        for _ in 0..threads.min(LOOK_UPS_MAX) {
            if self.under_way.fetch_add(1, Ordering::AcqRel) >= LOOK_UPS_MAX {
                self.under_way.fetch_sub(1, Ordering::AcqRel);
                break;
            }
            let (names, queue, told) = (self.clone(), Arc::clone(&queue), told.clone());
            let thread = std::thread::Builder::new().name("evenkeel-names".to_owned());
            let spawned = thread.spawn(move || {
                names.work(&queue, &told);
                names.under_way.fetch_sub(1, Ordering::AcqRel);
            });
            if spawned.is_err() {
                self.under_way.fetch_sub(1, Ordering::AcqRel);
                break;
            }
        }
        drop(told);
        let deadline = Instant::now() + WAIT_MAX;
        // Ends when the last thread has, or with the time.
        while let Ok((host, answer)) =
            answers.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            found.insert(host, answer);
        }
        // Threads that are stuck find nothing more to do when they come back.
        queue.lock().unwrap_or_else(PoisonError::into_inner).clear();
        found
    }

    fn work(
        &self,
        queue: &Mutex<BTreeSet<String>>,
        told: &mpsc::Sender<(String, Result<BTreeSet<IpAddr>, String>)>,
    ) {
        let next = || {
            queue
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_first()
        };
        while let Some(host) = next() {
            let answer = (self.resolve)(&host).map_err(|error| error.to_string());
            let answer = answer.and_then(|addresses| usable(&addresses));
            if told.send((host, answer)).is_err() {
                return;
            }
        }
    }
}

fn ask_system(host: &str) -> io::Result<Vec<IpAddr>> {
    Ok((host, 0)
        .to_socket_addrs()?
        .map(|address| address.ip())
        .collect())
}

/// Addresses that can be those of a server, each once.
fn usable(addresses: &[IpAddr]) -> Result<BTreeSet<IpAddr>, String> {
    let addresses = addresses.iter().map(IpAddr::to_canonical);
    let addresses = addresses.filter(|ip| !ip.is_unspecified() && !ip.is_multicast());
    let usable: BTreeSet<IpAddr> = addresses.take(RESOLVED_MAX).collect();
    if usable.is_empty() {
        return Err("it has no address".to_owned());
    }
    Ok(usable)
}

fn hosts<'a>(pools: impl Iterator<Item = &'a PoolConfig>) -> BTreeSet<String> {
    let named = pools.flat_map(|pool| &pool.named);
    named.map(|named| named.host.clone()).collect()
}

/// Looks up the names of these pools, and notes what they have now; whether anything is news. Blocks for [`WAIT_MAX`] at most.
pub(crate) fn resolve<'a>(
    names: &Names,
    changes: &super::Changes,
    pools: impl Iterator<Item = &'a PoolConfig> + Clone,
) -> bool {
    let hosts = hosts(pools.clone());
    if hosts.is_empty() {
        return false;
    }
    let found = names.look_up(hosts);
    let mut table = changes.table();
    let mut is_news = false;
    for pool in pools {
        for named in &pool.named {
            match found.get(&named.host) {
                Some(Ok(addresses)) => {
                    let port = named.server.address.port();
                    let at = addresses.iter().map(|ip| SocketAddr::new(*ip, port));
                    let is_new = table.resolve(&pool.name, &named.server.id, at.collect());
                    if is_new {
                        let text: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
                        tracing::info!("pool {}: {} is {}", pool.name, named.host, text.join(", "));
                    }
                    is_news |= is_new;
                }
                Some(Err(why)) => {
                    let kept = if table.is_resolved(&pool.name, &named.server.id) {
                        "its addresses stay as they were"
                    } else {
                        "it has no server until it can be"
                    };
                    tracing::warn!(
                        "pool {}: {} cannot be resolved ({why}): {kept}",
                        pool.name,
                        named.host
                    );
                }
                None => {}
            }
        }
    }
    is_news
}

/// Resolves names again, each pool's at its interval, as long as the proxy runs.
pub(crate) async fn keep_up(shared: Arc<Shared>) {
    let mut asked: BTreeMap<String, Instant> = BTreeMap::new();
    let mut timer = tokio::time::interval(LOOK);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        let generation = shared.generation.load_full();
        let pools = &generation.config.policy.pools;
        let now = Instant::now();
        asked.retain(|name, _| pools.iter().any(|pool| pool.name == *name));
        let is_due = |pool: &&PoolConfig| {
            // At the start they have just been looked up.
            let at = asked.entry(pool.name.clone()).or_insert(now);
            now.saturating_duration_since(*at) >= pool.resolve
        };
        let named = pools.iter().filter(|pool| !pool.named.is_empty());
        let due: Vec<PoolConfig> = named.filter(is_due).cloned().collect();
        if due.is_empty() {
            continue;
        }
        asked.extend(due.iter().map(|pool| (pool.name.clone(), now)));
        let theirs = Arc::clone(&shared);
        let asking = move || resolve(&theirs.names, &theirs.members, due.iter());
        let is_news = tokio::task::spawn_blocking(asking).await.unwrap_or(false);
        if is_news && let Err(error) = put_into_force(&shared, None) {
            tracing::error!("{error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_names_are_looked_up_and_errors_told() {
        let names = Names::new(Some(Arc::new(|host: &str| match host {
            "none" => Ok(Vec::new()),
            "broken" => Err(io::Error::other("SERVFAIL")),
            host => Ok(vec![
                "127.0.0.1".parse().unwrap(),
                format!("10.0.0.{}", host.len()).parse().unwrap(),
                "0.0.0.0".parse().unwrap(),
            ]),
        })));
        let mut hosts: BTreeSet<String> = (1..=40).map(|length| "a".repeat(length)).collect();
        hosts.extend(["none".to_owned(), "broken".to_owned()]);
        let found = names.look_up(hosts);
        assert_eq!(found.len(), 42);
        assert_eq!(found["broken"], Err("SERVFAIL".to_owned()));
        assert!(found["none"].is_err());
        assert_eq!(
            found["aaa"],
            Ok(BTreeSet::from([
                "10.0.0.3".parse().unwrap(),
                "127.0.0.1".parse().unwrap()
            ]))
        );
    }

    #[test]
    fn the_system_knows_this_machine() {
        let found = Names::new(None).look_up(BTreeSet::from(["localhost".to_owned()]));
        let addresses = found["localhost"].as_ref().unwrap();
        assert!(addresses.iter().any(IpAddr::is_loopback), "{addresses:?}");
    }
}
