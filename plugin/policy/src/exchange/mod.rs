//! One request from its head to its end: [`Policy::decide`], then [`Exchange`] until it is finished.
//!
//! ```text
//!   head ──▶ decide ──▶ Decision, Edits          who is the client, which pool, which servers in which order; headers
//!                │
//!                ▼
//!            Exchange::begun ──▶ answered(n) ──▶ finish      in flight on entry 1, then on entry n; charged; exactly once
//! ```

mod action;
mod decision;
mod edits;
mod explain;
mod forwarded;
mod hash_key;
mod header_rules;
mod lifetime;
mod noted;
mod pairs;
mod reply;
mod rewrite;
mod steps;
mod telling;
mod template;

#[cfg(test)]
mod action_tests;
#[cfg(test)]
mod telling_tests;
#[cfg(test)]
mod tests;

pub use action::{Action, Respond, RouteRule};
pub use decision::{Answered, Decided, Decision, Explain, Head, Policy, Surroundings};
pub use edits::{Edit, Edits};
pub use hash_key::HashKey;
pub use header_rules::HeaderRules;
pub use lifetime::{Answer, Exchange, LastAttempt};
pub use pairs::Pairs;
pub use reply::Reply;
pub use rewrite::Rewrite;
pub use telling::{SendsForwarded, Telling};
pub use template::Template;

/// Whether `name`, lower-case, may be the name of a header (RFC 9110 section 5.6.2).
pub fn is_header_name(name: &str) -> bool {
    const NAME_BYTES_MAX: usize = 256;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(is_token)
}
