//! One pool in one VM: its servers in two groups (primary, backup), and the method that chooses within each.
//!
//! Indexes of servers stay what they are for the life of a configuration, primaries first; what changes at run time (weight, address,
//! admin state) changes in place, and the method starts its turns anew.

use std::collections::BTreeMap;
use std::net::SocketAddr;
mod group;
mod within_limits;

use std::rc::Rc;

pub use within_limits::Chosen;

use group::{Group, Tables};

use super::attempts_watch::AttemptsWatch;
use super::availability::{Admin, Availability, Freshness};
use super::conn_limits::{ConnLimits, Freed};
use super::pool_load::PoolLoad;
use super::state_record::StateRecord;
use super::transition::Transition;
use super::{AdminChange, InFlight, Member, Members, Quality, SharedData, Slots, id_hash};
use crate::balance::{Algorithm, Charge, Choices, Facts, LoadNeed, Parameters};
use crate::config::{Chooser, PoolConfig, QueueConfig, RetryOn, ServerConfig, StatusSet, Tier};
use crate::contract::ENDPOINTS_MAX;
use crate::exchange::HashKey;
use crate::random::Sequence;

/// Servers of a pool whose tables are built at once and not at the first pick. The largest take a good part of the time that a filter
/// has for a request, while configuring may take long.
const TABLES_AT_ONCE: usize = 2_000;

/// Servers, and how one of them is chosen.
pub struct Pool {
    name: Rc<str>,
    chooser: Chooser,
    algorithm: Algorithm,
    retries: u8,
    retry_on: RetryOn,
    /// Statuses that count as failures.
    failed_statuses: StatusSet,
    /// Primaries, then backups, each in the order of the configuration.
    servers: Vec<Server>,
    primary: Group,
    backup: Group,
    hash_key: Option<HashKey>,
    /// The bound of a hashing method: then it looks at load.
    hash_balance_factor: Option<u16>,
    load: PoolLoad,
    availability: Availability,
    /// `None`: no server has a bound.
    limits: Option<ConnLimits>,
    queue: Option<QueueConfig>,
    state_key: Vec<u8>,
    state_version: Option<u64>,
    members_key: Vec<u8>,
    members_version: Option<u64>,
    /// The slot, as far as turns know it.
    start: u32,
    watch: AttemptsWatch,
    no_server: u64,
    all_full: u64,
    value: Vec<u8>,
}

struct Server {
    id: String,
    /// As the steering header names it.
    endpoint: String,
    weight: u16,
    /// Fails after which the whole weight is taken away.
    max_fails: u16,
    /// What it had of its weight when the method took over the group.
    percent: u8,
    configured: Configured,
    counters: ServerCounters,
}

/// What a server is while nobody changes it.
#[derive(Debug, Clone, Copy)]
struct Configured {
    address: SocketAddr,
    weight: u16,
    admin: Admin,
}

/// What happened with a server, since the counters were taken last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerCounters {
    /// Requests whose list it headed.
    pub picks: u64,
    /// Attempts that it failed, as far as hosts were asked.
    pub failures: u64,
}

impl Pool {
    /// `start` is the VM's slot (0 without one).
    pub fn new(config: &PoolConfig, in_flight: &mut InFlight, start: u32) -> Self {
        let of_tier = |tier: Tier| {
            config
                .servers
                .iter()
                .filter(move |server| server.tier == tier)
        };
        let ordered: Vec<&ServerConfig> = of_tier(Tier::Primary)
            .chain(of_tier(Tier::Backup))
            .collect();
        let primaries = of_tier(Tier::Primary).count();
        let name: Rc<str> = config.name.as_str().into();
        let mut availability = Availability::new(config);
        let mut loads = Vec::with_capacity(ordered.len());
        for server in &ordered {
            let own = in_flight.cell(&name, &server.id);
            availability.push(Rc::clone(&own), Admin::of(server.admin), &server.limits);
            loads.push((id_hash(&server.id), own));
        }
        let bounds = ordered.iter().map(|server| server.limits.max_conns);
        let bounded = bounds
            .zip(&loads)
            .map(|(max, (hash, own))| (max, *hash, Rc::clone(own)));
        let limits = ConnLimits::new(&name, bounded, primaries);
        let need = match config.hash_balance_factor {
            Some(_) => LoadNeed::InFlight,
            None => config.algorithm.load_need(),
        };
        let load = PoolLoad::new(need, loads.into_iter());
        let servers: Vec<Server> = ordered.into_iter().map(Server::new).collect();
        let parameters = Parameters {
            hash_balance_factor: config.hash_balance_factor,
        };
        let group = |first, count| {
            let balancer = config.algorithm.build(&parameters);
            Group::new(balancer, first, count)
        };
        let mut pool = Self {
            name,
            chooser: config.chooser,
            algorithm: config.algorithm,
            // Where nothing is ever tried again, a second server is of no use.
            retries: if config.retry_on.is_never() {
                0
            } else {
                config.retries
            },
            retry_on: config.retry_on.clone(),
            failed_statuses: match &config.passive {
                Some(passive) => passive.statuses.clone(),
                None => StatusSet::default(),
            },
            primary: group(0, primaries),
            backup: group(primaries, servers.len().saturating_sub(primaries)),
            hash_key: config.hash_key.clone(),
            hash_balance_factor: config.hash_balance_factor,
            servers,
            load,
            availability,
            limits,
            queue: config.queue,
            state_key: StateRecord::key(&config.name),
            state_version: None,
            members_key: Members::key(&config.name),
            members_version: None,
            start,
            watch: AttemptsWatch::default(),
            no_server: 0,
            all_full: 0,
            value: Vec::new(),
        };
        pool.refresh();
        if pool.servers.len() >= TABLES_AT_ONCE {
            pool.primary.build_tables(&pool.servers, start);
        }
        pool
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// How many servers it has.
    pub fn len(&self) -> usize {
        self.servers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    /// A server's id.
    pub fn id(&self, server: usize) -> &str {
        self.servers.get(server).map_or("", |server| &server.id)
    }

    /// A server's address as the steering header names it.
    pub fn endpoint(&self, server: usize) -> &str {
        self.servers
            .get(server)
            .map_or("", |server| &server.endpoint)
    }

    /// The index of the server with this address.
    pub fn by_endpoint(&self, endpoint: &[u8]) -> Option<usize> {
        self.servers
            .iter()
            .position(|server| server.endpoint.as_bytes() == endpoint)
    }

    /// What the method hashes; `None` if it hashes no key: then nobody need make one.
    pub fn hash_key(&self) -> Option<&HashKey> {
        self.hash_key.as_ref()
    }

    /// Whether the method looks at load: only then is it told to other VMs, and read of them.
    pub fn needs_load(&self) -> bool {
        self.algorithm.load_need() != LoadNeed::None || self.hash_balance_factor.is_some()
    }

    /// Whether the method looks at how fast servers answer.
    pub fn needs_latency(&self) -> bool {
        self.load.latency_rule().is_some()
    }

    /// The time that was told with [`Pool::read_others`] last.
    pub fn now_us(&self) -> u64 {
        self.load.now_us()
    }

    /// Further servers for a request, at most.
    pub fn retries(&self) -> u8 {
        self.retries
    }

    /// What must have happened for the next server to be tried.
    pub fn retry_on(&self) -> &RetryOn {
        &self.retry_on
    }

    /// Statuses of answers that count as failures; empty: nobody need ask for them.
    pub fn failed_statuses(&self) -> &StatusSet {
        &self.failed_statuses
    }

    /// Whether it must be told the time with each request ([`Pool::note_time`]).
    pub fn needs_time(&self) -> bool {
        self.availability.is_awake()
    }

    /// Tells the time, microseconds; [`Pool::read_others`] does so, too.
    pub fn note_time(&mut self, now_us: u64) {
        self.load.note_time(now_us);
    }

    /// Whether checks ask this server: not while an operator has it in maintenance.
    pub fn is_checked(&self, server: usize) -> bool {
        self.availability.is_checked(server)
    }

    /// Servers that were taken out or came back because of requests, since this was asked last.
    pub fn take_transitions(&mut self) -> Vec<Transition> {
        self.availability.take_transitions()
    }

    /// Begins turns where the VM in this slot begins them; nothing happens if they begin there already.
    pub fn start_at(&mut self, slot: u32) {
        if self.start != slot {
            self.start = slot;
            self.rebuild_at_next_pick();
        }
    }

    /// The ordered list of servers for a request: picked, then those standing by, primaries before backups. Empty if and only if
    /// none is eligible.
    pub fn choose(&mut self, facts: &Facts<'_>, random: &mut Sequence) -> Choices {
        self.refresh();
        let mut choices = Choices::with_limit(usize::from(self.retries) + 1);
        for group in [&mut self.primary, &mut self.backup] {
            if !choices.is_full() && !group.eligible.is_empty() {
                group.build_tables(&self.servers, self.start);
                group.choose(&self.load, facts, random, &mut choices);
            }
        }
        match choices.get(0) {
            Some(picked) => self.picked(picked),
            None => self.no_server += 1,
        }
        choices
    }

    fn picked(&mut self, server: usize) {
        if let Some(server) = self.servers.get_mut(server) {
            server.counters.picks += 1;
        }
        self.availability.chosen(server, self.load.now_us() / 1_000);
    }

    /// Whether the host should be asked how many attempts a request with this list took, and how the last one ended; `began` is what
    /// [`Pool::ticks`] said when it was sent.
    pub fn wants_attempts(&mut self, choices: &Choices, began: u32) -> bool {
        // Whose answer was fast is asked of every answer: one of the host's own is none of the server's.
        self.needs_latency()
            || self.availability.counts_every_answer()
            // Who answered is who is at work for this request: neither load nor bounds may be mistaken in that.
            || (choices.len() > 1 && (self.needs_load() || self.has_bounds()))
            || (self.len() > 1 && self.watch.wants(began))
    }

    /// Ticks so far.
    pub fn ticks(&self) -> u32 {
        self.watch.ticks()
    }

    /// The first `failed` entries of a list failed; those after the first that were used are charged in their order. `quality` is that
    /// of the answer, if the last one that was used did not fail. The time must have been told, unless nothing failed.
    pub fn charge(&mut self, choices: &Choices, used: usize, failed: usize, quality: Quality) {
        self.watch.saw(used.max(failed + 1));
        let now_ms = self.load.now_us() / 1_000;
        for (place, server) in choices.iter().enumerate().take(used) {
            let group = if server < self.backup.first {
                &mut self.primary
            } else {
                &mut self.backup
            };
            let local = server.saturating_sub(group.first);
            if place > 0 {
                let mut tried = Choices::with_limit(ENDPOINTS_MAX);
                let before = choices.iter().take(place);
                let of_group = before.filter_map(|server| server.checked_sub(group.first));
                of_group
                    .filter(|server| *server < group.count)
                    .for_each(|server| tried.push(server));
                group.balancer.charge(&Charge::Used {
                    server: local,
                    tried: &tried,
                    eligible: &group.eligible,
                    in_flight: self.load.in_flight_from(group.first),
                });
            }
            if place < failed {
                group.balancer.charge(&Charge::Failed { server: local });
                if let Some(server) = self.servers.get_mut(server) {
                    server.counters.failures += 1;
                }
            }
            if place > 0 {
                self.availability.chosen(server, now_ms);
            }
            if place < failed {
                self.availability.failed(server, now_ms);
            } else {
                self.availability.answered(server, quality, now_ms);
            }
        }
    }

    /// One more request is in flight on `server`.
    pub fn began(&mut self, server: usize) {
        self.load
            .count(server, |in_flight| in_flight.saturating_add(1));
    }

    /// One less.
    pub fn ended(&mut self, server: usize) {
        self.load
            .count(server, |in_flight| in_flight.saturating_sub(1));
        if let Some(limits) = &mut self.limits {
            limits.ended(server);
        }
    }

    /// The answer of `server` began after this time.
    pub fn answered(&mut self, server: usize, first_byte_us: u64, now_us: u64) {
        self.load.answered(server, first_byte_us, now_us);
    }

    /// Requests of this VM in flight on `server`.
    pub fn in_flight(&self, server: usize) -> u32 {
        self.load.own_in_flight(server)
    }

    /// Requests of all VMs in flight on `server`, as far as they were read.
    #[cfg(test)]
    pub(super) fn load_on(&self, server: usize) -> u32 {
        let in_flight = self.load.in_flight_from(server);
        in_flight.first().copied().unwrap_or(0)
    }

    /// Tells other VMs this VM's load on `server` and its neighbours. Without a slot nothing is told.
    pub fn publish(&mut self, server: usize, slots: &Slots, data: &mut impl SharedData) {
        self.load.publish(&self.name, server, slots, data);
    }

    /// Tells other VMs all of this VM's load, as after claiming a slot.
    pub fn publish_all(&mut self, slots: &Slots, data: &mut impl SharedData) {
        self.load.publish_all(&self.name, slots, data);
    }

    /// Each tick: tells all again if a VM that had lost its slot to this one wrote over it.
    pub fn mend_told(&mut self, slots: &Slots, data: &mut impl SharedData) {
        self.load.mend(&self.name, slots, data);
    }

    /// Takes note of the time, and reads other VMs' load if that was not done within [`super::LOAD_READ_INTERVAL_MS`].
    pub fn read_others(&mut self, now_us: u64, slots: &Slots, data: &mut impl SharedData) {
        self.load.read_others(&self.name, now_us, slots, data);
    }

    /// Reads what checks found out, if anything is new.
    pub fn read_state(&mut self, data: &mut impl SharedData) {
        if data.get(&self.state_key, &mut self.value).is_none() {
            return;
        }
        let version = StateRecord::version_of(&self.value);
        if version.is_none() || version == self.state_version {
            return;
        }
        if let Some(record) = StateRecord::decode(&self.value) {
            self.state_version = version;
            let now_ms = self.load.now_us() / 1_000;
            let load = &self.load;
            self.availability
                .apply(&record, |hash| load.by_hash(hash), now_ms);
            self.refresh();
        }
    }

    /// A whole tick, after the time was told.
    pub fn tick(&mut self, data: &mut impl SharedData) {
        self.let_time_pass();
        self.read_members(data);
    }

    /// Each tick, after the time was told: looks at everybody's standing anew, and lets weights grow.
    pub fn let_time_pass(&mut self) {
        self.watch.tick();
        self.availability.look_again();
        self.refresh();
    }

    /// Reads what operators changed, and rebuilds if they did. Reads all of the record: [`super::News`] says whether that is worth it.
    pub fn read_members(&mut self, data: &mut impl SharedData) {
        if data.get(&self.members_key, &mut self.value).is_none() {
            return;
        }
        let version = Members::version_of(&self.value);
        if version.is_none() || version == self.members_version {
            return;
        }
        if let Some(members) = Members::decode(&self.value) {
            self.apply(&members);
        }
    }

    /// Takes over what operators changed of its servers; whom the record does not name is as configured. Tables are built anew only
    /// if an address did: who is drained leaves his turns to the others, and they go on. Servers that come or go are another pool's
    /// business: see [`super::changed_servers`].
    pub fn apply(&mut self, members: &Members) {
        self.members_version = Some(members.version);
        let changes: BTreeMap<&str, &Member> = members
            .servers
            .iter()
            .map(|member| (member.id.as_str(), member))
            .collect();
        let (mut moved, mut reweighed) = (false, false);
        for (index, server) in self.servers.iter_mut().enumerate() {
            let change = changes.get(server.id.as_str());
            let address = change.and_then(|change| change.address);
            let endpoint = match address.unwrap_or(server.configured.address).to_string() {
                same if same == server.endpoint => None,
                other => Some(other),
            };
            let weight = change.and_then(|change| change.weight);
            let weight = weight.unwrap_or(server.configured.weight);
            moved |= endpoint.is_some();
            reweighed |= server.weight != weight;
            server.weight = weight;
            if let Some(endpoint) = endpoint {
                server.endpoint = endpoint;
            }
            let admin = match change.map(|change| change.admin) {
                None | Some(AdminChange::Ready) => server.configured.admin,
                Some(AdminChange::Drain) => Admin::Drain,
                Some(AdminChange::Maint | AdminChange::Removed) => Admin::Maint,
            };
            self.availability.set_admin(index, admin);
        }
        self.refresh();
        if moved {
            self.rebuild_at_next_pick();
        } else if reweighed {
            for group in [&mut self.primary, &mut self.backup] {
                if group.tables == Tables::Built {
                    group.tables = Tables::ToReweigh;
                }
            }
        }
    }

    /// The index of the server whose id has this hash.
    pub fn by_id_hash(&self, hash: u64) -> Option<usize> {
        self.load.by_hash(hash)
    }

    /// The version of the record that was taken over last.
    pub fn members_version(&self) -> Option<u64> {
        self.members_version
    }

    /// Whether these are its servers: so many, with these ids, in these tiers.
    pub fn consists_of(&self, config: &PoolConfig) -> bool {
        let is_there = |server: &ServerConfig| {
            let index = self.load.by_hash(id_hash(&server.id));
            index.is_some_and(|index| {
                let tier = if index < self.backup.first {
                    Tier::Primary
                } else {
                    Tier::Backup
                };
                self.id(index) == server.id && tier == server.tier
            })
        };
        self.servers.len() == config.servers.len() && config.servers.iter().all(is_there)
    }

    /// Counters of each server since they were taken last, and of requests for which no server was eligible.
    pub fn take_counters(&mut self, mut each: impl FnMut(usize, ServerCounters)) -> u64 {
        for (index, server) in self.servers.iter_mut().enumerate() {
            let counters = std::mem::take(&mut server.counters);
            if counters != ServerCounters::default() {
                each(index, counters);
            }
        }
        std::mem::take(&mut self.no_server)
    }

    fn rebuild_at_next_pick(&mut self) {
        for group in [&mut self.primary, &mut self.backup] {
            group.tables = Tables::ToBuild;
        }
    }

    /// Sets the masks anew if anybody's standing has changed. Whoever is back has the first percent of its weight from the next pick on,
    /// not from the next tick.
    fn refresh(&mut self) {
        let masks = (&mut self.primary.eligible, &mut self.backup.eligible);
        let now_ms = self.load.now_us() / 1_000;
        if self.availability.refresh(now_ms, self.backup.first, masks) == Freshness::Stale {
            self.let_weights_grow();
        }
    }

    /// Makes the tables of a group anew if a server of it has another percentage of its weight by now.
    fn let_weights_grow(&mut self) {
        let now_ms = self.load.now_us() / 1_000;
        for group in [&mut self.primary, &mut self.backup] {
            let servers = self.servers.iter_mut().enumerate();
            let mut grown = false;
            for (index, server) in servers.skip(group.first).take(group.count) {
                let percent = self.availability.percent(index, now_ms);
                grown |= percent != server.percent;
                server.percent = percent;
            }
            if grown && group.tables == Tables::Built {
                group.tables = Tables::ToReweigh;
            }
        }
    }
}

impl Server {
    fn new(config: &ServerConfig) -> Self {
        Self {
            id: config.id.clone(),
            endpoint: config.address.to_string(),
            weight: config.weight,
            max_fails: config.limits.max_fails,
            percent: 100,
            configured: Configured {
                address: config.address,
                weight: config.weight,
                admin: Admin::of(config.admin),
            },
            counters: ServerCounters::default(),
        }
    }
}
