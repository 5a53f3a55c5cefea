//! The host, driven as a proxy would drive it, with guests in WAT.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation
)]

mod allocators;
mod bounds;
mod first_filter;
mod hostcall_rows;
mod hostcall_table;
mod hostile;
mod hostile_calls;
mod http_calls;
mod life;
mod local_replies;
mod modules;
mod pausing;
mod properties;
mod puppet;
mod shared;
mod start;
mod tcp;
mod traps;
mod world;
