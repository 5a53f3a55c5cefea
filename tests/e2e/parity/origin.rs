//! The server behind both proxies: a double, because its faults (half a body, a silent death) are not those of a real server,
//! and because both proxies must be told exactly the same.
//!
//! The path says how it answers; see [`answer`].

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

/// Longest wait for a peer that says nothing, so that no thread outlives its test for ever.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Longest body taken.
const BODY_BYTES_MAX: usize = 16 << 20;

/// The server that answers; it serves on a free port of the loopback until the process ends.
pub(crate) static ALIVE: LazyLock<SocketAddr> = LazyLock::new(start);
/// A server that refuses.
pub(crate) static DEAD: LazyLock<SocketAddr> = LazyLock::new(evenkeel_tests::ports::refusing);

struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    address
}

fn serve(stream: TcpStream) -> Option<()> {
    stream.set_read_timeout(Some(SILENCE_MAX)).ok()?;
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    // Ends with the connection: every turn takes a request from it.
    loop {
        let request = read_request(&mut reader)?;
        answer(&request, &stream)?;
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let first = read_line(reader)?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let headers = read_headers(reader)?;
    let header = |name: &str| {
        headers
            .iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    };
    let mut body = Vec::new();
    if let Some(length) = header("content-length").and_then(|length| length.parse::<usize>().ok()) {
        body.resize(length.min(BODY_BYTES_MAX), 0);
        reader.read_exact(&mut body).ok()?;
    } else if header("transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
        loop {
            let size =
                usize::from_str_radix(read_line(reader)?.split(';').next()?.trim(), 16).ok()?;
            if size == 0 {
                read_headers(reader)?;
                break;
            }
            let begin = body.len();
            body.resize((begin + size).min(BODY_BYTES_MAX), 0);
            reader.read_exact(body.get_mut(begin..)?).ok()?;
            read_line(reader)?;
        }
    }
    Some(Request {
        method,
        path,
        headers,
        body,
    })
}

fn read_line(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    let count = reader.by_ref().take(1 << 16).read_line(&mut line).ok()?;
    (count > 0).then(|| line.trim_end().to_owned())
}

fn read_headers(reader: &mut BufReader<TcpStream>) -> Option<Vec<(String, String)>> {
    let mut headers = Vec::new();
    while headers.len() < 200 {
        let line = read_line(reader)?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Some(headers)
}

/// `None` ends the connection.
fn answer(request: &Request, mut stream: &TcpStream) -> Option<()> {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    // The last segment counts: what is before it only routes.
    match path.rsplit('/').next()? {
        "trailers" => stream
            .write_all(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\ntrailer: x-end\r\n\r\n\
                  5\r\nhello\r\n0\r\nx-end: t1\r\nx-end: t2\r\n\r\n",
            )
            .ok(),
        "no-content" => stream.write_all(b"HTTP/1.1 204 No Content\r\nx-origin: a\r\n\r\n").ok(),
        "reset" => None,
        "half" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n0123456789").ok()?;
            // The proxies have passed it on before it breaks off.
            thread::sleep(Duration::from_millis(200));
            None
        }
        "stall" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n0123456789").ok()?;
            let _ = stream.read(&mut [0]);
            None
        }
        "hang" => {
            // Until the other side gives up.
            let _ = stream.read(&mut [0]);
            None
        }
        "slow" => {
            thread::sleep(Duration::from_millis(query.parse().ok()?));
            respond(request, stream, b"slow\n")
        }
        "unavailable" => stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy").ok(),
        "big" => respond(request, stream, "0123456789abcdef".repeat(query.parse::<usize>().ok()?.min(1 << 20) / 16).as_bytes()),
        "echo" => respond(request, stream, echo(request).as_bytes()),
        "hints" => {
            stream
                .write_all(b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
                .ok()?;
            respond(request, stream, b"after the hints\n")
        }
        "empty" => respond(request, stream, b""),
        _ => respond(request, stream, b"hello from the origin\n"),
    }
}

fn respond(request: &Request, mut stream: &TcpStream, body: &[u8]) -> Option<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nX-Origin: a\r\nset-cookie: a=1\r\nset-cookie: b=2\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let body = if request.method == "HEAD" { b"" } else { body };
    stream.write_all(&[head.as_bytes(), body].concat()).ok()
}

/// What arrived, without what proxies add of their own.
fn echo(request: &Request) -> String {
    let mut text = format!("{} {}\n", request.method, request.path);
    let mut headers: Vec<_> = request
        .headers
        .iter()
        .filter(|(name, _)| !super::trace::is_own_header(name))
        .collect();
    headers.sort_by_key(|(name, _)| name);
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\n"));
    }
    text.push('\n');
    text.push_str(&String::from_utf8_lossy(&request.body));
    text
}
