//! What one VM keeps, whichever configurations come and go: its slot, its load, its random numbers, its buffers.
//!
//! In Envoy a new configuration comes to the same VM, beside the old one until that has drained. So nothing of a configuration
//! may stand here, and nothing here may begin anew with one.

use std::cell::RefCell;

use evenkeel_policy::exchange::Edits;
use evenkeel_policy::limits::LimitState;
use evenkeel_policy::random::Sequence;
use evenkeel_policy::upstream::{InFlight, Lease, SharedData, Slots, Written};

use crate::hostcalls;
use crate::metrics::Metrics;
use crate::turns::Turns;
use crate::waiting::Lines;

/// The state of a VM.
pub(crate) struct VirtualMachine {
    pub(crate) random: Sequence,
    pub(crate) slots: Slots,
    pub(crate) in_flight: InFlight,
    pub(crate) edits: Edits,
    pub(crate) text: Vec<u8>,
    pub(crate) metrics: Metrics,
    pub(crate) lines: Lines,
    pub(crate) limits: LimitState,
    pub(crate) turns: Turns,
    pub(crate) lease: Lease,
    /// The root context that checks, if this VM is the one: that of the newest configuration. 0: none does.
    pub(crate) checking_root: u64,
    /// Root contexts that were configured so far.
    pub(crate) roots: u64,
}

impl VirtualMachine {
    fn new() -> Self {
        // Two VMs that start in the same nanosecond must still differ: where each has its memory says nothing, so the host's
        // random source is asked, through the standard library's hash seeds.
        let seed = hostcalls::now_ns() ^ random_seed();
        let mut random = Sequence::new(seed);
        let slots = Slots::new(random.next_u64());
        Self {
            random,
            slots,
            in_flight: InFlight::default(),
            edits: Edits::default(),
            text: Vec::new(),
            metrics: Metrics::default(),
            lines: Lines::default(),
            limits: LimitState::default(),
            turns: Turns::default(),
            lease: Lease::default(),
            checking_root: 0,
            roots: 0,
        }
    }
}

/// A number from the host's random source.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

/// Does something with the VM's state; `None` within itself, which does not happen.
pub(crate) fn with<T>(act: impl FnOnce(&mut VirtualMachine) -> T) -> Option<T> {
    thread_local! {
        static STATE: RefCell<VirtualMachine> = RefCell::new(VirtualMachine::new());
    }
    STATE
        .try_with(|state| state.try_borrow_mut().ok().map(|mut state| act(&mut state)))
        .ok()
        .flatten()
}

/// Shared data of the host.
pub(crate) struct HostShared;

impl SharedData for HostShared {
    fn get(&mut self, key: &[u8], value: &mut Vec<u8>) -> Option<u32> {
        value.clear();
        let (bytes, cas) = hostcalls::shared_data(key)?;
        value.extend_from_slice(bytes.as_slice());
        Some(cas)
    }

    fn set(&mut self, key: &[u8], value: &[u8], cas: u32) -> Written {
        const OK: u32 = 0;
        const CAS_MISMATCH: u32 = 8;
        match hostcalls::set_shared_data(key, value, cas) {
            OK => Written::Done,
            CAS_MISMATCH => Written::Mismatch,
            _ => Written::Failed,
        }
    }
}
