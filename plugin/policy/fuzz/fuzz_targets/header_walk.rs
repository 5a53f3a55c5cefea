//! Any bytes as X-Forwarded-For and X-Real-IP.

#![no_main]

#[path = "../laws.rs"]
mod laws;

libfuzzer_sys::fuzz_target!(|data: &[u8]| laws::header_walk(data));
