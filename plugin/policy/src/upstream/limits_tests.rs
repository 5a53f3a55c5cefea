//! Choosing within bounds, and the lines of those who wait, over one map of shared data.

use serde_json::json;

use super::tests::Map;
use super::*;
use crate::balance::{Choices, Facts};
use crate::config::{Config, Document};
use crate::random::Sequence;

struct Vm {
    slots: Slots,
    pool: Pool,
    random: Sequence,
}

impl Vm {
    fn new(identity: u64, servers: &serde_json::Value, data: &mut Map) -> Self {
        Self::with_retries(0, identity, servers, data)
    }

    fn with_retries(
        retries: u8,
        identity: u64,
        servers: &serde_json::Value,
        data: &mut Map,
    ) -> Self {
        let policy =
            json!({"pools": {"shop": {"servers": servers, "retries": retries, "queue": {}}}});
        let config = Config::from_document(&Document::from_value(policy).unwrap()).unwrap();
        let mut slots = Slots::new(identity);
        slots.claim(data);
        Self {
            slots,
            pool: Pool::new(&config.pools[0], &mut InFlight::default(), 0),
            random: Sequence::new(identity),
        }
    }

    /// The list of a request, which is in flight from then on: ids, or why there is none.
    fn begin(&mut self, data: &mut Map) -> String {
        let facts = Facts::default();
        let random = &mut self.random;
        let chosen = self
            .pool
            .choose_within_limits(&facts, random, &self.slots, data);
        match chosen {
            Chosen::Servers(choices) => {
                self.pool.began(choices.get(0).unwrap());
                choices.iter().map(|server| self.pool.id(server)).collect()
            }
            Chosen::Nobody => "nobody".to_owned(),
            Chosen::AllFull => "full".to_owned(),
            Chosen::ByHost => "by the host".to_owned(),
        }
    }

    fn end(&mut self, server: usize, data: &mut Map) -> Freed {
        self.pool.ended(server);
        self.pool.settle(&self.slots, data)
    }
}

fn server(id: &str, max_conns: u32, backup: bool) -> serde_json::Value {
    let port = 80 + u32::from(id.as_bytes()[0]);
    json!({"id": id, "address": format!("10.0.0.1:{port}"), "max_conns": max_conns, "backup": backup})
}

#[test]
fn full_servers_leave_their_turns_to_the_others_and_backups_help_out() {
    let mut data = Map::default();
    let servers = json!([
        server("a", 1, false),
        server("b", 2, false),
        server("c", 1, true)
    ]);
    let mut vm = Vm::new(1, &servers, &mut data);
    let lists: Vec<String> = (0..5).map(|_| vm.begin(&mut data)).collect();
    assert_eq!(lists, ["a", "b", "b", "c", "full"]);
    assert_eq!(vm.end(0, &mut data), Freed::Some);
    assert_eq!(vm.begin(&mut data), "a");
    // Another VM of the process finds what is taken.
    let mut other = Vm::new(2, &servers, &mut data);
    assert_eq!(other.begin(&mut data), "full");
    assert_eq!(vm.end(1, &mut data), Freed::Some);
    assert_eq!(other.begin(&mut data), "b");
    assert_eq!(vm.begin(&mut data), "full");
    // What was full and is not any more is seen, whoever made room.
    assert_eq!(other.end(1, &mut data), Freed::Some);
    assert_eq!(vm.begin(&mut data), "b");
}

#[test]
fn servers_without_a_bound_stand_by_before_others() {
    let mut data = Map::default();
    let servers = json!([
        server("a", 9, false),
        server("b", 9, false),
        server("c", 0, false),
        server("d", 0, true)
    ]);
    let mut vm = Vm::with_retries(7, 1, &servers, &mut data);
    let lists: Vec<String> = (0..3).map(|_| vm.begin(&mut data)).collect();
    assert_eq!(lists, ["acd", "bcd", "cd"]);
    assert_eq!(vm.end(2, &mut data), Freed::Nothing);
}

#[test]
fn one_server_with_a_bound_stands_by_while_half_of_it_is_free() {
    let mut data = Map::default();
    let servers = json!([server("a", 6, false), server("b", 4, false)]);
    let mut vm = Vm::with_retries(7, 1, &servers, &mut data);
    let mut other = Vm::with_retries(7, 2, &servers, &mut data);
    // a 1, b 1; b 2, a 2; a 3, b is half full; b 3, a is; then both fill up.
    let lists: Vec<String> = (0..4).map(|_| vm.begin(&mut data)).collect();
    assert_eq!(lists, ["ab", "ba", "a", "b"]);
    let lists: Vec<String> = (0..5).map(|_| other.begin(&mut data)).collect();
    assert_eq!(lists, ["a", "b", "a", "a", "full"]);
    // The head of the first: its place on b is free, and only that.
    let mut choices = Choices::with_limit(2);
    [0, 1].into_iter().for_each(|server| choices.push(server));
    vm.pool.let_go(&choices);
    assert_eq!(vm.pool.settle(&vm.slots, &mut data), Freed::Some);
    assert_eq!(other.begin(&mut data), "b");
    assert_eq!(vm.begin(&mut data), "full");
}

#[test]
fn without_retries_nobody_stands_by() {
    let mut data = Map::default();
    let servers = json!([server("a", 9, false), server("b", 9, false)]);
    let mut vm = Vm::new(1, &servers, &mut data);
    assert_eq!(vm.begin(&mut data), "a");
}

#[test]
fn a_pool_without_bounds_reads_and_writes_nothing() {
    let mut data = Map::default();
    let servers = json!([server("a", 0, false), server("b", 0, false)]);
    let mut vm = Vm::with_retries(7, 1, &servers, &mut data);
    let before = data.reads;
    assert_eq!(vm.begin(&mut data), "ab");
    assert_eq!(vm.end(0, &mut data), Freed::Nothing);
    assert_eq!(data.reads, before);
    assert_eq!(vm.pool.queue(), None, "nobody can wait there");
}

#[test]
fn a_request_costs_one_read_and_one_write_each_way() {
    let mut data = Map::default();
    let mut vm = Vm::new(1, &json!([server("a", 9, false)]), &mut data);
    let before = data.reads;
    assert_eq!(vm.begin(&mut data), "a");
    assert_eq!(data.reads, before + 1);
    vm.end(0, &mut data);
    assert_eq!(data.reads, before + 2);
}

#[test]
fn lines_of_all_vms_are_one_as_to_their_length_and_their_age() {
    let mut data = Map::default();
    let servers = json!([server("a", 1, false)]);
    let mut vms: Vec<Vm> = (1..=3).map(|id| Vm::new(id, &servers, &mut data)).collect();
    let mut lines: Vec<WaitingVms> = (0..3).map(|_| WaitingVms::new("shop")).collect();
    let line = |count, queue, since_us| WaitingVm {
        count,
        queue,
        since_us,
    };
    let mut join = |vm: usize, own, data: &mut Map| {
        let slots = &vms[vm].slots;
        let may = lines[vm].may_join(own, 3, slots, data);
        (may, lines[vm].oldest_other(slots, data))
    };
    assert_eq!(join(0, line(1, 70, 5), &mut data), (true, None));
    assert_eq!(
        join(1, line(1, 71, 3), &mut data),
        (true, Some(line(1, 70, 5)))
    );
    assert_eq!(
        join(0, line(2, 70, 5), &mut data),
        (true, Some(line(1, 71, 3)))
    );
    assert_eq!(
        join(2, line(1, 72, 9), &mut data),
        (false, Some(line(1, 71, 3)))
    );
    assert!(lines[1].tell(line(0, 71, 0), &vms[1].slots, &mut data));
    let oldest = lines[2].oldest_other(&vms[2].slots, &mut data);
    assert_eq!(oldest, Some(line(2, 70, 5)));
    // The first VM dies; its line goes with its slot.
    for _ in 0..=STILL_TICKS_MAX {
        for vm in &mut vms[1..] {
            vm.slots.tick(&mut data);
        }
    }
    assert!(lines[2].has_death(&vms[2].slots));
    let own = line(0, 0, 0);
    assert_eq!(lines[2].sweep(own, &mut vms[2].slots, &mut data), 0);
    assert_eq!(lines[2].oldest_other(&vms[2].slots, &mut data), None);
}
