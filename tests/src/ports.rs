//! Ports that nobody listens on.
//!
//! The kernel's own choice (port 0) comes from the range it also takes client ports from, so a port given back could be
//! some test's client a moment later. These come from below that range, and no two callers of a process get the same.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST: u32 = 10_000;
const COUNT: u32 = 22_000;
const ATTEMPTS_MAX: u32 = 2_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// An address on the loopback that could be bound a moment ago.
pub fn free() -> SocketAddr {
    let start = std::process::id().wrapping_mul(7_919);
    for _ in 0..ATTEMPTS_MAX {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + start.wrapping_add(step) % COUNT;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port as u16));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port among {ATTEMPTS_MAX} tried");
}

/// An address that refuses connections: free, and kept out of every other test's hands.
pub fn refusing() -> SocketAddr {
    free()
}
