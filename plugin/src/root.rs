//! One configuration of a VM: taken into use by `on_configure`, kept up by `on_tick`, used by its streams.

use std::cell::RefCell;
use std::rc::Rc;

use evenkeel_policy::config::{Config, FilterConfig};
use evenkeel_policy::contract::TCP_ROOT_ID_PREFIX;
use evenkeel_policy::exchange::Policy;
use evenkeel_policy::upstream::{Freed, News, with_members};
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{ContextType, LogLevel};

use crate::checker::Checker;
use crate::hostcalls::{self, Level};
use crate::stream::Stream;
use crate::turns;
use crate::virtual_machine::{self, HostShared, VirtualMachine};
use crate::waiting;

/// How often a VM beats, reads changes and tells metrics, milliseconds.
const TICK_MS: u32 = 250;
/// How often it sends checks that are due, reads what checks found out and looks whose time to wait is up, if there are any; every
/// fifth is a whole tick.
const QUICK_TICK_MS: u32 = 50;
const QUICK_TICKS: u32 = TICK_MS / QUICK_TICK_MS;

/// The policy of a root context; none before it is configured. Streams share it, and may outlive the root.
pub(crate) type SharedPolicy = Rc<RefCell<Option<Policy>>>;

/// The root context.
#[derive(Default)]
struct Root {
    context: u32,
    policy: SharedPolicy,
    /// As it was given; what changed since is in shared data.
    config: Option<Config>,
    /// How often operators had changed anything when their changes were read last, if anybody tells.
    members_news: Option<u64>,
    /// Its number among the VM's roots, from 1; 0: not configured yet.
    number: u64,
    checker: Option<Checker>,
    /// Whether it ticks more often than whole ticks are due: for checks, and for those who wait.
    is_quick: bool,
    quick_ticks: u32,
}

impl Root {
    /// Begins a new policy if servers have come or gone; streams end on the old one.
    fn take_over_servers(&mut self) {
        let Some(config) = &self.config else { return };
        let now = with_members(config, &mut HostShared);
        let next = match self.policy.try_borrow() {
            Ok(policy) => {
                let pools = policy.as_ref().map_or(&[][..], Policy::pools);
                let mut pairs = pools.iter().zip(&now.pools);
                pairs.any(|(pool, config)| !pool.consists_of(config))
            }
            Err(_) => false,
        };
        if next && let Some(policy) = virtual_machine::with(|vm| begin(&now, vm)) {
            self.policy = Rc::new(RefCell::new(Some(policy)));
            if let Some(checker) = &mut self.checker {
                checker.begin_anew();
            }
        }
    }
}

/// A policy that knows of its servers what is known now; their coming and going is in `config` already.
fn begin(config: &Config, vm: &mut VirtualMachine) -> Policy {
    let start = vm.slots.index().unwrap_or(0);
    let mut policy = Policy::new(config, &mut vm.in_flight, start);
    let now_us = hostcalls::now_ns() / 1_000;
    for pool in policy.pools_mut() {
        pool.note_time(now_us);
        pool.tick(&mut HostShared);
        pool.read_state(&mut HostShared);
        if vm.slots.index().is_some() && pool.needs_load() {
            // What older configurations have in flight, others know by those; from now on by this one.
            pool.publish_all(&vm.slots, &mut HostShared);
        }
    }
    policy
}

/// Tells the SDK what to make for a new root context.
pub(crate) fn install() {
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|context| {
        let mut root = Root::default();
        root.context = context;
        Box::new(root)
    });
}

impl Context for Root {
    fn on_http_call_response(
        &mut self,
        token: u32,
        _headers: usize,
        _body: usize,
        _trailers: usize,
    ) {
        let Ok(mut policy) = self.policy.try_borrow_mut() else {
            return;
        };
        if let (Some(policy), Some(checker)) = (policy.as_mut(), self.checker.as_mut()) {
            let now_us = hostcalls::now_ns() / 1_000;
            virtual_machine::with(|vm| checker.answered(token, policy, vm, now_us / 1_000));
            // What this VM found out counts for its own requests at once.
            checker.read_news(policy, now_us);
        }
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        if let Some(root_id) = hostcalls::property(b"plugin_root_id")
            && root_id
                .as_slice()
                .starts_with(TCP_ROOT_ID_PREFIX.as_bytes())
        {
            hostcalls::log(
                Level::Error,
                "evenkeel: configuration refused: tcp listeners are not served by this version",
            );
            return false;
        }
        let text = hostcalls::plugin_configuration();
        let text = text.as_ref().map_or(&b""[..], |text| text.as_slice());
        let config = match FilterConfig::from_json(text) {
            Ok(config) => config,
            Err(error) => {
                hostcalls::log(
                    Level::Error,
                    &format!("evenkeel: configuration refused: {error}"),
                );
                return false;
            }
        };
        let configured = virtual_machine::with(|vm| {
            vm.metrics.configured();
            vm.roots += 1;
            let now = with_members(&config.policy, &mut HostShared);
            let policy = begin(&now, vm);
            // Servers that only configurations had which have gone.
            vm.in_flight.prune();
            vm.metrics.look_at(&policy);
            (policy, vm.roots)
        });
        let Some((policy, number)) = configured else {
            return false;
        };
        self.number = number;
        self.checker = Checker::new(&config.policy);
        self.members_news = None;
        self.quick_ticks = 0;
        let waits = policy.delays() || policy.pools().iter().any(|pool| pool.queue().is_some());
        self.is_quick = self.checker.is_some() || waits;
        let period_ms = if self.is_quick {
            QUICK_TICK_MS
        } else {
            TICK_MS
        };
        // Streams that are there keep the policy they began with.
        self.policy = Rc::new(RefCell::new(Some(policy)));
        self.config = Some(config.policy);
        hostcalls::set_tick_period_ms(period_ms);
        true
    }

    fn on_tick(&mut self) {
        let shared = Rc::clone(&self.policy);
        let Ok(mut guard) = shared.try_borrow_mut() else {
            return;
        };
        let Some(policy) = guard.as_mut() else {
            return;
        };
        #[cfg(feature = "bench")]
        if virtual_machine::with(|vm| crate::bench_picks::on_tick(policy, vm))
            == Some(crate::bench_picks::Tick::Picked)
        {
            return;
        }
        let now_us = hostcalls::now_ns() / 1_000;
        let is_whole = !self.is_quick || self.quick_ticks.is_multiple_of(QUICK_TICKS);
        self.quick_ticks = self.quick_ticks.wrapping_add(1);
        let mut is_changed = false;
        virtual_machine::with(|vm| {
            let is_newest = vm.is_newest(self.number);
            if is_whole {
                let regained = if is_newest { beat(vm) } else { None };
                is_changed = tick(vm, policy, regained, now_us, &mut self.members_news);
                if is_newest {
                    vm.lines.tick(&mut vm.slots, &mut vm.metrics);
                    vm.limits.tick(now_us / 1_000, &vm.slots, &mut HostShared);
                }
            }
            match &mut self.checker {
                Some(checker) => {
                    checker.read_news(policy, now_us);
                    if is_newest {
                        if is_whole {
                            checker.beat(policy, vm);
                        }
                        checker.send_due(policy, vm, now_us / 1_000);
                    } else {
                        checker.rest();
                    }
                }
                // An older configuration asked for checks.
                None if is_newest => vm.lease.release(vm.slots.owner(), &mut HostShared),
                None => {}
            }
        });
        // Whether servers have come or gone is asked of the same policy.
        drop(guard);
        if is_changed {
            self.take_over_servers();
        }
        if self.is_quick {
            waiting::turn_away_late(self.context, now_us);
            turns::go_on(self.context, now_us);
        }
        if is_whole {
            waiting::serve_all(self.context);
        }
    }

    fn on_queue_ready(&mut self, queue: u32) {
        waiting::hear(queue, self.context);
    }

    fn create_http_context(&self, context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream::new(
            Rc::clone(&self.policy),
            (context_id, self.context),
        )))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// Once a whole tick for all of the VM: its place among the others. The place that it has claimed anew, if it had lost its own.
fn beat(vm: &mut VirtualMachine) -> Option<u32> {
    let had = vm.slots.index();
    vm.slots.tick(&mut HostShared);
    let lost = had.is_some() && vm.slots.index().is_none();
    if !lost {
        return None;
    }
    hostcalls::log(
        Level::Warn,
        "evenkeel: stood still for too long, and begins anew among the others",
    );
    vm.slots.claim(&mut HostShared)
}

/// A whole tick of one configuration: what operators changed, and what is to be told. Returns whether operators changed anything.
fn tick(
    vm: &mut VirtualMachine,
    policy: &mut Policy,
    regained: Option<u32>,
    now_us: u64,
    members_news: &mut Option<u64>,
) -> bool {
    let mut is_changed = false;
    let news = News::Members.read(&mut HostShared, &mut vm.text);
    // Whoever writes records but tells nobody is heard all the same.
    let has_news = news.is_none() || news != *members_news;
    *members_news = news;
    for pool in policy.pools_mut() {
        let version = pool.members_version();
        pool.note_time(now_us);
        pool.let_time_pass();
        if has_news {
            pool.read_members(&mut HostShared);
        }
        is_changed |= version != pool.members_version();
        if pool.needs_load() {
            match regained {
                Some(_) => pool.publish_all(&vm.slots, &mut HostShared),
                None => pool.mend_told(&vm.slots, &mut HostShared),
            }
        }
        if pool.tick_limits(&mut vm.slots, &mut HostShared) == Freed::Some && pool.queue().is_some()
        {
            vm.lines.wake(pool.name(), &vm.slots);
        }
    }
    vm.metrics.flush(policy);
    is_changed
}

impl Drop for Root {
    fn drop(&mut self) {
        if let Ok(mut policy) = self.policy.try_borrow_mut()
            && let Some(policy) = policy.as_mut()
        {
            // The last ticks' counts; what streams that are still there count is lost with them.
            virtual_machine::with(|vm| vm.metrics.flush(policy));
        }
        virtual_machine::with(|vm| {
            if vm.root_gone(self.number) {
                // Another root of this VM, or another VM, goes on at its next tick.
                vm.lease.release(vm.slots.owner(), &mut HostShared);
            }
            vm.lines.forget_root(self.context);
            vm.in_flight.prune();
        });
    }
}
