//! The evenkeel proxy.

pub mod check;
pub mod cli;
pub mod config;
pub mod ctl;
pub mod demo;
pub mod embedded;
pub mod envoy;
pub mod run;

mod access_log;
mod admin;
mod clock;
mod control;
mod counters;
mod filter;
mod filter_environment;
mod generation;
mod http;
mod janitor;
mod listen;
mod members;
mod modules;
mod reload;
mod sealed;
mod shared;
mod slots;
mod store;
mod upstream;
mod worker;
mod worker_thread;
