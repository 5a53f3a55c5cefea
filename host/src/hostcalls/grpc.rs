//! gRPC calls: not served by this host. Every function is there by name, so that a module that imports them loads, and answers
//! InternalFailure whatever its arguments are; no gRPC callback is ever called.

use wasmtime::{Caller, Linker};

use super::{Imports, always, provide};
use crate::state::State;
use crate::status::{Answer, Status, number};

pub(super) fn link(linker: &mut Linker<State>, imports: &mut Imports) -> wasmtime::Result<()> {
    provide! { linker, imports, always,
        "proxy_grpc_call" = call, (_upstream: u32, _a: u32, _service: u32, _b: u32, _method: u32, _c: u32, _metadata: u32, _d: u32, _message: u32, _e: u32, _timeout: u32, _token: u32);
        "proxy_grpc_stream" = stream, (_upstream: u32, _a: u32, _service: u32, _b: u32, _method: u32, _c: u32, _metadata: u32, _d: u32, _token: u32);
        "proxy_grpc_send" = send, (_token: u32, _message: u32, _length: u32, _end: u32);
        "proxy_grpc_cancel" = end, (_token: u32);
        "proxy_grpc_close" = end, (_token: u32);
    }
    Ok(())
}

fn refuse() -> Answer {
    Err(Status::InternalFailure.into())
}

#[allow(clippy::too_many_arguments)] // The ABI's.
fn call(
    _: &mut Caller<'_, State>,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
) -> Answer {
    refuse()
}

#[allow(clippy::too_many_arguments)] // The ABI's.
fn stream(
    _: &mut Caller<'_, State>,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
) -> Answer {
    refuse()
}

fn send(_: &mut Caller<'_, State>, _: u32, _: u32, _: u32, _: u32) -> Answer {
    refuse()
}

fn end(_: &mut Caller<'_, State>, _: u32) -> Answer {
    refuse()
}
