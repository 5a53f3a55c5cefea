//! The checks of one pool in the VM that makes them: calls to make, verdicts, and the record that tells everybody.

use std::collections::BTreeMap;

use super::health::{Check, Checks, Health, HealthChange, Verdict};
use super::probe::{self, ProbeCall};
use super::state_record::{ServerState, StateRecord};
use super::{News, Pool, SharedData, id_hash};
use crate::config::{PoolConfig, Probe};
use crate::random::Sequence;

/// Pools of up to so many servers tell each change at once. A larger one's record is long, and changes come by the thousand when checks
/// begin or a network fails: it tells those of a tick together.
const TOLD_AT_ONCE: usize = 256;

/// Checks of a pool that has any.
#[derive(Debug)]
pub struct PoolChecks {
    checks: Checks,
    probe: Probe,
    untold: Untold,
    key: Vec<u8>,
    value: Vec<u8>,
}

/// Whether anything has changed that nobody was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Untold {
    Nothing,
    Some,
}

impl PoolChecks {
    /// `None`: the configuration asks for none.
    pub fn new(config: &PoolConfig) -> Option<Self> {
        let health = config.health.as_ref()?;
        Some(Self {
            checks: Checks::new(health, config.servers.len()),
            probe: health.probe.clone(),
            untold: Untold::Nothing,
            key: StateRecord::key(&config.name),
            value: Vec::new(),
        })
    }

    /// This VM begins to check, or the pool has other servers: with what whoever did it before has found out.
    pub fn take_over(&mut self, pool: &Pool, data: &mut impl SharedData) {
        let record = self.read(data).unwrap_or_default();
        self.untold = Untold::Nothing;
        self.checks.resize(pool.len());
        let known = record.servers.iter().map(|known| (known.id_hash, known));
        let known: BTreeMap<u64, &ServerState> = known.collect();
        self.checks.take_over(|server| {
            let known = known.get(&id_hash(pool.id(server)))?;
            Some(known.check())
        });
    }

    /// Servers whose check is due now, at most `max`, appended to `due`; from now on their checks are under way.
    pub fn take_due(
        &mut self,
        pool: &Pool,
        now_ms: u64,
        max: usize,
        random: &mut Sequence,
        due: &mut Vec<usize>,
    ) {
        let wanted = |server| pool.is_checked(server);
        self.checks.take_due(now_ms, max, wanted, random, due);
    }

    /// The call that checks a server, and its timeout.
    pub fn call(&self, pool: &Pool, server: usize) -> (ProbeCall, u64) {
        let timeout_ms = self.checks.timeout_ms();
        let call = probe::call(&self.probe, pool.name(), pool.endpoint(server), timeout_ms);
        (call, timeout_ms)
    }

    /// What an answer means; see [`probe::BODY_BYTES_MAX`].
    pub fn judge(&self, status: Option<u16>, body: &[u8]) -> Verdict {
        probe::judge(&self.probe, status, body)
    }

    /// A server whose check was begun so long ago that nobody will tell its end.
    pub fn lost(&self, now_ms: u64) -> Option<usize> {
        self.checks.lost(now_ms)
    }

    /// A check is over: if that changed the server's health, everybody is told, in a large pool with [`PoolChecks::tell`].
    pub fn ended(
        &mut self,
        pool: &Pool,
        server: usize,
        verdict: Verdict,
        now_ms: u64,
        (random, data): (&mut Sequence, &mut impl SharedData),
    ) -> Option<HealthChange> {
        let change = self.checks.ended(server, verdict, now_ms, random)?;
        self.untold = Untold::Some;
        if pool.len() <= TOLD_AT_ONCE {
            self.tell(pool, data);
        }
        Some(change)
    }

    /// Each tick: tells everybody what has changed and was not told yet.
    pub fn tell(&mut self, pool: &Pool, data: &mut impl SharedData) {
        if self.untold == Untold::Nothing {
            return;
        }
        self.untold = Untold::Nothing;
        let known = data.get(&self.key, &mut self.value);
        let version = known.and_then(|_| StateRecord::version_of(&self.value));
        let version = version.unwrap_or(0);
        let state = |server| {
            let hash = id_hash(pool.id(server));
            let check = self.checks.get(server).filter(|check| check.since_ms > 0)?;
            Some(ServerState::of(hash, check))
        };
        let record = StateRecord {
            version: version.wrapping_add(1),
            servers: (0..pool.len()).filter_map(state).collect(),
        };
        data.set(&self.key, &record.encode(), 0);
        News::Health.tell(data, &mut self.value);
    }

    /// How a server is.
    pub fn health(&self, server: usize) -> Health {
        self.checks
            .get(server)
            .map_or(Health::Checking, |check: &Check| check.health)
    }

    fn read(&mut self, data: &mut impl SharedData) -> Option<StateRecord> {
        data.get(&self.key, &mut self.value)?;
        StateRecord::decode(&self.value)
    }
}
