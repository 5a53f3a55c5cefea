//! Choosing a context, ending one, and the status of the last call.

use wasmtime::Caller;

use crate::contexts::RootLife;
use crate::guest_memory::{bytes, give_bytes, open, write};
use crate::state::State;
use crate::status::{Answer, Status};

/// `proxy_set_effective_context(id)`: host functions act for that context until the callback ends. BadArgument: it is gone.
pub(super) fn set_effective(caller: &mut Caller<'_, State>, id: u32) -> Answer {
    let state = caller.data_mut();
    state.active = state.context(id).ok_or(Status::BadArgument)?;
    Ok(())
}

/// `proxy_done()`: a root context whose `on_done` said "not yet" is deleted after this callback. NotFound for any other.
pub(super) fn done(caller: &mut Caller<'_, State>) -> Answer {
    let state = caller.data_mut();
    let active = &state.active;
    match &active.root {
        Some(root) if active.stream.is_none() && root.life.get() == RootLife::DonePending => {
            let root = root.clone();
            if !state.roots_done.iter().any(|known| known.id == root.id) {
                state.roots_done.push(root);
            }
            Ok(())
        }
        _ => Err(Status::NotFound.into()),
    }
}

/// `proxy_get_status(*code, **message, *length)`: of a root context's last failed call; 0 and nothing on a stream, as in Envoy.
pub(super) fn status(
    caller: &mut Caller<'_, State>,
    code_at: u32,
    pointer_at: u32,
    length_at: u32,
) -> Answer {
    let active = &caller.data().active;
    let (code, message) = match (&active.root, &active.stream) {
        (Some(root), None) => root.status.get(),
        _ => (0, ""),
    };
    bytes(open(caller)?.0, code_at, 4)?;
    give_bytes(caller, message.as_bytes(), pointer_at, length_at)?;
    Ok(write(open(caller)?.0, code_at, code.to_le_bytes())?)
}
