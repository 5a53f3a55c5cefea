//! Resuming, closing and answering a stream. What is asked here happens after the outermost callback has returned.

use wasmtime::Caller;

use crate::contexts::Direction;
use crate::guest_memory::{bytes, open};
use crate::http_filters::LocalReply;
use crate::pairs::Decoded;
use crate::raised::{Owner, Raised};
use crate::state::State;
use crate::status::{Answer, Status};

/// Longest details text that is kept of a local reply, bytes.
const DETAILS_BYTES_MAX: usize = 256;

/// `proxy_continue_stream(kind)`: 0 request, 1 response, 2 downstream of TCP; Ok also where nothing is paused. The request's maps and body
/// are gone at once for 0 and 1 (Envoy `context.cc`). InternalFailure: 3, upstream of TCP, which Envoy does not implement either.
/// BadArgument: no such number.
pub(super) fn resume(caller: &mut Caller<'_, State>, kind: u32) -> Answer {
    let direction = match kind {
        0 | 2 => Direction::Request,
        1 => Direction::Response,
        3 => return Err(Status::InternalFailure.into()),
        _ => return Err(Status::BadArgument.into()),
    };
    let state = caller.data_mut();
    let Some(context) = state.active.stream.clone() else {
        return Ok(());
    };
    let of_http = matches!(context.shared.owner, Owner::Http(_));
    if of_http && kind < 2 {
        context.close_request();
    }
    if of_http == (kind < 2) {
        state.raise(
            context.shared.clone(),
            Raised::Continue {
                filter: context.filter,
                direction,
            },
        );
    }
    Ok(())
}

/// `proxy_close_stream(kind)`: resets an HTTP stream (0, 1), closes a TCP connection (2, 3). BadArgument: no such number.
pub(super) fn close(caller: &mut Caller<'_, State>, kind: u32) -> Answer {
    if kind > 3 {
        return Err(Status::BadArgument.into());
    }
    let state = caller.data_mut();
    let Some(context) = state.active.stream.clone() else {
        return Ok(());
    };
    if matches!(context.shared.owner, Owner::Http(_)) == (kind < 2) {
        state.raise(context.shared.clone(), Raised::Close);
    }
    Ok(())
}

/// `proxy_send_local_response(code, details, body, headers, grpc_status)`: Ok also without a stream to answer. The direction stops
/// whatever the callback returns. BadArgument: no HTTP status (200 to 599), or headers that are no pairs.
#[allow(clippy::too_many_arguments)] // The ABI's.
pub(super) fn local_response(
    caller: &mut Caller<'_, State>,
    code: u32,
    details: u32,
    details_length: u32,
    body: u32,
    body_length: u32,
    headers: u32,
    headers_length: u32,
    grpc_status: u32,
) -> Answer {
    let (memory, state) = open(caller)?;
    let details = bytes(memory, details, details_length)?;
    let body = bytes(memory, body, body_length)?;
    let mut headers = Decoded::parse(bytes(memory, headers, headers_length)?)?.to_owned();
    let status = u16::try_from(code)
        .ok()
        .filter(|code| (200..600).contains(code))
        .ok_or(Status::BadArgument)?;
    let Some(context) = state.active.stream.clone() else {
        return Ok(());
    };
    if !matches!(context.shared.owner, Owner::Http(_)) {
        return Ok(());
    }
    if grpc_status != u32::MAX {
        headers.push((
            b"grpc-status".to_vec(),
            grpc_status.to_string().into_bytes(),
        ));
    }
    // One word, as Envoy's access log wants it.
    let details = String::from_utf8_lossy(details.get(..DETAILS_BYTES_MAX).unwrap_or(details))
        .replace(|character: char| character.is_ascii_whitespace(), "_");
    state.raise(
        context.shared.clone(),
        Raised::LocalReply(LocalReply {
            status,
            details,
            headers,
            body: body.to_vec(),
        }),
    );
    Ok(())
}
