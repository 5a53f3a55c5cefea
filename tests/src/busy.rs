//! A server that takes its time, and knows exactly how many requests it has at once.
//!
//! `?ms=200` is how long it takes, or what [`Busy::slow_down`] says of all; `/reset` breaks off instead of answering; an upgrade is accepted and kept until the client goes away. A
//! request counts from its last byte until just before its answer, or until the connection ends: so whoever has seen the answer, or
//! has closed, finds it counted no more.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::cluster::Server;
use crate::ports;

/// How often a connection is looked at while its request takes time.
const LOOK: Duration = Duration::from_millis(1);
/// Longest life of an upgraded connection.
const HOLD: Duration = Duration::from_secs(150);

/// A running server.
pub struct Busy {
    name: String,
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    now: usize,
    most: usize,
    targets: Vec<String>,
    /// What a request takes at least.
    slow: Duration,
    stop: bool,
}

/// Starts one.
pub fn busy(name: &str) -> Busy {
    let address = ports::free();
    let listener = TcpListener::bind(address).unwrap();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let busy = Busy {
        name: name.to_owned(),
        address,
        seen: seen.clone(),
    };
    let name = name.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            if lock(&seen).stop {
                return;
            }
            let Ok(stream) = stream else { continue };
            let (seen, name) = (seen.clone(), name.clone());
            std::thread::spawn(move || serve(stream, &seen, &name));
        }
    });
    busy
}

impl Busy {
    /// Requests that it has now.
    pub fn now(&self) -> usize {
        lock(&self.seen).now
    }

    /// Most that it had at once.
    pub fn most(&self) -> usize {
        lock(&self.seen).most
    }

    /// What was asked for, in the order in which it came.
    pub fn targets(&self) -> Vec<String> {
        lock(&self.seen).targets.clone()
    }

    /// Each request takes so long from now on, if it would not take longer.
    pub fn slow_down(&self, time: Duration) {
        lock(&self.seen).slow = time;
    }

    /// Forgets the most, and what was asked for.
    pub fn forget(&self) {
        let mut seen = lock(&self.seen);
        seen.most = seen.now;
        seen.targets.clear();
    }
}

impl Server for Busy {
    fn name(&self) -> &str {
        &self.name
    }
    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        lock(&self.seen).stop = true;
        TcpStream::connect(self.address).ok();
    }
}

/// One more, as long as it lives.
struct Counted<'a>(&'a Mutex<Seen>);

impl<'a> Counted<'a> {
    fn new(seen: &'a Mutex<Seen>, target: &str) -> Self {
        let mut it = lock(seen);
        it.now += 1;
        it.most = it.most.max(it.now);
        it.targets.push(target.to_owned());
        Self(seen)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        lock(self.0).now -= 1;
    }
}

fn serve(mut stream: TcpStream, seen: &Mutex<Seen>, name: &str) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut buffer = Vec::new();
    loop {
        let head = read_head(&mut stream, &mut buffer, seen)?;
        let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let counted = Counted::new(seen, &target);
        if head.to_ascii_lowercase().contains("\nupgrade:") {
            stream
                .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
                .ok()?;
            stay(&mut stream, HOLD)?;
            return None;
        }
        let ms = target.split_once("ms=").and_then(|(_, ms)| ms.parse().ok());
        let time = Duration::from_millis(ms.unwrap_or(0)).max(lock(seen).slow);
        stay(&mut stream, time)?;
        drop(counted);
        if target.starts_with("/reset") {
            return None;
        }
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{name}",
            name.len()
        );
        stream.write_all(answer.as_bytes()).ok()?;
    }
}

/// Waits; `None` if the other side closes meanwhile.
fn stay(stream: &mut TcpStream, time: Duration) -> Option<()> {
    let until = Instant::now() + time;
    stream.set_read_timeout(Some(LOOK)).ok()?;
    while Instant::now() < until {
        match stream.read(&mut [0; 1024]) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
    }
    Some(())
}

/// A request's head; requests have no body here.
fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>, seen: &Mutex<Seen>) -> Option<String> {
    stream
        .set_read_timeout(Some(Duration::from_millis(500)))
        .ok()?;
    loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head: Vec<u8> = buffer.drain(..end + 4).collect();
            return Some(String::from_utf8_lossy(&head).into_owned());
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece) {
            Ok(0) => return None,
            Ok(read) => buffer.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if lock(seen).stop {
                    return None;
                }
            }
            Err(_) => return None,
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
