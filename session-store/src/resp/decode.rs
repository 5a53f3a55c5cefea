//! Replies of a Redis, out of the pieces they come in: RESP2, as we ask for it.
//!
//! A reply is decoded only when it is there as a whole. Until then the decoder says how many bytes it needs at least, so that a large
//! reply that comes in many pieces is not looked at anew for each of them.

use bytes::{Buf, Bytes, BytesMut};

use super::reply::Reply;

/// Arrays within arrays: `EXEC` of `HGETALL` is two.
pub const DEPTH_MAX: usize = 8;
/// Elements of one array.
pub const ELEMENTS_MAX: usize = 1024 * 1024;
/// Bytes of one reply, as Redis bounds a bulk (`proto-max-bulk-len`).
pub const REPLY_MAX: usize = 512 * 1024 * 1024;
/// The longest line: an error with its text.
const LINE_MAX: usize = 64 * 1024;
const ELEMENTS_RESERVED: usize = 64;

/// What is in the front of the buffer.
#[derive(Debug, PartialEq)]
pub enum Decoded {
    Reply(Reply),
    /// Nothing can be decoded before the buffer has so many bytes.
    Needs(usize),
}

/// These bytes are no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer is no RESP2: {0}")]
pub struct Garbled(pub &'static str);

/// Takes one whole reply from the front of `buffer`.
///
/// # Errors
/// [`Garbled`]: the connection is of no more use.
pub fn decode(buffer: &mut BytesMut) -> Result<Decoded, Garbled> {
    let length = match measure(buffer)? {
        Ok(length) => length,
        Err(needs) => return Ok(Decoded::Needs(needs)),
    };
    let mut bytes = buffer.split_to(length).freeze();
    read(&mut bytes, 0).map(Decoded::Reply)
}

/// The length of the reply in front; `Err`: how many bytes there must be at least.
fn measure(buffer: &[u8]) -> Result<Result<usize, usize>, Garbled> {
    // How many elements are still to come: one reply, and what arrays announce.
    let (mut at, mut missing) = (0_usize, 1_usize);
    // Ends: each turn goes past a line of the buffer, or returns.
    while missing > 0 {
        missing -= 1;
        let rest = buffer.get(at..).unwrap_or_default();
        let Some((line, next)) = line(rest)? else {
            return Ok(Err(buffer.len() + 1));
        };
        let mark = rest.first().copied().unwrap_or(0);
        at += next;
        match mark {
            b'$' => {
                if let Some(length) = length(line, REPLY_MAX)? {
                    at += length + 2;
                }
            }
            b'*' => missing += length(line, ELEMENTS_MAX)?.unwrap_or(0),
            b'+' | b'-' | b':' => {}
            _ => return Err(Garbled("an unknown mark")),
        }
        if at > REPLY_MAX || missing > ELEMENTS_MAX {
            return Err(Garbled("too large"));
        }
        if at > buffer.len() {
            return Ok(Err(at));
        }
    }
    Ok(Ok(at))
}

/// Reads what was measured; recursion is bounded by [`DEPTH_MAX`].
fn read(bytes: &mut Bytes, depth: usize) -> Result<Reply, Garbled> {
    if depth > DEPTH_MAX {
        return Err(Garbled("too deep"));
    }
    let mark = bytes.first().copied().unwrap_or(0);
    let Some((text, next)) = line(bytes)? else {
        return Err(Garbled("cut short"));
    };
    let reply = match mark {
        b'+' => Reply::Simple(String::from_utf8_lossy(text).into_owned().into()),
        b'-' => Reply::Error(String::from_utf8_lossy(text).into_owned().into()),
        b':' => Reply::Integer(number(text)?),
        b'$' => {
            let Some(length) = length(text, REPLY_MAX)? else {
                bytes.advance(next);
                return Ok(Reply::Nil);
            };
            bytes.advance(next);
            if bytes.get(length..length + 2) != Some(&b"\r\n"[..]) {
                return Err(Garbled("a bulk of another length"));
            }
            let value = bytes.split_to(length);
            bytes.advance(2);
            return Ok(Reply::Bulk(value));
        }
        b'*' => {
            let Some(count) = length(text, ELEMENTS_MAX)? else {
                bytes.advance(next);
                return Ok(Reply::Nil);
            };
            bytes.advance(next);
            let mut items = Vec::with_capacity(count.min(ELEMENTS_RESERVED));
            for _ in 0..count {
                items.push(read(bytes, depth + 1)?);
            }
            return Ok(Reply::Array(items));
        }
        _ => return Err(Garbled("an unknown mark")),
    };
    bytes.advance(next);
    Ok(reply)
}

/// The text of the line in front without its mark, and where the next one begins; `None`: it is not complete.
fn line(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, Garbled> {
    let head = bytes.get(..bytes.len().min(LINE_MAX)).unwrap_or_default();
    let Some(end) = head.iter().position(|byte| *byte == b'\n') else {
        return if head.len() == LINE_MAX {
            Err(Garbled("too long a line"))
        } else {
            Ok(None)
        };
    };
    let text = head
        .get(1..=end)
        .and_then(|line| line.strip_suffix(b"\r\n"))
        .ok_or(Garbled("a line that ends otherwise"))?;
    Ok(Some((text, end + 1)))
}

fn number(text: &[u8]) -> Result<i64, Garbled> {
    let text = std::str::from_utf8(text).map_err(|_| Garbled("no number"))?;
    text.parse().map_err(|_| Garbled("no number"))
}

/// `None`: -1, which is nil.
fn length(text: &[u8], most: usize) -> Result<Option<usize>, Garbled> {
    match number(text)? {
        -1 => Ok(None),
        length => match usize::try_from(length) {
            Ok(length) if length <= most => Ok(Some(length)),
            _ => Err(Garbled("a length out of bounds")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::Protocol;
    use proptest::prelude::*;

    fn all(pieces: &[&[u8]]) -> Result<Vec<Reply>, Garbled> {
        let (mut buffer, mut replies, mut needs) = (BytesMut::new(), Vec::new(), 0);
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while buffer.len() >= needs.max(1) {
                match decode(&mut buffer)? {
                    Decoded::Reply(reply) => {
                        replies.push(reply);
                        needs = 0;
                    }
                    Decoded::Needs(more) => {
                        assert!(more > buffer.len());
                        needs = more;
                    }
                }
            }
        }
        Ok(replies)
    }

    #[test]
    fn replies_of_each_kind_split_at_every_byte() {
        let text =
            b"+OK\r\n-ERR no\r\n:-5\r\n$3\r\na\r\n\r\n$-1\r\n*-1\r\n*2\r\n*1\r\n:1\r\n$0\r\n\r\n";
        let expected = vec![
            Reply::OK,
            Reply::Error("ERR no".into()),
            Reply::Integer(-5),
            Reply::bulk("a\r\n"),
            Reply::Nil,
            Reply::Nil,
            Reply::Array(vec![Reply::Array(vec![Reply::Integer(1)]), Reply::bulk("")]),
        ];
        for at in 0..text.len() {
            let (front, back) = text.split_at(at);
            assert_eq!(all(&[front, back]), Ok(expected.clone()), "split at {at}");
        }
    }

    #[test]
    fn hostile_lengths_are_refused() {
        for (text, why) in [
            ("%1\r\n", "an unknown mark"),
            ("$9999999999\r\n", "a length out of bounds"),
            ("$-2\r\n", "a length out of bounds"),
            ("*1048577\r\n", "a length out of bounds"),
            (":x\r\n", "no number"),
            ("+OK\n", "a line that ends otherwise"),
            ("$1\r\nab\r\n", "a bulk of another length"),
        ] {
            assert_eq!(all(&[text.as_bytes()]), Err(Garbled(why)), "{text:?}");
        }
        let deep = "*1\r\n".repeat(DEPTH_MAX + 1) + ":1\r\n";
        assert_eq!(all(&[deep.as_bytes()]), Err(Garbled("too deep")));
        let many = "*1000000\r\n".repeat(2);
        assert_eq!(all(&[many.as_bytes()]), Err(Garbled("too large")));
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_a_reply_or_an_error(bytes in prop::collection::vec(prop_oneof![
            prop::sample::select(b"*$:+-\r\n0123456789".to_vec()), any::<u8>()], 0..200)) {
            let _ = all(&[&bytes]);
        }

        #[test]
        fn what_was_encoded_is_decoded(numbers in prop::collection::vec(any::<i64>(), 0..20), text in prop::collection::vec(any::<u8>(), 0..50)) {
            let mut items: Vec<Reply> = numbers.into_iter().map(Reply::Integer).collect();
            items.push(Reply::bulk(&text));
            let reply = Reply::Array(items);
            let mut out = BytesMut::new();
            reply.encode(Protocol::Resp2, &mut out);
            prop_assert_eq!(all(&[&out]), Ok(vec![reply]));
        }
    }
}
