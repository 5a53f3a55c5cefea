//! What becomes of a request that takes a route.

use super::rewrite::Rewrite;
use super::template::Template;

/// What a route does.
#[derive(Debug, Clone)]
pub struct RouteRule {
    pub action: Action,
    /// Which limits hold for its requests, by index.
    pub limits: Vec<usize>,
}

#[derive(Debug, Clone)]
pub enum Action {
    /// It goes to a server of the pool.
    Pool {
        pool: usize,
        rewrite: Option<Rewrite>,
    },
    /// It is sent elsewhere.
    Redirect { status: u16, location: Template },
    /// It is answered here.
    Respond(Box<Respond>),
    /// It is refused.
    Deny { status: u16 },
}

/// An answer of the configuration's own.
#[derive(Debug, Clone)]
pub struct Respond {
    pub status: u16,
    /// By lower-case name.
    pub headers: Vec<(Box<[u8]>, Template)>,
    pub body: Box<[u8]>,
}
