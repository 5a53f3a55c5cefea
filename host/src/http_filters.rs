//! The filters of one HTTP stream, in Envoy's order: requests go through the chain forwards, responses backwards.
//!
//! The owner of a stream calls a method when something arrives, and does what the [`Verdict`] says. Nothing here waits: a paused
//! stream is resumed by an [`Event`], which the owner fetches after [`HttpStream::wake`].

use std::rc::Rc;

use crate::Plugin;
use crate::embedder::{HttpStream, Pairs};

/// The plugins a listener's streams pass, in order. Made once, shared by streams.
pub struct Chain {}

impl Chain {
    pub fn new(_plugins: Vec<Plugin>) -> Rc<Self> {
        unimplemented!()
    }

    /// Whether any filter wants request or response bodies; if not, the owner may pass them by.
    pub fn wants_bodies(&self) -> bool {
        unimplemented!()
    }

    /// Some VM of this chain is dead: new streams should go elsewhere.
    pub fn is_failed(&self) -> bool {
        unimplemented!()
    }
}

/// What the owner does next.
#[derive(Debug)]
pub enum Verdict {
    /// Go on with the (possibly changed) data.
    Continue,
    /// Wait for an [`Event`]; do not read more than the owner's buffers hold.
    Pause,
    /// Answer the client with this; it has already passed the response filters' headers if the stream was in its request phase
    /// (the owner puts them in place as the response map first: see `LocalReply`).
    LocalReply(LocalReply),
    /// Close the stream without an answer (`close_stream`).
    Reset,
    /// A filter's VM died: 503 if nothing was answered yet, else go on without filters.
    Failed,
}

/// `send_local_response`.
#[derive(Debug, Clone)]
pub struct LocalReply {
    pub status: u16,
    pub details: String,
    pub headers: Pairs,
    pub body: Vec<u8>,
}

/// Something that happened between callbacks.
#[derive(Debug)]
pub enum Event {
    /// The paused request direction goes on; headers first, then (if a body was held) `held_body`.
    RequestResumed(Verdict),
    ResponseResumed(Verdict),
    LocalReply(LocalReply),
    Reset,
    Failed,
}

/// The filters of one stream.
pub struct HttpFilters {}

impl HttpFilters {
    /// Creates a stream context in each plugin.
    pub fn new(_chain: &Rc<Chain>, _stream: Rc<dyn HttpStream>) -> Self {
        unimplemented!()
    }

    pub fn request_headers(&mut self, _end_of_stream: bool) -> Verdict {
        unimplemented!()
    }

    /// A piece of request body; replaced in place by what should be forwarded (empty while it is held).
    pub fn request_body(&mut self, _data: &mut Vec<u8>, _end_of_stream: bool) -> Verdict {
        unimplemented!()
    }

    pub fn request_trailers(&mut self) -> Verdict {
        unimplemented!()
    }

    /// Also for answers the owner makes itself (502, 503, 504), as in Envoy.
    pub fn response_headers(&mut self, _end_of_stream: bool) -> Verdict {
        unimplemented!()
    }

    pub fn response_body(&mut self, _data: &mut Vec<u8>, _end_of_stream: bool) -> Verdict {
        unimplemented!()
    }

    pub fn response_trailers(&mut self) -> Verdict {
        unimplemented!()
    }

    /// What happened since the last callback, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        unimplemented!()
    }

    /// Reads a property as a filter of the chain published it by `set_property` (`evenkeel.client_ip`).
    pub fn published(&self, _name: &str, _read: &mut dyn FnMut(&[u8])) -> bool {
        unimplemented!()
    }

    /// Log, done, delete, in each filter; once. Dropping does the same.
    pub fn finish(&mut self) {
        unimplemented!()
    }
}
