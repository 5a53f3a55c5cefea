//! Where PHP sessions and session bindings live: the store's trait, its Redis and embedded backends, the RESP server that PHP
//! connects to, and the bridge for a filter inside Envoy.
//!
//! So far it holds what the bridge checks for filters, in protocols that they cannot speak ([`check`]). No session is kept yet, and a
//! configuration that asks for it is refused by name. The arrows between crates are fixed: the sidecar uses this one, and it uses
//! none of ours.

pub mod backend;
pub mod check;
pub mod command;
pub mod gateway;
pub mod resp;
