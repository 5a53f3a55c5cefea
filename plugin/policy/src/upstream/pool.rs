//! One pool in one VM: its servers in two groups (primary, backup), and the method that chooses within each.
//!
//! Indexes of servers stay what they are for the life of a configuration, primaries first; what changes at run time (weight, address,
//! admin state) changes in place, and the method starts its turns anew.

use std::cell::Cell;
use std::rc::Rc;

use super::attempts_watch::AttemptsWatch;
use super::load_record::{CHUNK_SERVERS, LoadRecord};
use super::{AdminChange, InFlight, LOAD_READ_INTERVAL_MS, Members, SharedData, Slots, id_hash};
use crate::balance::{
    Advance, Algorithm, Balancer, Charge, Choices, Facts, LoadNeed, Parameters, Question,
    ServerMask, Share,
};
use crate::config::{AdminState, PoolConfig, ServerConfig, Tier};
use crate::contract::ENDPOINTS_MAX;
use crate::exchange::HashKey;
use crate::random::Sequence;

/// Servers, and how one of them is chosen.
pub struct Pool {
    name: String,
    algorithm: Algorithm,
    retries: u8,
    /// Primaries, then backups, each in the order of the configuration.
    servers: Vec<Server>,
    primary: Group,
    backup: Group,
    hash_key: Option<HashKey>,
    /// The bound of a hashing method: then it looks at load.
    hash_balance_factor: Option<u16>,
    /// Hash of a server's id and its index, sorted.
    by_hash: Vec<(u64, u16)>,
    /// Requests of other VMs in flight, by server.
    others: Vec<u32>,
    /// When they were read last.
    others_read_ms: Option<u64>,
    members_key: Vec<u8>,
    members_version: Option<u64>,
    /// The slot, as far as turns know it.
    start: u32,
    watch: AttemptsWatch,
    no_server: u64,
    key: Vec<u8>,
    value: Vec<u8>,
}

struct Server {
    id: String,
    hash: u64,
    /// As the steering header names it.
    endpoint: String,
    weight: u16,
    eligible: Eligibility,
    in_flight: Rc<Cell<u32>>,
    counters: ServerCounters,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Eligibility {
    Eligible,
    NotEligible,
}

/// What happened with a server, since the counters were taken last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerCounters {
    /// Requests whose list it headed.
    pub picks: u64,
    /// Attempts that it failed, as far as hosts were asked.
    pub failures: u64,
}

/// The servers of one tier.
struct Group {
    balancer: Box<dyn Balancer>,
    /// Index in the pool of its first server.
    first: usize,
    count: usize,
    eligible: ServerMask,
    /// Requests in flight, own and others'; empty when load does not matter. Own ones are counted here as they come and go;
    /// what an older configuration's streams do in the same cells is seen when others' load is read.
    in_flight: Vec<u32>,
    tables: Tables,
}

/// Whether the method has taken over the group as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tables {
    /// At the next pick: a group that is never used costs nothing.
    ToBuild,
    Built,
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
        let servers: Vec<Server> = ordered
            .iter()
            .map(|server| Server::new(server, in_flight.cell(&config.name, &server.id)))
            .collect();
        let mut by_hash: Vec<(u64, u16)> = servers
            .iter()
            .zip(0..)
            .map(|(server, index)| (server.hash, index))
            .collect();
        by_hash.sort_unstable();
        let parameters = Parameters {
            hash_balance_factor: config.hash_balance_factor,
        };
        let group = |first, count| {
            let balancer = config.algorithm.build(&parameters);
            Group::new(balancer, first, count)
        };
        let mut pool = Self {
            name: config.name.clone(),
            algorithm: config.algorithm,
            retries: config.retries,
            primary: group(0, primaries),
            backup: group(primaries, servers.len().saturating_sub(primaries)),
            hash_key: config.hash_key.clone(),
            hash_balance_factor: config.hash_balance_factor,
            others: Vec::new(),
            others_read_ms: None,
            servers,
            by_hash,
            members_key: Members::key(&config.name),
            members_version: None,
            start,
            watch: AttemptsWatch::default(),
            no_server: 0,
            key: Vec::new(),
            value: Vec::new(),
        };
        pool.note_eligible();
        if pool.needs_load() {
            pool.others = vec![0; pool.servers.len()];
            pool.sum_load();
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

    pub fn needs_load(&self) -> bool {
        self.algorithm.load_need() != LoadNeed::None || self.hash_balance_factor.is_some()
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
        let mut choices = Choices::with_limit(usize::from(self.retries) + 1);
        for group in [&mut self.primary, &mut self.backup] {
            if !choices.is_full() && !group.eligible.is_empty() {
                group.build_tables(&self.servers, self.start);
                group.choose(facts, random, &mut choices);
            }
        }
        match choices
            .get(0)
            .and_then(|picked| self.servers.get_mut(picked))
        {
            Some(server) => server.counters.picks += 1,
            None => self.no_server += 1,
        }
        choices
    }

    /// Whether the host should be asked how many attempts a request with this list took.
    pub fn wants_attempts(&mut self, choices: &Choices) -> bool {
        choices.len() > 1 && (self.needs_load() || self.watch.wants())
    }

    /// The first `failed` entries of a list failed; those after the first that were used are charged in their order.
    pub fn charge(&mut self, choices: &Choices, used: usize, failed: usize) {
        self.watch.saw(used);
        for (place, server) in choices.iter().enumerate().take(used) {
            let group = self.group_of(server);
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
                });
            }
            if place < failed {
                group.balancer.charge(&Charge::Failed { server: local });
                if let Some(server) = self.servers.get_mut(server) {
                    server.counters.failures += 1;
                }
            }
        }
    }

    /// One more request is in flight on `server`.
    pub fn began(&mut self, server: usize) {
        self.count(server, |in_flight| in_flight.saturating_add(1));
    }

    /// One less.
    pub fn ended(&mut self, server: usize) {
        self.count(server, |in_flight| in_flight.saturating_sub(1));
    }

    fn count(&mut self, server: usize, change: impl Fn(u32) -> u32) {
        if let Some(server) = self.servers.get(server) {
            server.in_flight.set(change(server.in_flight.get()));
        }
        let group = self.group_of(server);
        if let Some(in_flight) = group.in_flight.get_mut(server.saturating_sub(group.first)) {
            *in_flight = change(*in_flight);
        }
    }

    /// Requests of this VM in flight on `server`.
    pub fn in_flight(&self, server: usize) -> u32 {
        self.servers
            .get(server)
            .map_or(0, |server| server.in_flight.get())
    }

    /// Tells other VMs this VM's load on `server` and its neighbours. Without a slot nothing is told.
    pub fn publish(&mut self, server: usize, slots: &Slots, data: &mut impl SharedData) {
        let Some(slot) = slots.index() else { return };
        let chunk = server / CHUNK_SERVERS;
        let chunks = u8::try_from(self.servers.len().div_ceil(CHUNK_SERVERS)).unwrap_or(u8::MAX);
        let counts = self
            .servers
            .iter()
            .skip(chunk * CHUNK_SERVERS)
            .map(|server| (server.hash, server.in_flight.get()));
        LoadRecord::encode(
            chunks,
            slots.owner(),
            counts.take(CHUNK_SERVERS),
            &mut self.value,
        );
        LoadRecord::key(&self.name, slot, chunk, &mut self.key);
        data.set(&self.key, &self.value, 0);
    }

    /// Tells other VMs all of this VM's load, as after claiming a slot.
    pub fn publish_all(&mut self, slots: &Slots, data: &mut impl SharedData) {
        for first in (0..self.servers.len()).step_by(CHUNK_SERVERS) {
            self.publish(first, slots, data);
        }
    }

    /// Reads other VMs' load, unless that was done within [`LOAD_READ_INTERVAL_MS`].
    pub fn read_others(&mut self, now_ms: u64, slots: &Slots, data: &mut impl SharedData) {
        // A clock that went back reads again at once.
        let elapsed_ms = self
            .others_read_ms
            .and_then(|read_ms| now_ms.checked_sub(read_ms));
        if elapsed_ms.is_some_and(|elapsed_ms| elapsed_ms < LOAD_READ_INTERVAL_MS) {
            return;
        }
        self.others_read_ms = Some(now_ms);
        self.others.fill(0);
        for (slot, owner) in slots.others() {
            // Ends: a record has at most 255 chunks, and a pool's are no more than its servers need.
            for chunk in 0..self.servers.len().div_ceil(CHUNK_SERVERS).max(1) {
                LoadRecord::key(&self.name, slot, chunk, &mut self.key);
                let record = data
                    .get(&self.key, &mut self.value)
                    .and_then(|_| LoadRecord::decode(&self.value));
                let Some(record) = record.filter(|record| record.owner == owner) else {
                    break;
                };
                for (hash, count) in record.counts() {
                    let index = self.by_hash(hash);
                    if let Some(others) = index.and_then(|index| self.others.get_mut(index)) {
                        *others = others.saturating_add(count);
                    }
                }
                if chunk + 1 >= usize::from(record.chunks) {
                    break;
                }
            }
        }
        self.sum_load();
    }

    /// Each tick: reads what operators changed, and rebuilds if they did.
    pub fn tick(&mut self, data: &mut impl SharedData) {
        self.watch.tick();
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

    /// Takes over what operators changed. Turns begin anew only if a weight or an address did: who is drained leaves his turns to
    /// the others, and they go on.
    pub fn apply(&mut self, members: &Members) {
        self.members_version = Some(members.version);
        let mut changed = false;
        for member in &members.servers {
            let index = self.by_id(&member.id);
            let Some(server) = index.and_then(|index| self.servers.get_mut(index)) else {
                continue;
            };
            let endpoint = member
                .address
                .map_or_else(|| server.endpoint.clone(), |address| address.to_string());
            let weight = member.weight.unwrap_or(server.weight);
            changed |= server.weight != weight || server.endpoint != endpoint;
            server.weight = weight;
            server.endpoint = endpoint;
            server.eligible = match member.admin {
                AdminChange::Ready => Eligibility::Eligible,
                AdminChange::Drain | AdminChange::Maint | AdminChange::Removed => {
                    Eligibility::NotEligible
                }
            };
        }
        self.note_eligible();
        if changed {
            self.rebuild_at_next_pick();
        }
    }

    /// The index of the server with this id.
    fn by_id(&self, id: &str) -> Option<usize> {
        self.by_hash(id_hash(id))
            .filter(|index| self.id(*index) == id)
    }

    fn by_hash(&self, hash: u64) -> Option<usize> {
        let place = self
            .by_hash
            .binary_search_by_key(&hash, |(hash, _)| *hash)
            .ok()?;
        self.by_hash
            .get(place)
            .map(|(_, index)| usize::from(*index))
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

    fn group_of(&mut self, server: usize) -> &mut Group {
        if server < self.backup.first {
            &mut self.primary
        } else {
            &mut self.backup
        }
    }

    fn rebuild_at_next_pick(&mut self) {
        self.primary.tables = Tables::ToBuild;
        self.backup.tables = Tables::ToBuild;
    }

    fn note_eligible(&mut self) {
        for group in [&mut self.primary, &mut self.backup] {
            group.eligible = ServerMask::none(group.count);
            let servers = self.servers.iter().skip(group.first).take(group.count);
            for (index, server) in servers.enumerate() {
                if server.eligible == Eligibility::Eligible {
                    group.eligible.insert(index);
                }
            }
        }
    }

    fn sum_load(&mut self) {
        for group in [&mut self.primary, &mut self.backup] {
            let servers = self
                .servers
                .iter()
                .zip(&self.others)
                .skip(group.first)
                .take(group.count);
            group.in_flight.clear();
            group.in_flight.extend(
                servers.map(|(server, others)| server.in_flight.get().saturating_add(*others)),
            );
        }
    }
}

impl Server {
    fn new(config: &ServerConfig, in_flight: Rc<Cell<u32>>) -> Self {
        let eligible = match config.admin {
            AdminState::Ready => Eligibility::Eligible,
            AdminState::Down => Eligibility::NotEligible,
        };
        Self {
            id: config.id.clone(),
            hash: id_hash(&config.id),
            endpoint: config.address.to_string(),
            weight: config.weight,
            eligible,
            in_flight,
            counters: ServerCounters::default(),
        }
    }
}

impl Group {
    fn new(balancer: Box<dyn Balancer>, first: usize, count: usize) -> Self {
        Self {
            balancer,
            first,
            count,
            eligible: ServerMask::none(count),
            in_flight: Vec::new(),
            tables: Tables::ToBuild,
        }
    }

    /// Hands the group to its method, if that was not done since it changed last.
    fn build_tables(&mut self, servers: &[Server], start: u32) {
        if self.tables == Tables::Built {
            return;
        }
        self.tables = Tables::Built;
        let servers = servers.iter().skip(self.first).take(self.count);
        let shares: Vec<Share<'_>> = servers
            .map(|server| Share {
                weight: server.weight,
                max_fails: 0,
                id: &server.id,
                endpoint: &server.endpoint,
            })
            .collect();
        self.balancer.rebuild(&shares, &self.eligible, start);
    }

    /// Appends this group's servers to the pool's choices; picks one if the choices are still empty.
    fn choose(&mut self, facts: &Facts<'_>, random: &mut Sequence, choices: &mut Choices) {
        let advance = if choices.is_empty() {
            Advance::First
        } else {
            Advance::Nothing
        };
        let mut own = Choices::with_limit(choices.room());
        self.balancer.pick(
            &mut Question {
                eligible: &self.eligible,
                in_flight: &self.in_flight,
                idle: &[],
                latency: &[],
                now_us: 0,
                facts,
                random,
                advance,
            },
            &mut own,
        );
        own.iter()
            .for_each(|server| choices.push(self.first + server));
    }
}
