//! A client that speaks to a Redis, or to what says it is one, in plain bytes.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

trait Both: Read + Write {}
impl<S: Read + Write> Both for S {}

/// A connection.
pub struct Resp {
    stream: Box<dyn Both + Send>,
    inbound: Vec<u8>,
}

impl Resp {
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: Box::new(stream),
            inbound: Vec::new(),
        })
    }

    pub fn open_unix(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream: Box::new(stream),
            inbound: Vec::new(),
        })
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// A command of words without spaces; `""` is an empty one. The answer as [`Resp::read`] tells it.
    #[track_caller]
    pub fn ask(&mut self, line: &str) -> String {
        let words: Vec<&[u8]> = line
            .split(' ')
            .map(|word| {
                if word == "\"\"" {
                    &b""[..]
                } else {
                    word.as_bytes()
                }
            })
            .collect();
        self.ask_words(&words)
            .unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    pub fn ask_words(&mut self, words: &[&[u8]]) -> io::Result<String> {
        self.send(&request(words))?;
        self.read()
    }

    /// The next answer: `+OK`, `-ERR …`, `:1`, `"text"`, `nil`, `[a b]`, `{k v}`.
    pub fn read(&mut self) -> io::Result<String> {
        let line = self.line()?;
        let (mark, text) = line.split_at(1);
        let count = || text.parse::<i64>().map_err(io::Error::other);
        Ok(match mark {
            "+" | "-" | ":" => line,
            "_" => "nil".to_owned(),
            "$" => match usize::try_from(count()?) {
                Ok(length) => format!("\"{}\"", String::from_utf8_lossy(&self.bulk(length)?)),
                Err(_) => "nil".to_owned(),
            },
            "*" | "%" | "~" => {
                let Ok(length) = usize::try_from(count()?) else {
                    return Ok("nil".to_owned());
                };
                let parts = if mark == "%" { length * 2 } else { length };
                let parts = (0..parts)
                    .map(|_| self.read())
                    .collect::<io::Result<Vec<_>>>()?
                    .join(" ");
                if mark == "%" {
                    format!("{{{parts}}}")
                } else {
                    format!("[{parts}]")
                }
            }
            _ => return Err(io::Error::other(format!("no answer: {line}"))),
        })
    }

    /// Everything until the other side closes.
    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = std::mem::take(&mut self.inbound);
        self.stream.read_to_end(&mut rest)?;
        Ok(rest)
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.inbound.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.inbound.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                return if line.is_empty() {
                    Err(io::Error::other("an empty line"))
                } else {
                    Ok(line)
                };
            }
            self.more()?;
        }
    }

    fn bulk(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.inbound.len() < length + 2 {
            self.more()?;
        }
        let mut bulk: Vec<u8> = self.inbound.drain(..length + 2).collect();
        bulk.truncate(length);
        Ok(bulk)
    }

    fn more(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        let read = self.stream.read(&mut buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.inbound.extend_from_slice(&buffer[..read]);
        Ok(())
    }
}

/// A request as a client library sends it.
pub fn request(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
