//! evenkeel's policy: who the client is, which pool a request goes to, which server answers.
//!
//! Pure: no I/O, no clock, no randomness of its own, no SDK. Time, random numbers and facts are arguments, and the
//! answers are the same on wasm32 and x86-64.

pub mod config;
pub mod contract;
