//! What a guest asked of a stream during a callback, to be done after the outermost callback has returned.
//!
//! A guest may ask during a callback of another stream or of a root context (`set_effective_context`), so requests are kept with the
//! stream they are meant for, and the stream's owner is woken. The list is bounded: each kind counts once per filter and direction.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use crate::contexts::Direction;
use crate::embedder::{Attribute, FilterStateOutcome, HttpStream, TcpStream, Value};
use crate::http_filters::LocalReply;
use crate::published::Published;

/// What a guest asked for.
#[derive(Debug)]
pub(crate) enum Raised {
    Continue { filter: usize, direction: Direction },
    LocalReply(LocalReply),
    Close,
    Failed,
}

impl Raised {
    fn local_reply(&mut self) -> Option<&mut LocalReply> {
        match self {
            Raised::LocalReply(reply) => Some(reply),
            _ => None,
        }
    }
}

/// The owner's stream.
pub(crate) enum Owner {
    Http(Rc<dyn HttpStream>),
    Tcp(Rc<dyn TcpStream>),
}

/// What the contexts of one stream share.
pub(crate) struct StreamShared {
    pub(crate) owner: Owner,
    pub(crate) published: RefCell<Published>,
    raised: RefCell<VecDeque<Raised>>,
    failed: Cell<bool>,
}

impl StreamShared {
    pub(crate) fn new(owner: Owner) -> Rc<Self> {
        let (published, raised) = (RefCell::default(), RefCell::default());
        Rc::new(Self {
            owner,
            published,
            raised,
            failed: Cell::new(false),
        })
    }

    /// Keeps a request; `false`: the same one is already there.
    pub(crate) fn raise(&self, raised: Raised) -> bool {
        let mut known = self.raised.borrow_mut();
        let new = match &raised {
            Raised::Continue { filter, direction } => {
                !known.iter().any(|other| matches!(other, Raised::Continue { filter: f, direction: d } if f == filter && d == direction))
            }
            Raised::LocalReply(reply) => match known.iter_mut().find_map(Raised::local_reply) {
                // The first is sent; what is told of it are the details of the last, as in Envoy.
                Some(first) => {
                    first.details.clone_from(&reply.details);
                    false
                }
                None => true,
            },
            Raised::Close => !known.iter().any(|other| matches!(other, Raised::Close)),
            Raised::Failed => !self.failed.replace(true),
        };
        if new {
            known.push_back(raised);
        }
        new
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.raised.borrow().is_empty()
    }

    /// What ends the stream's ordinary course, if the guest asked for it: a failure, then a local reply, then a close. Resumes are
    /// forgotten with it.
    pub(crate) fn take_end(&self) -> Option<Raised> {
        let mut known = self.raised.borrow_mut();
        let rank = |raised: &Raised| match raised {
            Raised::Failed => 0,
            Raised::LocalReply(_) => 1,
            Raised::Close => 2,
            Raised::Continue { .. } => 3,
        };
        let (at, best) = known
            .iter()
            .map(rank)
            .enumerate()
            .min_by_key(|(_, rank)| *rank)?;
        if best == 3 {
            return None;
        }
        let end = known.remove(at);
        known.clear();
        end
    }

    /// Takes the resume of exactly this filter and direction.
    pub(crate) fn take_continue(&self, filter: usize, direction: Direction) -> bool {
        let mut known = self.raised.borrow_mut();
        let wanted = |raised: &Raised| matches!(raised, Raised::Continue { filter: f, direction: d } if *f == filter && *d == direction);
        match known.iter().position(wanted) {
            Some(at) => known.remove(at).is_some(),
            None => false,
        }
    }

    /// The oldest resume.
    pub(crate) fn next_continue(&self) -> Option<(usize, Direction)> {
        match self.raised.borrow_mut().pop_front()? {
            Raised::Continue { filter, direction } => Some((filter, direction)),
            _ => None,
        }
    }

    pub(crate) fn forget(&self) {
        self.raised.borrow_mut().clear();
    }

    pub(crate) fn wake(&self) {
        match &self.owner {
            Owner::Http(stream) => stream.wake(),
            Owner::Tcp(stream) => stream.wake(),
        }
    }

    pub(crate) fn attribute(
        &self,
        attribute: Attribute,
        answer: &mut dyn FnMut(Value<'_>),
    ) -> bool {
        match &self.owner {
            Owner::Http(stream) => stream.attribute(attribute, answer),
            Owner::Tcp(stream) => stream.attribute(attribute, answer),
        }
    }

    pub(crate) fn set_filter_state(&self, path: &[u8], value: &[u8]) -> FilterStateOutcome {
        match &self.owner {
            Owner::Http(stream) => stream.set_filter_state(path, value),
            Owner::Tcp(stream) => stream.set_filter_state(path, value),
        }
    }

    pub(crate) fn http(&self) -> Option<&Rc<dyn HttpStream>> {
        match &self.owner {
            Owner::Http(stream) => Some(stream),
            Owner::Tcp(_) => None,
        }
    }
}
