//! Pools and slots of several VMs over one map of shared data.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::balance::{Choices, Facts};
use crate::config::{Config, Document, Tier};
use crate::random::Sequence;

/// Shared data as Envoy keeps it: one counter for all keys, a write with any number but 0 succeeds on a missing key.
#[derive(Default)]
struct Map {
    values: BTreeMap<Vec<u8>, (Vec<u8>, u32)>,
    last_cas: u32,
}

impl SharedData for Map {
    fn get(&mut self, key: &[u8], value: &mut Vec<u8>) -> Option<u32> {
        value.clear();
        let (stored, cas) = self.values.get(key)?;
        value.extend_from_slice(stored);
        Some(*cas)
    }

    fn set(&mut self, key: &[u8], value: &[u8], cas: u32) -> Written {
        let stored = self.values.get(key).map(|(_, cas)| *cas);
        if cas != 0 && stored.is_some_and(|stored| stored != cas) {
            return Written::Mismatch;
        }
        self.last_cas += 1;
        self.values
            .insert(key.to_vec(), (value.to_vec(), self.last_cas));
        Written::Done
    }
}

/// One VM with one pool.
struct Vm {
    slots: Slots,
    pool: Pool,
    random: Sequence,
}

impl Vm {
    fn new(identity: u64, balance: &str, servers: &serde_json::Value) -> Self {
        let policy =
            json!({"pools": {"shop": {"balance": balance, "servers": servers, "retries": 7}}});
        let config = Config::from_document(&Document::from_value(policy).unwrap()).unwrap();
        let pool = Pool::new(&config.pools[0], &mut InFlight::default(), 0);
        Self {
            slots: Slots::new(identity),
            pool,
            random: Sequence::new(identity),
        }
    }

    fn choose(&mut self) -> Choices {
        self.pool.choose(&Facts::default(), &mut self.random)
    }

    fn ids(&mut self) -> String {
        let choices = self.choose();
        choices
            .iter()
            .map(|server| self.pool.id(server).to_owned())
            .collect()
    }

    fn begin(&mut self, server: usize, data: &mut Map) {
        self.pool.began(server);
        self.pool.publish(server, &self.slots, data);
    }
}

fn three() -> serde_json::Value {
    json!([{"address": "10.0.0.1:80", "id": "a"}, {"address": "10.0.0.2:80", "id": "b"}, {"address": "10.0.0.3:80", "id": "c"}])
}

#[test]
fn slots_are_taken_from_the_lowest_and_kept() {
    let mut data = Map::default();
    let mut all: Vec<Slots> = (1..=u64::from(SLOTS_MAX)).map(Slots::new).collect();
    for (expected, slots) in (0..).zip(&mut all) {
        assert_eq!(slots.claim(&mut data), Some(expected));
        assert_eq!(slots.claim(&mut data), Some(expected), "once");
    }
    assert_eq!(Slots::new(999).claim(&mut data), None, "all are taken");
    for _ in 0..20 {
        all.iter_mut().for_each(|slots| slots.tick(&mut data));
    }
    assert!(
        all.iter()
            .zip(0..)
            .all(|(slots, index)| slots.index() == Some(index)),
        "everybody beats"
    );
    assert_eq!(all[5].others().count(), 127);
}

#[test]
fn the_slot_of_a_vm_that_is_gone_is_free_again() {
    let mut data = Map::default();
    let (mut first, mut second) = (Slots::new(1), Slots::new(2));
    first.claim(&mut data);
    second.claim(&mut data);
    second.tick(&mut data);
    assert_eq!(second.others().collect::<Vec<_>>(), [(0, 1)]);
    for _ in 0..STILL_TICKS_MAX {
        second.tick(&mut data);
    }
    assert_eq!(second.others().count(), 0, "not counted any more");
    let mut third = Slots::new(3);
    assert_eq!(third.claim(&mut data), Some(0));
    // The first only stood still: it finds its slot lost, and takes another.
    first.tick(&mut data);
    assert_eq!(first.index(), None);
    assert_eq!(first.claim(&mut data), Some(2));
    assert_eq!(second.index(), Some(1));
}

#[test]
fn a_record_that_is_none_is_taken_over() {
    let mut data = Map::default();
    data.set(b"evenkeel//slot/0", b"what is this", 0);
    assert_eq!(Slots::new(1).claim(&mut data), Some(0));
}

#[test]
fn others_load_counts_until_its_owner_is_gone() {
    let mut data = Map::default();
    let mut vms = [1, 2].map(|identity| Vm::new(identity, "least_conn", &three()));
    for vm in &mut vms {
        vm.slots.claim(&mut data);
    }
    vms.iter_mut().for_each(|vm| vm.slots.tick(&mut data));
    let [first, second] = &mut vms;
    first.begin(0, &mut data);
    first.begin(0, &mut data);
    first.begin(1, &mut data);
    second.pool.read_others(1_000, &second.slots, &mut data);
    assert_eq!(second.ids(), "cba");
    second.begin(2, &mut data);
    second.begin(2, &mut data);
    assert_eq!(second.ids(), "bac");
    // Within the interval nothing is read; after it, everything.
    first.begin(1, &mut data);
    first.begin(1, &mut data);
    second
        .pool
        .read_others(1_000 + LOAD_READ_INTERVAL_MS - 1, &second.slots, &mut data);
    assert_eq!(second.ids(), "bac");
    second
        .pool
        .read_others(1_000 + LOAD_READ_INTERVAL_MS, &second.slots, &mut data);
    assert_eq!(second.ids().chars().last(), Some('b'));
    // The first one dies with all of that in flight.
    for _ in 0..=STILL_TICKS_MAX {
        second.slots.tick(&mut data);
    }
    second.pool.read_others(2_000, &second.slots, &mut data);
    assert_eq!(
        second.ids().chars().last(),
        Some('c'),
        "only its own two are left"
    );
    // Whoever takes the slot is not charged with what the dead one left.
    let mut third = Vm::new(3, "least_conn", &three());
    assert_eq!(third.slots.claim(&mut data), Some(0));
    second.slots.tick(&mut data);
    second.pool.read_others(3_000, &second.slots, &mut data);
    assert_eq!(second.ids().chars().last(), Some('c'));
}

#[test]
fn large_pools_are_told_in_chunks() {
    let servers: Vec<_> = (1..=200)
        .map(|port| json!({"address": format!("10.0.0.1:{port}")}))
        .collect();
    let mut data = Map::default();
    let mut vms = [1, 2].map(|identity| Vm::new(identity, "least_conn", &json!(servers)));
    vms.iter_mut()
        .for_each(|vm| assert!(vm.slots.claim(&mut data).is_some()));
    vms.iter_mut().for_each(|vm| vm.slots.tick(&mut data));
    let [first, second] = &mut vms;
    (0..199).for_each(|server| first.pool.began(server));
    first.pool.publish_all(&first.slots, &mut data);
    second.pool.read_others(1, &second.slots, &mut data);
    assert_eq!(second.choose().get(0), Some(199), "the only idle one");
    assert!(
        data.values
            .keys()
            .any(|key| key == b"evenkeel/shop/load/0.3")
    );
}

#[test]
fn backups_come_only_after_every_primary_and_down_ones_never() {
    let servers = json!([
        {"address": "10.0.0.9:80", "id": "z", "backup": true},
        {"address": "10.0.0.1:80", "id": "a"},
        {"address": "10.0.0.2:80", "id": "b", "down": true},
        {"address": "10.0.0.3:80", "id": "c"},
        {"address": "10.0.0.8:80", "id": "y", "backup": true, "weight": 2},
    ]);
    for balance in ["round_robin", "least_conn", "random_two"] {
        let mut vm = Vm::new(1, balance, &servers);
        for _ in 0..20 {
            let ids = vm.ids();
            assert!(ids.len() == 4 && !ids.contains('b'), "{balance}: {ids}");
            assert!(
                ids[..2].contains('a') && ids[..2].contains('c'),
                "{balance}: {ids}"
            );
        }
        let gone = |id: &str, port| member(id, port, 1, AdminChange::Maint);
        vm.pool.apply(&Members {
            version: 1,
            servers: vec![gone("a", 1), gone("c", 3)],
        });
        let mut vm_backup_firsts = [0, 0];
        for _ in 0..300 {
            vm_backup_firsts[usize::from(vm.ids().starts_with('y'))] += 1;
        }
        let allowed = if balance == "random_two" {
            100..=200
        } else {
            200..=200
        };
        assert!(
            allowed.contains(&vm_backup_firsts[1]),
            "{balance}: weight 1 to 2, {vm_backup_firsts:?}"
        );
    }
}

fn member(id: &str, last: u8, weight: u16, admin: AdminChange) -> Member {
    Member {
        id: id.to_owned(),
        address: Some(([10, 0, 0, last], 81).into()),
        weight: Some(weight),
        admin,
        tier: Tier::Primary,
    }
}

#[test]
fn changes_of_operators_are_taken_over_at_the_next_tick() {
    let mut data = Map::default();
    let mut vm = Vm::new(1, "round_robin", &three());
    vm.pool.tick(&mut data);
    let servers = vec![
        member("a", 7, 5, AdminChange::Ready),
        member("b", 2, 1, AdminChange::Drain),
        member("unknown", 1, 1, AdminChange::Ready),
    ];
    data.set(
        &Members::key("shop"),
        &Members {
            version: 7,
            servers,
        }
        .encode(),
        0,
    );
    vm.pool.began(1);
    vm.pool.tick(&mut data);
    let firsts: String = (0..6).map(|_| vm.ids().chars().next().unwrap()).collect();
    assert_eq!(firsts, "aaacaa");
    assert_eq!(vm.pool.endpoint(0), "10.0.0.7:81");
    assert_eq!(vm.pool.in_flight(1), 1, "what is in flight stays");
    // The same version again changes nothing: turns go on where they were.
    vm.ids();
    vm.pool.tick(&mut data);
    assert!(vm.ids().starts_with('a'));
    data.set(&Members::key("shop"), b"junk", 0);
    vm.pool.tick(&mut data);
    assert!(vm.ids().starts_with('a'));
}

#[test]
fn turns_begin_later_in_other_slots() {
    let mut firsts = String::new();
    for slot in 0..4 {
        let mut vm = Vm::new(1, "round_robin", &three());
        vm.pool.start_at(slot);
        firsts.push_str(&vm.ids()[..1]);
    }
    assert_eq!(firsts, "abca");
}

#[test]
fn attempts_are_asked_about_once_a_tick_and_always_after_a_failure() {
    let mut vm = Vm::new(1, "round_robin", &three());
    let choices = vm.choose();
    let asked = |vm: &mut Vm| (0..5).filter(|_| vm.pool.wants_attempts(&choices)).count();
    assert_eq!(asked(&mut vm), 1);
    assert_eq!(asked(&mut vm), 0);
    vm.pool.tick(&mut Map::default());
    assert_eq!(asked(&mut vm), 1);
    vm.pool.charge(&choices, 2, 1);
    assert_eq!(asked(&mut vm), 5);
    (0..8).for_each(|_| vm.pool.tick(&mut Map::default()));
    assert_eq!(asked(&mut vm), 1);
}

#[test]
fn failures_and_picks_are_counted() {
    let mut vm = Vm::new(1, "round_robin", &three());
    let choices = vm.choose();
    vm.pool.charge(&choices, 3, 2);
    let mut counted = Vec::new();
    assert_eq!(
        vm.pool.take_counters(|server, counters| counted.push((
            server,
            counters.picks,
            counters.failures
        ))),
        0
    );
    assert_eq!(counted, [(0, 1, 1), (1, 0, 1)]);
    assert_eq!(vm.pool.take_counters(|_, _| panic!("taken")), 0);
}

#[test]
fn records_are_read_as_written_and_junk_is_not() {
    let members = Members {
        version: 9,
        servers: vec![
            member("a", 1, 65_535, AdminChange::Ready),
            Member {
                address: "[2001:db8::1]:443".parse().ok(),
                tier: Tier::Backup,
                ..member("b", 1, 1, AdminChange::Drain)
            },
            member("", 1, 1, AdminChange::Maint),
            Member {
                address: None,
                weight: None,
                ..member("c", 1, 1, AdminChange::Removed)
            },
        ],
    };
    let bytes = members.encode();
    assert_eq!(Members::decode(&bytes), Some(members));
    for end in 0..bytes.len() {
        assert_eq!(Members::decode(&bytes[..end]), None, "cut at {end}");
    }
    let mut load = Vec::new();
    LoadRecord::encode(
        2,
        77,
        [(1, 5), (2, 0), (u64::MAX, u32::MAX)].into_iter(),
        &mut load,
    );
    let record = LoadRecord::decode(&load).unwrap();
    assert_eq!((record.chunks, record.owner), (2, 77));
    assert_eq!(
        record.counts().collect::<Vec<_>>(),
        [(1, 5), (u64::MAX, u32::MAX)]
    );
    for end in 0..load.len() {
        assert_eq!(LoadRecord::decode(&load[..end]), None, "cut at {end}");
    }
    proptest!(|(junk in proptest::collection::vec(any::<u8>(), 0..60), version in any::<bool>())| {
        let mut junk = junk;
        if let Some(first) = junk.first_mut().filter(|_| version) {
            *first = 2;
        }
        if let Some(members) = Members::decode(&junk) {
            prop_assert_eq!(members.encode(), junk.clone());
        }
        if let Some(first) = junk.first_mut().filter(|_| version) {
            *first = 1;
        }
        prop_assert!(LoadRecord::decode(&junk).is_none_or(|record| record.counts().count() <= CHUNK_SERVERS));
    });
}
