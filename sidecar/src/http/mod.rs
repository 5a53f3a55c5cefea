//! HTTP: from a request's head to its last log line.

pub(crate) mod attributes;
pub(crate) mod body;
mod bridge;
pub(crate) mod calls;
pub(crate) mod client;
pub(crate) mod exchange;
pub(crate) mod filter;
pub(crate) mod filtered;
pub(crate) mod forward;
pub(crate) mod head;
pub(crate) mod hop_by_hop;
pub(crate) mod local_reply;
pub(crate) mod refused;
pub(crate) mod server;
pub(crate) mod steering;
pub(crate) mod stream;
pub(crate) mod upgrade;
