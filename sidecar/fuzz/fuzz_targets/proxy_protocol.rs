//! Any bytes as the beginning of a connection whose peer has to send a PROXY header.

#![no_main]

#[path = "../../src/listen/proxy_protocol/header.rs"]
mod header;
#[path = "../laws.rs"]
mod laws;
#[path = "../../src/upstream/proxy_header.rs"]
mod written;

libfuzzer_sys::fuzz_target!(|data: &[u8]| laws::proxy_protocol(data));
