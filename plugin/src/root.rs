//! One configuration of a VM: taken into use by `on_configure`, kept up by `on_tick`, used by its streams.

use std::cell::RefCell;
use std::rc::Rc;

use evenkeel_policy::config::FilterConfig;
use evenkeel_policy::contract::TCP_ROOT_ID_PREFIX;
use evenkeel_policy::exchange::Policy;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{ContextType, LogLevel};

use crate::hostcalls::{self, Level};
use crate::stream::Stream;
use crate::virtual_machine::{self, HostShared};

/// How often a VM beats, reads changes and tells metrics, milliseconds.
const TICK_MS: u32 = 250;

/// The policy of a root context; none before it is configured. Streams share it, and may outlive the root.
pub(crate) type SharedPolicy = Rc<RefCell<Option<Policy>>>;

/// The root context.
#[derive(Default)]
struct Root {
    policy: SharedPolicy,
}

/// Tells the SDK what to make for a new root context.
pub(crate) fn install() {
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root::default()));
}

impl Context for Root {}

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
            let start = vm.slots.index().unwrap_or(0);
            let policy = Policy::new(&config.policy, &mut vm.in_flight, start);
            vm.metrics.configured();
            policy
        });
        let Some(policy) = configured else {
            return false;
        };
        // Streams that are there keep the policy they began with.
        self.policy = Rc::new(RefCell::new(Some(policy)));
        hostcalls::set_tick_period_ms(TICK_MS);
        true
    }

    fn on_tick(&mut self) {
        let Ok(mut policy) = self.policy.try_borrow_mut() else {
            return;
        };
        let Some(policy) = policy.as_mut() else {
            return;
        };
        #[cfg(feature = "bench")]
        if virtual_machine::with(|vm| crate::bench_picks::on_tick(policy, vm))
            == Some(crate::bench_picks::Tick::Picked)
        {
            return;
        }
        virtual_machine::with(|vm| {
            let had = vm.slots.index();
            vm.slots.tick(&mut HostShared);
            let lost = had.is_some() && vm.slots.index().is_none();
            let regained = if lost {
                vm.slots.claim(&mut HostShared)
            } else {
                None
            };
            if lost {
                hostcalls::log(
                    Level::Warn,
                    "evenkeel: stood still for too long, and begins anew among the others",
                );
            }
            for pool in policy.pools_mut() {
                pool.tick(&mut HostShared);
                if regained.is_some() && pool.needs_load() {
                    pool.publish_all(&vm.slots, &mut HostShared);
                }
            }
            vm.metrics.flush(policy);
        });
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream::new(Rc::clone(&self.policy))))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        if let Ok(mut policy) = self.policy.try_borrow_mut()
            && let Some(policy) = policy.as_mut()
        {
            // The last ticks' counts; what streams that are still there count is lost with them.
            virtual_machine::with(|vm| vm.metrics.flush(policy));
        }
        virtual_machine::with(|vm| vm.in_flight.prune());
    }
}
