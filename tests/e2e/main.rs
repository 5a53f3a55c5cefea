//! End to end: one harness, real servers, and every scenario that can run on both hosts runs on both.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation
)]

mod accept;
mod access_log;
mod admin;
mod bad_config;
mod bridge_checks;
mod build_filter;
mod control;
mod haproxy_parity;
mod harness;

mod addresses;
mod balance;
mod bodies;
mod campaign;
mod demo;
mod drain;
mod envoy_files;
mod failover;
mod faults;
mod filter_picks;
mod headers;
mod health;
mod http2;
mod large;
mod limits;
mod long_exchanges;
mod malformed;
mod messages;
mod moved_keys;
mod names;
mod nginx_failures;
mod nginx_parity;
mod panic_below;
mod parity;
mod poison;
mod proxy_protocol;
mod real_ip_parity;
mod refused;
mod reload;
mod reload_keeps;
mod request_limits;
mod resources;
mod route_actions;
mod routes;
mod session_gateway;
mod sessions;
mod shared_state;
mod single_file;
mod slow_clients;
mod slow_start;
mod smuggling;
mod smuggling_http2;
mod spoofing;
mod store_contract;
mod tls;
mod traps;
mod upgrade;
