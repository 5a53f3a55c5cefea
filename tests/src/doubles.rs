//! Stand-ins for what no real server can be made to do, each under the name of its fault.
//!
//! | double | what it does that nginx and PHP do not |
//! |---|---|
//! | [`recorder`] | answers, and keeps every byte it was sent |
//! | [`hangs_up`] | accepts, reads the request, closes without an answer |
//! | [`silent`] | accepts, reads the request, never answers |
//! | [`truncates`] | promises 1,000 bytes, sends 10, closes |
//! | [`stalls`] | promises 1,000 bytes, sends 10, and then nothing |
//! | [`pours`] | answers 200 with a body of a gibibyte, as fast as it is taken |
//! | [`streams_for_ever`] | answers 200 with a body that never ends, a little at a time |
//! | [`goes_stale`] | keeps a connection alive, then closes it when it is used again |
//! | [`babbles`] | answers with something that is not HTTP |
//! | [`overflows`] | says more than the framing of its answer allows: another answer, of 6 bytes, "stolen" |
//! | [`unreachable`] | does not even answer the connection attempt |
//! | [`Names`] | a resolver whose answers change when a test says so |
//! | [`web_socket_echo`] | upgrades (a real WebSocket library), sends every message back |

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::cluster::Server;
use crate::ports;

/// Longest life of a connection that a double holds.
const HOLD: Duration = Duration::from_secs(150);
const REQUESTS_KEPT_MAX: usize = 100_000;
const BYTES_KEPT_MAX: usize = 64 << 20;

/// A server with a fault.
pub struct Double {
    name: String,
    address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: Mutex<Vec<Vec<u8>>>,
    bytes: Mutex<Vec<u8>>,
    stop: AtomicBool,
}

impl Double {
    /// Every request received so far, head and body, byte for byte.
    pub fn requests(&self) -> Vec<Vec<u8>> {
        self.seen.requests.lock().unwrap().clone()
    }

    /// Every byte received so far, also of requests that were never whole.
    pub fn bytes(&self) -> Vec<u8> {
        self.seen.bytes.lock().unwrap().clone()
    }

    /// As if nothing had been received.
    pub fn forget(&self) {
        self.seen.requests.lock().unwrap().clear();
        self.seen.bytes.lock().unwrap().clear();
    }

    /// As text, odd bytes replaced.
    pub fn requests_text(&self) -> Vec<String> {
        self.requests()
            .iter()
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
            .collect()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }
}

impl Server for Double {
    fn name(&self) -> &str {
        &self.name
    }
    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.seen.stop.store(true, Ordering::SeqCst);
        TcpStream::connect(self.address).ok();
    }
}

/// What is done with the n-th request of a connection: the answer's bytes, and whether to go on.
type Answer = fn(name: &str, nth: usize) -> (Vec<u8>, Next);

enum Next {
    Request,
    Close,
    Hold,
    /// So many bytes more.
    Pour(u64),
    /// A few bytes at a time, until the other side gives up.
    Trickle,
}

/// Answers 200 with its name, and keeps every byte it was sent.
pub fn recorder(name: &str) -> Double {
    start(name, |name, _| (ok(name), Next::Request))
}

/// Accepts, reads the request, closes without an answer.
pub fn hangs_up(name: &str) -> Double {
    start(name, |_, _| (Vec::new(), Next::Close))
}

/// Accepts, reads the request, never answers.
pub fn silent(name: &str) -> Double {
    start(name, |_, _| (Vec::new(), Next::Hold))
}

/// Promises 1,000 bytes, sends 10, closes.
pub fn truncates(name: &str) -> Double {
    start(name, |_, _| {
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n0123456789".to_vec(),
            Next::Close,
        )
    })
}

/// Promises 1,000 bytes, sends 10, and then nothing.
pub fn stalls(name: &str) -> Double {
    start(name, |_, _| {
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n0123456789".to_vec(),
            Next::Hold,
        )
    })
}

/// Answers 200 with a body of a gibibyte, as fast as it is taken.
pub fn pours(name: &str) -> Double {
    start(name, |_, _| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1 << 30);
        (head.into_bytes(), Next::Pour(1 << 30))
    })
}

/// Answers 200 with a body that never ends, a little at a time.
pub fn streams_for_ever(name: &str) -> Double {
    start(name, |_, _| {
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        (head.to_vec(), Next::Trickle)
    })
}

/// Answers the first request of a connection, closes on the second.
pub fn goes_stale(name: &str) -> Double {
    start(name, |name, nth| match nth {
        0 => (ok(name), Next::Request),
        _ => (Vec::new(), Next::Close),
    })
}

/// Answers with something that is not HTTP.
pub fn babbles(name: &str) -> Double {
    start(name, |_, _| {
        (
            b"220 mail.example ESMTP ready\r\n\r\n".to_vec(),
            Next::Close,
        )
    })
}

/// Says more than the framing of its answer allows: another answer, of 6 bytes. Its name says how: `no-content`, `not-modified`, `too-long`
/// (also for `HEAD`), `two-framings`.
pub fn overflows(name: &str) -> Double {
    start(name, |name, nth| {
        if nth > 0 {
            return (ok(name), Next::Request);
        }
        let head = match name {
            "no-content" => "204 No Content\r\nContent-Length: 44",
            "not-modified" => "304 Not Modified\r\nContent-Length: 44",
            "two-framings" => {
                "200 OK\r\nContent-Length: 49\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
            }
            _ => "200 OK\r\nContent-Length: 0",
        };
        let more = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen";
        (
            format!("HTTP/1.1 {head}\r\n\r\n{more}").into_bytes(),
            Next::Request,
        )
    })
}

fn ok(name: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{name}",
        name.len()
    )
    .into_bytes()
}

fn start(name: &str, answer: Answer) -> Double {
    let address = ports::free();
    let listener = TcpListener::bind(address).unwrap();
    let seen = Arc::new(Seen::default());
    let double = Double {
        name: name.to_owned(),
        address,
        seen: seen.clone(),
    };
    let name = name.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            if seen.stop.load(Ordering::SeqCst) {
                return;
            }
            let Ok(stream) = stream else { continue };
            seen.connections.fetch_add(1, Ordering::SeqCst);
            let (seen, name) = (seen.clone(), name.clone());
            std::thread::spawn(move || serve(stream, &seen, &name, answer));
        }
    });
    double
}

fn serve(mut stream: TcpStream, seen: &Seen, name: &str, answer: Answer) {
    let mut buffer = Vec::new();
    for nth in 0.. {
        let Some(request) = read_request(&mut stream, &mut buffer, seen) else {
            return;
        };
        let mut requests = seen.requests.lock().unwrap();
        if requests.len() < REQUESTS_KEPT_MAX {
            requests.push(request);
        }
        drop(requests);
        let (bytes, next) = answer(name, nth);
        if stream.write_all(&bytes).is_err() {
            return;
        }
        match next {
            Next::Request => {}
            Next::Close => return,
            Next::Pour(mut left) => {
                let piece = vec![b'x'; 64 << 10];
                while left > 0 {
                    let size = piece.len().min(usize::try_from(left).unwrap());
                    if stream.write_all(&piece[..size]).is_err() {
                        return;
                    }
                    left -= size as u64;
                }
            }
            Next::Trickle => {
                let end = Instant::now() + HOLD;
                while Instant::now() < end && stream.write_all(b"5\r\ndrip \r\n").is_ok() {
                    std::thread::sleep(Duration::from_millis(20));
                }
                return;
            }
            Next::Hold => {
                // Until the other side gives up.
                stream.set_read_timeout(Some(HOLD)).unwrap();
                stream.read_exact(&mut [0; 1]).ok();
                return;
            }
        }
    }
}

/// Head and body, as they came; `None` when the connection ends first.
fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>, seen: &Seen) -> Option<Vec<u8>> {
    stream
        .set_read_timeout(Some(Duration::from_millis(500)))
        .ok()?;
    let mut continued = false;
    loop {
        if let Some(length) = request_length(buffer) {
            return Some(buffer.drain(..length).collect());
        }
        let text = String::from_utf8_lossy(buffer).to_ascii_lowercase();
        if !continued && text.contains("\r\n\r\n") && text.contains("expect: 100-continue") {
            continued = true;
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
        }
        let mut piece = [0; 65_536];
        match stream.read(&mut piece) {
            Ok(0) => return None,
            Ok(read) => {
                buffer.extend_from_slice(&piece[..read]);
                let mut bytes = seen.bytes.lock().unwrap();
                if bytes.len() < BYTES_KEPT_MAX {
                    bytes.extend_from_slice(&piece[..read]);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if seen.stop.load(Ordering::SeqCst) {
                    return None;
                }
            }
            Err(_) => return None,
        }
    }
}

/// Length of the first whole request in `bytes`.
fn request_length(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    if text.contains("\ntransfer-encoding: chunked") {
        let mut at = head;
        loop {
            let end = at + bytes.get(at..)?.windows(2).position(|two| two == b"\r\n")?;
            let line = String::from_utf8_lossy(&bytes[at..end]).into_owned();
            let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
            if size == 0 {
                // Trailers, up to an empty line.
                let rest = &bytes[end..];
                let last = rest.windows(4).position(|four| four == b"\r\n\r\n")?;
                return Some(end + last + 4);
            }
            at = end + 2 + size + 2;
        }
    }
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    let body: usize = length.map_or(Some(0), |length| length.trim().parse().ok())?;
    let whole = head.checked_add(body)?;
    (bytes.len() >= whole).then_some(whole)
}

/// An address whose connection attempts are neither taken nor refused: the queue of its socket is full.
pub struct Unreachable {
    address: SocketAddr,
    _listener: socket2::Socket,
    _fillers: Vec<socket2::Socket>,
}

/// Fills the queue of a socket that nobody accepts from.
pub fn unreachable() -> Unreachable {
    use socket2::{Domain, Socket, Type};
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener
        .bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free().port())).into())
        .unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let fillers = (0..4).map(|_| {
        let filler = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        filler.set_nonblocking(true).unwrap();
        filler.connect(&address.into()).ok();
        filler
    });
    Unreachable {
        address,
        _fillers: fillers.collect(),
        _listener: listener,
    }
}

impl Server for Unreachable {
    fn name(&self) -> &str {
        "unreachable"
    }
    fn address(&self) -> SocketAddr {
        self.address
    }
}

/// What answers in place of the system's resolver.
pub type Resolver = Arc<dyn Fn(&str) -> std::io::Result<Vec<IpAddr>> + Send + Sync>;

/// Addresses by name, as a resolver tells them; names that are not there cannot be resolved.
#[derive(Clone, Default)]
pub struct Names(Arc<Mutex<BTreeMap<String, Vec<IpAddr>>>>);

impl Names {
    /// From now on, `name` has these addresses; without any it cannot be resolved.
    pub fn set(&self, name: &str, addresses: &[&str]) {
        let addresses: Vec<IpAddr> = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
        let mut names = self.0.lock().unwrap();
        match addresses.is_empty() {
            true => names.remove(name),
            false => names.insert(name.to_owned(), addresses),
        };
    }

    /// What a proxy takes in place of the system's resolver.
    pub fn resolver(&self) -> Resolver {
        let names = self.clone();
        Arc::new(move |name| {
            let found = names.0.lock().unwrap().get(name).cloned();
            found.ok_or_else(|| std::io::Error::other("no such name"))
        })
    }
}

/// Upgrades, and sends every message back.
pub fn web_socket_echo(name: &str) -> Double {
    let address = ports::free();
    let listener = TcpListener::bind(address).unwrap();
    listener.set_nonblocking(true).unwrap();
    let seen = Arc::new(Seen::default());
    let double = Double {
        name: name.to_owned(),
        address,
        seen: seen.clone(),
    };
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                if seen.stop.load(Ordering::SeqCst) {
                    return;
                }
                seen.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(echo(stream));
            }
        });
    });
    double
}

async fn echo(stream: tokio::net::TcpStream) -> Option<()> {
    use futures_util::{SinkExt, StreamExt};
    let mut socket = tokio_tungstenite::accept_async(stream).await.ok()?;
    while let Some(Ok(message)) = socket.next().await {
        if message.is_text() || message.is_binary() {
            socket.send(message).await.ok()?;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::request_length;

    #[track_caller]
    fn check(bytes: &str, expected: Option<usize>) {
        assert_eq!(request_length(bytes.as_bytes()), expected, "{bytes:?}");
    }

    #[test]
    fn a_request_ends_where_its_framing_says() {
        check("GET / HTTP/1.1\r\n\r\nGET", Some(18));
        check("GET / HTTP/1.1\r\n", None);
        check("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab", None);
        check("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", Some(41));
        check(
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n",
            Some(66),
        );
        check(
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
            None,
        );
    }
}
