//! The guest's linear memory: the only place where its pointers are resolved.
//!
//! A guest's pointer is a number nobody vouches for. Every access is checked against the memory's present size in arithmetic that
//! cannot wrap; a range that does not fit is [`Status::BadArgument`] (Envoy answers 6 here, which the SDK does not know).
//! A function that returns data checks where the pointer and the length go *before* it allocates, so that a refused call writes
//! nothing and leaks nothing in the guest.

use wasmtime::Caller;

use crate::state::State;
use crate::status::{Answer, Refusal, Status};

/// The memory and the VM's state, both at once. InternalFailure while the module's start function runs (no memory yet).
pub(crate) fn open<'a>(
    caller: &'a mut Caller<'_, State>,
) -> Result<(&'a mut [u8], &'a mut State), Status> {
    let Some(memory) = caller.data().memory else {
        return Err(Status::InternalFailure);
    };
    Ok(memory.data_and_store_mut(caller))
}

/// The bytes `at..at + length`. An empty range may stand anywhere inside the memory or at its end.
pub(crate) fn bytes(memory: &[u8], at: u32, length: u32) -> Result<&[u8], Status> {
    let start = at as usize;
    let end = start
        .checked_add(length as usize)
        .ok_or(Status::BadArgument)?;
    memory.get(start..end).ok_or(Status::BadArgument)
}

/// The same, to be written.
pub(crate) fn bytes_mut(memory: &mut [u8], at: u32, length: u32) -> Result<&mut [u8], Status> {
    let start = at as usize;
    let end = start
        .checked_add(length as usize)
        .ok_or(Status::BadArgument)?;
    memory.get_mut(start..end).ok_or(Status::BadArgument)
}

/// Writes little-endian numbers and other short values.
pub(crate) fn write<const N: usize>(
    memory: &mut [u8],
    at: u32,
    value: [u8; N],
) -> Result<(), Status> {
    let start = at as usize;
    let end = start.checked_add(N).ok_or(Status::BadArgument)?;
    memory
        .get_mut(start..end)
        .ok_or(Status::BadArgument)?
        .copy_from_slice(&value);
    Ok(())
}

/// Reads a little-endian u32.
pub(crate) fn read_u32(memory: &[u8], at: u32) -> Result<u32, Status> {
    let found = bytes(memory, at, 4)?;
    Ok(u32::from_le_bytes(
        found.try_into().map_err(|_| Status::BadArgument)?,
    ))
}

/// `at + offset`, refused where it leaves the 32-bit address space.
pub(crate) fn offset(at: u32, offset: u32) -> Result<u32, Status> {
    at.checked_add(offset).ok_or(Status::BadArgument)
}

/// Gives `length` bytes to the guest: asks its allocator for exactly that much, lets `fill` write them, and stores pointer and
/// length where the guest wants them. No bytes: pointer 0, and the allocator is not called.
///
/// BadArgument: an output address is not writable. InternalFailure: the guest's allocator has no room, or `fill` says no.
pub(crate) fn give(
    caller: &mut Caller<'_, State>,
    length: usize,
    pointer_at: u32,
    length_at: u32,
    fill: impl FnOnce(&mut [u8], &State) -> bool,
) -> Answer {
    let length = u32::try_from(length).map_err(|_| Status::InternalFailure)?;
    {
        let (memory, _) = open(caller)?;
        bytes(memory, pointer_at, 4)?;
        bytes(memory, length_at, 4)?;
    }
    let pointer = if length == 0 {
        0
    } else {
        allocate(caller, length)?
    };
    let (memory, state) = open(caller)?;
    if length > 0 {
        let target = bytes_mut(memory, pointer, length).map_err(|_| Status::InternalFailure)?;
        if !fill(target, state) {
            return Err(Status::InternalFailure.into());
        }
    }
    write(memory, pointer_at, pointer.to_le_bytes())?;
    write(memory, length_at, length.to_le_bytes())?;
    Ok(())
}

/// [`give`] of bytes that are at hand.
pub(crate) fn give_bytes(
    caller: &mut Caller<'_, State>,
    data: &[u8],
    pointer_at: u32,
    length_at: u32,
) -> Answer {
    give(caller, data.len(), pointer_at, length_at, |target, _| {
        target.copy_from_slice(data);
        true
    })
}

fn allocate(caller: &mut Caller<'_, State>, length: u32) -> Result<u32, Refusal> {
    caller.data_mut().usage.allocations += 1;
    let Some(allocator) = caller.data().allocate.clone() else {
        return Err(Status::InternalFailure.into());
    };
    match allocator.call(caller, length)? {
        0 => Err(Status::InternalFailure.into()),
        pointer => Ok(pointer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_range_outside_the_memory_is_resolved() {
        let memory = [0_u8; 16];
        let rows: [(u32, u32, bool); 8] = [
            (0, 0, true),
            (0, 16, true),
            (16, 0, true),
            (17, 0, false),
            (0, 17, false),
            (12, 5, false),
            (u32::MAX, 1, false),
            (1, u32::MAX, false),
        ];
        for (at, length, fits) in rows {
            assert_eq!(bytes(&memory, at, length).is_ok(), fits, "{at} {length}");
        }
    }

    #[test]
    fn a_refused_write_changes_nothing() {
        let mut memory = [0xAA_u8; 8];
        assert_eq!(
            write(&mut memory, 5, 7_u32.to_le_bytes()),
            Err(Status::BadArgument)
        );
        assert_eq!(memory, [0xAA; 8]);
        assert_eq!(write(&mut memory, 4, 7_u32.to_le_bytes()), Ok(()));
        assert_eq!(memory, [0xAA, 0xAA, 0xAA, 0xAA, 7, 0, 0, 0]);
    }
}
