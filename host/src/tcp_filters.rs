//! The filters of one TCP connection: data from the client goes through the chain forwards, data from the server backwards.
//!
//! As with HTTP the owner calls a method when something happens and does what the [`TcpVerdict`] says. The order at the end is Envoy's, measured:
//! upstream close, downstream close, done, log, delete.
//!
//! A filter that pauses in a data callback holds what it has seen and is called with the whole when more comes; data of the client is let go by
//! `continue_stream(2)` too. (ABI 0.2.1 cannot resume data of the server: only the next piece can.)

use std::rc::Rc;

use crate::calling::Called;
use crate::contexts::{Direction, Hold, StreamContext};
use crate::embedder::TcpStream;
use crate::http_filters::{BODY_HELD_MAX, Chain};
use crate::raised::{Owner, Raised, StreamShared};

/// What the owner does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcpVerdict {
    /// Go on with the (possibly changed) data.
    Continue,
    /// Held: from [`TcpFilters::new_connection`] wait for an event; from a data call go on feeding.
    Pause,
    /// Close both sides (`close_stream`, or a filter held more than [`BODY_HELD_MAX`]).
    Close,
    /// A filter's VM died. Every later call says so too.
    Failed,
}

/// Something that happened between callbacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcpEvent {
    /// The paused direction from the client goes on: the connection may be made, then [`TcpFilters::take_held_data`] is forwarded.
    Resumed,
    Close,
    Failed,
}

/// Who closed a side; the numbers are the ABI's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClosedBy {
    Unknown,
    Local,
    Remote,
}

impl ClosedBy {
    fn to_abi(self) -> u32 {
        match self {
            ClosedBy::Unknown => 0,
            ClosedBy::Local => 1,
            ClosedBy::Remote => 2,
        }
    }
}

/// The filters of one connection.
pub struct TcpFilters {
    chain: Rc<Chain>,
    shared: Rc<StreamShared>,
    contexts: Vec<Rc<StreamContext>>,
    released: Vec<u8>,
    /// The client's data has ended.
    data_end: bool,
    upstream_closed: bool,
    downstream_closed: bool,
    closed: bool,
    finished: bool,
}

impl TcpFilters {
    pub fn new(chain: &Rc<Chain>, stream: Rc<dyn TcpStream>) -> Self {
        let shared = StreamShared::new(Owner::Tcp(stream));
        Self {
            chain: chain.clone(),
            shared,
            contexts: Vec::new(),
            released: Vec::new(),
            data_end: false,
            upstream_closed: false,
            downstream_closed: false,
            closed: false,
            finished: false,
        }
    }

    /// A client has connected; a filter may steer now. With [`TcpVerdict::Continue`] the upstream connection may be made.
    pub fn new_connection(&mut self) -> TcpVerdict {
        if let Some(verdict) = self.blocked() {
            return verdict;
        }
        self.connect_from(self.contexts.len())
    }

    /// Data from the client, replaced in place by what is to be forwarded.
    pub fn downstream_data(&mut self, data: &mut Vec<u8>, end_of_stream: bool) -> TcpVerdict {
        self.data_end |= end_of_stream;
        if !self.released.is_empty() {
            self.released.append(data);
            *data = std::mem::take(&mut self.released);
        }
        match self.blocked() {
            Some(verdict) => verdict,
            None => self.data(Direction::Request, 0, data, end_of_stream),
        }
    }

    /// Data from the server, replaced in place by what is to be forwarded.
    pub fn upstream_data(&mut self, data: &mut Vec<u8>, end_of_stream: bool) -> TcpVerdict {
        match self.blocked() {
            Some(verdict) => verdict,
            None => self.data(Direction::Response, 0, data, end_of_stream),
        }
    }

    /// The server's side is closed; once.
    pub fn upstream_closed(&mut self, by: ClosedBy) {
        if std::mem::replace(&mut self.upstream_closed, true) {
            return;
        }
        for (plugin, context) in self.chain.plugins.iter().zip(&self.contexts) {
            if let Some(close) = &plugin.vm.inner.callbacks.upstream_connection_close {
                plugin.vm.call_stream(
                    "proxy_on_upstream_connection_close",
                    close,
                    context,
                    (context.id, by.to_abi()),
                );
            }
        }
    }

    /// The client's side is closed; once.
    pub fn downstream_closed(&mut self, by: ClosedBy) {
        if std::mem::replace(&mut self.downstream_closed, true) {
            return;
        }
        for (plugin, context) in self.chain.plugins.iter().zip(&self.contexts) {
            if let Some(close) = &plugin.vm.inner.callbacks.downstream_connection_close {
                plugin.vm.call_stream(
                    "proxy_on_downstream_connection_close",
                    close,
                    context,
                    (context.id, by.to_abi()),
                );
            }
        }
    }

    /// What happened since the last callback. To be called until it says `None`.
    pub fn poll_event(&mut self) -> Option<TcpEvent> {
        if self.finished {
            return None;
        }
        match self.shared.take_end() {
            Some(Raised::Failed) => return Some(TcpEvent::Failed),
            Some(_) if !self.closed => {
                self.closed = true;
                return Some(TcpEvent::Close);
            }
            _ => {}
        }
        // Ends: see `HttpFilters::poll_event`.
        while let Some((filter, direction)) = self.shared.next_continue() {
            if self.blocked().is_some() || direction == Direction::Response {
                continue;
            }
            match self.resume(filter) {
                None | Some(TcpVerdict::Pause) => {}
                Some(TcpVerdict::Continue) => return Some(TcpEvent::Resumed),
                Some(TcpVerdict::Close) => return Some(TcpEvent::Close),
                Some(TcpVerdict::Failed) => return Some(TcpEvent::Failed),
            }
        }
        None
    }

    /// Data of the client that was held and is to be forwarded now, before anything fed later.
    pub fn take_held_data(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.released)
    }

    /// As [`crate::http_filters::HttpFilters::published`].
    pub fn published(&self, name: &str, read: &mut dyn FnMut(&[u8])) -> bool {
        self.shared
            .published
            .borrow()
            .property(name.as_bytes())
            .map(read)
            .is_some()
    }

    /// Closes the sides nobody has told of yet (by `Unknown`), then done, log and delete in each filter; once. Dropping does the same.
    pub fn finish(&mut self) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        self.upstream_closed(ClosedBy::Unknown);
        self.downstream_closed(ClosedBy::Unknown);
        for (plugin, context) in self
            .chain
            .plugins
            .iter()
            .zip(std::mem::take(&mut self.contexts))
        {
            plugin.vm.done_stream(&context);
            if let Some(log) = &plugin.vm.inner.callbacks.log {
                context.logging.set(true);
                plugin
                    .vm
                    .call_stream("proxy_on_log", log, &context, context.id);
                context.logging.set(false);
            }
            plugin.vm.delete_stream(&context);
        }
        self.shared.forget();
    }

    fn blocked(&self) -> Option<TcpVerdict> {
        if self.chain.is_failed() {
            Some(TcpVerdict::Failed)
        } else if self.closed || self.finished {
            Some(TcpVerdict::Close)
        } else {
            None
        }
    }

    fn connect_from(&mut self, from: usize) -> TcpVerdict {
        let chain = self.chain.clone();
        for (index, plugin) in chain.plugins.iter().enumerate().skip(from) {
            let Some(context) = plugin.vm.new_stream(&plugin.root, index, &self.shared) else {
                return TcpVerdict::Failed;
            };
            self.contexts.push(context.clone());
            let Some(function) = &plugin.vm.inner.callbacks.new_connection else {
                continue;
            };
            let called =
                plugin
                    .vm
                    .call_stream("proxy_on_new_connection", function, &context, context.id);
            match self.settle(Direction::Request, &context, called) {
                TcpVerdict::Continue => {}
                TcpVerdict::Pause => {
                    context.request.hold.set(Hold::Headers);
                    return TcpVerdict::Pause;
                }
                end => return end,
            }
        }
        TcpVerdict::Continue
    }

    fn data(
        &mut self,
        direction: Direction,
        from: usize,
        data: &mut Vec<u8>,
        end: bool,
    ) -> TcpVerdict {
        let chain = self.chain.clone();
        for step in from..self.contexts.len() {
            let index = match direction {
                Direction::Request => step,
                Direction::Response => self.contexts.len() - step - 1,
            };
            let (Some(context), Some(vm)) = (self.contexts.get(index).cloned(), chain.vm(index))
            else {
                break;
            };
            let (way, known) = (context.way(direction), &vm.inner.callbacks);
            let (name, function) = match direction {
                Direction::Request => ("proxy_on_downstream_data", &known.downstream_data),
                Direction::Response => ("proxy_on_upstream_data", &known.upstream_data),
            };
            let hold = way.hold.get();
            if function.is_none() && hold == Hold::None {
                continue;
            }
            let length = {
                let mut held = way.data.borrow_mut();
                held.append(data);
                held.len()
            };
            if hold != Hold::None && length > BODY_HELD_MAX {
                return self.close();
            }
            let (Some(function), Hold::None | Hold::Body) = (function, hold) else {
                return TcpVerdict::Pause;
            };
            way.data_open.set(true);
            let arguments = (
                context.id,
                u32::try_from(length).unwrap_or(u32::MAX),
                u32::from(end),
            );
            let called = vm.call_stream(name, function, &context, arguments);
            match self.settle(direction, &context, called) {
                TcpVerdict::Continue => {
                    way.hold.set(Hold::None);
                    way.data_open.set(false);
                    *data = way.data.take();
                }
                TcpVerdict::Pause if way.data.borrow().len() > BODY_HELD_MAX => {
                    return self.close();
                }
                TcpVerdict::Pause => {
                    way.hold.set(Hold::Body);
                    return TcpVerdict::Pause;
                }
                end => return end,
            }
        }
        TcpVerdict::Continue
    }

    fn resume(&mut self, filter: usize) -> Option<TcpVerdict> {
        let context = self.contexts.get(filter)?.clone();
        let from = match context.request.hold.replace(Hold::None) {
            Hold::None => return None,
            Hold::Headers => {
                let verdict = self.connect_from(filter + 1);
                if verdict != TcpVerdict::Continue {
                    return Some(verdict);
                }
                filter
            }
            Hold::Body | Hold::Trailers => filter + 1,
        };
        context.request.data_open.set(false);
        let mut data = context.request.data.take();
        if data.is_empty() && !self.data_end {
            return Some(TcpVerdict::Continue);
        }
        let verdict = self.data(Direction::Request, from, &mut data, self.data_end);
        self.released.append(&mut data);
        // The connection may be made even though a later filter holds the data.
        Some(if verdict == TcpVerdict::Pause && from == filter {
            TcpVerdict::Continue
        } else {
            verdict
        })
    }

    fn settle(
        &mut self,
        direction: Direction,
        context: &StreamContext,
        called: Option<Called<u32>>,
    ) -> TcpVerdict {
        let Some(called) = called else {
            self.shared.forget();
            return TcpVerdict::Failed;
        };
        let mut paused = called.value != 0;
        if !self.shared.is_quiet() {
            if self.shared.take_end().is_some() {
                return self.close();
            }
            paused &= !self.shared.take_continue(context.filter, direction);
            if !self.shared.is_quiet() {
                self.shared.wake();
            }
        }
        if paused {
            TcpVerdict::Pause
        } else {
            TcpVerdict::Continue
        }
    }

    fn close(&mut self) -> TcpVerdict {
        self.closed = true;
        TcpVerdict::Close
    }
}

impl Drop for TcpFilters {
    fn drop(&mut self) {
        self.finish();
    }
}
