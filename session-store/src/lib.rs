//! Where PHP sessions and session bindings live: the store's trait, its Redis and embedded backends, the RESP server that PHP
//! connects to, and the bridge for a filter inside Envoy.
//!
//! Nothing is served yet, and a configuration that asks for it is refused by name. The crate is here because the arrows between
//! crates are fixed: the sidecar will use it, and it uses none of ours.
