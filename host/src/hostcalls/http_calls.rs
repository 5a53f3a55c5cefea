//! `proxy_http_call`: calls a guest makes without waiting for them.
//!
//! A call belongs to the root context of whoever made it; its stream may end meanwhile, the callback comes all the same. Numbers
//! are multiples of 4, as in Envoy.

use std::time::Duration;

use wasmtime::Caller;

use crate::embedder::{CallRefused, HttpCall, Pairs};
use crate::guest_memory::{bytes, open, write};
use crate::pairs::Decoded;
use crate::state::State;
use crate::status::{Answer, Status};

/// Most calls of one VM under way.
pub(crate) const CALLS_MAX: usize = 65_536;

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
    let upstream = bytes(memory, upstream, upstream_length)?.to_vec();
    let headers = Decoded::parse(bytes(memory, headers, headers_length)?)?.to_owned();
    let body = bytes(memory, body, body_length)?.to_vec();
    let trailers = Decoded::parse(bytes(memory, trailers, trailers_length)?)?.to_owned();
    bytes(memory, token_at, 4)?;
    if timeout_ms.cast_signed() < 0 || !is_complete(&headers) {
        return Err(Status::BadArgument.into());
    }
    let root = state.active.root.as_ref().ok_or(Status::BadArgument)?.id;
    if state.calls.len() >= CALLS_MAX {
        return Err(Status::InternalFailure.into());
    }
    let token = free_token(state);
    let call = HttpCall {
        token,
        upstream,
        headers,
        body,
        trailers,
        timeout: Duration::from_millis(u64::from(timeout_ms)),
    };
    // Known before the embedder starts it, so that it may finish it at once (from its own queue).
    state.calls.insert(token, root);
    if let Err(refused) = state.environment.http_call(call) {
        state.calls.remove(&token);
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

fn free_token(state: &mut State) -> u32 {
    // Ends: there are fewer calls than numbers.
    loop {
        state.last_token = state.last_token.wrapping_add(4);
        if state.last_token != 0 && !state.calls.contains_key(&state.last_token) {
            return state.last_token;
        }
    }
}
