//! One HTTP stream: decided at the request's head, moved at the response's, finished once.

use evenkeel_policy::exchange::{Answer, Decision, Exchange, LastAttempt, Policy};
use evenkeel_policy::upstream::Pool;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use crate::hostcalls;
use crate::request_facts::RequestFacts;
use crate::root::SharedPolicy;
use crate::steering::{Outcome, carry_out};
use crate::virtual_machine::{self, HostShared, VirtualMachine};

/// Bits of `response.flags` that say that the last attempt failed and the answer is the host's own: no healthy upstream (UH),
/// upstream request timeout (UT), local reset (LR), upstream remote reset (UR), connection failure (UF), connection termination
/// (UC). Not that retries were used up (URX): that also stands at a server's own answer whose status was to be retried.
const FAILED_FLAGS: u64 = 0x2 | 0x4 | 0x8 | 0x10 | 0x20 | 0x40;

/// The context of a stream.
pub(crate) struct Stream {
    policy: SharedPolicy,
    exchange: Exchange,
}

impl Stream {
    pub(crate) fn new(policy: SharedPolicy) -> Self {
        Self {
            policy,
            exchange: Exchange::default(),
        }
    }

    /// Ends what is in flight. The first of log, done and delete does it: hosts differ in their order.
    fn finish(&mut self) {
        if matches!(self.exchange, Exchange::Unsteered | Exchange::Finished) {
            return;
        }
        let Ok(mut policy) = self.policy.try_borrow_mut() else {
            return;
        };
        let Some(policy) = policy.as_mut() else {
            return;
        };
        if let Some((pool, server)) = self.exchange.finish(policy) {
            virtual_machine::with(|vm| publish(vm, policy, pool, &[server]));
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
        let outcome = virtual_machine::with(|vm| steer(vm, policy));
        match outcome {
            Some((Outcome::Forwarded, exchange)) => {
                self.exchange = exchange;
                Action::Continue
            }
            Some((Outcome::Answered, _)) => Action::Pause,
            // Without steering headers the host answers 503 itself; waiting would be for ever.
            None => Action::Continue,
        }
    }

    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        let Some((pool_index, choices, began)) = self.exchange.awaiting() else {
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
        if let Some((pool, moved)) = self.exchange.answered(policy, answer, now_us) {
            virtual_machine::with(|vm| publish(vm, policy, pool, &moved));
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

/// Decides about the request that is with the filter now, and carries it out.
fn steer(vm: &mut VirtualMachine, policy: &mut Policy) -> (Outcome, Exchange) {
    if vm.slots.index().is_none() {
        claim(vm, policy);
    }
    let facts = RequestFacts::fetch();
    let VirtualMachine {
        random,
        slots,
        edits,
        text,
        ..
    } = vm;
    let decided = policy.decide(&facts.head(), random, edits, |pool| {
        if pool.needs_load() {
            pool.read_others(now_us(), slots, &mut HostShared);
        } else if pool.needs_time() {
            pool.note_time(now_us());
        }
    });
    let outcome = carry_out(policy, &decided, edits, text);
    let exchange = match decided.decision {
        Decision::Steered { pool, choices } => Exchange::begun(policy, pool, choices),
        Decision::NoRoute | Decision::NoServer { .. } => Exchange::Unsteered,
    };
    if let Some((pool, server)) = exchange.in_flight_on() {
        publish(vm, policy, pool, &[server]);
    }
    (outcome, exchange)
}

/// The VM's first stream: it takes its place among the others. Without a free slot it goes on without one.
fn claim(vm: &mut VirtualMachine, policy: &mut Policy) {
    if let Some(slot) = vm.slots.claim(&mut HostShared) {
        for pool in policy.pools_mut() {
            pool.start_at(slot);
        }
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
