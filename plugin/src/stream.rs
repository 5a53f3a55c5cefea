//! One HTTP stream: decided at the request's head, moved at the response's, finished once.

use std::rc::Rc;

use evenkeel_policy::balance::Facts;
use evenkeel_policy::exchange::{
    Answer, Decided, Decision, Edits, Exchange, LastAttempt, Policy, Surroundings,
};
use evenkeel_policy::limits::{Admission, Admitted, LimitState, Ticket, Wanted};
use evenkeel_policy::random::Sequence;
use evenkeel_policy::upstream::{Chosen, Freed, Pool, SLOTS_MAX, Slots};
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use crate::hostcalls::{self, Headers, Level};
use crate::request_facts::RequestFacts;
use crate::root::SharedPolicy;
use crate::steering::{Outcome, TurnedAway, carry_out, change, too_many_wait, turn_away};
use crate::turns::Delayed;
use crate::virtual_machine::{self, HostShared, VirtualMachine};
use crate::waiting::{Lines, Waiter};

/// Bits of `response.flags` that say that the last attempt failed and the answer is the host's own: no healthy upstream (UH),
/// upstream request timeout (UT), local reset (LR), upstream remote reset (UR), connection failure (UF), connection termination
/// (UC). Not that retries were used up (URX): that also stands at a server's own answer whose status was to be retried.
const FAILED_FLAGS: u64 = 0x2 | 0x4 | 0x8 | 0x10 | 0x20 | 0x40;

/// The context of a stream.
pub(crate) struct Stream {
    policy: SharedPolicy,
    /// Its own context, and that of its root.
    contexts: (u32, u32),
    begun: Begun,
    /// While it waits for a server, and until it is looked at again afterwards.
    waiter: Option<Rc<Waiter>>,
    /// While it waits for its turn under a limit, and until it is looked at again afterwards.
    delayed: Option<Rc<Delayed>>,
}

/// What a request that was decided about leaves to do.
#[derive(Default)]
pub(crate) struct Begun {
    pub(crate) exchange: Exchange,
    /// What becomes of its response's headers.
    pub(crate) response: Option<Edits>,
    /// What it holds under limits until it ends.
    pub(crate) tickets: Vec<Ticket>,
}

/// How a request comes to be decided about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It just came; who waits already comes first.
    New,
    /// It has waited for its turn under a limit; who waits for a server already comes first.
    AfterDelay,
    FirstInLine,
}

impl Arrival {
    fn admission(self) -> Admission {
        match self {
            Self::New => Admission::Ask,
            Self::AfterDelay => Admission::AfterDelay,
            Self::FirstInLine => Admission::Granted,
        }
    }
}

impl Stream {
    pub(crate) fn new(policy: SharedPolicy, contexts: (u32, u32)) -> Self {
        Self {
            policy,
            contexts,
            begun: Begun::default(),
            waiter: None,
            delayed: None,
        }
    }

    /// Takes over what became of the request while it waited.
    fn take_over(&mut self) {
        let left = self
            .delayed
            .as_ref()
            .and_then(|delayed| delayed.take_left());
        if let Some(left) = left {
            self.delayed = None;
            self.waiter = left.waiter;
            self.begun = left.begun;
        }
        let left = self.waiter.as_ref().and_then(|waiter| waiter.take_begun());
        if let Some(begun) = left {
            self.waiter = None;
            // What it was let in with it holds until its end.
            let tickets = std::mem::take(&mut self.begun.tickets);
            self.begun = begun;
            self.begun.tickets.extend(tickets);
        }
    }

    /// Changes the headers of the response, once: those of an informational one (1xx) are not the response's.
    fn change_response(&mut self) {
        let Some(edits) = self.begun.response.take() else {
            return;
        };
        let status = hostcalls::number_property(b"response\0code");
        if status.is_some_and(|status| (100..200).contains(&status) && status != 101) {
            self.begun.response = Some(edits);
        } else {
            change(Headers::Response, &edits);
        }
    }

    /// Ends what is in flight. The first of log, done and delete does it: hosts differ in their order.
    fn finish(&mut self) {
        self.take_over();
        if let Some(waiter) = self.waiter.take() {
            virtual_machine::with(|vm| vm.lines.leave(&waiter, &vm.slots));
        }
        if let Some(delayed) = self.delayed.take() {
            virtual_machine::with(|vm| vm.turns.leave(&delayed));
        }
        let tickets = std::mem::take(&mut self.begun.tickets);
        if !tickets.is_empty() {
            virtual_machine::with(|vm| release(vm, &tickets));
        }
        if matches!(
            self.begun.exchange,
            Exchange::Unsteered | Exchange::Finished
        ) {
            return;
        }
        let Ok(mut policy) = self.policy.try_borrow_mut() else {
            return;
        };
        let Some(policy) = policy.as_mut() else {
            return;
        };
        if let Some((pool, server)) = self.begun.exchange.finish(policy) {
            virtual_machine::with(|vm| {
                publish(vm, policy, pool, &[server]);
                settle(vm, policy, pool);
            });
        }
    }
}

impl Context for Stream {
    fn on_done(&mut self) -> bool {
        self.finish();
        true
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        let Ok(mut policy) = self.policy.try_borrow_mut() else {
            return Action::Continue;
        };
        let Some(policy) = policy.as_mut() else {
            return Action::Continue;
        };
        let outcome = virtual_machine::with(|vm| {
            let (outcome, begun, decided) = steer(vm, policy, Arrival::New);
            match (outcome, decided.decision) {
                (Outcome::MustWait, Decision::Delayed { ms }) => {
                    self.delayed = vm.turns.join(ms, &self.policy, self.contexts.0);
                    if self.delayed.is_none() {
                        too_many_wait(&mut vm.text);
                    }
                }
                (Outcome::MustWait, _) => {
                    self.waiter = wait(vm, policy, decided, &self.policy, self.contexts);
                }
                (Outcome::Forwarded | Outcome::Answered, _) => {}
            }
            self.begun = begun;
            outcome
        });
        match outcome {
            Some(Outcome::Forwarded) => Action::Continue,
            Some(Outcome::Answered | Outcome::MustWait) => Action::Pause,
            // Without steering headers the host answers 503 itself; waiting would be for ever.
            None => Action::Continue,
        }
    }

    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        self.take_over();
        self.change_response();
        let Some((pool_index, choices, began)) = self.begun.exchange.awaiting() else {
            return Action::Continue;
        };
        let Ok(mut policy) = self.policy.try_borrow_mut() else {
            return Action::Continue;
        };
        let Some(policy) = policy.as_mut() else {
            return Action::Continue;
        };
        let Some(pool) = policy.pools_mut().get_mut(pool_index) else {
            return Action::Continue;
        };
        let answer = if pool.wants_attempts(&choices, began) {
            who_answered(pool)
        } else {
            None
        };
        let has_failed = answer.is_some_and(Answer::has_failed);
        let now_us = if has_failed || pool.needs_latency() || pool.needs_time() {
            now_us()
        } else {
            0
        };
        let has_bounds = pool.has_bounds();
        let moved = self.begun.exchange.answered(policy, answer, now_us);
        if moved.is_some() || has_bounds {
            virtual_machine::with(|vm| {
                if let Some((pool, moved)) = moved {
                    publish(vm, policy, pool, &moved);
                }
                settle(vm, policy, pool_index);
            });
        }
        Action::Continue
    }

    fn on_log(&mut self) {
        self.finish();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.finish();
    }
}

/// What a decision needs of the VM.
struct Around<'a> {
    arrival: Arrival,
    slots: &'a Slots,
    lines: &'a mut Lines,
    limits: &'a mut LimitState,
}

impl Surroundings for Around<'_> {
    fn admit(&mut self, wanted: &[Wanted<'_>], random: &mut Sequence) -> Admitted {
        let at = (now_us() / 1_000, random.next_u64());
        let admission = self.arrival.admission();
        self.limits
            .admit(wanted, admission, at, self.slots, &mut HostShared)
    }

    fn choose(&mut self, pool: &mut Pool, facts: &Facts<'_>, random: &mut Sequence) -> Chosen {
        if pool.needs_load() {
            pool.read_others(now_us(), self.slots, &mut HostShared);
        } else if pool.needs_time() {
            pool.note_time(now_us());
        }
        if self.arrival != Arrival::FirstInLine
            && pool.queue().is_some()
            && self
                .lines
                .are_before(pool.name(), pool.is_busy(), self.slots)
        {
            return Chosen::AllFull;
        }
        pool.choose_within_limits(facts, random, self.slots, &mut HostShared)
    }
}

/// Gives back what a request held under limits.
fn release(vm: &mut VirtualMachine, tickets: &[Ticket]) {
    let now_ms = now_us() / 1_000;
    for ticket in tickets {
        vm.limits
            .release(ticket, now_ms, &vm.slots, &mut HostShared);
    }
}

/// Decides about the request of the current context, and carries it out.
pub(crate) fn steer(
    vm: &mut VirtualMachine,
    policy: &mut Policy,
    arrival: Arrival,
) -> (Outcome, Begun, Decided) {
    if vm.slots.index().is_none() {
        claim(vm, policy);
    }
    let facts = RequestFacts::fetch(policy);
    let VirtualMachine {
        random,
        slots,
        edits,
        text,
        lines,
        limits,
        ..
    } = vm;
    let mut around = Around {
        arrival,
        slots,
        lines,
        limits,
    };
    let admission = arrival.admission();
    let decided = policy.decide(&facts.head(), random, edits, admission, &mut around);
    let outcome = carry_out(policy, &decided, edits, text);
    let exchange = match decided.decision {
        Decision::Steered { pool, choices } => Exchange::begun(policy, pool, choices),
        Decision::NoRoute
        | Decision::Answered(_)
        | Decision::Delayed { .. }
        | Decision::NoServer { .. }
        | Decision::AllFull { .. }
        | Decision::Routed { .. } => Exchange::Unsteered,
    };
    if let Some((pool, server)) = exchange.in_flight_on() {
        publish(vm, policy, pool, &[server]);
    }
    let begun = Begun {
        exchange,
        response: policy.take_response_edits(),
        tickets: policy.take_tickets(),
    };
    (outcome, begun, decided)
}

/// Puts the current request in the line of its pool, or answers it if that is too long.
pub(crate) fn wait(
    vm: &mut VirtualMachine,
    policy: &Policy,
    decided: Decided,
    shared: &SharedPolicy,
    contexts: (u32, u32),
) -> Option<Rc<Waiter>> {
    let Decision::AllFull { pool } = decided.decision else {
        return None;
    };
    let pool = policy.pools().get(pool)?;
    let (name, queue) = (pool.name(), pool.queue()?);
    let waiter = vm.lines.join(name, queue, shared, contexts, &vm.slots);
    if waiter.is_none() {
        turn_away(name, TurnedAway::QueueFull, &mut vm.text);
    }
    waiter
}

/// Tells other VMs of places that are free again, and whoever has waited longest that it may be its turn.
fn settle(vm: &mut VirtualMachine, policy: &mut Policy, pool: usize) {
    if let Some(pool) = policy.pools_mut().get_mut(pool)
        && pool.settle(&vm.slots, &mut HostShared) == Freed::Some
        && pool.queue().is_some()
    {
        vm.lines.wake(pool.name(), &vm.slots);
    }
}

/// The VM's first stream: it takes its place among the others. Without a free slot it goes on without one, and tries again.
fn claim(vm: &mut VirtualMachine, policy: &mut Policy) {
    match vm.slots.claim(&mut HostShared) {
        Some(slot) => policy
            .pools_mut()
            .iter_mut()
            .for_each(|pool| pool.start_at(slot)),
        None if !vm.is_placeless => {
            vm.is_placeless = true;
            hostcalls::log(
                Level::Warn,
                &format!(
                    "evenkeel: {SLOTS_MAX} virtual machines of this process are alive; one more counts nothing in flight, and takes no place of `max_conns`, until one of them ends"
                ),
            );
        }
        None => {}
    }
}

/// Tells other VMs the load of servers whose load just changed, if anybody looks at it.
fn publish(vm: &VirtualMachine, policy: &mut Policy, pool: usize, servers: &[usize]) {
    let Some(pool) = policy
        .pools_mut()
        .get_mut(pool)
        .filter(|pool| pool.needs_load())
    else {
        return;
    };
    servers
        .iter()
        .for_each(|server| pool.publish(*server, &vm.slots, &mut HostShared));
}

/// The host's clock.
fn now_us() -> u64 {
    hostcalls::now_ns() / 1_000
}

/// Asks the host which entry of the list answered, and how. What is no answer of a server must not pass for one, not for a fast one
/// either.
fn who_answered(pool: &Pool) -> Option<Answer> {
    let attempts = hostcalls::number_property(b"upstream\0request_attempt_count")?;
    let flags = hostcalls::number_property(b"response\0flags").unwrap_or(0);
    let is_bad = || {
        let statuses = pool.failed_statuses();
        let status = (!statuses.is_empty()).then(|| hostcalls::number_property(b"response\0code"));
        let status = status
            .flatten()
            .and_then(|status| u16::try_from(status).ok());
        status.is_some_and(|status| statuses.contains(status))
    };
    let last = if flags & FAILED_FLAGS != 0 {
        LastAttempt::Failed
    } else if is_bad() {
        LastAttempt::AnsweredBadly
    } else {
        LastAttempt::Answered
    };
    Some(Answer { attempts, last })
}
