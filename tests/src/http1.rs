//! An HTTP/1.1 client that sends exactly the bytes it is told to, and shows exactly what came back.
//!
//! Libraries refuse to send what is malformed and tidy up what they receive; a test needs neither.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// Longest wait for anything, unless a test says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(30);
const HEAD_MAX: usize = 1 << 20;

/// A response, read to its end.
#[derive(Debug, Clone, Default)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, Vec<u8>)>,
}

impl Response {
    /// The first header of that name, as text.
    pub fn header(&self, name: &str) -> Option<String> {
        find(&self.headers, name)
    }

    pub fn trailer(&self, name: &str) -> Option<String> {
        find(&self.trailers, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim_end().to_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {} {}", self.status, self.text()))
    }

    /// Whether the sender said that this connection ends here.
    pub fn closes(&self) -> bool {
        self.header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

fn find(fields: &[(String, Vec<u8>)], name: &str) -> Option<String> {
    let found = fields
        .iter()
        .find(|(field, _)| field.eq_ignore_ascii_case(name));
    found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
}

/// A request to be written as it stands.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn new(method: &str, target: &str) -> Self {
        let headers = vec![("Host".to_owned(), b"test".to_vec())];
        Self {
            method: method.into(),
            target: target.into(),
            headers,
            body: Vec::new(),
        }
    }

    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// Adds a header; `Host` replaces the one that is there.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        if name.eq_ignore_ascii_case("host") {
            self.headers
                .retain(|(field, _)| !field.eq_ignore_ascii_case("host"));
        }
        self.headers
            .push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// Sets the body, with its `Content-Length`.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        let length = self.body.len().to_string();
        self.header("Content-Length", length)
    }

    pub fn head_bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes
    }
}

/// What bytes go over: a socket, or TLS over one.
pub trait Wire: Read + Write + Send {}
impl<T: Read + Write + Send> Wire for T {}

/// One connection to a server or a proxy.
pub struct Connection {
    wire: Box<dyn Wire>,
    socket: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect_timeout(&address, PATIENCE)?;
        socket.set_nodelay(true)?;
        let wire = Box::new(socket.try_clone()?);
        Self::over(wire, socket)
    }

    /// From an address of this machine's own: all of 127.0.0.0/8 is.
    pub fn open_from(own: IpAddr, to: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(own, 0).into())?;
        socket.connect_timeout(&to.into(), PATIENCE)?;
        let socket: TcpStream = socket.into();
        socket.set_nodelay(true)?;
        Self::over(Box::new(socket.try_clone()?), socket)
    }

    /// Speaks over `wire`, whose socket is `socket`.
    pub fn over(wire: Box<dyn Wire>, socket: TcpStream) -> io::Result<Self> {
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            wire,
            socket,
            read: Vec::new(),
        })
    }

    /// How long a read waits before it fails.
    pub fn patience(&self, patience: Duration) {
        self.socket.set_read_timeout(Some(patience)).unwrap();
    }

    pub fn local(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    /// Goes away at once and without a word more (RST), which nobody takes for a client that still reads.
    pub fn break_off(self) {
        let linger = socket2::SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
        linger.unwrap();
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.write_all(bytes)?;
        self.wire.flush()
    }

    pub fn send(&mut self, request: &Request) -> io::Result<()> {
        let mut bytes = request.head_bytes();
        bytes.extend_from_slice(&request.body);
        self.send_bytes(&bytes)
    }

    /// Sends and reads the whole answer.
    pub fn exchange(&mut self, request: &Request) -> io::Result<Response> {
        self.send(request)?;
        self.response(&request.method)
    }

    pub fn get(&mut self, target: &str) -> io::Result<Response> {
        self.exchange(&Request::get(target))
    }

    /// Reads a final response (interim ones are skipped) with its body.
    pub fn response(&mut self, method: &str) -> io::Result<Response> {
        let mut response = self.head()?;
        while (100..200).contains(&response.status) && response.status != 101 {
            response = self.head()?;
        }
        self.body_of(method, &mut response)?;
        Ok(response)
    }

    /// Reads one response head, interim or not.
    pub fn head(&mut self) -> io::Result<Response> {
        let block = self.block()?;
        let mut lines = block.split(|byte| *byte == b'\n');
        let line = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|code| code.trim().parse().ok());
        let status = status.ok_or_else(|| invalid(&format!("status line {line:?}")))?;
        Ok(Response {
            status,
            headers: fields(lines),
            ..Response::default()
        })
    }

    fn body_of(&mut self, method: &str, response: &mut Response) -> io::Result<()> {
        if method == "HEAD" || matches!(response.status, 101 | 204 | 304) {
            return Ok(());
        }
        let chunked = response
            .header("transfer-encoding")
            .is_some_and(|v| v.contains("chunked"));
        if chunked {
            while let Some(chunk) = self.chunk()? {
                response.body.extend_from_slice(&chunk);
            }
            let block = self.trailer_block()?;
            response.trailers = fields(block.split(|byte| *byte == b'\n'));
        } else if let Some(length) = response.header("content-length") {
            let length = length
                .trim()
                .parse()
                .map_err(|_| invalid("content-length"))?;
            response.body = self.exactly(length)?;
        } else {
            while self.fill()? > 0 {}
            response.body = std::mem::take(&mut self.read);
        }
        Ok(())
    }

    /// One chunk of a chunked body; `None` after the last.
    pub fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.line()?;
        let text = String::from_utf8_lossy(&line).into_owned();
        let size = text.trim().split(';').next().unwrap_or_default().to_owned();
        let size =
            usize::from_str_radix(&size, 16).map_err(|_| invalid(&format!("chunk {text:?}")))?;
        if size == 0 {
            return Ok(None);
        }
        let data = self.exactly(size)?;
        self.exactly(2)?;
        Ok(Some(data))
    }

    fn trailer_block(&mut self) -> io::Result<Vec<u8>> {
        let mut block = Vec::new();
        loop {
            let line = self.line()?;
            if line == b"\r\n" || line == b"\n" {
                return Ok(block);
            }
            block.extend_from_slice(&line);
        }
    }

    fn line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                return Ok(self.read.drain(..=end).collect());
            }
            self.more()?;
        }
    }

    fn block(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                return Ok(self.read.drain(..end + 4).collect());
            }
            if self.read.len() > HEAD_MAX {
                return Err(invalid("head without end"));
            }
            self.more()?;
        }
    }

    /// Reads exactly that many bytes.
    pub fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.read.len() < length {
            self.more()?;
        }
        Ok(self.read.drain(..length).collect())
    }

    fn more(&mut self) -> io::Result<()> {
        match self.fill()? {
            0 => Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                "the other side closed",
            )),
            _ => Ok(()),
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut piece = [0; 65_536];
        loop {
            match self.wire.read(&mut piece) {
                Ok(read) => {
                    self.read.extend_from_slice(&piece[..read]);
                    return Ok(read);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Says that nothing more will come, and reads what still comes from the other side until it closes.
    pub fn finish(&mut self) -> io::Result<Vec<u8>> {
        self.socket.shutdown(std::net::Shutdown::Write).ok();
        loop {
            match self.fill() {
                Ok(0) => return Ok(std::mem::take(&mut self.read)),
                Ok(_) => {}
                // What it did not read makes its kernel say so.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return Ok(std::mem::take(&mut self.read));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the other side has closed, or does within `patience`; what it still sends is thrown away.
    pub fn is_closed_within(&mut self, patience: Duration) -> bool {
        self.patience(patience);
        loop {
            match self.fill() {
                Ok(0) => return true,
                Ok(_) => self.read.clear(),
                Err(error) => {
                    return !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                }
            }
        }
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.to_owned())
}

fn fields<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Vec<(String, Vec<u8>)> {
    let split = lines.filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = String::from_utf8_lossy(&line[..colon]).into_owned();
        Some((name, line[colon + 1..].trim_ascii().to_vec()))
    });
    split.collect()
}

#[cfg(test)]
mod tests {
    use super::fields;

    #[test]
    fn splits_fields_at_the_first_colon_and_keeps_odd_bytes() {
        let block: &[u8] = b"A: 1\r\nB:\xff:2 \r\n";
        let expected = vec![
            ("A".to_owned(), b"1".to_vec()),
            ("B".to_owned(), b"\xff:2".to_vec()),
        ];
        assert_eq!(fields(block.split(|byte| *byte == b'\n')), expected);
    }
}
