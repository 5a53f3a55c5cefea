//! The harness of the end-to-end tests: real servers behind, a real client in front, both hosts in between.
//!
//! A scenario reads as one sentence: these servers, this policy, on this host; then what a client does and sees.
//!
//! ```no_run
//! use evenkeel_tests::{Cluster, Host, nginx};
//! let (a, b) = (nginx("a"), nginx("b"));
//! let proxy = Cluster::new().server(&a).server(&b)
//!     .policy("pools: {web: {servers: [{address: '@a'}, {address: '@b'}]}}\nroutes: [{pool: web}]")
//!     .on(Host::Sidecar);
//! assert_eq!(proxy.get("/name").text(), "a");
//! ```
//!
//! Nothing is mocked that can be had for real: nginx and PHP are the servers, Envoy is Envoy. What no real server can
//! be made to do (stop answering in the middle, trap on a header) stands, each under its name, in [`doubles`] and
//! [`guests`].
//!
//! # Why a failure here is a panic
//! This library has no user but tests: a broken set-up is a failed test, and a panic with its reason is the message.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation
)]

pub mod busy;
pub mod child;
pub mod cluster;
pub mod databases;
pub mod doubles;
pub mod eventually;
pub mod filter_alone;
pub mod gateway;
pub mod guests;
pub mod host;
pub mod http1;
pub mod http2;
pub mod load;
pub mod memory_stream;
pub mod metric;
pub mod nginx;
pub mod peers;
pub mod php;
pub mod ports;
pub mod resp;
pub mod sentinel;
pub mod tls;
pub mod trapping;

pub use busy::{Busy, busy};
pub use cluster::{Cluster, Proxy, Server};
pub use eventually::eventually;
pub use gateway::{Gateway, gateway};
pub use host::Host;
pub use http1::{Connection, Request, Response};
pub use load::{Load, Report};
pub use nginx::{Nginx, nginx};
pub use php::{Php, php};
pub use resp::Resp;
