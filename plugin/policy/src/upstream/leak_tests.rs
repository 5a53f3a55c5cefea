//! Counts in flight cannot leak: whatever ends requests, configurations and VMs, after the storm every count is 0.

use proptest::prelude::*;
use serde_json::json;

use super::tests::Map;
use super::*;
use crate::balance::Facts;
use crate::config::{Config, Document};
use crate::exchange::{Answer, Exchange, LastAttempt, Policy};
use crate::random::Sequence;

const SERVERS: usize = 3;
/// Ticks after which a VM that is gone counts nothing.
const TICKS: usize = STILL_TICKS_MAX as usize + 1;

/// One VM with its configurations, newest last, and its streams.
struct Vm {
    slots: Slots,
    in_flight: InFlight,
    policies: Vec<Policy>,
    /// Each ends on the configuration that it began with.
    streams: Vec<(usize, Exchange)>,
}

#[derive(Debug, Clone)]
enum Step {
    Begin,
    /// The head of a response, after so many attempts, the last of which failed or did not.
    Answer {
        attempts: u64,
        last: LastAttempt,
    },
    /// The end of a stream, answered or aborted.
    Finish,
    Reload,
    /// The VM is gone with all it had; another one takes its place.
    Trap,
    Tick,
}

fn config() -> Config {
    let servers = json!([{"address": "10.0.0.1:80"}, {"address": "10.0.0.2:80"}, {"address": "10.0.0.3:80", "backup": true}]);
    let policy =
        json!({"pools": {"shop": {"balance": "least_conn", "servers": servers, "passive": {}}}});
    Config::from_document(&Document::from_value(policy).unwrap()).unwrap()
}

impl Vm {
    fn new(identity: u64) -> Self {
        let mut vm = Self {
            slots: Slots::new(identity),
            in_flight: InFlight::default(),
            policies: Vec::new(),
            streams: Vec::new(),
        };
        vm.reload();
        vm
    }

    fn reload(&mut self) {
        let start = self.slots.index().unwrap_or(0);
        let policy = Policy::new(&config(), &mut self.in_flight, start);
        self.policies.push(policy);
        self.in_flight.prune();
    }

    fn begin(&mut self, data: &mut Map, now_us: u64) {
        self.slots.claim(data);
        let newest = self.policies.len() - 1;
        let policy = &mut self.policies[newest];
        let pool = &mut policy.pools_mut()[0];
        pool.read_others(now_us, &self.slots, data);
        let choices = pool.choose(&Facts::default(), &mut Sequence::new(now_us));
        let exchange = Exchange::begun(policy, 0, choices);
        let server = exchange.in_flight_on().unwrap().1;
        policy.pools_mut()[0].publish(server, &self.slots, data);
        self.streams.push((newest, exchange));
    }

    fn answer(&mut self, which: usize, answer: Answer, data: &mut Map, now_us: u64) {
        let count = self.streams.len();
        let Some((policy, exchange)) = self.streams.get_mut(which % count.max(1)) else {
            return;
        };
        let policy = &mut self.policies[*policy];
        if let Some((pool, moved)) = exchange.answered(policy, Some(answer), now_us) {
            for server in moved {
                policy.pools_mut()[pool].publish(server, &self.slots, data);
            }
        }
    }

    fn finish(&mut self, which: usize, data: &mut Map) {
        if self.streams.is_empty() {
            return;
        }
        let (policy, mut exchange) = self.streams.remove(which % self.streams.len());
        let policy = &mut self.policies[policy];
        if let Some((pool, server)) = exchange.finish(policy) {
            policy.pools_mut()[pool].publish(server, &self.slots, data);
        }
        assert_eq!(exchange.finish(policy), None, "once");
    }

    fn tick(&mut self, data: &mut Map, now_us: u64) {
        let had = self.slots.index();
        self.slots.tick(data);
        let lost =
            had.is_some() && self.slots.index().is_none() && self.slots.claim(data).is_some();
        for policy in &mut self.policies {
            let pool = &mut policy.pools_mut()[0];
            pool.note_time(now_us);
            pool.tick(data);
            if lost {
                pool.publish_all(&self.slots, data);
            } else {
                pool.mend_told(&self.slots, data);
            }
        }
    }

    /// What the newest configuration takes for in flight, all VMs together.
    fn load(&mut self, data: &mut Map, now_us: u64) -> [u32; SERVERS] {
        let pool = &mut self.policies.last_mut().unwrap().pools_mut()[0];
        pool.read_others(now_us, &self.slots, data);
        std::array::from_fn(|server| pool.load_on(server))
    }
}

fn step() -> impl Strategy<Value = Step> {
    let last = prop_oneof![
        Just(LastAttempt::Answered),
        Just(LastAttempt::AnsweredBadly),
        Just(LastAttempt::Failed)
    ];
    prop_oneof![
        8 => Just(Step::Begin),
        6 => (0u64..5, last).prop_map(|(attempts, last)| Step::Answer { attempts, last }),
        6 => Just(Step::Finish),
        1 => Just(Step::Reload),
        1 => Just(Step::Trap),
        4 => Just(Step::Tick),
    ]
}

#[test]
fn after_any_storm_all_counts_are_zero() {
    proptest!(|(steps in proptest::collection::vec((0usize..4, step(), any::<usize>()), 0..120))| {
        let mut data = Map::default();
        let mut vms: Vec<Vm> = (1..=4).map(Vm::new).collect();
        let (mut identity, mut now_us) = (100, 1_000_000_000_000);
        for (vm, step, which) in steps {
            now_us += 10_000;
            let vm = &mut vms[vm];
            match step {
                Step::Begin => vm.begin(&mut data, now_us),
                Step::Answer { attempts, last } => vm.answer(which, Answer { attempts, last }, &mut data, now_us),
                Step::Finish => vm.finish(which, &mut data),
                Step::Reload => vm.reload(),
                Step::Trap => {
                    identity += 1;
                    *vm = Vm::new(identity);
                }
                Step::Tick => vm.tick(&mut data, now_us),
            }
        }
        // What is still there is in flight somewhere, and counted once.
        for _ in 0..TICKS {
            now_us += 250_000;
            vms.iter_mut().for_each(|vm| vm.tick(&mut data, now_us));
        }
        let open: usize = vms.iter().map(|vm| vm.streams.len()).sum();
        for vm in &mut vms {
            let load = vm.load(&mut data, now_us);
            prop_assert_eq!(load.iter().sum::<u32>() as usize, open, "{:?}", load);
        }
        now_us += 250_000;
        for vm in &mut vms {
            while !vm.streams.is_empty() {
                vm.finish(0, &mut data);
            }
        }
        for vm in &mut vms {
            prop_assert_eq!(vm.load(&mut data, now_us), [0; SERVERS]);
            for policy in &vm.policies {
                let own: u32 = (0..SERVERS).map(|server| policy.pools()[0].in_flight(server)).sum();
                prop_assert_eq!(own, 0);
            }
        }
    });
}

/// It stood still, and was taken for dead; another has its slot. What it writes there before it notices is not the last word.
#[test]
fn a_vm_that_has_lost_its_slot_hides_nobodys_load_for_long() {
    let mut data = Map::default();
    let (mut asleep, mut heir, mut reader) = (Vm::new(1), Vm::new(2), Vm::new(3));
    let mut now_us = 1_000_000_000_000;
    asleep.begin(&mut data, now_us);
    for _ in 0..=STILL_TICKS_MAX {
        now_us += 250_000;
        reader.tick(&mut data, now_us);
        heir.tick(&mut data, now_us);
    }
    heir.begin(&mut data, now_us);
    assert_eq!(heir.slots.index(), asleep.slots.index());
    now_us += 10_000;
    asleep.begin(&mut data, now_us);
    for _ in 0..2 {
        now_us += 250_000;
        for vm in [&mut asleep, &mut heir, &mut reader] {
            vm.tick(&mut data, now_us);
        }
    }
    assert_eq!(reader.load(&mut data, now_us).iter().sum::<u32>(), 3);
}

#[test]
fn a_vm_that_traps_counts_for_five_ticks_at_most() {
    let mut data = Map::default();
    let (mut dies, mut stays) = (Vm::new(1), Vm::new(2));
    let mut now_us = 1_000_000_000_000;
    (0..9).for_each(|_| dies.begin(&mut data, now_us));
    stays.begin(&mut data, now_us);
    stays.tick(&mut data, now_us);
    now_us += 10_000;
    assert_eq!(stays.load(&mut data, now_us).iter().sum::<u32>(), 10);
    drop(dies);
    for _ in 0..STILL_TICKS_MAX {
        now_us += 250_000;
        stays.tick(&mut data, now_us);
    }
    assert_eq!(stays.load(&mut data, now_us).iter().sum::<u32>(), 1);
}
