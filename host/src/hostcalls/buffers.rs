//! Buffers: bodies, TCP data, configurations, the body of a call's response.
//!
//! As in Envoy a body outside its callback reads as empty (Ok, no bytes) and cannot be written (BadArgument), while the plugin's configuration
//! outside `on_configure`, a call's body outside its callback and gRPC are NotFound.

use std::cell::RefCell;
use std::rc::Rc;

use wasmtime::Caller;

use crate::contexts::StreamContext;
use crate::embedder::HttpCallOutcome;
use crate::guest_memory::{bytes, give, open, write};
use crate::raised::Owner;
use crate::state::{Configuring, State};
use crate::status::{Answer, Status};

/// What a buffer's number means now.
enum Buffer {
    Empty,
    Data(Rc<StreamContext>, Side),
    Call(Rc<HttpCallOutcome>),
    CallData(Rc<[u8]>),
    VmConfiguration,
    PluginConfiguration,
}

#[derive(Clone, Copy)]
enum Side {
    Request,
    Response,
}

fn data(context: &StreamContext, side: Side) -> &RefCell<Vec<u8>> {
    match side {
        Side::Request => &context.request.data,
        Side::Response => &context.response.data,
    }
}

fn find(state: &State, kind: u32) -> Result<Buffer, Status> {
    Ok(match kind {
        0..=3 => {
            let side = if kind.is_multiple_of(2) {
                Side::Request
            } else {
                Side::Response
            };
            let Some(context) = &state.active.stream else {
                return Ok(Buffer::Empty);
            };
            let way = match side {
                Side::Request => &context.request,
                Side::Response => &context.response,
            };
            let of_http = matches!(context.shared.owner, Owner::Http(_));
            if of_http == (kind < 2) && way.data_open.get() {
                Buffer::Data(context.clone(), side)
            } else {
                Buffer::Empty
            }
        }
        4 => Buffer::Call(state.call_outcome.clone().ok_or(Status::NotFound)?),
        5 => return Err(Status::NotFound),
        6 => Buffer::VmConfiguration,
        7 if state.configuring == Configuring::Plugin => Buffer::PluginConfiguration,
        7 => return Err(Status::NotFound),
        8 => state
            .call_data
            .clone()
            .map_or(Buffer::Empty, Buffer::CallData),
        _ => return Err(Status::BadArgument),
    })
}

fn with_bytes<T>(buffer: &Buffer, state: &State, look: impl FnOnce(&[u8]) -> T) -> T {
    match buffer {
        Buffer::Empty => look(&[]),
        Buffer::Data(context, side) => look(&data(context, *side).borrow()),
        Buffer::Call(outcome) => match &**outcome {
            HttpCallOutcome::Response { body, .. } => look(body),
            HttpCallOutcome::Reset => look(&[]),
        },
        Buffer::CallData(data) => look(data),
        Buffer::VmConfiguration => look(&state.vm_configuration),
        Buffer::PluginConfiguration => look(
            state
                .active
                .root
                .as_ref()
                .map_or(&[], |root| root.configuration.as_slice()),
        ),
    }
}

/// `proxy_get_buffer_bytes(kind, start, max, **data, *length)`: at most `max` bytes from `start`; Ok and none beyond the end. NotFound: no
/// such buffer now. BadArgument: no such number. A `max` beyond the end, also beyond 32 bits, means the rest, as in Envoy.
pub(super) fn get(
    caller: &mut Caller<'_, State>,
    kind: u32,
    start: u32,
    max: u32,
    pointer_at: u32,
    length_at: u32,
) -> Answer {
    let state = caller.data();
    let buffer = find(state, kind)?;
    let end = start.saturating_add(max) as usize;
    let range = |data: &[u8]| (start as usize).min(data.len())..end.min(data.len());
    // Long data goes straight into the guest's memory, so its length comes first.
    let length = with_bytes(&buffer, state, |data| range(data).len());
    give(caller, length, pointer_at, length_at, |target, state| {
        with_bytes(&buffer, state, |data| match data.get(range(data)) {
            Some(found) if found.len() == target.len() => {
                target.copy_from_slice(found);
                true
            }
            _ => false,
        })
    })
}

/// `proxy_get_buffer_status(kind, *length, *flags)`: flags are 0. NotFound: no such buffer now.
pub(super) fn status(
    caller: &mut Caller<'_, State>,
    kind: u32,
    length_at: u32,
    flags_at: u32,
) -> Answer {
    let (memory, state) = open(caller)?;
    let length = with_bytes(&find(state, kind)?, state, <[u8]>::len);
    let length = u32::try_from(length).map_err(|_| Status::InternalFailure)?;
    bytes(memory, flags_at, 4)?;
    write(memory, length_at, length.to_le_bytes())?;
    Ok(write(memory, flags_at, 0_u32.to_le_bytes())?)
}

/// `proxy_set_buffer_bytes(kind, start, size, data)`: start 0 replaces the first `size` bytes (0: prepends), a start at or
/// after the end appends (Envoy `context.cc`). BadArgument: a start in between, or a buffer that cannot be written now.
/// NotFound: no such buffer now. InternalFailure: the result would be longer than a body may be.
pub(super) fn set(
    caller: &mut Caller<'_, State>,
    kind: u32,
    start: u32,
    size: u32,
    from: u32,
    length: u32,
) -> Answer {
    let (memory, state) = open(caller)?;
    let buffer = find(state, kind)?;
    let new = bytes(memory, from, length)?;
    let Buffer::Data(context, side) = buffer else {
        return Err(Status::BadArgument.into());
    };
    let mut body = data(&context, side).borrow_mut();
    if body.len() + new.len() > BODY_BYTES_MAX {
        return Err(Status::InternalFailure.into());
    }
    if start == 0 {
        let replaced = (size as usize).min(body.len());
        body.splice(..replaced, new.iter().copied());
    } else if start as usize >= body.len() {
        body.extend_from_slice(new);
    } else {
        return Err(Status::BadArgument.into());
    }
    Ok(())
}

/// Longest body a guest may make, bytes. (What it may *hold* is less: `http_filters::BODY_HELD_MAX`.)
const BODY_BYTES_MAX: usize = 16 << 20;
