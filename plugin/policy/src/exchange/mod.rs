//! One request from its head to its end: [`Policy::decide`], then [`Exchange`] until it is finished.
//!
//! ```text
//!   head ──▶ decide ──▶ Decision, Edits          who is the client, which pool, which servers in which order; headers
//!                │
//!                ▼
//!            Exchange::begun ──▶ answered(n) ──▶ finish      in flight on entry 1, then on entry n; charged; exactly once
//! ```

mod decision;
mod edits;
mod forwarded;
mod hash_key;
mod lifetime;
mod pairs;
mod template;

#[cfg(test)]
mod tests;

pub use decision::{Decided, Decision, Explain, Head, Policy};
pub use edits::{Edit, Edits};
pub use hash_key::HashKey;
pub use lifetime::{Answer, Exchange, LastAttempt};
pub use pairs::Pairs;
pub use template::{HeaderTemplates, Template};

/// Whether `name`, lower-case, may be the name of a header (RFC 9110 section 5.6.2).
pub fn is_header_name(name: &str) -> bool {
    const NAME_BYTES_MAX: usize = 256;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(is_token)
}
