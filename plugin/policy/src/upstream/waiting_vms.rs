//! Which VMs have requests waiting for a pool, how many, and since when: so that whoever has waited longest is served next.
//!
//! ```text
//!   evenkeel/<pool>/waiting      per VM: 4  how many wait     4  its queue     8  since when its first waits, microseconds    ([`VmShares`])
//! ```
//!
//! The queue is the shared queue on which the VM wants to be told that there is room. Clocks of VMs are the host's, one for all; if
//! they were not, lines would be unfair, and nothing worse.

use super::vm_shares::{Change, Own, Part, VmShares};
use super::{SharedData, Slots};

/// The lines of all VMs for one pool.
#[derive(Debug)]
pub struct WaitingVms {
    key: Vec<u8>,
    shares: VmShares<16>,
    deaths_seen: u32,
}

/// One VM's line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitingVm {
    pub count: u32,
    /// Number of the shared queue.
    pub queue: u32,
    pub since_us: u64,
}

impl WaitingVms {
    pub fn new(pool: &str) -> Self {
        Self {
            key: format!("evenkeel/{pool}/waiting").into_bytes(),
            shares: VmShares::default(),
            deaths_seen: 0,
        }
    }

    /// Makes this VM's line longer, unless all lines together are `length_max` long. `own` is the line with the newcomer.
    pub fn may_join(
        &mut self,
        own: WaitingVm,
        length_max: u32,
        slots: &Slots,
        data: &mut impl SharedData,
    ) -> bool {
        let change = self.shares.change(&self.key, slots, data, |parts| {
            let others = parts.iter().filter(|part| part.owner != slots.owner());
            let others = others.map(|part| decode(&part.bytes).count);
            if others.fold(own.count, u32::saturating_add) <= length_max {
                Own::Set(encode(own))
            } else {
                Own::Unchanged
            }
        });
        change == Change::Written
    }

    /// Tells how this VM's line is now; `false` if that could not be written, and must be told again.
    pub fn tell(&mut self, own: WaitingVm, slots: &Slots, data: &mut impl SharedData) -> bool {
        let part = part(own);
        self.shares.change(&self.key, slots, data, |_| part) != Change::NotWritten
    }

    /// The other VM whose first has waited longest.
    pub fn oldest_other(&mut self, slots: &Slots, data: &mut impl SharedData) -> Option<WaitingVm> {
        self.shares.read(&self.key, data);
        let others = self.shares.parts().iter();
        let others = others.filter(|part| part.owner != slots.owner());
        let lines = others.map(|part| decode(&part.bytes));
        lines
            .filter(|line| line.count > 0)
            .min_by_key(|line| line.since_us)
    }

    /// Puts this VM's line right and strikes out those of the dead; how many wait in all VMs.
    pub fn sweep(&mut self, own: WaitingVm, slots: &mut Slots, data: &mut impl SharedData) -> u32 {
        self.deaths_seen = slots.deaths();
        self.shares.sweep(&self.key, slots, data, part(own));
        let lines = self.shares.parts().iter();
        let lines = lines.map(|part: &Part<16>| decode(&part.bytes).count);
        lines.fold(0, u32::saturating_add)
    }

    /// Whether a VM has died since lines were swept last.
    pub fn has_death(&self, slots: &Slots) -> bool {
        self.deaths_seen != slots.deaths()
    }
}

fn part(own: WaitingVm) -> Own<16> {
    if own.count == 0 {
        Own::Gone
    } else {
        Own::Set(encode(own))
    }
}

fn encode(line: WaitingVm) -> [u8; 16] {
    let wide = u128::from(line.since_us) << 64 | u128::from(line.queue) << 32;
    (wide | u128::from(line.count)).to_le_bytes()
}

fn decode(bytes: &[u8; 16]) -> WaitingVm {
    let wide = u128::from_le_bytes(*bytes);
    let low = |bits: u128| u32::try_from(bits & u128::from(u32::MAX)).unwrap_or(0);
    WaitingVm {
        count: low(wide),
        queue: low(wide >> 32),
        since_us: u64::try_from(wide >> 64).unwrap_or(u64::MAX),
    }
}
