//! Replies, and how each version of the protocol writes them.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};

/// What the client speaks; `HELLO` changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    #[default]
    Resp2,
    Resp3,
}

/// An answer to one command.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    Simple(Cow<'static, str>),
    /// With its code: `ERR …`, `NOSCRIPT …`. Line ends in it are written as spaces.
    Error(Cow<'static, str>),
    Integer(i64),
    Bulk(Bytes),
    Nil,
    Array(Vec<Reply>),
    /// Keys and values in turn: a map in RESP3, a flat array before.
    Map(Vec<Reply>),
}

impl Reply {
    pub const OK: Self = Self::Simple(Cow::Borrowed("OK"));

    /// An error of ours, in the form that PHP takes for a warning and not for an exception: `-ERR evenkeel: …`.
    pub fn refused(why: impl std::fmt::Display) -> Self {
        Self::Error(Cow::Owned(format!("ERR evenkeel: {why}")))
    }

    pub fn bulk(text: impl AsRef<[u8]>) -> Self {
        Self::Bulk(Bytes::copy_from_slice(text.as_ref()))
    }

    /// About how many bytes it takes.
    pub fn size(&self) -> usize {
        const HEAD: usize = 16;
        HEAD + match self {
            Self::Simple(text) | Self::Error(text) => text.len(),
            Self::Bulk(bytes) => bytes.len(),
            Self::Array(items) | Self::Map(items) => items.iter().map(Self::size).sum(),
            Self::Integer(_) | Self::Nil => 0,
        }
    }

    /// Appends it as `protocol` writes it.
    pub fn encode(&self, protocol: Protocol, out: &mut BytesMut) {
        match self {
            Self::Simple(text) => line(out, b'+', text.as_bytes()),
            Self::Error(text) => line(out, b'-', text.as_bytes()),
            Self::Integer(number) => number_line(out, b':', *number),
            Self::Bulk(bytes) => {
                number_line(out, b'$', count(bytes.len()));
                out.put_slice(bytes);
                out.put_slice(b"\r\n");
            }
            Self::Nil => out.put_slice(match protocol {
                Protocol::Resp2 => b"$-1\r\n",
                Protocol::Resp3 => b"_\r\n",
            }),
            Self::Array(items) => {
                number_line(out, b'*', count(items.len()));
                items.iter().for_each(|item| item.encode(protocol, out));
            }
            Self::Map(items) => {
                match protocol {
                    Protocol::Resp2 => number_line(out, b'*', count(items.len())),
                    Protocol::Resp3 => number_line(out, b'%', count(items.len() / 2)),
                }
                items.iter().for_each(|item| item.encode(protocol, out));
            }
        }
    }
}

/// Appends a request: how commands are sent to a Redis.
pub fn encode_request(arguments: &[Bytes], out: &mut BytesMut) {
    number_line(out, b'*', count(arguments.len()));
    for argument in arguments {
        number_line(out, b'$', count(argument.len()));
        out.put_slice(argument);
        out.put_slice(b"\r\n");
    }
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

fn line(out: &mut BytesMut, mark: u8, text: &[u8]) {
    out.put_u8(mark);
    let clean = text.iter().map(|byte| match byte {
        b'\r' | b'\n' => b' ',
        byte => *byte,
    });
    out.extend(clean);
    out.put_slice(b"\r\n");
}

/// Without the formatting machinery: two or three of these are in every exchange.
fn number_line(out: &mut BytesMut, mark: u8, number: i64) {
    let mut digits = [0_u8; 20];
    let (mut rest, mut first) = (number.unsigned_abs(), digits.len());
    // Ends: a u64 has at most 20 digits.
    for (at, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        (rest, first) = (rest / 10, at);
        if rest == 0 {
            break;
        }
    }
    out.put_u8(mark);
    if number < 0 {
        out.put_u8(b'-');
    }
    out.put_slice(digits.get(first..).unwrap_or_default());
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(reply: &Reply, resp2: &str, resp3: &str) {
        for (protocol, expected) in [(Protocol::Resp2, resp2), (Protocol::Resp3, resp3)] {
            let mut out = BytesMut::new();
            reply.encode(protocol, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), expected, "{protocol:?}");
        }
    }

    #[test]
    fn each_kind_in_both_versions() {
        let same = |reply: Reply, text: &str| check(&reply, text, text);
        same(Reply::OK, "+OK\r\n");
        same(Reply::Error("ERR a\r\nb".into()), "-ERR a  b\r\n");
        same(Reply::refused("no"), "-ERR evenkeel: no\r\n");
        same(Reply::Integer(0), ":0\r\n");
        same(Reply::Integer(i64::MIN), ":-9223372036854775808\r\n");
        same(Reply::Integer(1_200_340), ":1200340\r\n");
        same(Reply::bulk("a\r\nb"), "$4\r\na\r\nb\r\n");
        same(Reply::bulk(""), "$0\r\n\r\n");
        check(&Reply::Nil, "$-1\r\n", "_\r\n");
        check(
            &Reply::Array(vec![Reply::Nil, Reply::Integer(1)]),
            "*2\r\n$-1\r\n:1\r\n",
            "*2\r\n_\r\n:1\r\n",
        );
        check(
            &Reply::Map(vec![Reply::bulk("k"), Reply::bulk("v")]),
            "*2\r\n$1\r\nk\r\n$1\r\nv\r\n",
            "%1\r\n$1\r\nk\r\n$1\r\nv\r\n",
        );
    }

    #[test]
    fn a_request_is_an_array_of_bulks() {
        let mut out = BytesMut::new();
        encode_request(
            &[Bytes::from_static(b"GET"), Bytes::from_static(b"key")],
            &mut out,
        );
        assert_eq!(&out[..], b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n");
    }
}
