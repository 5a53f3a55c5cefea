//! The evenkeel proxy.

pub mod config;
