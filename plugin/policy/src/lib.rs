//! evenkeel's policy: who the client is, which pool a request goes to, which server answers.
//!
//! Pure: no I/O, no clock, no randomness of its own, no SDK. Time, random numbers and facts are arguments, and the
//! answers are the same on wasm32 and x86-64.
//!
//! ```text
//!   config     the `policy` subtree, as written and as valid
//!   exchange   one request: decide, answered, finish ──┬──▶ client_ip   who is it
//!                                                      ├──▶ routing     which route
//!                                                      ├──▶ limits      not too often, not too many
//!                                                      └──▶ upstream    which servers ──▶ balance  (a method a file)
//! ```

pub mod balance;
pub mod client_ip;
pub mod config;
pub mod contract;
pub mod exchange;
pub mod limits;
pub mod random;
pub mod routing;
pub mod upstream;
