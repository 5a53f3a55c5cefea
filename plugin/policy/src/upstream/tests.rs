//! Pools and slots of several VMs over one map of shared data.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::balance::{Choices, Facts, Latency};
use crate::config::{Config, Document, Tier};
use crate::random::Sequence;

/// Shared data as Envoy keeps it: one counter for all keys, a write with any number but 0 succeeds on a missing key.
#[derive(Default)]
pub(super) struct Map {
    values: BTreeMap<Vec<u8>, (Vec<u8>, u32)>,
    last_cas: u32,
    pub(super) reads: usize,
}

impl SharedData for Map {
    fn get(&mut self, key: &[u8], value: &mut Vec<u8>) -> Option<u32> {
        value.clear();
        self.reads += 1;
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
    second.pool.read_others(1_000_000, &second.slots, &mut data);
    assert_eq!(second.ids(), "cba");
    second.begin(2, &mut data);
    second.begin(2, &mut data);
    assert_eq!(second.ids(), "bac");
    // Within the interval nothing is read; after it, everything.
    first.begin(1, &mut data);
    first.begin(1, &mut data);
    second.pool.read_others(
        1_000_000 + LOAD_READ_INTERVAL_MS * 1_000 - 1,
        &second.slots,
        &mut data,
    );
    assert_eq!(second.ids(), "bac");
    second.pool.read_others(
        1_000_000 + LOAD_READ_INTERVAL_MS * 1_000,
        &second.slots,
        &mut data,
    );
    assert_eq!(second.ids().chars().last(), Some('b'));
    // The first one dies with all of that in flight.
    for _ in 0..=STILL_TICKS_MAX {
        second.slots.tick(&mut data);
    }
    second.pool.read_others(2_000_000, &second.slots, &mut data);
    assert_eq!(
        second.ids().chars().last(),
        Some('c'),
        "only its own two are left"
    );
    // Whoever takes the slot is not charged with what the dead one left.
    let mut third = Vm::new(3, "least_conn", &three());
    assert_eq!(third.slots.claim(&mut data), Some(0));
    second.slots.tick(&mut data);
    second.pool.read_others(3_000_000, &second.slots, &mut data);
    assert_eq!(second.ids().chars().last(), Some('c'));
}

#[test]
fn latencies_of_all_vms_count_where_the_method_looks_at_them() {
    for (balance, expected) in [("least_time", "cba"), ("least_conn", "abc")] {
        let mut data = Map::default();
        let mut vms = [1, 2].map(|identity| Vm::new(identity, balance, &three()));
        for vm in &mut vms {
            vm.slots.claim(&mut data);
        }
        vms.iter_mut().for_each(|vm| vm.slots.tick(&mut data));
        let [first, second] = &mut vms;
        // Everybody is taken once, so that no figure has faded in a pause.
        second.pool.read_others(1_000_000, &second.slots, &mut data);
        for (server, first_byte_ms) in [(0, 300), (1, 100), (2, 10)] {
            first.pool.answered(server, first_byte_ms * 1_000, 900_000);
        }
        first.pool.publish(0, &first.slots, &mut data);
        second.pool.read_others(2_000_000, &second.slots, &mut data);
        assert_eq!(second.ids(), expected, "{balance}");
        // Its own answers are averaged with the others', at once: (10 + 500) / 2 ms is more than 100.
        second.pool.answered(2, 500_000, 2_000_000);
        assert_eq!(second.ids(), "bca", "{balance}");
        let told = data.values.get(&b"evenkeel/shop/load/0"[..]);
        let told = told.map_or(0, |(record, _)| record.len());
        assert_eq!(
            told > 12,
            balance == "least_time",
            "{balance}: {told} bytes"
        );
    }
}

#[test]
fn a_reload_forgets_neither_requests_nor_latencies() {
    let policy =
        json!({"pools": {"shop": {"balance": "least_time", "servers": three(), "retries": 2}}});
    let config = Config::from_document(&Document::from_value(policy).unwrap()).unwrap();
    let mut in_flight = InFlight::default();
    let mut data = Map::default();
    let slots = Slots::new(1);
    let mut old = Pool::new(&config.pools[0], &mut in_flight, 0);
    old.answered(0, 900_000, 5_000_000);
    old.began(1);
    let mut new = Pool::new(&config.pools[0], &mut in_flight, 0);
    drop(in_flight);
    let ids = |pool: &mut Pool| -> String {
        let choices = pool.choose(&Facts::default(), &mut Sequence::new(1));
        choices
            .iter()
            .map(|server| pool.id(server).to_owned())
            .collect()
    };
    new.read_others(5_000_000, &slots, &mut data);
    assert_eq!(ids(&mut new), "cba");
    // The old one's stream ends; the new one sees it when it reads again.
    old.ended(1);
    assert_eq!(new.in_flight(1), 0);
    assert_eq!(ids(&mut new), "cba");
    new.read_others(5_000_000 + LOAD_READ_INTERVAL_MS * 1_000, &slots, &mut data);
    assert_eq!(ids(&mut new), "bca");
}

#[test]
fn who_is_drained_leaves_its_turns_to_the_others_and_they_go_on() {
    let mut vm = Vm::new(1, "round_robin", &three());
    let mut firsts = String::new();
    for (admin, version) in [
        (AdminChange::Ready, 1),
        (AdminChange::Drain, 2),
        (AdminChange::Ready, 3),
    ] {
        let servers = ["a", "b", "c"]
            .into_iter()
            .zip(1..)
            .map(|(id, last)| Member {
                address: Some(([10, 0, 0, last], 80).into()),
                ..member(
                    id,
                    last,
                    1,
                    if id == "b" { admin } else { AdminChange::Ready },
                )
            });
        vm.pool.apply(&Members {
            version,
            servers: servers.collect(),
        });
        (0..4).for_each(|_| firsts.push_str(&vm.ids()[..1]));
        firsts.push(' ');
    }
    // nginx's arithmetic by hand: -2 1 1 after the first four, then a and c alone, then b with the 1 that it kept.
    assert_eq!(firsts, "abca ccac bacb ");
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
fn of_large_pools_only_what_has_changed_is_read() {
    let servers: Vec<_> = (1..=1_000)
        .map(|port| json!({"address": format!("10.0.0.1:{port}")}))
        .collect();
    let mut data = Map::default();
    let mut vms = [1, 2].map(|identity| Vm::new(identity, "least_conn", &json!(servers)));
    vms.iter_mut()
        .for_each(|vm| assert!(vm.slots.claim(&mut data).is_some()));
    vms.iter_mut().for_each(|vm| vm.slots.tick(&mut data));
    let [first, second] = &mut vms;
    let mut now_us = 0;
    let mut read = |second: &mut Vm, data: &mut Map| {
        now_us += LOAD_READ_INTERVAL_MS * 1_000;
        data.reads = 0;
        second.pool.read_others(now_us, &second.slots, data);
        data.reads
    };
    assert_eq!(read(second, &mut data), 1, "no index yet");
    // The first chunk is not the first that is written.
    first.begin(700, &mut data);
    first.begin(701, &mut data);
    assert_eq!(read(second, &mut data), 2, "the index and one chunk");
    assert_eq!(read(second, &mut data), 1, "the index");
    (0..1_000)
        .filter(|server| ![5, 700].contains(server))
        .for_each(|server| second.pool.began(server));
    assert_eq!(second.choose().get(0), Some(5), "700 is busy elsewhere");
    first.begin(5, &mut data);
    first.pool.ended(700);
    first.pool.publish(700, &first.slots, &mut data);
    assert_eq!(read(second, &mut data), 3);
    assert_eq!(second.choose().get(0), Some(700));
    // Whatever the dead one left counts nothing, and is not read.
    for _ in 0..=STILL_TICKS_MAX {
        second.slots.tick(&mut data);
    }
    assert_eq!(read(second, &mut data), 0);
    second.pool.began(700);
    assert_eq!(second.choose().get(0), Some(5));
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
    // Whom the record no longer names is as configured again.
    let none = Members {
        version: 8,
        servers: Vec::new(),
    };
    data.set(&Members::key("shop"), &none.encode(), 0);
    vm.pool.tick(&mut data);
    let firsts: String = (0..6).map(|_| vm.ids().chars().next().unwrap()).collect();
    assert_eq!(firsts, "abcabc");
    assert_eq!(vm.pool.endpoint(0), "10.0.0.1:80");
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
fn a_few_answers_a_tick_are_asked_about_and_slow_ones_and_all_after_a_failure() {
    let mut vm = Vm::new(1, "round_robin", &three());
    let choices = vm.choose();
    let asked = |vm: &mut Vm| {
        let began = vm.pool.ticks();
        let wants = |_: &u32| vm.pool.wants_attempts(&choices, began);
        (0..50).filter(wants).count()
    };
    assert_eq!(asked(&mut vm), 16);
    assert_eq!(asked(&mut vm), 0);
    vm.pool.tick(&mut Map::default());
    assert_eq!(asked(&mut vm), 16);
    let began = vm.pool.ticks().wrapping_sub(2);
    assert!(vm.pool.wants_attempts(&choices, began), "a slow one");
    vm.pool.note_time(1_000_000_000);
    vm.pool.charge(&choices, 2, 1, Quality::Good);
    assert_eq!(asked(&mut vm), 50);
    (0..8).for_each(|_| vm.pool.tick(&mut Map::default()));
    assert_eq!(asked(&mut vm), 50, "a server is left out");
    // Its probe is answered.
    vm.pool.note_time(1_011_000_000);
    vm.pool.tick(&mut Map::default());
    let probe = (0..9).map(|_| vm.choose());
    let choices = probe.into_iter().find(|choices| choices.get(0) == Some(0));
    vm.pool.charge(&choices.unwrap(), 1, 0, Quality::Good);
    vm.pool.tick(&mut Map::default());
    assert_eq!(asked(&mut vm), 16);
}

#[test]
fn failures_and_picks_are_counted() {
    let mut vm = Vm::new(1, "round_robin", &three());
    let choices = vm.choose();
    vm.pool.charge(&choices, 3, 2, Quality::Good);
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
    let entry = |hash, in_flight, average_us| LoadEntry {
        hash,
        in_flight,
        latency: Latency {
            average_us,
            sampled_us: u64::from(average_us) * 3,
        },
    };
    let rows = [
        entry(1, 5, 9),
        entry(2, 0, 0),
        entry(u64::MAX, u32::MAX, u32::MAX),
        entry(3, 0, 1),
    ];
    let bare = |entry: LoadEntry| LoadEntry {
        latency: Latency::default(),
        ..entry
    };
    for (layout, expected) in [
        (Layout::InFlight, vec![bare(rows[0]), bare(rows[2])]),
        (Layout::Latency, vec![rows[0], rows[2], rows[3]]),
    ] {
        let mut load = Vec::new();
        LoadRecord::encode(2, 77, layout, rows.into_iter(), &mut load);
        let record = LoadRecord::decode(&load).unwrap();
        assert_eq!((record.chunks, record.owner), (2, 77));
        assert_eq!(record.entries().collect::<Vec<_>>(), expected);
        for end in 0..load.len() {
            assert_eq!(LoadRecord::decode(&load[..end]), None, "cut at {end}");
        }
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
        prop_assert!(LoadRecord::decode(&junk).is_none_or(|record| record.entries().count() <= CHUNK_SERVERS));
    });
}
