//! One request, written byte by byte, and what came back as one comparable text.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::trace::{is_own_header, render_bytes};

/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub(crate) enum Body {
    None,
    Sized(Vec<u8>),
    /// Chunks, then trailers.
    Chunked(Vec<Vec<u8>>, Vec<(&'static str, &'static str)>),
}

#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) body: Body,
    /// The client goes away as soon as the probe has reported this callback.
    pub(crate) abort_after: Option<super::program::Phase>,
}

impl Request {
    pub(crate) fn get(path: &str) -> Self {
        Self {
            method: "GET",
            path: path.to_owned(),
            body: Body::None,
            abort_after: None,
        }
    }

    pub(crate) fn post(path: &str, body: impl AsRef<[u8]>) -> Self {
        Self {
            method: "POST",
            body: Body::Sized(body.as_ref().to_vec()),
            ..Self::get(path)
        }
    }

    /// A body and two trailers.
    pub(crate) fn with_trailers(path: &str) -> Self {
        let body = Body::Chunked(
            vec![b"first second".to_vec()],
            vec![("x-trailer", "one"), ("X-Trailer", "two")],
        );
        Self {
            method: "POST",
            body,
            ..Self::get(path)
        }
    }

    fn encode(&self, program: &str) -> Vec<u8> {
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: probe.test\r\nX-P-One: 1\r\nx-p-many: a\r\nX-P-Many: b\r\nx-p-empty:\r\nreferer: http://from.test/\r\n\
             user-agent: parity\r\nte: trailers\r\nconnection: close\r\n",
            self.method, self.path
        );
        if !program.is_empty() {
            head.push_str(&format!("x-probe: {program}\r\n"));
        }
        let mut body = Vec::new();
        match &self.body {
            Body::None => head.push_str("\r\n"),
            Body::Sized(bytes) => {
                head.push_str(&format!("content-length: {}\r\n\r\n", bytes.len()));
                body.extend(bytes);
            }
            Body::Chunked(chunks, trailers) => {
                head.push_str("transfer-encoding: chunked\r\n\r\n");
                for chunk in chunks {
                    body.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
                    body.extend(chunk);
                    body.extend(b"\r\n");
                }
                body.extend(b"0\r\n");
                trailers.iter().for_each(|(name, value)| {
                    body.extend(format!("{name}: {value}\r\n").as_bytes())
                });
                body.extend(b"\r\n");
            }
        }
        [head.as_bytes(), &body].concat()
    }

    /// Sends it and reads to the end; `None` when the client is to go away, which the caller then does by dropping the stream.
    pub(crate) fn send(&self, to: SocketAddr, program: &str) -> std::io::Result<TcpStream> {
        let mut stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.write_all(&self.encode(program))?;
        Ok(stream)
    }
}

/// Status, headers of interest, body and trailers; or how it ended otherwise.
pub(crate) fn read_answer(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    let end = match stream.read_to_end(&mut bytes) {
        Ok(_) => "",
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
            ) =>
        {
            ", then silence"
        }
        Err(_) => ", then a reset",
    };
    if bytes.is_empty() {
        return format!("client: no answer{end}");
    }
    let text = String::from_utf8_lossy(&bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return format!("client: half a head{end}: {}", render_bytes(&bytes));
    };
    let mut lines = head.split("\r\n");
    // The reason phrase has no meaning (RFC 9112, 4).
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .unwrap_or("no status")
        .to_owned();
    let mut headers: Vec<(String, &str)> = lines
        .filter_map(|line| {
            line.split_once(": ")
                .map(|(name, value)| (name.to_ascii_lowercase(), value))
        })
        .filter(|(name, _)| !is_own_header(name))
        .collect();
    headers.sort_by(|(one, _), (other, _)| one.cmp(other));
    let headers: Vec<String> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    let is_chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    let (body, trailers) = if is_chunked {
        join_chunks(body)
    } else {
        (body.to_owned(), String::new())
    };
    let body = if body.len() > 2000 {
        format!("{} bytes", body.len())
    } else {
        format!("{body:?}")
    };
    format!("client: {status} {headers:?} {body}{trailers}{end}")
}

fn join_chunks(mut rest: &str) -> (String, String) {
    let mut body = String::new();
    // Ends: every turn takes a line from the rest.
    while let Some((size, after)) = rest.split_once("\r\n") {
        let Ok(size) = usize::from_str_radix(size, 16) else {
            return (body, " (a bad chunk)".to_owned());
        };
        if size == 0 {
            let trailers = after.trim_end();
            return (
                body,
                if trailers.is_empty() {
                    String::new()
                } else {
                    format!(" trailers {trailers:?}")
                },
            );
        }
        let Some(chunk) = after.get(..size) else {
            return (body, " (half a chunk)".to_owned());
        };
        body.push_str(chunk);
        rest = after.get(size + 2..).unwrap_or_default();
    }
    (body, " (no last chunk)".to_owned())
}
