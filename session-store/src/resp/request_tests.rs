//! Rows of requests, whole, in pieces, and hostile.

use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds {
    arguments: 4,
    value: 8,
    request: 20,
};

/// Everything that can be taken from `pieces`, and how it ended.
fn parse(pieces: &[&[u8]]) -> (Vec<Parsed>, Result<(), Malformed>) {
    let (mut parser, mut buffer, mut taken) = (Parser::default(), BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match parser.next(&mut buffer, &BOUNDS) {
                Ok(Some(parsed)) => taken.push(parsed),
                Ok(None) => break,
                Err(malformed) => return (taken, Err(malformed)),
            }
        }
    }
    (taken, Ok(()))
}

fn request(words: &[&str]) -> Parsed {
    let words = words
        .iter()
        .map(|word| Bytes::copy_from_slice(word.as_bytes()));
    Parsed::Request(words.collect())
}

/// The same, whole and split at every byte.
#[track_caller]
fn check(text: &str, expected: &[Parsed], end: Result<(), Malformed>) {
    let bytes = text.as_bytes();
    assert_eq!(parse(&[bytes]), (expected.to_vec(), end), "whole");
    for at in 0..bytes.len() {
        let (front, back) = bytes.split_at(at);
        assert_eq!(
            parse(&[front, back]),
            (expected.to_vec(), end),
            "split at {at}"
        );
    }
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(parse(&single), (expected.to_vec(), end), "byte by byte");
}

#[test]
fn requests_of_both_forms() {
    check(
        "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
        &[request(&["GET", "k"])],
        Ok(()),
    );
    check("*1\r\n$0\r\n\r\n", &[request(&[""])], Ok(()));
    check(
        "*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n*1\r\n$4\r\nPING\r\n",
        &[request(&["GET", "a\r\nb"]), request(&["PING"])],
        Ok(()),
    );
    check(
        "PING\r\n  GET \t k\n\r\n*0\r\n*-1\r\nPING\n",
        &[
            request(&["PING"]),
            request(&["GET", "k"]),
            request(&["PING"]),
        ],
        Ok(()),
    );
}

#[test]
fn what_is_over_a_bound_is_refused_and_the_next_request_is_served() {
    let ping = "*1\r\n$4\r\nPING\r\n";
    let served = [request(&["PING"])];
    for (text, refusal) in [
        ("*2\r\n$3\r\nSET\r\n$9\r\n123456789\r\n", Refusal::Value),
        (
            "*5\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n",
            Refusal::Arguments,
        ),
        (
            "*3\r\n$8\r\n12345678\r\n$8\r\n12345678\r\n$8\r\n12345678\r\n",
            Refusal::Request,
        ),
    ] {
        let expected = [&[Parsed::Refused(refusal)][..], &served].concat();
        check(&format!("{text}{ping}"), &expected, Ok(()));
    }
}

#[test]
fn what_is_no_request_ends_the_connection() {
    for (text, why) in [
        ("*1\r\n+OK\r\n", "expected '$'"),
        ("*x\r\n", "invalid multibulk length"),
        ("*+1\r\n", "invalid multibulk length"),
        ("*1\n", "invalid multibulk length"),
        ("*-2\r\n", "invalid multibulk length"),
        ("*1048577\r\n", "invalid multibulk length"),
        ("*99999999999999999999\r\n", "invalid multibulk length"),
        (
            "*000000000000000000000000000000000001\r\n",
            "invalid multibulk length",
        ),
        ("*1\r\n$-1\r\n", "invalid bulk length"),
        ("*1\r\n$536870913\r\n", "invalid bulk length"),
        ("*1\r\n$2\r\nabc\r\n", "an argument longer than announced"),
        ("*1\r\n$2\r\nab\rc", "an argument longer than announced"),
        ("SET \"a b\"\r\n", "quotes in an inline request"),
        ("a b c d e\r\n", "too many words in an inline request"),
    ] {
        check(text, &[], Err(Malformed(why)));
    }
    let long = vec![b'a'; INLINE_MAX + 1];
    assert_eq!(
        parse(&[&long]),
        (vec![], Err(Malformed("too big inline request")))
    );
}

/// What is announced costs nothing before it comes.
#[test]
fn an_announcement_takes_no_memory() {
    let (mut parser, mut buffer) = (Parser::default(), BytesMut::new());
    let bounds = Bounds {
        arguments: usize::MAX,
        value: usize::MAX,
        request: usize::MAX,
    };
    buffer.extend_from_slice(b"*1048576\r\n$536870912\r\n");
    assert_eq!(parser.next(&mut buffer, &bounds), Ok(None));
    assert!(parser.arguments.capacity() <= ARGUMENTS_RESERVED && buffer.is_empty());
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_give_the_same(bytes in prop::collection::vec(prop_oneof![
        prop::sample::select(b"*$\r\n-+0123456789aG \"".to_vec()), any::<u8>()], 0..200), cuts in prop::collection::vec(0_usize..200, 0..6)) {
        let whole = parse(&[&bytes]);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        prop_assert_eq!(parse(&pieces), whole);
    }

    #[test]
    fn what_was_encoded_is_parsed(words in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5), 1..4)) {
        let mut text = format!("*{}\r\n", words.len()).into_bytes();
        for word in &words {
            text.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            text.extend_from_slice(word);
            text.extend_from_slice(b"\r\n");
        }
        let expected = Parsed::Request(words.into_iter().map(Bytes::from).collect());
        prop_assert_eq!(parse(&[&text]), (vec![expected], Ok(())));
    }
}
