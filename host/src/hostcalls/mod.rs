//! The host functions a guest may import: all of ABI 0.2.1, WASI, and two of emscripten's.
//!
//! One file per subject. Each function takes the caller and the ABI's numbers and says [`Answer`]; the statuses are in its doc.
//! BadArgument for an address outside the memory goes for all of them and is not repeated, nor is InternalFailure while
//! `_initialize` or `_start` runs (only logging and WASI are allowed there) or when the guest's allocator has no room for an answer.

mod buffers;
mod clock;
mod contexts;
mod fields;
mod foreign_functions;
mod grpc;
mod http_calls;
mod logging;
mod metrics;
mod properties;
mod shared_data;
mod shared_queues;
mod streams;
mod wasi;

use std::collections::HashSet;

use wasmtime::{Caller, Engine, Linker};

use crate::state::State;
use crate::status::{Answer, Status, number};

/// Names of everything that can be imported.
#[derive(Default)]
pub(crate) struct Imports {
    known: HashSet<(String, String)>,
}

impl Imports {
    pub(crate) fn contains(&self, module: &str, name: &str) -> bool {
        self.known.contains(&(module.to_owned(), name.to_owned()))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.known
            .iter()
            .map(|(module, name)| (module.as_str(), name.as_str()))
    }

    fn add(&mut self, module: &str, name: &str) {
        self.known.insert((module.to_owned(), name.to_owned()));
    }
}

/// Defines host functions of module `env`: name, then the implementation and its parameters. `always` ones may be called during a start.
macro_rules! provide {
    ($linker:ident, $imports:ident, $allowed:expr, $($name:literal = $function:path, ($($argument:ident : $kind:ty),*);)*) => {$(
        $linker.func_wrap("env", $name, |mut caller: Caller<'_, State> $(, $argument: $kind)*| -> wasmtime::Result<u32> {
            let allowed: fn(&State) -> Result<(), Status> = $allowed;
            caller.data_mut().usage.hostcalls += 1;
            let answer: Answer = match allowed(caller.data()) {
                Ok(()) => $function(&mut caller $(, $argument)*),
                Err(status) => Err(status.into()),
            };
            number(answer)
        })?;
        $imports.add("env", $name);
    )*};
}
use provide;

pub(crate) fn link(engine: &Engine) -> wasmtime::Result<(Linker<State>, Imports)> {
    let mut linker = Linker::new(engine);
    let mut imports = Imports::default();
    link_streams(&mut linker, &mut imports)?;
    link_vm(&mut linker, &mut imports)?;
    grpc::link(&mut linker, &mut imports)?;
    wasi::link(&mut linker, &mut imports)?;
    linker.func_wrap("env", "pthread_equal", |left: u32, right: u32| {
        u32::from(left == right)
    })?;
    imports.add("env", "pthread_equal");
    linker.func_wrap("env", "emscripten_notify_memory_growth", |_memory: u32| {})?;
    imports.add("env", "emscripten_notify_memory_growth");
    Ok((linker, imports))
}

fn link_streams(linker: &mut Linker<State>, imports: &mut Imports) -> wasmtime::Result<()> {
    provide! { linker, imports, running,
        "proxy_get_buffer_bytes" = buffers::get, (kind: u32, start: u32, max: u32, pointer_at: u32, length_at: u32);
        "proxy_get_buffer_status" = buffers::status, (kind: u32, length_at: u32, flags_at: u32);
        "proxy_set_buffer_bytes" = buffers::set, (kind: u32, start: u32, size: u32, data: u32, length: u32);
        "proxy_get_header_map_size" = fields::size, (map: u32, size_at: u32);
        "proxy_get_header_map_pairs" = fields::pairs, (map: u32, pointer_at: u32, length_at: u32);
        "proxy_set_header_map_pairs" = fields::set_pairs, (map: u32, data: u32, length: u32);
        "proxy_get_header_map_value" = fields::value, (map: u32, name: u32, name_length: u32, pointer_at: u32, length_at: u32);
        "proxy_add_header_map_value" = fields::add, (map: u32, name: u32, name_length: u32, value: u32, value_length: u32);
        "proxy_replace_header_map_value" = fields::replace, (map: u32, name: u32, name_length: u32, value: u32, value_length: u32);
        "proxy_remove_header_map_value" = fields::remove, (map: u32, name: u32, name_length: u32);
        "proxy_get_property" = properties::get, (path: u32, path_length: u32, pointer_at: u32, length_at: u32);
        "proxy_set_property" = properties::set, (path: u32, path_length: u32, value: u32, value_length: u32);
        "proxy_continue_stream" = streams::resume, (kind: u32);
        "proxy_close_stream" = streams::close, (kind: u32);
        "proxy_send_local_response" = streams::local_response, (code: u32, details: u32, details_length: u32, body: u32, body_length: u32, headers: u32, headers_length: u32, grpc_status: u32);
        "proxy_set_effective_context" = contexts::set_effective, (id: u32);
        "proxy_done" = contexts::done, ();
        "proxy_get_status" = contexts::status, (code_at: u32, pointer_at: u32, length_at: u32);
        "proxy_call_foreign_function" = foreign_functions::call, (name: u32, name_length: u32, arguments: u32, arguments_length: u32, pointer_at: u32, length_at: u32);
        "proxy_http_call" = http_calls::start, (upstream: u32, upstream_length: u32, headers: u32, headers_length: u32, body: u32, body_length: u32, trailers: u32, trailers_length: u32, timeout_ms: u32, token_at: u32);
    }
    Ok(())
}

fn link_vm(linker: &mut Linker<State>, imports: &mut Imports) -> wasmtime::Result<()> {
    provide! { linker, imports, always,
        "proxy_log" = logging::log, (level: u32, message: u32, length: u32);
        "proxy_get_log_level" = logging::level, (level_at: u32);
    }
    provide! { linker, imports, running,
        "proxy_get_current_time_nanoseconds" = clock::now, (time_at: u32);
        "proxy_set_tick_period_milliseconds" = clock::set_tick_period, (period: u32);
        "proxy_get_shared_data" = shared_data::get, (key: u32, key_length: u32, pointer_at: u32, length_at: u32, cas_at: u32);
        "proxy_set_shared_data" = shared_data::set, (key: u32, key_length: u32, value: u32, value_length: u32, cas: u32);
        "proxy_register_shared_queue" = shared_queues::register, (name: u32, name_length: u32, id_at: u32);
        "proxy_resolve_shared_queue" = shared_queues::resolve, (vm_id: u32, vm_id_length: u32, name: u32, name_length: u32, id_at: u32);
        "proxy_enqueue_shared_queue" = shared_queues::enqueue, (id: u32, data: u32, length: u32);
        "proxy_dequeue_shared_queue" = shared_queues::dequeue, (id: u32, pointer_at: u32, length_at: u32);
        "proxy_define_metric" = metrics::define, (kind: u32, name: u32, name_length: u32, id_at: u32);
        "proxy_get_metric" = metrics::get, (id: u32, value_at: u32);
        "proxy_record_metric" = metrics::record, (id: u32, value: u64);
        "proxy_increment_metric" = metrics::increment, (id: u32, offset: i64);
    }
    Ok(())
}

/// Not during `_initialize` and `_start`.
fn running(state: &State) -> Result<(), Status> {
    if state.restricted {
        Err(Status::InternalFailure)
    } else {
        Ok(())
    }
}

fn always(_: &State) -> Result<(), Status> {
    Ok(())
}
