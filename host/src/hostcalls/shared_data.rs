//! Shared data of the VM's `vm_id`.

use wasmtime::Caller;

use crate::guest_memory::{bytes, give_bytes, open, write};
use crate::shared_data::Written;
use crate::state::State;
use crate::status::{Answer, Status};

/// `proxy_get_shared_data(key, **value, *length, *cas)`. NotFound: no such key.
pub(super) fn get(
    caller: &mut Caller<'_, State>,
    key: u32,
    key_length: u32,
    pointer_at: u32,
    length_at: u32,
    cas_at: u32,
) -> Answer {
    let (memory, state) = open(caller)?;
    bytes(memory, cas_at, 4)?;
    let mut value = state.scratch.take();
    let found = bytes(memory, key, key_length).map(|key| state.space.read(key, &mut value));
    let answer = match found {
        Err(status) => Err(status.into()),
        Ok(None) => Err(Status::NotFound.into()),
        Ok(Some(cas)) => give_bytes(caller, &value, pointer_at, length_at).map(|()| cas),
    };
    caller.data().scratch.replace(value);
    let cas = answer?;
    Ok(write(open(caller)?.0, cas_at, cas.to_le_bytes())?)
}

/// `proxy_set_shared_data(key, value, cas)`. CasMismatch: written since. InternalFailure: a bound is reached.
pub(super) fn set(
    caller: &mut Caller<'_, State>,
    key: u32,
    key_length: u32,
    value: u32,
    value_length: u32,
    cas: u32,
) -> Answer {
    let (memory, state) = open(caller)?;
    match state.space.write(
        bytes(memory, key, key_length)?,
        bytes(memory, value, value_length)?,
        cas,
    ) {
        Written::Yes => Ok(()),
        Written::Mismatch => Err(Status::CasMismatch.into()),
        Written::Full => Err(Status::InternalFailure.into()),
    }
}
