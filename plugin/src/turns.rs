//! Requests that came too early under a rate and wait for their turn: paused streams, by the time at which they go on.
//!
//! A VM has no timers but its ticks: a request goes on at the first quick tick after its time, never before it. It is decided about anew then;
//! its rates were charged when it came, and are not looked at again. Any root context may let it go on: in Envoy the one it began under may
//! be gone.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use evenkeel_policy::exchange::Decision;

use crate::hostcalls;
use crate::root::SharedPolicy;
use crate::steering::Outcome;
use crate::stream::{Arrival, Begun, steer, wait};
use crate::virtual_machine;
use crate::waiting::Waiter;

/// Most requests of a VM that wait for their turn.
const DELAYED_MAX: usize = 10_000;
/// Most that go on within one callback; the rest goes on at the next tick.
const GO_ON_AT_ONCE_MAX: usize = 256;

/// A stream that waits.
pub(crate) struct Delayed {
    context: u32,
    policy: SharedPolicy,
    /// When it goes on, microseconds, and its number.
    ticket: Cell<(u64, u64)>,
    left: RefCell<Option<Left>>,
}

/// What became of a request that waited.
#[derive(Default)]
pub(crate) struct Left {
    pub(crate) begun: Begun,
    /// It waits again, for a server.
    pub(crate) waiter: Option<Rc<Waiter>>,
}

impl Delayed {
    /// What became of the request, once it does not wait any more.
    pub(crate) fn take_left(&self) -> Option<Left> {
        self.left.borrow_mut().take()
    }
}

/// Those of a VM who wait.
#[derive(Default)]
pub(crate) struct Turns {
    by_time: BTreeMap<(u64, u64), Rc<Delayed>>,
    next: u64,
}

impl Turns {
    /// Has the stream `context` wait; `None` if as many as may do so wait already.
    pub(crate) fn join(
        &mut self,
        ms: u64,
        policy: &SharedPolicy,
        context: u32,
    ) -> Option<Rc<Delayed>> {
        if self.by_time.len() >= DELAYED_MAX {
            return None;
        }
        let now_us = hostcalls::now_ns() / 1_000;
        let at_us = now_us.saturating_add(ms.saturating_mul(1_000));
        let ticket = (at_us, self.next);
        self.next = self.next.wrapping_add(1);
        let delayed = Rc::new(Delayed {
            context,
            policy: Rc::clone(policy),
            ticket: Cell::new(ticket),
            left: RefCell::new(None),
        });
        self.by_time.insert(ticket, Rc::clone(&delayed));
        Some(delayed)
    }

    /// The client went away.
    pub(crate) fn leave(&mut self, delayed: &Delayed) {
        self.by_time.remove(&delayed.ticket.get());
    }

    /// Takes out the one whose turn it has been for longest.
    fn take_due(&mut self, now_us: u64) -> Option<Rc<Delayed>> {
        let first = self.by_time.first_entry()?;
        let (at_us, _) = *first.key();
        (at_us <= now_us).then(|| first.remove())
    }
}

/// Lets those go on whose turn it is.
pub(crate) fn go_on(root: u32, now_us: u64) {
    let mut acted = false;
    for _ in 0..GO_ON_AT_ONCE_MAX {
        let due = virtual_machine::with(|vm| vm.turns.take_due(now_us));
        let Some(delayed) = due.flatten() else {
            break;
        };
        acted = true;
        if !hostcalls::act_for(delayed.context) {
            continue;
        }
        let Ok(mut policy) = delayed.policy.try_borrow_mut() else {
            continue;
        };
        let Some(policy) = policy.as_mut() else {
            continue;
        };
        let mut outcome = Outcome::Answered;
        let left = virtual_machine::with(|vm| {
            let (now, begun, decided) = steer(vm, policy, Arrival::AfterDelay);
            outcome = now;
            let must_wait =
                now == Outcome::MustWait && !matches!(decided.decision, Decision::Delayed { .. });
            let contexts = (delayed.context, root);
            let waiter = must_wait.then(|| wait(vm, policy, decided, &delayed.policy, contexts));
            Left {
                begun,
                waiter: waiter.flatten(),
            }
        });
        delayed.left.replace(left);
        if outcome == Outcome::Forwarded {
            // Last: its headers are gone then.
            hostcalls::continue_request();
        }
    }
    if acted {
        hostcalls::act_for(root);
    }
}
