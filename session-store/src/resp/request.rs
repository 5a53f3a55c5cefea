//! Requests as they come in: arrays of bulk strings, and the inline commands that people type.
//!
//! The parser takes complete pieces from the front of the buffer and remembers where in a request it is, so bytes that come one by
//! one cost no more than bytes that come at once. Arguments are slices of the buffer, not copies.
//!
//! # Why a request that is too large is read to its end
//! A client that gets its answer together with a reset may never see the answer: the kernel drops what is unread on both sides. So
//! what is over a bound is thrown away as it arrives, and refused when it is complete; the connection goes on. Only what cannot be
//! a request at all, or announces more than Redis itself would take ([`BULK_MAX`], its `proto-max-bulk-len`), ends the connection.

use bytes::{Buf, Bytes, BytesMut};

/// The longest line that announces a length: a mark, ten digits, and the end.
const LENGTH_LINE_MAX: usize = 32;
/// The longest inline command (Redis: `PROTO_INLINE_MAX_SIZE`).
pub const INLINE_MAX: usize = 64 * 1024;
/// What is announced over these ends the connection; below, it is read and refused.
pub const BULK_MAX: usize = 512 * 1024 * 1024;
pub const ARGUMENTS_ANNOUNCED_MAX: usize = 1024 * 1024;
/// Room that is made at once for arguments somebody only announces.
const ARGUMENTS_RESERVED: usize = 16;

/// What one request may have.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Arguments, with the command's name.
    pub arguments: usize,
    /// Bytes of one argument.
    pub value: usize,
    /// Bytes of all arguments together.
    pub request: usize,
}

/// A complete request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// The command's name and its arguments; never empty.
    Request(Vec<Bytes>),
    /// It was over a bound, and is gone; the next one can be parsed.
    Refused(Refusal),
}

/// Over which bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Arguments,
    Value,
    Request,
}

/// These bytes are no request, and nobody can say where the next one begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("protocol error: {0}")]
pub struct Malformed(pub &'static str);

/// Where in a request the parser is.
#[derive(Debug, Default)]
pub struct Parser {
    /// Arguments that are still to come; 0: between requests.
    missing: usize,
    arguments: Vec<Bytes>,
    bytes: usize,
    /// The length of the argument that comes next, once it was announced.
    announced: Option<usize>,
    /// Bytes of an argument, and its line end, that are thrown away as they come.
    skipping: usize,
    refusal: Option<Refusal>,
    /// How far the buffer was searched for the end of an inline command.
    searched: usize,
}

impl Parser {
    /// Takes the next complete request from the front of `buffer`; `None`: more bytes are needed.
    ///
    /// # Errors
    /// [`Malformed`]: the connection is of no more use.
    pub fn next(
        &mut self,
        buffer: &mut BytesMut,
        bounds: &Bounds,
    ) -> Result<Option<Parsed>, Malformed> {
        // Ends: each turn takes bytes from the buffer, or returns.
        while self.missing == 0 {
            match buffer.first() {
                None => return Ok(None),
                Some(b'*') => {
                    let Some(count) = length_line(buffer, "invalid multibulk length")? else {
                        return Ok(None);
                    };
                    self.begin(count, bounds)?;
                }
                Some(_) => match self.inline(buffer, bounds)? {
                    None => return Ok(None),
                    Some(arguments) if arguments.is_empty() => {}
                    Some(arguments) => return Ok(Some(Parsed::Request(arguments))),
                },
            }
        }
        while self.missing > 0 {
            if !self.argument(buffer, bounds)? {
                return Ok(None);
            }
        }
        let arguments = std::mem::take(&mut self.arguments);
        Ok(Some(match self.refusal.take() {
            Some(refusal) => Parsed::Refused(refusal),
            None => Parsed::Request(arguments),
        }))
    }

    /// A request was announced. None at all (`*0`, `*-1`) is no request, and no error either, as in Redis.
    fn begin(&mut self, count: Option<usize>, bounds: &Bounds) -> Result<(), Malformed> {
        let count = count.unwrap_or(0);
        if count > ARGUMENTS_ANNOUNCED_MAX {
            return Err(Malformed("invalid multibulk length"));
        }
        self.missing = count;
        self.bytes = 0;
        self.refusal = (count > bounds.arguments).then_some(Refusal::Arguments);
        self.arguments = Vec::with_capacity(count.min(ARGUMENTS_RESERVED));
        Ok(())
    }

    /// Takes one argument; `false`: more bytes are needed.
    fn argument(&mut self, buffer: &mut BytesMut, bounds: &Bounds) -> Result<bool, Malformed> {
        if self.skipping > 0 {
            let gone = self.skipping.min(buffer.len());
            buffer.advance(gone);
            self.skipping -= gone;
            if self.skipping > 0 {
                return Ok(false);
            }
            self.missing -= 1;
            return Ok(true);
        }
        let length = match self.announced {
            Some(length) => length,
            None => {
                match buffer.first() {
                    None => return Ok(false),
                    Some(b'$') => {}
                    Some(_) => return Err(Malformed("expected '$'")),
                }
                let Some(length) = length_line(buffer, "invalid bulk length")? else {
                    return Ok(false);
                };
                let Some(length) = length.filter(|length| *length <= BULK_MAX) else {
                    return Err(Malformed("invalid bulk length"));
                };
                self.bytes = self.bytes.saturating_add(length);
                if length > bounds.value {
                    self.refusal.get_or_insert(Refusal::Value);
                } else if self.bytes > bounds.request {
                    self.refusal.get_or_insert(Refusal::Request);
                }
                if self.refusal.is_some() {
                    self.arguments.clear();
                    self.skipping = length + 2;
                    return Ok(true);
                }
                self.announced = Some(length);
                length
            }
        };
        match (buffer.get(length), buffer.get(length + 1)) {
            (Some(b'\r'), Some(b'\n')) => {}
            (Some(b'\r'), None) | (None, _) => return Ok(false),
            _ => return Err(Malformed("an argument longer than announced")),
        }
        self.announced = None;
        self.arguments.push(buffer.split_to(length).freeze());
        buffer.advance(2);
        self.missing -= 1;
        Ok(true)
    }

    /// One line of words; Redis also knows quotes there, which no client library sends and which are refused.
    fn inline(
        &mut self,
        buffer: &mut BytesMut,
        bounds: &Bounds,
    ) -> Result<Option<Vec<Bytes>>, Malformed> {
        let rest = buffer.get(self.searched..).unwrap_or_default();
        let Some(at) = rest.iter().position(|byte| *byte == b'\n') else {
            self.searched = buffer.len();
            if buffer.len() > INLINE_MAX {
                return Err(Malformed("too big inline request"));
            }
            return Ok(None);
        };
        let end = self.searched + at;
        self.searched = 0;
        if end > INLINE_MAX {
            return Err(Malformed("too big inline request"));
        }
        let line = buffer.split_to(end + 1).freeze();
        if line.iter().any(|byte| matches!(byte, b'"' | b'\'')) {
            return Err(Malformed("quotes in an inline request"));
        }
        let words = line
            .split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty());
        let words: Vec<Bytes> = words.map(|word| line.slice_ref(word)).collect();
        if words.len() > bounds.arguments {
            return Err(Malformed("too many words in an inline request"));
        }
        Ok(Some(words))
    }
}

/// The number of a line like `*3`, taken from the buffer; `Some(None)`: it is negative; `None`: the line is not complete.
fn length_line(
    buffer: &mut BytesMut,
    wrong: &'static str,
) -> Result<Option<Option<usize>>, Malformed> {
    let head = buffer.get(..buffer.len().min(LENGTH_LINE_MAX));
    let head = head.unwrap_or_default();
    let Some(end) = head.iter().position(|byte| *byte == b'\n') else {
        return if head.len() == LENGTH_LINE_MAX {
            Err(Malformed(wrong))
        } else {
            Ok(None)
        };
    };
    let line = buffer.split_to(end + 1);
    let digits = line
        .get(1..)
        .and_then(|line| line.strip_suffix(b"\r\n"))
        .ok_or(Malformed(wrong))?;
    let text = std::str::from_utf8(digits).map_err(|_| Malformed(wrong))?;
    match text.strip_prefix('-') {
        Some("1") => Ok(Some(None)),
        Some(_) => Err(Malformed(wrong)),
        None if text.starts_with('+') => Err(Malformed(wrong)),
        None => text
            .parse()
            .map(|number| Some(Some(number)))
            .map_err(|_| Malformed(wrong)),
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
