//! One configuration in force: what all workers share of it, unchanging.
//!
//! A reload makes the next generation; requests in flight end on theirs. Counters of a server go on as long as its pool's
//! name and its id stay.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use evenkeel_policy::config::{AdminState, Keepalive};

use crate::config::Config;
use crate::counters::ServerCounters;
use crate::filter::FilterSource;

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
    pub(crate) servers: Vec<Server>,
    pub(crate) keepalive: Keepalive,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
    servers_by_address: ByName,
}

/// One server of a pool.
pub(crate) struct Server {
    pub(crate) id: String,
    pub(crate) address: SocketAddr,
    /// The canonical `ip:port`.
    pub(crate) text: String,
    /// Takes no request, whoever names it.
    pub(crate) is_down: bool,
    /// By worker.
    pub(crate) counters: Vec<Arc<ServerCounters>>,
}

impl Generation {
    /// `previous` lends the counters of servers that stay.
    pub(crate) fn new(
        config: Config,
        filters: Vec<FilterSource>,
        workers: usize,
        previous: Option<&Generation>,
    ) -> Self {
        let pools: Vec<Pool> = config
            .policy
            .pools
            .iter()
            .map(|pool| Pool::new(pool, &config, workers, previous))
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
        pool: &evenkeel_policy::config::PoolConfig,
        config: &Config,
        workers: usize,
        previous: Option<&Generation>,
    ) -> Self {
        let before = previous.and_then(|previous| {
            previous
                .pools
                .get(previous.pool_named(pool.name.as_bytes())?)
        });
        let servers: Vec<Server> = pool
            .servers
            .iter()
            .map(|server| {
                let kept =
                    before.and_then(|before| before.servers.iter().find(|old| old.id == server.id));
                Server {
                    id: server.id.clone(),
                    address: server.address,
                    text: server.address.to_string(),
                    is_down: server.admin == AdminState::Down,
                    counters: kept.map_or_else(
                        || (0..workers).map(|_| Arc::default()).collect(),
                        |kept| kept.counters.clone(),
                    ),
                }
            })
            .collect();
        let servers_by_address = servers
            .iter()
            .enumerate()
            .map(|(i, server)| (server.text.as_bytes().into(), i))
            .collect();
        Self {
            name: pool.name.clone(),
            servers,
            keepalive: pool.keepalive,
            connect_timeout: pool.timeouts.connect.unwrap_or(config.timeouts.connect),
            response_timeout: pool.timeouts.response.unwrap_or(config.timeouts.response),
            servers_by_address,
        }
    }

    /// The server whose canonical `ip:port` is `address`; the last one, if two have the same.
    pub(crate) fn server_at(&self, address: &[u8]) -> Option<usize> {
        self.servers_by_address.get(address).copied()
    }
}
