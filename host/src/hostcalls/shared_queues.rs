//! Shared queues.

use wasmtime::Caller;

use crate::guest_memory::{bytes, give_bytes, open, write};
use crate::shared_queues::{Consumer, Sent};
use crate::state::State;
use crate::status::{Answer, Status};

/// `proxy_register_shared_queue(name, *id)`: the active root context is told from now on. InternalFailure: a bound is reached.
pub(super) fn register(
    caller: &mut Caller<'_, State>,
    name: u32,
    name_length: u32,
    id_at: u32,
) -> Answer {
    let (memory, state) = open(caller)?;
    bytes(memory, id_at, 4)?;
    let root = state.active.root.as_ref().ok_or(Status::NotFound)?;
    let consumer = Consumer {
        waker: state.queue_waker.clone(),
        root_context: root.id,
    };
    let id =
        state
            .process
            .queues()
            .register(&state.vm_id, bytes(memory, name, name_length)?, consumer);
    Ok(write(
        memory,
        id_at,
        id.ok_or(Status::InternalFailure)?.to_le_bytes(),
    )?)
}

/// `proxy_resolve_shared_queue(vm_id, name, *id)`; an empty `vm_id` is the caller's own. NotFound: nobody has registered it.
pub(super) fn resolve(
    caller: &mut Caller<'_, State>,
    vm_id: u32,
    vm_id_length: u32,
    name: u32,
    name_length: u32,
    id_at: u32,
) -> Answer {
    let (memory, state) = open(caller)?;
    bytes(memory, id_at, 4)?;
    let vm_id = match bytes(memory, vm_id, vm_id_length)? {
        [] => state.vm_id.as_bytes(),
        other => other,
    };
    let name = bytes(memory, name, name_length)?;
    let id = state.process.queues().resolve(vm_id, name);
    Ok(write(
        memory,
        id_at,
        id.ok_or(Status::NotFound)?.to_le_bytes(),
    )?)
}

/// `proxy_enqueue_shared_queue(id, data)`. NotFound: no such queue. InternalFailure: it is full.
pub(super) fn enqueue(caller: &mut Caller<'_, State>, id: u32, data: u32, length: u32) -> Answer {
    let (memory, state) = open(caller)?;
    match state
        .process
        .queues()
        .send(id, bytes(memory, data, length)?)
    {
        Sent::Yes => Ok(()),
        Sent::NoSuchQueue => Err(Status::NotFound.into()),
        Sent::Full => Err(Status::InternalFailure.into()),
    }
}

/// `proxy_dequeue_shared_queue(id, **data, *length)`. NotFound: no such queue. Empty: nothing waits. A message that cannot be handed
/// over stays first.
pub(super) fn dequeue(
    caller: &mut Caller<'_, State>,
    id: u32,
    pointer_at: u32,
    length_at: u32,
) -> Answer {
    let message = caller
        .data()
        .process
        .queues()
        .receive(id)
        .ok_or(Status::NotFound)?
        .ok_or(Status::Empty)?;
    let answer = give_bytes(caller, &message, pointer_at, length_at);
    if answer.is_err() {
        caller.data().process.queues().put_back(id, message);
    }
    answer
}
