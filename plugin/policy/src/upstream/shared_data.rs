//! What all VMs of a process share, as the proxy-wasm ABI offers it: values by key, with compare-and-swap, without deletion.

/// Shared values. The filter implements it over hostcalls, tests over a map.
pub trait SharedData {
    /// Reads a value into `value` (cleared before) and returns its compare-and-swap number; `None` if there is none, or it could
    /// not be read.
    fn get(&mut self, key: &[u8], value: &mut Vec<u8>) -> Option<u32>;

    /// Writes a value if nobody wrote it since `cas` was read. `cas` 0 always writes. Any other number also writes while there is
    /// no such key, and `u32::MAX` only then.
    fn set(&mut self, key: &[u8], value: &[u8], cas: u32) -> Written;
}

/// A compare-and-swap number that no value ever has: for creating what was just seen missing.
pub(super) const ABSENT: u32 = u32::MAX;

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    Done,
    /// Somebody else wrote in between.
    Mismatch,
    /// The host takes no more.
    Failed,
}
