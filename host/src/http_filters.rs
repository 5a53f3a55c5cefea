//! The filters of one HTTP stream, in Envoy's order: requests go through the chain forwards, responses backwards.
//!
//! The owner of a stream calls a method when something arrives, and does what the [`Verdict`] says. Nothing here waits: a paused
//! stream is resumed by an [`Event`], which the owner fetches after [`HttpStream::wake`].
//!
//! # Bodies
//! A filter that pauses in a body callback holds what it has seen; the next piece is added and the filter is called with the
//! whole, until it lets go. So after [`Verdict::Pause`] from [`HttpFilters::request_body`] the owner goes on feeding the
//! body (its head has already been let through), while after a pause from [`HttpFilters::request_headers`] it may stop reading until
//! [`Event::RequestResumed`]. What it feeds nevertheless is held. One filter holds at most [`BODY_HELD_MAX`] of one direction: beyond, a
//! local reply 413, or 500 for a response whose head has not been let through, or a reset if it has.

use std::rc::Rc;

use crate::contexts::{Direction, StreamContext};
use crate::embedder::{HttpStream, Pairs};
use crate::http_passage::{Ending, Passage};
use crate::raised::{Owner, Raised, StreamShared};
use crate::{Plugin, Vm};

/// Most bytes of one body that one filter may hold (Envoy's connection buffer limit).
pub const BODY_HELD_MAX: usize = 1 << 20;

/// The plugins a listener's streams pass, in order. Made once, shared by streams.
pub struct Chain {
    pub(crate) plugins: Vec<Plugin>,
    wants_bodies: bool,
    wants_tcp_data: bool,
}

impl Chain {
    pub fn new(plugins: Vec<Plugin>) -> Rc<Self> {
        let wants_bodies = plugins.iter().any(|plugin| plugin.vm.inner.wants_bodies);
        let wants_tcp_data = plugins.iter().any(|plugin| plugin.vm.inner.wants_tcp_data);
        Rc::new(Self {
            plugins,
            wants_bodies,
            wants_tcp_data,
        })
    }

    /// Whether any filter wants request or response bodies; if not, the owner may pass them by.
    pub fn wants_bodies(&self) -> bool {
        self.wants_bodies
    }

    /// Whether any filter wants the bytes of TCP connections; if not, the owner may pass them by.
    pub fn wants_tcp_data(&self) -> bool {
        self.wants_tcp_data
    }

    /// Some VM of this chain is dead: new streams should go elsewhere.
    pub fn is_failed(&self) -> bool {
        self.plugins.iter().any(|plugin| plugin.vm.is_failed())
    }

    pub(crate) fn vm(&self, index: usize) -> Option<&Vm> {
        self.plugins.get(index).map(|plugin| &plugin.vm)
    }
}

/// What the owner does next.
#[derive(Debug)]
pub enum Verdict {
    /// Go on with the (possibly changed) data.
    Continue,
    /// Held: from a `…_headers` call wait for an [`Event`]; from a `…_body` call go on feeding, nothing is to be forwarded yet.
    Pause,
    /// Answer the client with this. Put it in place as the stream's response map (and its body), then call
    /// [`HttpFilters::response_headers`] and, with a body, [`HttpFilters::response_body`], as for any answer: the filters see their own
    /// reply. If the reply came out of the response phase it replaces the response and those calls do nothing, so the owner
    /// need not tell the cases apart. Request callbacks are over.
    LocalReply(LocalReply),
    /// Close the stream without an answer (`close_stream`, or a local reply when the response's head is already gone).
    Reset,
    /// A filter's VM died: 503 if nothing was answered yet, else go on without filters. Every later call says so too.
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
    /// The paused request direction goes on: first the headers (unless they were let through before), then
    /// [`HttpFilters::take_held_request_body`]. With [`Verdict::Continue`] all that was fed so far has passed; with [`Verdict::Pause`] a
    /// later filter holds the rest of the body and another event follows.
    RequestResumed(Verdict),
    /// The same for the response and [`HttpFilters::take_held_response_body`].
    ResponseResumed(Verdict),
    LocalReply(LocalReply),
    Reset,
    Failed,
}

/// The filters of one stream.
pub struct HttpFilters {
    pub(crate) chain: Rc<Chain>,
    pub(crate) shared: Rc<StreamShared>,
    pub(crate) stream: Rc<dyn HttpStream>,
    /// By position; created when the request gets there, as in Envoy.
    pub(crate) contexts: Vec<Option<Rc<StreamContext>>>,
    pub(crate) request: Passage,
    pub(crate) response: Passage,
    pub(crate) ending: Ending,
    finished: bool,
}

impl HttpFilters {
    /// The filters of a new stream. Each gets its stream context when the request reaches it.
    pub fn new(chain: &Rc<Chain>, stream: Rc<dyn HttpStream>) -> Self {
        Self {
            chain: chain.clone(),
            shared: StreamShared::new(Owner::Http(stream.clone())),
            stream,
            contexts: Vec::new(),
            request: Passage::default(),
            response: Passage::default(),
            ending: Ending::None,
            finished: false,
        }
    }

    pub fn request_headers(&mut self, end_of_stream: bool) -> Verdict {
        self.request.started = true;
        self.request.headers_end = end_of_stream;
        self.contexts.resize(self.chain.plugins.len(), None);
        match self.blocked(Direction::Request) {
            Some(verdict) => verdict,
            None => self.headers(Direction::Request, 0),
        }
    }

    /// A piece of request body; replaced in place by what should be forwarded (empty while it is held).
    pub fn request_body(&mut self, data: &mut Vec<u8>, end_of_stream: bool) -> Verdict {
        self.body(Direction::Request, data, end_of_stream)
    }

    pub fn request_trailers(&mut self) -> Verdict {
        self.request.trailers = true;
        match self.blocked(Direction::Request) {
            Some(verdict) => verdict,
            None => self.trailers(Direction::Request, 0),
        }
    }

    /// Also for answers the owner makes itself (502, 503, 504) and for local replies, as in Envoy.
    pub fn response_headers(&mut self, end_of_stream: bool) -> Verdict {
        self.response.headers_end = end_of_stream;
        if let Some(verdict) = self.blocked(Direction::Response) {
            return verdict;
        }
        self.response.started = true;
        let verdict = self.headers(Direction::Response, 0);
        self.response.passed = matches!(verdict, Verdict::Continue);
        verdict
    }

    /// A piece of response body, as [`HttpFilters::request_body`].
    pub fn response_body(&mut self, data: &mut Vec<u8>, end_of_stream: bool) -> Verdict {
        self.body(Direction::Response, data, end_of_stream)
    }

    pub fn response_trailers(&mut self) -> Verdict {
        self.response.trailers = true;
        match self.blocked(Direction::Response) {
            Some(verdict) => verdict,
            None => self.trailers(Direction::Response, 0),
        }
    }

    /// Request body that was held and is to be forwarded now, before anything fed later. Empty mostly.
    pub fn take_held_request_body(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.request.released)
    }

    /// Response body that was held and is to be sent now.
    pub fn take_held_response_body(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.response.released)
    }

    /// What happened since the last callback, oldest first. To be called until it says `None`.
    pub fn poll_event(&mut self) -> Option<Event> {
        if self.finished {
            return None;
        }
        if let Some(end) = self.shared.take_end()
            && let Some(event) = self.end_event(end)
        {
            return Some(event);
        }
        // Ends: a filter's direction is queued once, and a resumed one holds again only when its callback says so.
        while let Some((filter, direction)) = self.shared.next_continue() {
            if self.blocked(direction).is_some() {
                continue;
            }
            match self.resume(direction, filter) {
                None => {}
                Some(Verdict::LocalReply(reply)) => return Some(Event::LocalReply(reply)),
                Some(Verdict::Reset) => return Some(Event::Reset),
                Some(Verdict::Failed) => return Some(Event::Failed),
                Some(verdict) if direction == Direction::Request => {
                    return Some(Event::RequestResumed(verdict));
                }
                Some(verdict) => return Some(Event::ResponseResumed(verdict)),
            }
        }
        None
    }

    /// Tells the filters a property of the embedder's own, as if one of them had published it by `set_property`. `false`: the name or the
    /// value is too long.
    pub fn publish(&self, name: &str, value: &[u8]) -> bool {
        let mut published = self.shared.published.borrow_mut();
        published.set_property(name.as_bytes(), value)
    }

    /// Reads a property as a filter of the chain published it by `set_property` (`evenkeel.client_ip`).
    pub fn published(&self, name: &str, read: &mut dyn FnMut(&[u8])) -> bool {
        self.shared
            .published
            .borrow()
            .property(name.as_bytes())
            .map(read)
            .is_some()
    }

    /// Log in each filter, then done and delete in each; once. Dropping does the same.
    ///
    /// As in Envoy a filter the request never reached (an earlier one answered) is created for its log. A stream whose request
    /// headers never came has no filters.
    pub fn finish(&mut self) {
        if std::mem::replace(&mut self.finished, true) || !self.request.started {
            return;
        }
        let chain = self.chain.clone();
        for (index, plugin) in chain.plugins.iter().enumerate() {
            let Some(log) = &plugin.vm.inner.callbacks.log else {
                continue;
            };
            let Some(context) = self.context(index) else {
                continue;
            };
            context.logging.set(true);
            plugin
                .vm
                .call_stream("proxy_on_log", log, &context, context.id);
            context.logging.set(false);
        }
        for (plugin, context) in chain.plugins.iter().zip(std::mem::take(&mut self.contexts)) {
            if let Some(context) = context {
                plugin.vm.done_stream(&context);
                plugin.vm.delete_stream(&context);
            }
        }
        self.shared.forget();
    }

    fn body(&mut self, direction: Direction, data: &mut Vec<u8>, end_of_stream: bool) -> Verdict {
        let passage = self.passage(direction);
        passage.data_end |= end_of_stream;
        if !passage.released.is_empty() {
            passage.released.append(data);
            *data = std::mem::take(&mut passage.released);
        }
        match self.blocked(direction) {
            Some(verdict) => {
                if direction == Direction::Request
                    && matches!(self.ending, Ending::Replied | Ending::Closed)
                {
                    data.clear();
                }
                verdict
            }
            None => self.data(direction, 0, data, end_of_stream),
        }
    }

    fn end_event(&mut self, end: Raised) -> Option<Event> {
        if matches!(end, Raised::Failed) {
            return Some(Event::Failed);
        }
        // Only one local reply in the request phase; nothing after a close.
        let answered = self.ending == Ending::Replied && !self.response.started;
        if self.ending == Ending::Closed || self.ending == Ending::Replaced || answered {
            return None;
        }
        match self.end(end) {
            Verdict::LocalReply(reply) => Some(Event::LocalReply(reply)),
            _ => Some(Event::Reset),
        }
    }
}

impl Drop for HttpFilters {
    fn drop(&mut self) {
        self.finish();
    }
}
