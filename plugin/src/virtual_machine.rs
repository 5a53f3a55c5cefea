//! What one VM keeps, whichever configurations come and go: its slot, its load, its random numbers, its buffers.
//!
//! A new configuration comes to the same VM, beside the old one until that has drained, in Envoy as in our own proxy. So nothing
//! of a configuration may stand here, and nothing here may begin anew with one: what a VM has in flight is counted in one place,
//! whichever configuration sent it.

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
    /// The newest of the root contexts that tick: it alone beats for the VM, and checks. 0: none has ticked yet.
    newest_root: u64,
    /// Whether it was said that there is no slot for it.
    pub(crate) is_placeless: bool,
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
            newest_root: 0,
            is_placeless: false,
            roots: 0,
        }
    }
}

impl VirtualMachine {
    /// Told at each tick of a root context: whether it is the newest. Others that still have streams, or that serve another
    /// listener, leave to it what is to be done once for the VM: a VM that beats as often as it has roots would take others for dead
    /// that beat less often.
    pub(crate) fn is_newest(&mut self, root: u64) -> bool {
        self.newest_root = self.newest_root.max(root);
        self.newest_root == root
    }

    /// A root context has gone; another one goes on at its next tick. Whether it was the newest.
    pub(crate) fn root_gone(&mut self, root: u64) -> bool {
        let was_newest = root > 0 && self.newest_root == root;
        if was_newest {
            self.newest_root = 0;
        }
        was_newest
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
