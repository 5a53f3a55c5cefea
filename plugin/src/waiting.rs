//! Requests that wait while every server of their pool has as many as it takes: paused streams, first in first out.
//!
//! ```text
//!   request ──▶ all full ──▶ joins its VM's line: paused      a request on a full server ends ──▶ message to the VM whose first
//!                                                                                                 has waited longest
//!   message, or a whole tick ──▶ the line's first is decided about again ──▶ goes on, or stays first
//!   a tick ──▶ whose time is up gets a 503          the client goes away ──▶ it leaves the line
//! ```
//!
//! Nobody is woken from within another stream's callback: a VM sends itself a message, too. Whoever arrives while others wait joins
//! them, though a place may be free at that moment: it is theirs. A message that is lost costs time until the next whole tick, at
//! which a VM serves its line as far as there is room, however long others have waited.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use evenkeel_policy::config::QueueConfig;
use evenkeel_policy::upstream::{Slots, WaitingLine, WaitingVm, WaitingVms};

use crate::hostcalls;
use crate::metrics::Metrics;
use crate::root::SharedPolicy;
use crate::steering::{Outcome, TurnedAway, turn_away};
use crate::stream::{Arrival, Begun, steer};
use crate::virtual_machine::{self, HostShared};

/// Most requests of a line that go on within one callback; the rest goes on at the next message or tick.
const SERVED_AT_ONCE_MAX: usize = 256;
/// Most messages that are read within one callback.
const MESSAGES_MAX: usize = 256;

/// A stream in a line.
pub(crate) struct Waiter {
    /// Of the stream.
    context: u32,
    policy: SharedPolicy,
    pool: String,
    ticket: Cell<u64>,
    /// What became of the request; `None` while it waits.
    left: RefCell<Option<Begun>>,
}

/// The lines of a VM, by pool: those where somebody waits or did until the last tick.
#[derive(Default)]
pub(crate) struct Lines {
    by_pool: BTreeMap<String, Line>,
    queue: Option<Queue>,
}

/// The shared queue on which this VM is told of room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Queue {
    id: u32,
    slot: u32,
    root: u32,
}

struct Line {
    waiting: WaitingLine<Rc<Waiter>>,
    vms: WaitingVms,
    told: Told,
    counters: Counters,
}

/// Whether others, and whoever reads metrics, know the line as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Yes,
    NotYet,
}

/// Of requests, since they were taken last.
#[derive(Debug, Default)]
struct Counters {
    waited: u64,
    queue_full: u64,
    timeouts: u64,
}

/// Whether those of other VMs who have waited longer come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    ByAge,
    OwnFirst,
}

impl Waiter {
    /// What became of the request, once it does not wait any more.
    pub(crate) fn take_begun(&self) -> Option<Begun> {
        self.left.borrow_mut().take()
    }

    fn goes_on_with(&self, begun: Begun) {
        self.left.replace(Some(begun));
    }
}

impl Lines {
    /// Whether requests wait already that came before one that just arrives. `is_busy`: some server was full when it was seen last;
    /// otherwise nobody waits in other VMs, and they are not looked at.
    pub(crate) fn are_before(&mut self, pool: &str, is_busy: bool, slots: &Slots) -> bool {
        if let Some(line) = self.by_pool.get(pool)
            && !line.waiting.is_empty()
        {
            return true;
        }
        is_busy
            && self
                .line(pool)
                .vms
                .oldest_other(slots, &mut HostShared)
                .is_some()
    }

    /// Puts the current stream, `context` of `root`, in the line of a pool; `None` if as many as may wait do.
    pub(crate) fn join(
        &mut self,
        pool: &str,
        queue: QueueConfig,
        policy: &SharedPolicy,
        (context, root): (u32, u32),
        slots: &Slots,
    ) -> Option<Rc<Waiter>> {
        let id = self.register(root, slots);
        let now_us = hostcalls::now_ns() / 1_000;
        let line = self.line(pool);
        let mut own = line.own(id);
        if own.count == 0 {
            own.since_us = now_us;
        }
        own.count = own.count.saturating_add(1);
        if !line.vms.may_join(own, queue.length, slots, &mut HostShared) {
            line.counters.queue_full += 1;
            return None;
        }
        line.counters.waited += 1;
        line.told = Told::NotYet;
        let waiter = Rc::new(Waiter {
            context,
            policy: Rc::clone(policy),
            pool: pool.to_owned(),
            ticket: Cell::new(0),
            left: RefCell::new(None),
        });
        let timeout_us = u64::try_from(queue.timeout.as_micros()).unwrap_or(u64::MAX);
        let ticket = line.waiting.join(Rc::clone(&waiter), now_us, timeout_us);
        waiter.ticket.set(ticket);
        if own.count == 1 {
            // Room that came while it was on its way to the line was told to nobody.
            hostcalls::enqueue(id, pool.as_bytes());
        }
        Some(waiter)
    }

    /// The client of a waiting request went away, or it goes on.
    pub(crate) fn leave(&mut self, waiter: &Waiter, slots: &Slots) {
        let id = self.queue.map_or(0, |queue| queue.id);
        if let Some(line) = self.by_pool.get_mut(&waiter.pool)
            && line.waiting.leave(waiter.ticket.get()).is_some()
        {
            line.tell(id, slots);
        }
    }

    /// A server of the pool has room again: tells the VM whose first has waited longest.
    pub(crate) fn wake(&mut self, pool: &str, slots: &Slots) {
        let id = self.queue.map_or(0, |queue| queue.id);
        let line = self.line(pool);
        let own_since = line.waiting.since_us();
        let other = line.vms.oldest_other(slots, &mut HostShared);
        let is_older = |other: &WaitingVm| own_since.is_none_or(|own| other.since_us < own);
        match (other.filter(is_older), own_since) {
            (Some(other), _) => {
                hostcalls::enqueue(other.queue, pool.as_bytes());
            }
            (None, Some(_)) => {
                hostcalls::enqueue(id, pool.as_bytes());
            }
            (None, None) => {}
        }
    }

    /// A root context is gone, and its queue with it: the next one that needs it registers it.
    pub(crate) fn forget_root(&mut self, root: u32) {
        self.queue = self.queue.filter(|queue| queue.root != root);
    }

    /// Puts right and tells how many wait; forgets lines where nobody does.
    pub(crate) fn tick(&mut self, slots: &mut Slots, metrics: &mut Metrics) {
        let id = self.queue.map_or(0, |queue| queue.id);
        self.by_pool.retain(|pool, line| {
            let counters = std::mem::take(&mut line.counters);
            metrics.queue_counters(
                pool,
                counters.waited,
                counters.queue_full,
                counters.timeouts,
            );
            let is_quiet = line.waiting.is_empty() && line.told == Told::Yes;
            if !is_quiet || line.vms.has_death(slots) {
                let own = line.own(id);
                let length = line.vms.sweep(own, slots, &mut HostShared);
                metrics.set_queue_length(pool, length);
                line.told = Told::Yes;
            }
            !is_quiet
        });
    }

    fn line(&mut self, pool: &str) -> &mut Line {
        // Bounded by the pools of the configurations that are in use.
        self.by_pool.entry(pool.to_owned()).or_insert_with(|| Line {
            waiting: WaitingLine::default(),
            vms: WaitingVms::new(pool),
            told: Told::NotYet,
            counters: Counters::default(),
        })
    }

    /// The VM's queue, told to the newest root that needs it.
    fn register(&mut self, root: u32, slots: &Slots) -> u32 {
        let slot = slots.index().unwrap_or(0);
        let known = self
            .queue
            .filter(|queue| (queue.root, queue.slot) == (root, slot));
        if known.is_none() {
            let id = hostcalls::register_queue(&format!("evenkeel/wake/{slot}"));
            self.queue = id.map(|id| Queue { id, slot, root });
        }
        self.queue.map_or(0, |queue| queue.id)
    }
}

impl Line {
    fn own(&self, queue: u32) -> WaitingVm {
        WaitingVm {
            count: u32::try_from(self.waiting.len()).unwrap_or(u32::MAX),
            queue,
            since_us: self.waiting.since_us().unwrap_or(0),
        }
    }

    fn tell(&mut self, queue: u32, slots: &Slots) {
        let own = self.own(queue);
        self.vms.tell(own, slots, &mut HostShared);
        // Whether or not it was written: the next tick looks again, and tells metrics.
        self.told = Told::NotYet;
    }
}

/// Messages came: lines of the pools they name may have room.
pub(crate) fn hear(queue: u32, root: u32) {
    let mut pools: Vec<Vec<u8>> = Vec::new();
    for _ in 0..MESSAGES_MAX {
        let Some(message) = hostcalls::dequeue(queue) else {
            break;
        };
        if !pools.iter().any(|pool| pool == message.as_slice()) {
            pools.push(message.as_slice().to_vec());
        }
    }
    for pool in pools
        .iter()
        .filter_map(|pool| std::str::from_utf8(pool).ok())
    {
        serve(pool, Order::ByAge);
    }
    hostcalls::act_for(root);
}

/// The fallback: serves every line as far as there is room.
pub(crate) fn serve_all(root: u32) {
    let waiting = virtual_machine::with(|vm| {
        let lines = vm.lines.by_pool.iter();
        let lines = lines.filter(|(_, line)| !line.waiting.is_empty());
        lines.map(|(pool, _)| pool.clone()).collect::<Vec<_>>()
    });
    let waiting = waiting.unwrap_or_default();
    for pool in &waiting {
        serve(pool, Order::OwnFirst);
    }
    if !waiting.is_empty() {
        hostcalls::act_for(root);
    }
}

/// Answers those whose time is up.
pub(crate) fn turn_away_late(root: u32, now_us: u64) {
    virtual_machine::with(|vm| {
        let id = vm.lines.queue.map_or(0, |queue| queue.id);
        let mut acted = false;
        for (pool, line) in &mut vm.lines.by_pool {
            // Ends: each round takes one out of the line.
            while let Some(waiter) = line.waiting.take_late(now_us) {
                line.counters.timeouts += 1;
                line.tell(id, &vm.slots);
                if hostcalls::act_for(waiter.context) {
                    turn_away(pool, TurnedAway::QueueTimeout, &mut vm.text);
                }
                waiter.goes_on_with(Begun::default());
                acted = true;
            }
        }
        if acted {
            hostcalls::act_for(root);
        }
    });
}

/// Lets requests of a line go on, one after the other, until there is no room or somebody else's turn.
fn serve(pool: &str, order: Order) {
    for _ in 0..SERVED_AT_ONCE_MAX {
        let Some(waiter) = virtual_machine::with(|vm| first(vm, pool, order)).flatten() else {
            return;
        };
        let mut outcome = Outcome::MustWait;
        if hostcalls::act_for(waiter.context) {
            let Ok(mut policy) = waiter.policy.try_borrow_mut() else {
                return;
            };
            let Some(policy) = policy.as_mut() else {
                return;
            };
            let steered = virtual_machine::with(|vm| steer(vm, policy, Arrival::FirstInLine));
            let Some((now, begun, _)) = steered else {
                return;
            };
            if now == Outcome::MustWait {
                return;
            }
            outcome = now;
            waiter.goes_on_with(begun);
        }
        virtual_machine::with(|vm| vm.lines.leave(&waiter, &vm.slots));
        if outcome == Outcome::Forwarded {
            // Last: its headers are gone then.
            hostcalls::continue_request();
        }
    }
}

/// The first of a line, if it is its turn; otherwise whoever's turn it is is told.
fn first(vm: &mut virtual_machine::VirtualMachine, pool: &str, order: Order) -> Option<Rc<Waiter>> {
    let line = vm.lines.line(pool);
    let Some(own_since) = line.waiting.since_us() else {
        // It was told because others believe that somebody waits here.
        line.tell(0, &vm.slots);
        vm.lines.wake(pool, &vm.slots);
        return None;
    };
    if order == Order::ByAge
        && let Some(other) = line.vms.oldest_other(&vm.slots, &mut HostShared)
        && other.since_us < own_since
    {
        hostcalls::enqueue(other.queue, pool.as_bytes());
        return None;
    }
    line.waiting.first().map(|(_, waiter)| Rc::clone(waiter))
}
