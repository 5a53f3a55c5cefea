//! The Redis serialization protocol, both sides of it, as functions of bytes.
//!
//! Requests come in pieces from clients that may be hostile ([`request`]); replies go out in the client's version of the protocol
//! ([`reply`]); replies of a Redis behind us come in pieces too ([`decode`]). Nothing here reads a socket or a clock.

pub mod decode;
pub mod reply;
pub mod request;

pub use reply::{Protocol, Reply};
pub use request::{Bounds, Parsed, Parser, Refusal};
