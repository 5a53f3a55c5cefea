//! Bounds of servers under several VMs whose reads and writes fall between each other's, while some of them die.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use proptest::prelude::*;

use super::conn_limits::{ConnLimits, Place};
use super::in_flight::OwnLoad;
use super::slots::STILL_TICKS_MAX;
use super::vm_shares::TRIES_MAX;
use super::{Freed, SharedData, Slots, Written};

const SERVERS: usize = 3;
const VMS: usize = 4;

/// One process: its shared data and its VMs. A VM is taken out of its place while it does something.
struct World {
    values: RefCell<BTreeMap<Vec<u8>, Stored>>,
    last_cas: Cell<u32>,
    vms: RefCell<Vec<Option<Vm>>>,
    /// What others do between a read and a write.
    between: RefCell<Vec<Step>>,
    /// Writes that the host refuses from now on.
    refused: Cell<usize>,
    born: Cell<u64>,
    /// Of each VM: nobody who lives stands still so long that he is taken for dead.
    ticks: RefCell<[u32; VMS]>,
}

/// How far a VM's ticks may be ahead of another's: twice as many may be between two of one that lives, and five are death.
const AHEAD_MAX: u32 = 2;

/// A value and its compare-and-swap number.
type Stored = (Vec<u8>, u32);

struct Vm {
    slots: Slots,
    limits: ConnLimits,
    own: Vec<Rc<OwnLoad>>,
    max: u32,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Begin(usize, usize),
    End(usize, usize),
    /// A place is kept for a request that is sent elsewhere.
    Keep(usize, usize),
    LetGo(usize, usize),
    /// The request failed there, and is in flight here now.
    FallBack(usize, usize),
    Tick(usize),
    Die(usize),
    RefuseWrites(usize),
}

/// Shared data in whose gaps other VMs act.
struct Gaps<'a> {
    world: &'a World,
    between: bool,
}

impl SharedData for Gaps<'_> {
    fn get(&mut self, key: &[u8], value: &mut Vec<u8>) -> Option<u32> {
        value.clear();
        let values = self.world.values.borrow();
        let (stored, cas) = values.get(key)?;
        value.extend_from_slice(stored);
        Some(*cas)
    }

    fn set(&mut self, key: &[u8], value: &[u8], cas: u32) -> Written {
        let step = self.world.between.borrow_mut().pop();
        if let Some(step) = step.filter(|_| self.between) {
            self.world.act(step, false);
        }
        let refused = self.world.refused.get();
        if refused > 0 {
            self.world.refused.set(refused - 1);
            return Written::Failed;
        }
        let mut values = self.world.values.borrow_mut();
        let stored = values.get(key).map(|(_, cas)| *cas);
        if cas != 0 && stored.is_some_and(|stored| stored != cas) {
            return Written::Mismatch;
        }
        self.world.last_cas.set(self.world.last_cas.get() + 1);
        values.insert(key.to_vec(), (value.to_vec(), self.world.last_cas.get()));
        Written::Done
    }
}

impl World {
    fn new(max: u32) -> Self {
        let world = Self {
            values: RefCell::default(),
            last_cas: Cell::new(0),
            vms: RefCell::default(),
            between: RefCell::default(),
            refused: Cell::new(0),
            born: Cell::new(0),
            ticks: RefCell::default(),
        };
        for _ in 0..VMS {
            let vm = world.birth(max);
            world.vms.borrow_mut().push(Some(vm));
        }
        world
    }

    fn birth(&self, max: u32) -> Vm {
        self.born.set(self.born.get() + 1);
        let own: Vec<Rc<OwnLoad>> = (0..SERVERS).map(|_| Rc::default()).collect();
        let servers = own
            .iter()
            .zip(10..)
            .map(|(own, hash)| (max, hash, Rc::clone(own)));
        let mut slots = Slots::new(self.born.get());
        slots.claim(&mut self.data(false));
        Vm {
            slots,
            limits: ConnLimits::new("p", servers, SERVERS - 1).unwrap(),
            own,
            max,
        }
    }

    fn data(&self, between: bool) -> Gaps<'_> {
        Gaps {
            world: self,
            between,
        }
    }

    /// Does one step; others act within it if `between`. A VM that is in the middle of something does nothing else.
    fn act(&self, step: Step, between: bool) {
        let (Step::Begin(vm, _)
        | Step::End(vm, _)
        | Step::Keep(vm, _)
        | Step::LetGo(vm, _)
        | Step::FallBack(vm, _)
        | Step::Tick(vm)
        | Step::Die(vm)) = step
        else {
            if let Step::RefuseWrites(writes) = step {
                self.refused.set(writes);
            }
            return;
        };
        if let Step::Tick(vm) = step {
            let mut ticks = self.ticks.borrow_mut();
            let slowest = ticks.iter().min().copied().unwrap();
            if ticks[vm] - slowest >= AHEAD_MAX {
                return;
            }
            ticks[vm] += 1;
        }
        let Some(mut it) = self.vms.borrow_mut()[vm].take() else {
            return;
        };
        let mut data = self.data(between);
        match step {
            Step::Begin(_, server) => {
                let place = it.limits.acquire(server, &it.slots, &mut data);
                if place == Place::Taken {
                    let in_flight = &it.own[server].in_flight;
                    in_flight.set(in_flight.get() + 1);
                }
            }
            Step::End(_, server) => {
                let in_flight = &it.own[server].in_flight;
                if in_flight.get() > 0 {
                    in_flight.set(in_flight.get() - 1);
                    it.limits.ended(server);
                    it.limits.settle(&it.slots, &mut data);
                }
            }
            Step::Keep(_, server) => {
                it.limits.keep(server, &it.slots, &mut data);
            }
            Step::LetGo(_, server) => {
                if it.own[server].kept.get() > 0 {
                    it.limits.let_go(server);
                    it.limits.settle(&it.slots, &mut data);
                }
            }
            Step::FallBack(_, server) => {
                let (kept, in_flight) = (&it.own[server].kept, &it.own[server].in_flight);
                if kept.get() > 0 {
                    it.limits.let_go(server);
                    in_flight.set(in_flight.get() + 1);
                    it.limits.settle(&it.slots, &mut data);
                }
            }
            Step::Tick(_) => {
                it.slots.tick(&mut data);
                it.slots.claim(&mut data);
                it.limits.tick(&mut it.slots, &mut data);
            }
            // Its requests end with it, and another takes its place.
            Step::Die(_) => {
                it = self.birth(it.max);
                let slowest = self.ticks.borrow().iter().min().copied().unwrap();
                self.ticks.borrow_mut()[vm] = slowest;
            }
            Step::RefuseWrites(_) => {}
        }
        self.vms.borrow_mut()[vm] = Some(it);
    }

    fn in_flight(&self, server: usize) -> u32 {
        let vms = self.vms.borrow();
        let own = vms.iter().flatten().map(|vm| vm.own[server].places());
        own.sum()
    }

    /// Every VM ticks until whatever is to be noticed is.
    fn come_to_rest(&self) {
        for _ in 0..2 * STILL_TICKS_MAX {
            (0..VMS).for_each(|vm| self.act(Step::Tick(vm), false));
        }
    }

    /// Ticks while others stand still.
    fn tick_alone(&self, vm: usize) {
        *self.ticks.borrow_mut() = [0; VMS];
        self.act(Step::Tick(vm), false);
    }

    /// The parts that stand in the records.
    fn recorded(&self) -> usize {
        let values = self.values.borrow();
        let conns = values
            .iter()
            .filter(|(key, _)| key.starts_with(b"evenkeel/p/conns/"));
        conns.map(|(_, (value, _))| value.len() - 1).sum()
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..VMS, 0..SERVERS).prop_map(|(vm, server)| Step::Begin(vm, server)),
        4 => (0..VMS, 0..SERVERS).prop_map(|(vm, server)| Step::End(vm, server)),
        2 => (0..VMS, 0..SERVERS).prop_map(|(vm, server)| Step::Keep(vm, server)),
        1 => (0..VMS, 0..SERVERS).prop_map(|(vm, server)| Step::LetGo(vm, server)),
        1 => (0..VMS, 0..SERVERS).prop_map(|(vm, server)| Step::FallBack(vm, server)),
        2 => (0..VMS).prop_map(Step::Tick),
        1 => (0..VMS).prop_map(Step::Die),
        1 => (1usize..6).prop_map(Step::RefuseWrites),
    ]
}

#[test]
fn a_bound_is_never_exceeded_and_nothing_is_left_when_all_have_ended() {
    proptest!(|(max in prop_oneof![2 => 1u32..9, 1 => 32u32..65], steps in proptest::collection::vec((step(), proptest::collection::vec(step(), 0..4)), 1..160))| {
        let world = World::new(max);
        for (step, between) in steps {
            *world.between.borrow_mut() = between;
            world.act(step, true);
            for server in 0..SERVERS {
                prop_assert!(world.in_flight(server) <= max, "{} of {max} after {step:?}", world.in_flight(server));
            }
        }
        world.between.borrow_mut().clear();
        world.refused.set(0);
        for vm in 0..VMS {
            for server in 0..SERVERS {
                (0..max).for_each(|_| world.act(Step::LetGo(vm, server), false));
                (0..max).for_each(|_| world.act(Step::End(vm, server), false));
            }
        }
        world.come_to_rest();
        prop_assert_eq!(world.recorded(), 0);
        // All places are there again, for whoever comes first.
        for server in 0..SERVERS {
            (0..2 * max).for_each(|_| world.act(Step::Begin(0, server), false));
            prop_assert_eq!(world.in_flight(server), max);
        }
    });
}

/// Writes that requests of one VM need, one after the other, after the first tick.
fn writes_of(max: u32, requests: u32) -> u32 {
    let world = World::new(max);
    (0..VMS).for_each(|vm| world.act(Step::Tick(vm), false));
    (0..VMS).for_each(|vm| world.act(Step::Tick(vm), false));
    let before = world.last_cas.get();
    for _ in 0..requests {
        world.act(Step::Begin(0, 0), false);
        world.act(Step::End(0, 0), false);
    }
    world.last_cas.get() - before
}

#[test]
fn far_below_the_bound_places_are_written_ahead() {
    assert_eq!(writes_of(2, 10), 20);
    assert_eq!(writes_of(1_000, 100), 1);
}

#[test]
fn places_ahead_are_given_back_at_the_next_tick() {
    let world = World::new(64);
    (0..2 * VMS).for_each(|vm| world.act(Step::Tick(vm % VMS), false));
    world.act(Step::Begin(0, 0), false);
    world.act(Step::End(0, 0), false);
    assert_ne!(world.recorded(), 0);
    world.act(Step::Tick(0), false);
    assert_eq!(world.recorded(), 0);
}

#[test]
fn places_of_the_dead_are_free_when_their_slot_is() {
    let world = World::new(2);
    world.act(Step::Begin(1, 0), false);
    world.act(Step::Begin(1, 0), false);
    world.vms.borrow_mut()[1] = None;
    let tick = |_: u8| world.tick_alone(0);
    (0..STILL_TICKS_MAX).for_each(tick);
    world.act(Step::Begin(0, 0), false);
    assert_eq!(world.in_flight(0), 0, "it may still live");
    tick(0);
    world.act(Step::Begin(0, 0), false);
    world.act(Step::Begin(0, 0), false);
    assert_eq!(world.in_flight(0), 2);
}

#[test]
fn who_stood_still_for_too_long_counts_again_from_his_next_tick() {
    let world = World::new(2);
    world.act(Step::Begin(1, 0), false);
    (0..=STILL_TICKS_MAX).for_each(|_| world.tick_alone(0));
    assert_eq!(world.recorded(), 0);
    world.act(Step::Tick(1), false);
    world.act(Step::Begin(0, 0), false);
    world.act(Step::Begin(0, 0), false);
    assert_eq!(world.in_flight(0), 2);
}

#[test]
fn gives_up_after_eight_lost_races_and_says_full() {
    struct Busy(usize);
    impl SharedData for Busy {
        fn get(&mut self, _: &[u8], value: &mut Vec<u8>) -> Option<u32> {
            value.clear();
            Some(7)
        }
        fn set(&mut self, key: &[u8], _: &[u8], _: u32) -> Written {
            if key.starts_with(b"evenkeel//slot") {
                return Written::Done;
            }
            self.0 += 1;
            Written::Mismatch
        }
    }
    let mut data = Busy(0);
    let mut slots = Slots::new(1);
    slots.claim(&mut data);
    let own: Rc<OwnLoad> = Rc::default();
    let mut limits = ConnLimits::new("p", [(9, 1, Rc::clone(&own))].into_iter(), 1).unwrap();
    assert_eq!(limits.acquire(0, &slots, &mut data), Place::Full);
    assert_eq!(data.0, TRIES_MAX);
    // A release that is lost is not forgotten.
    own.in_flight.set(1);
    own.written.set(2);
    limits.ended(0);
    for _ in 0..3 {
        data.0 = 0;
        assert_eq!(limits.settle(&slots, &mut data), Freed::Nothing);
        assert_eq!(data.0, TRIES_MAX);
    }
}

#[test]
fn a_pool_without_bounds_has_nothing_to_do() {
    let own: Rc<OwnLoad> = Rc::default();
    assert!(ConnLimits::new("p", [(0, 1, own)].into_iter(), 1).is_none());
}

#[test]
fn without_a_slot_every_bounded_server_is_full() {
    let world = World::new(5);
    world.vms.borrow_mut()[0].as_mut().unwrap().slots = Slots::new(99);
    world.act(Step::Begin(0, 0), false);
    assert_eq!(world.in_flight(0), 0);
}
