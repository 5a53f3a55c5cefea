//! How one direction of a stream passes the filters: call, hold, resume.
//!
//! A step is a filter's place in the direction's order. Every filter holds or does not, by itself ([`Hold`]); what a later filter does with what an
//! earlier one lets go is the same as with what arrives, so resuming is: go on from the next step, then feed what was held.

use std::rc::Rc;

use crate::calling::Called;
use crate::contexts::{Direction, Hold, StreamContext};
use crate::embedder::HeaderMap;
use crate::http_filters::{BODY_HELD_MAX, HttpFilters, LocalReply, Verdict};
use crate::raised::Raised;

/// One direction, as far as the owner has fed it.
#[derive(Default)]
pub(crate) struct Passage {
    pub(crate) started: bool,
    /// The headers have passed every filter: they are out of the host's hands.
    pub(crate) passed: bool,
    pub(crate) headers_end: bool,
    pub(crate) data_end: bool,
    pub(crate) trailers: bool,
    /// Body that was held and that the owner has not fetched yet.
    pub(crate) released: Vec<u8>,
}

/// What has ended the stream's ordinary course.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    None,
    /// A local reply from the request phase: it passes the response filters.
    Replied,
    /// A local reply from the response phase: it passes nobody.
    Replaced,
    /// Reset.
    Closed,
}

/// What a filter's callback comes to.
enum Step {
    Next,
    Hold,
    End(Verdict),
}

impl HttpFilters {
    pub(crate) fn passage(&mut self, direction: Direction) -> &mut Passage {
        match direction {
            Direction::Request => &mut self.request,
            Direction::Response => &mut self.response,
        }
    }

    /// What is said instead of calling filters, if they are not to be called.
    pub(crate) fn blocked(&self, direction: Direction) -> Option<Verdict> {
        if self.chain.is_failed() {
            return Some(Verdict::Failed);
        }
        let over = match self.ending {
            Ending::None => false,
            Ending::Replied => direction == Direction::Request,
            Ending::Replaced | Ending::Closed => true,
        };
        if over || !self.request.started {
            Some(Verdict::Continue)
        } else {
            None
        }
    }

    /// The context of a filter, made now if it is not there. `None`: its VM is dead.
    pub(crate) fn context(&mut self, index: usize) -> Option<Rc<StreamContext>> {
        let place = self.contexts.get_mut(index)?;
        if place.is_none() {
            let plugin = self.chain.plugins.get(index)?;
            *place = plugin.vm.new_stream(&plugin.root, index, &self.shared);
        }
        place.clone()
    }

    /// The filter at a step, and the other way round.
    fn order(&self, direction: Direction, step: usize) -> usize {
        match direction {
            Direction::Request => step,
            Direction::Response => self.chain.plugins.len().saturating_sub(step + 1),
        }
    }

    pub(crate) fn headers(&mut self, direction: Direction, from: usize) -> Verdict {
        let chain = self.chain.clone();
        let (map, end) = match direction {
            Direction::Request => (HeaderMap::RequestHeaders, self.request.headers_end),
            Direction::Response => (HeaderMap::ResponseHeaders, self.response.headers_end),
        };
        for step in from..chain.plugins.len() {
            let index = self.order(direction, step);
            let Some(vm) = chain.vm(index) else { break };
            let context = match direction {
                Direction::Request => match self.context(index) {
                    Some(context) => context,
                    None => return Verdict::Failed,
                },
                // A filter the request did not reach does not see the response.
                Direction::Response => match self.contexts.get(index).and_then(Option::as_ref) {
                    Some(context) => context.clone(),
                    None => continue,
                },
            };
            let known = &vm.inner.callbacks;
            let (name, function) = match direction {
                Direction::Request => ("proxy_on_request_headers", &known.request_headers),
                Direction::Response => ("proxy_on_response_headers", &known.response_headers),
            };
            let Some(function) = function else {
                // It may have asked for something in `on_context_create`.
                if let Some(end) = self.shared.take_end() {
                    return self.end(end);
                }
                continue;
            };
            context.open_map(map);
            let count = u32::try_from(self.stream.count(map)).unwrap_or(u32::MAX);
            let called = vm.call_stream(
                name,
                function,
                &context,
                (context.id, count, u32::from(end)),
            );
            match self.settle(direction, &context, called) {
                Step::Next => context.close_map(map),
                Step::Hold => {
                    context.way(direction).hold.set(Hold::Headers);
                    return Verdict::Pause;
                }
                Step::End(verdict) => return verdict,
            }
        }
        Verdict::Continue
    }

    pub(crate) fn data(
        &mut self,
        direction: Direction,
        from: usize,
        data: &mut Vec<u8>,
        end: bool,
    ) -> Verdict {
        let chain = self.chain.clone();
        for step in from..chain.plugins.len() {
            let index = self.order(direction, step);
            let Some(context) = self.contexts.get(index).and_then(Option::as_ref).cloned() else {
                continue;
            };
            let way = context.way(direction);
            let hold = way.hold.get();
            let Some(vm) = chain.vm(index) else { break };
            let known = &vm.inner.callbacks;
            let (name, function) = match direction {
                Direction::Request => ("proxy_on_request_body", &known.request_body),
                Direction::Response => ("proxy_on_response_body", &known.response_body),
            };
            if function.is_none() && hold == Hold::None {
                continue;
            }
            let length = {
                let mut held = way.data.borrow_mut();
                if hold == Hold::None {
                    *held = std::mem::take(data)
                } else {
                    held.append(data)
                }
                held.len()
            };
            if hold != Hold::None && length > BODY_HELD_MAX {
                return self.overflow(direction, &context);
            }
            let (Some(function), Hold::None | Hold::Body) = (function, hold) else {
                return Verdict::Pause;
            };
            way.data_open.set(true);
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            let called = vm.call_stream(
                name,
                function,
                &context,
                (context.id, length, u32::from(end)),
            );
            match self.settle(direction, &context, called) {
                Step::Next => {
                    way.hold.set(Hold::None);
                    way.data_open.set(false);
                    *data = way.data.take();
                }
                Step::Hold => {
                    way.hold.set(Hold::Body);
                    if way.data.borrow().len() > BODY_HELD_MAX {
                        return self.overflow(direction, &context);
                    }
                    return Verdict::Pause;
                }
                Step::End(verdict) => {
                    way.data_open.set(false);
                    way.data.take();
                    return verdict;
                }
            }
        }
        Verdict::Continue
    }

    pub(crate) fn trailers(&mut self, direction: Direction, from: usize) -> Verdict {
        let chain = self.chain.clone();
        let map = match direction {
            Direction::Request => HeaderMap::RequestTrailers,
            Direction::Response => HeaderMap::ResponseTrailers,
        };
        for step in from..chain.plugins.len() {
            let index = self.order(direction, step);
            let Some(context) = self.contexts.get(index).and_then(Option::as_ref).cloned() else {
                continue;
            };
            let way = context.way(direction);
            if way.hold.get() == Hold::Headers {
                return Verdict::Pause;
            }
            let Some(vm) = chain.vm(index) else { break };
            let known = &vm.inner.callbacks;
            let (name, function) = match direction {
                Direction::Request => ("proxy_on_request_trailers", &known.request_trailers),
                Direction::Response => ("proxy_on_response_trailers", &known.response_trailers),
            };
            let outcome = match function {
                None => Step::Next,
                Some(function) => {
                    context.open_map(map);
                    let count = u32::try_from(self.stream.count(map)).unwrap_or(u32::MAX);
                    let called = vm.call_stream(name, function, &context, (context.id, count));
                    self.settle(direction, &context, called)
                }
            };
            match outcome {
                Step::Next => context.close_map(map),
                Step::Hold => {
                    way.hold.set(Hold::Trailers);
                    return Verdict::Pause;
                }
                Step::End(verdict) => return verdict,
            }
            // Trailers end what a body callback held.
            if way.hold.replace(Hold::None) == Hold::Body
                && let Some(verdict) = self.release(direction, &context, step + 1, false)
            {
                return verdict;
            }
        }
        Verdict::Continue
    }

    /// Feeds what a filter held to the next ones. `Some`: that ended the stream's ordinary course.
    fn release(
        &mut self,
        direction: Direction,
        context: &StreamContext,
        to: usize,
        end: bool,
    ) -> Option<Verdict> {
        let way = context.way(direction);
        way.data_open.set(false);
        let mut data = way.data.take();
        if data.is_empty() && !end {
            return None;
        }
        let verdict = self.data(direction, to, &mut data, end);
        self.passage(direction).released.append(&mut data);
        is_end(&verdict).then_some(verdict)
    }

    /// Goes on where a filter held. `None`: it did not, or nothing comes of it for the owner yet.
    pub(crate) fn resume(&mut self, direction: Direction, filter: usize) -> Option<Verdict> {
        let context = self.contexts.get(filter)?.clone()?;
        let hold = context.way(direction).hold.replace(Hold::None);
        let step = self.order(direction, filter);
        let (data_end, trailers) = (
            self.passage(direction).data_end,
            self.passage(direction).trailers,
        );
        let mut head_passes = false;
        match hold {
            Hold::None => return None,
            Hold::Headers => {
                let verdict = self.headers(direction, step + 1);
                if is_end(&verdict) {
                    return Some(verdict);
                }
                head_passes = matches!(verdict, Verdict::Continue);
                self.passage(direction).passed |= head_passes;
                // The filter has not seen the body that came meanwhile: it begins with it.
                let ended = self.release(direction, &context, step, data_end && !trailers);
                if ended.is_some() {
                    return ended;
                }
                if trailers {
                    let verdict = self.trailers(direction, step);
                    if is_end(&verdict) {
                        return Some(verdict);
                    }
                }
            }
            Hold::Body => {
                let ended = self.release(direction, &context, step + 1, data_end);
                if ended.is_some() {
                    return ended;
                }
            }
            Hold::Trailers => {
                let ended = self.release(direction, &context, step + 1, false);
                if ended.is_some() {
                    return ended;
                }
                let verdict = self.trailers(direction, step + 1);
                if is_end(&verdict) {
                    return Some(verdict);
                }
            }
        }
        if !self.holds(direction) {
            return Some(Verdict::Continue);
        }
        let progress = head_passes || !self.passage(direction).released.is_empty();
        progress.then_some(Verdict::Pause)
    }

    fn holds(&self, direction: Direction) -> bool {
        self.contexts
            .iter()
            .flatten()
            .any(|context| context.way(direction).hold.get() != Hold::None)
    }

    /// What the guest returned, and what it asked for of this stream meanwhile.
    fn settle(
        &mut self,
        direction: Direction,
        context: &StreamContext,
        called: Option<Called<u32>>,
    ) -> Step {
        let Some(called) = called else {
            self.shared.forget();
            return Step::End(Verdict::Failed);
        };
        let paused = called.value != 0 || called.stopped;
        if self.shared.is_quiet() {
            return if paused { Step::Hold } else { Step::Next };
        }
        if let Some(end) = self.shared.take_end() {
            return Step::End(self.end(end));
        }
        let resumed = self.shared.take_continue(context.filter, direction);
        if !self.shared.is_quiet() {
            // The other direction, or another filter: an event for the owner's next look.
            self.shared.wake();
        }
        if paused && !resumed {
            Step::Hold
        } else {
            Step::Next
        }
    }

    /// A local reply, a close or a failure becomes the owner's verdict.
    pub(crate) fn end(&mut self, end: Raised) -> Verdict {
        match end {
            Raised::LocalReply(reply) if !self.response.passed => {
                self.ending = if self.response.started {
                    Ending::Replaced
                } else {
                    Ending::Replied
                };
                Verdict::LocalReply(reply)
            }
            Raised::Failed => Verdict::Failed,
            Raised::LocalReply(_) | Raised::Close | Raised::Continue { .. } => {
                self.ending = Ending::Closed;
                Verdict::Reset
            }
        }
    }

    fn overflow(&mut self, direction: Direction, context: &StreamContext) -> Verdict {
        let way = context.way(direction);
        way.data_open.set(false);
        way.data.take();
        let (status, details) = match direction {
            Direction::Request => (413, "request_payload_too_large"),
            Direction::Response => (500, "response_payload_too_large"),
        };
        let body = if status == 413 {
            "Payload Too Large"
        } else {
            "Internal Server Error"
        };
        self.end(Raised::LocalReply(LocalReply {
            status,
            details: details.to_owned(),
            headers: Vec::new(),
            body: body.into(),
        }))
    }
}

fn is_end(verdict: &Verdict) -> bool {
    !matches!(verdict, Verdict::Continue | Verdict::Pause)
}
