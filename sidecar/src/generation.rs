//! One configuration in force: what all workers share of it, unchanging but for the servers of its pools (see [`crate::members`]).
//!
//! A reload makes the next generation; requests in flight end on theirs. Counters of a server go on as long as its pool's
//! name and its id stay.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use evenkeel_policy::config::{Keepalive, PoolConfig, ProxyVersion};

use crate::config::Config;
use crate::filter::FilterSource;
use crate::members::{Roster, Table};

type ByName = HashMap<Box<[u8]>, usize, foldhash::fast::FixedState>;

/// What workers serve by.
pub(crate) struct Generation {
    /// 1 for the configuration of the start.
    pub(crate) number: u64,
    pub(crate) loaded: SystemTime,
    pub(crate) config: Config,
    /// The filters in the order of the chain.
    pub(crate) filters: Vec<FilterSource>,
    pub(crate) pools: Vec<Pool>,
    pools_by_name: ByName,
}

/// One pool, resolved.
pub(crate) struct Pool {
    pub(crate) name: String,
    roster: ArcSwap<Roster>,
    pub(crate) keepalive: Keepalive,
    /// How a server is told whose connection it is. Then a connection is one client's, so none is kept.
    pub(crate) proxy_protocol: Option<ProxyVersion>,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
}

impl Generation {
    /// `previous` lends the counters of servers that stay; `table` says what was changed at run time.
    pub(crate) fn new(
        config: Config,
        filters: Vec<FilterSource>,
        workers: usize,
        table: &Table,
        previous: Option<&Generation>,
    ) -> Self {
        let pools: Vec<Pool> = config
            .policy
            .pools
            .iter()
            .map(|pool| Pool::new(pool, &config, workers, table, previous))
            .collect();
        let pools_by_name = pools
            .iter()
            .enumerate()
            .map(|(i, pool)| (pool.name.as_bytes().into(), i))
            .collect();
        let number = previous.map_or(1, |previous| previous.number + 1);
        Self {
            number,
            loaded: SystemTime::now(),
            config,
            filters,
            pools,
            pools_by_name,
        }
    }

    pub(crate) fn pool_named(&self, name: &[u8]) -> Option<usize> {
        self.pools_by_name.get(name).copied()
    }
}

impl Pool {
    fn new(
        pool: &PoolConfig,
        config: &Config,
        workers: usize,
        table: &Table,
        previous: Option<&Generation>,
    ) -> Self {
        let before = previous.and_then(|previous| {
            let number = previous.pool_named(pool.name.as_bytes())?;
            Some(previous.pools.get(number)?.roster())
        });
        let roster = Roster::first(&table.list(pool), workers, before.as_deref());
        Self {
            name: pool.name.clone(),
            roster: ArcSwap::from_pointee(roster),
            keepalive: match pool.proxy_protocol {
                None => pool.keepalive,
                Some(_) => Keepalive {
                    per_worker: 0,
                    ..pool.keepalive
                },
            },
            proxy_protocol: pool.proxy_protocol,
            connect_timeout: pool.timeouts.connect.unwrap_or(config.timeouts.connect),
            response_timeout: pool.timeouts.response.unwrap_or(config.timeouts.response),
        }
    }

    /// Its servers now.
    pub(crate) fn roster(&self) -> Arc<Roster> {
        self.roster.load_full()
    }

    /// Whether these are still its servers. Cheap: asked for every request.
    pub(crate) fn is_current(&self, roster: &Arc<Roster>) -> bool {
        Arc::ptr_eq(&self.roster.load(), roster)
    }

    pub(crate) fn set_roster(&self, roster: Arc<Roster>) {
        self.roster.store(roster);
    }
}
