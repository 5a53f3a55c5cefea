//! What a host function answers to a guest.
//!
//! Only these eight numbers are ever returned: the `Status` enum of the Rust SDK lacks 5, 6, 9, 11 and 12, and an unlisted value
//! is undefined behaviour in such a guest. Where Envoy answers 6 (a bad pointer) this host answers 2, where it answers 12 (not
//! implemented) this host answers 10.

/// A proxy-wasm status. The numbers are the ABI's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Status {
    Ok = 0,
    NotFound = 1,
    BadArgument = 2,
    SerializationFailure = 3,
    Empty = 7,
    CasMismatch = 8,
    InternalFailure = 10,
}

/// Why a host function does not answer Ok: a status for the guest, or the end of the whole call.
pub(crate) enum Refusal {
    Status(Status),
    /// The guest's allocator trapped; there is nobody left to answer to.
    Trap(wasmtime::Error),
}

/// The outcome of a host function.
pub(crate) type Answer = Result<(), Refusal>;

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Refusal::Status(status)
    }
}

impl From<wasmtime::Error> for Refusal {
    fn from(trap: wasmtime::Error) -> Self {
        Refusal::Trap(trap)
    }
}

/// The number the guest sees.
pub(crate) fn number(answer: Answer) -> wasmtime::Result<u32> {
    match answer {
        Ok(()) => Ok(Status::Ok as u32),
        Err(Refusal::Status(status)) => Ok(status as u32),
        Err(Refusal::Trap(trap)) => Err(trap),
    }
}
