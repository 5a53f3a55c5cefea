//! Many picks in a row, for measuring what one costs inside the filter. Only in a build with the feature `bench`, never in the filter
//! that is shipped.
//!
//! The host writes an order into shared data, and a tick carries it out:
//!
//! ```text
//!   evenkeel//bench      4  pool      4  picks, 0: an ordinary tick      1  whether load is told to other VMs     (little-endian)
//! ```

use std::net::IpAddr;

use evenkeel_policy::balance::Facts;
use evenkeel_policy::exchange::Policy;
use evenkeel_policy::upstream::SharedData;

use crate::hostcalls;
use crate::virtual_machine::{HostShared, VirtualMachine};

/// Answers begin within this, microseconds.
const FIRST_BYTE_MAX_US: u64 = 50_000;

/// Whether this tick was an order to pick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tick {
    Picked,
    Ordinary,
}

/// Carries out what is ordered.
pub(crate) fn on_tick(policy: &mut Policy, vm: &mut VirtualMachine) -> Tick {
    let mut order = Vec::new();
    if HostShared.get(b"evenkeel//bench", &mut order).is_none() {
        return Tick::Ordinary;
    }
    let number = |at: usize| {
        let bytes = order.get(at..).and_then(|rest| rest.first_chunk::<4>());
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    };
    let (pool, picks, tells) = (number(0), number(4), order.get(8) == Some(&1));
    if picks == 0 {
        return Tick::Ordinary;
    }
    if vm.slots.index().is_none() {
        vm.slots.claim(&mut HostShared);
    }
    let pool = usize::try_from(pool).unwrap_or(usize::MAX);
    let Some(pool) = policy.pools_mut().get_mut(pool) else {
        return Tick::Picked;
    };
    let servers = u64::try_from(pool.len()).unwrap_or(u64::MAX);
    for _ in 0..picks {
        let key = vm.random.next_u64().to_le_bytes();
        let [first, second, third, fourth, ..] = key;
        let facts = Facts {
            client: Some(IpAddr::from([first, second, third, fourth])),
            hash_key: &key,
        };
        if pool.needs_load() {
            let now_us = hostcalls::now_ns() / 1_000;
            pool.read_others(now_us, &vm.slots, &mut HostShared);
        }
        let choices = pool.choose(&facts, &mut vm.random);
        let picked = choices.get(0).unwrap_or(0);
        pool.began(picked);
        if pool.needs_latency() {
            let now_us = pool.now_us();
            pool.answered(picked, vm.random.below(FIRST_BYTE_MAX_US), now_us);
        }
        let ended = usize::try_from(vm.random.below(servers)).unwrap_or(0);
        pool.ended(ended);
        if tells && pool.needs_load() {
            pool.publish(picked, &vm.slots, &mut HostShared);
            pool.publish(ended, &vm.slots, &mut HostShared);
        }
    }
    Tick::Picked
}
