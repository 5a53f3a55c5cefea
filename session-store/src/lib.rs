//! Where PHP sessions and session bindings live: the store's trait, its Redis and embedded backends, the RESP server that PHP
//! connects to, and the bridge for a filter inside Envoy.
//!
//! In reading order: the protocol ([`resp`]), what clients may ask ([`command`]), who answers ([`backend`]), and what PHP connects to
//! ([`gateway`]); beside them what the bridge checks for filters, in protocols that they cannot speak ([`check`]). The arrows between
//! crates are fixed: the sidecar uses this one, and it uses none of ours.

pub mod resp;

pub mod command;

pub mod backend;

pub mod gateway;

pub mod check;
