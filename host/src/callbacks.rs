//! What a module exports for the host to call, looked up once per VM.
//!
//! A callback that is missing means Continue. A module may name the callbacks it uses in the custom section `evenkeel.callbacks`
//! (names without `proxy_on_`, separated by commas); the others are then treated as missing, which saves the calls that an SDK's
//! empty defaults would cost. `context_create`, `delete`, `vm_start` and `configure` always run.
//!
//! Never called: the gRPC callbacks (gRPC is not served), and Envoy's optional `validate_configuration` and `…_metadata`.

use wasmtime::{Instance, Store, TypedFunc, WasmParams, WasmResults};

use crate::state::State;

/// Largest `evenkeel.callbacks` section that is read, bytes.
const SECTION_BYTES_MAX: usize = 4096;

/// Exported functions, their number of parameters and of results; all are i32.
pub(crate) const SHAPES: &[(&str, usize, usize)] = &[
    ("malloc", 1, 1),
    ("proxy_on_memory_allocate", 1, 1),
    ("_initialize", 0, 0),
    ("_start", 0, 0),
    ("main", 2, 1),
    ("__main_void", 0, 1),
    ("proxy_on_context_create", 2, 0),
    ("proxy_on_vm_start", 2, 1),
    ("proxy_on_configure", 2, 1),
    ("proxy_on_tick", 1, 0),
    ("proxy_on_request_headers", 3, 1),
    ("proxy_on_request_body", 3, 1),
    ("proxy_on_request_trailers", 2, 1),
    ("proxy_on_response_headers", 3, 1),
    ("proxy_on_response_body", 3, 1),
    ("proxy_on_response_trailers", 2, 1),
    ("proxy_on_http_call_response", 5, 0),
    ("proxy_on_queue_ready", 2, 0),
    ("proxy_on_foreign_function", 3, 0),
    ("proxy_on_new_connection", 1, 1),
    ("proxy_on_downstream_data", 3, 1),
    ("proxy_on_upstream_data", 3, 1),
    ("proxy_on_downstream_connection_close", 2, 0),
    ("proxy_on_upstream_connection_close", 2, 0),
    ("proxy_on_done", 1, 1),
    ("proxy_on_log", 1, 0),
    ("proxy_on_delete", 1, 0),
];

/// Which callbacks a module wants.
pub(crate) enum Wanted {
    All,
    Named(Vec<String>),
}

impl Wanted {
    /// A section that is no list of names is as good as none.
    pub(crate) fn from_section(section: Option<&[u8]>) -> Self {
        let Some(text) = section
            .filter(|data| data.len() <= SECTION_BYTES_MAX)
            .and_then(|data| std::str::from_utf8(data).ok())
        else {
            return Wanted::All;
        };
        Wanted::Named(
            text.split(',')
                .map(|name| name.trim().to_owned())
                .filter(|name| !name.is_empty())
                .collect(),
        )
    }

    /// `callback` without `proxy_on_`.
    pub(crate) fn has(&self, callback: &str) -> bool {
        match self {
            Wanted::All => true,
            Wanted::Named(names) => names.iter().any(|name| name == callback),
        }
    }

    /// Whether HTTP bodies have to pass through the VM.
    pub(crate) fn bodies(&self) -> bool {
        self.has("request_body") || self.has("response_body")
    }

    /// Whether bytes of TCP connections have to pass through the VM.
    pub(crate) fn tcp_data(&self) -> bool {
        self.has("downstream_data") || self.has("upstream_data")
    }
}

type Optional<P, R> = Option<TypedFunc<P, R>>;
/// Context and one more number.
type Two = (u32, u32);
/// Context, length or count, end of stream.
type Three = (u32, u32, u32);

/// The callbacks of one instance; `None`: not exported or not wanted.
pub(crate) struct Callbacks {
    pub(crate) context_create: Optional<Two, ()>,
    pub(crate) vm_start: Optional<Two, u32>,
    pub(crate) configure: Optional<Two, u32>,
    pub(crate) tick: Optional<u32, ()>,
    pub(crate) request_headers: Optional<Three, u32>,
    pub(crate) request_body: Optional<Three, u32>,
    pub(crate) request_trailers: Optional<Two, u32>,
    pub(crate) response_headers: Optional<Three, u32>,
    pub(crate) response_body: Optional<Three, u32>,
    pub(crate) response_trailers: Optional<Two, u32>,
    pub(crate) http_call_response: Optional<(u32, u32, u32, u32, u32), ()>,
    pub(crate) queue_ready: Optional<Two, ()>,
    pub(crate) foreign_function: Optional<Three, ()>,
    pub(crate) new_connection: Optional<u32, u32>,
    pub(crate) downstream_data: Optional<Three, u32>,
    pub(crate) upstream_data: Optional<Three, u32>,
    pub(crate) downstream_connection_close: Optional<Two, ()>,
    pub(crate) upstream_connection_close: Optional<Two, ()>,
    pub(crate) done: Optional<u32, u32>,
    pub(crate) log: Optional<u32, ()>,
    pub(crate) delete: Optional<u32, ()>,
}

impl Callbacks {
    pub(crate) fn look_up(instance: &Instance, store: &mut Store<State>, wanted: &Wanted) -> Self {
        let mut find = Finder {
            instance,
            store,
            wanted,
        };
        Self {
            context_create: find.always("proxy_on_context_create"),
            vm_start: find.always("proxy_on_vm_start"),
            configure: find.always("proxy_on_configure"),
            delete: find.always("proxy_on_delete"),
            tick: find.wanted("proxy_on_tick"),
            request_headers: find.wanted("proxy_on_request_headers"),
            request_body: find.wanted("proxy_on_request_body"),
            request_trailers: find.wanted("proxy_on_request_trailers"),
            response_headers: find.wanted("proxy_on_response_headers"),
            response_body: find.wanted("proxy_on_response_body"),
            response_trailers: find.wanted("proxy_on_response_trailers"),
            http_call_response: find.wanted("proxy_on_http_call_response"),
            queue_ready: find.wanted("proxy_on_queue_ready"),
            foreign_function: find.wanted("proxy_on_foreign_function"),
            new_connection: find.wanted("proxy_on_new_connection"),
            downstream_data: find.wanted("proxy_on_downstream_data"),
            upstream_data: find.wanted("proxy_on_upstream_data"),
            downstream_connection_close: find.wanted("proxy_on_downstream_connection_close"),
            upstream_connection_close: find.wanted("proxy_on_upstream_connection_close"),
            done: find.wanted("proxy_on_done"),
            log: find.wanted("proxy_on_log"),
        }
    }
}

struct Finder<'a> {
    instance: &'a Instance,
    store: &'a mut Store<State>,
    wanted: &'a Wanted,
}

impl Finder<'_> {
    fn always<P: WasmParams, R: WasmResults>(&mut self, name: &str) -> Optional<P, R> {
        self.instance.get_typed_func(&mut *self.store, name).ok()
    }

    fn wanted<P: WasmParams, R: WasmResults>(&mut self, name: &str) -> Optional<P, R> {
        if !self
            .wanted
            .has(name.strip_prefix("proxy_on_").unwrap_or(name))
        {
            return None;
        }
        self.always(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_names_what_is_wanted() {
        let named = Wanted::from_section(Some(b"request_headers, log,"));
        assert!(
            named.has("log")
                && named.has("request_headers")
                && !named.has("tick")
                && !named.bodies()
                && !named.tcp_data()
        );
        assert!(Wanted::from_section(None).bodies());
        assert!(Wanted::from_section(Some(b"\xFF")).tcp_data());
        assert!(Wanted::from_section(Some(b"response_body")).bodies());
    }
}
