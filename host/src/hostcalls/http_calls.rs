//! `proxy_http_call`: calls a guest makes without waiting for them.
//!
//! A call belongs to the root context of whoever made it; its stream may end meanwhile, the callback comes all the same.

use std::time::Duration;

use wasmtime::Caller;

use crate::embedder::{CallRefused, HttpCall, Pairs};
use crate::guest_memory::{bytes, open, write};
use crate::pairs::Decoded;
use crate::state::State;
use crate::status::{Answer, Status};

/// `proxy_http_call(upstream, headers, body, trailers, timeout_ms, *token)`. BadArgument: `:method`, `:path` or `:authority` is missing,
/// the maps are no pairs, the timeout is negative, or the embedder knows no such upstream. InternalFailure: it has no endpoints, or
/// a bound is reached. After a status that is not Ok there is no callback; nor is the token written.
#[allow(clippy::too_many_arguments)] // The ABI's.
pub(super) fn start(
    caller: &mut Caller<'_, State>,
    upstream: u32,
    upstream_length: u32,
    headers: u32,
    headers_length: u32,
    body: u32,
    body_length: u32,
    trailers: u32,
    trailers_length: u32,
    timeout_ms: u32,
    token_at: u32,
) -> Answer {
    let (memory, state) = open(caller)?;
    let upstream = bytes(memory, upstream, upstream_length)?;
    let headers = bytes(memory, headers, headers_length)?;
    let body = bytes(memory, body, body_length)?;
    let trailers = bytes(memory, trailers, trailers_length)?;
    let size = upstream.len() + headers.len() + body.len() + trailers.len();
    let headers = Decoded::parse(headers)?.to_owned();
    let trailers = Decoded::parse(trailers)?.to_owned();
    bytes(memory, token_at, 4)?;
    if timeout_ms.cast_signed() < 0 || !is_complete(&headers) {
        return Err(Status::BadArgument.into());
    }
    let root = state.active.root.as_ref().ok_or(Status::BadArgument)?.id;
    // Known before the embedder starts it, so that it may finish it at once (from its own queue).
    let token = state
        .calls
        .begin(root, size)
        .ok_or(Status::InternalFailure)?;
    let call = HttpCall {
        token,
        upstream: upstream.to_vec(),
        headers,
        body: body.to_vec(),
        trailers,
        timeout: Duration::from_millis(u64::from(timeout_ms)),
    };
    if let Err(refused) = state.environment.http_call(call) {
        state.calls.end(token);
        return Err(match refused {
            CallRefused::UnknownUpstream => Status::BadArgument.into(),
            CallRefused::NoEndpoints => Status::InternalFailure.into(),
        });
    }
    Ok(write(memory, token_at, token.to_le_bytes())?)
}

fn is_complete(headers: &Pairs) -> bool {
    let has = |wanted: &[u8]| {
        headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case(wanted))
    };
    has(b":method") && has(b":path") && (has(b":authority") || has(b"host"))
}
