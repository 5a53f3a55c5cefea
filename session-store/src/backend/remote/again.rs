//! What may be sent once more when nobody knows whether it was executed.

use bytes::Bytes;

use crate::command::{Command, Replay, Request, find};
use crate::resp::Reply;

/// A command to send again.
pub(super) struct Again {
    pub(super) request: Request,
    /// It is written only over a value that is still there; if there is none any more, the client is told `OK` all the same: somebody
    /// has ended that session since, and the client's write came before that.
    pub(super) nil_is_ok: bool,
}

/// The same command in a form that does no harm the second time; `None`: there is none. `is_alone`: no other command for its key was sent.
pub(super) fn again(request: Request, is_alone: bool) -> Option<Again> {
    let plain = |request| {
        Some(Again {
            request,
            nil_is_ok: false,
        })
    };
    match request.rule.replay {
        Replay::Safe => plain(request),
        Replay::Never => None,
        Replay::IfAlone if !is_alone => None,
        Replay::IfAlone => {
            let words = words(&request)?;
            if !request.seen {
                return plain(request);
            }
            let set = find(b"SET")?;
            let own: Vec<&[u8]> = words
                .iter()
                .map(AsRef::as_ref)
                .chain([&b"XX"[..]])
                .collect();
            Some(Again {
                request: Request::own(set, &own),
                nil_is_ok: true,
            })
        }
    }
}

/// The arguments of a `SET` that does the same, without conditions; `None`: it has conditions, or an answer that matters.
fn words(request: &Request) -> Option<Vec<Bytes>> {
    let argument = |at: usize| request.arguments.get(at).cloned();
    let unit = |unit: &'static [u8]| Bytes::from_static(unit);
    match request.rule.command {
        Command::SetEx => Some(vec![argument(1)?, argument(3)?, unit(b"EX"), argument(2)?]),
        Command::PSetEx => Some(vec![argument(1)?, argument(3)?, unit(b"PX"), argument(2)?]),
        Command::Set => {
            let options = request.arguments.get(3..)?;
            let mut words = options.iter();
            // Ends: each turn takes a word.
            while let Some(word) = words.next() {
                match word.to_ascii_uppercase().as_slice() {
                    b"EX" | b"PX" | b"EXAT" | b"PXAT" => drop(words.next()),
                    b"KEEPTTL" => {}
                    _ => return None,
                }
            }
            Some(request.arguments.get(1..)?.to_vec())
        }
        _ => None,
    }
}

/// Whether an answer says that the command was not executed, and would be elsewhere or later.
pub(super) fn is_refusal(reply: &Reply) -> bool {
    const CODES: [&str; 6] = [
        "READONLY",
        "LOADING",
        "MASTERDOWN",
        "CLUSTERDOWN",
        "TRYAGAIN",
        "NOREPLICAS",
    ];
    match reply {
        Reply::Error(text) => CODES
            .iter()
            .any(|code| text.split(' ').next() == Some(code)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, seen: bool, is_alone: bool, expected: Option<&str>) {
        let words = line
            .split(' ')
            .map(|word| Bytes::copy_from_slice(word.as_bytes()));
        let mut request = Request::new(words.collect(), b"").unwrap();
        request.seen = seen;
        let told = again(request, is_alone).map(|again| {
            let words: Vec<_> = again
                .request
                .arguments
                .iter()
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect();
            words.join(" ")
        });
        assert_eq!(
            told.as_deref(),
            expected,
            "{line}, seen: {seen}, alone: {is_alone}"
        );
    }

    #[test]
    fn what_is_sent_again_and_how() {
        for line in [
            "GET k",
            "EXPIRE k 5",
            "DEL k",
            "EVALSHA b70c2384248f88e6b75b9f89241a180f856ad852 1 k v",
        ] {
            check(line, false, false, Some(line));
        }
        for line in [
            "INCR k",
            "APPEND k v",
            "HINCRBY k f 1",
            "HSET k f v",
            "GETDEL k",
            "SETNX k v",
            "SET k v NX",
            "SET k v NX PX 5",
            "SET k v GET",
            "SET k v XX",
        ] {
            check(line, true, true, None);
        }
        check("SETEX k 5 v", false, true, Some("SETEX k 5 v"));
        check("SETEX k 5 v", false, false, None);
        check("SETEX k 5 v", true, true, Some("SET k v EX 5 XX"));
        check("PSETEX k 5 v", true, true, Some("SET k v PX 5 XX"));
        check("SET k v EX 5", true, true, Some("SET k v EX 5 XX"));
        check("SET k v", true, true, Some("SET k v XX"));
    }

    #[test]
    fn only_whole_codes_are_refusals() {
        for (text, expected) in [
            ("READONLY You can't write", true),
            ("LOADING Redis is", true),
            ("OOM command", false),
            ("ERR READONLY", false),
            ("READONLYX", false),
        ] {
            assert_eq!(is_refusal(&Reply::Error(text.into())), expected, "{text}");
        }
        assert!(!is_refusal(&Reply::bulk("READONLY")));
    }
}
