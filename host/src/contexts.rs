//! Contexts: what a guest calls by a number. Root contexts (a configured plugin) and stream contexts (one stream in one plugin).
//!
//! Numbers grow and are not used again before 2^32 others, so that a late answer to a dead stream can never hit another one.
//! A context is known ([`Contexts::get`]) from before its `on_context_create` until after its `on_delete`.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use crate::embedder::HeaderMap;
use crate::raised::StreamShared;

/// Most contexts of one VM alive at once.
pub(crate) const CONTEXTS_MAX: usize = 1 << 20;

/// One configured plugin.
pub(crate) struct RootContext {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) root_id: String,
    pub(crate) configuration: Vec<u8>,
    /// What `proxy_get_status` answers: the code of the last failed call, and its text while its callback runs.
    pub(crate) status: Cell<(u32, &'static str)>,
    /// Streams that still run on it.
    pub(crate) streams: Cell<u32>,
    pub(crate) life: Cell<RootLife>,
}

/// How far a root context has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RootLife {
    Serving,
    /// To end when its last stream has.
    Stopping,
    /// `on_done` said not yet: ends with `proxy_done`.
    DonePending,
    Gone,
}

/// The two ways data goes. TCP: from the client, from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Request,
    Response,
}

/// Where a filter has stopped one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Hold {
    #[default]
    None,
    Headers,
    Body,
    Trailers,
}

/// One stream in one plugin.
pub(crate) struct StreamContext {
    pub(crate) id: u32,
    pub(crate) root: Rc<RootContext>,
    /// Position in the chain.
    pub(crate) filter: usize,
    pub(crate) shared: Rc<StreamShared>,
    maps_open: Cell<u8>,
    /// During `on_log` request and response headers are readable again.
    pub(crate) logging: Cell<bool>,
    pub(crate) request: Way,
    pub(crate) response: Way,
}

/// One direction of a stream in one plugin.
#[derive(Default)]
pub(crate) struct Way {
    pub(crate) hold: Cell<Hold>,
    /// The data of the running body callback, or what is held.
    pub(crate) data: RefCell<Vec<u8>>,
    /// Whether the guest may see `data`.
    pub(crate) data_open: Cell<bool>,
}

impl StreamContext {
    pub(crate) fn new(
        id: u32,
        root: Rc<RootContext>,
        filter: usize,
        shared: Rc<StreamShared>,
    ) -> Self {
        let (maps_open, logging) = (Cell::new(0), Cell::new(false));
        Self {
            id,
            root,
            filter,
            shared,
            maps_open,
            logging,
            request: Way::default(),
            response: Way::default(),
        }
    }

    pub(crate) fn way(&self, direction: Direction) -> &Way {
        match direction {
            Direction::Request => &self.request,
            Direction::Response => &self.response,
        }
    }

    pub(crate) fn open_map(&self, map: HeaderMap) {
        self.maps_open.set(self.maps_open.get() | bit(map));
    }

    pub(crate) fn close_map(&self, map: HeaderMap) {
        self.maps_open.set(self.maps_open.get() & !bit(map));
    }

    /// Whether the guest may change it now.
    pub(crate) fn map_writable(&self, map: HeaderMap) -> bool {
        self.maps_open.get() & bit(map) != 0
    }

    /// Whether the guest may read it now.
    pub(crate) fn map_readable(&self, map: HeaderMap) -> bool {
        self.map_writable(map) || (self.logging.get() && map != HeaderMap::RequestTrailers)
    }

    /// `continue_stream` takes the request's maps and body away at once, whichever direction it names (Envoy `context.cc`).
    pub(crate) fn close_request(&self) {
        self.close_map(HeaderMap::RequestHeaders);
        self.close_map(HeaderMap::RequestTrailers);
        self.request.data_open.set(false);
    }
}

fn bit(map: HeaderMap) -> u8 {
    match map {
        HeaderMap::RequestHeaders => 1,
        HeaderMap::RequestTrailers => 2,
        HeaderMap::ResponseHeaders => 4,
        HeaderMap::ResponseTrailers => 8,
    }
}

/// A context by its number.
#[derive(Clone)]
pub(crate) enum Context {
    Root(Rc<RootContext>),
    Stream(Rc<StreamContext>),
}

/// All contexts of a VM.
#[derive(Default)]
pub(crate) struct Contexts {
    known: HashMap<u32, Context, BuildHasherDefault<IdHasher>>,
    last: u32,
}

impl Contexts {
    /// A number no living context has; `None` when there are [`CONTEXTS_MAX`].
    pub(crate) fn free_id(&mut self) -> Option<u32> {
        if self.known.len() >= CONTEXTS_MAX {
            return None;
        }
        // Ends: fewer numbers are taken than there are.
        loop {
            self.last = self.last.wrapping_add(1);
            if self.last != 0 && (self.known.is_empty() || !self.known.contains_key(&self.last)) {
                return Some(self.last);
            }
        }
    }

    pub(crate) fn insert(&mut self, id: u32, context: Context) {
        self.known.insert(id, context);
    }

    pub(crate) fn get(&self, id: u32) -> Option<&Context> {
        self.known.get(&id)
    }

    pub(crate) fn remove(&mut self, id: u32) {
        self.known.remove(&id);
    }

    pub(crate) fn clear(&mut self) -> Vec<Context> {
        std::mem::take(&mut self.known).into_values().collect()
    }
}

/// Context numbers are the host's own and grow one by one: multiplying spreads them well enough, and nobody chooses them.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, id: u32) {
        self.0 = (self.0 ^ u64::from(id))
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(26);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
