//! Any bytes as Forwarded (RFC 7239).

#![no_main]

#[path = "../laws.rs"]
mod laws;

libfuzzer_sys::fuzz_target!(|data: &[u8]| laws::forwarded(data));
