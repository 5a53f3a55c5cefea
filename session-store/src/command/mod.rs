//! What clients may ask of a store: the allow-list, one row a command.
//!
//! A command that has no row is refused, whatever it is: commands that Redis learns later are refused until somebody thought about them.
//! A row says which arguments are keys (so that a user's prefix can be put before them), and what may be done with a command whose
//! answer was lost (so that a failover of Redis loses and doubles nothing). `AUTH`, `SELECT`, `MULTI` and others that concern the connection are the
//! gateway's own and stand in [`crate::gateway`].

mod rules;
pub mod scripts;

use bytes::Bytes;

pub use rules::RULES;

/// The longest name of a command that has a row.
const NAME_MAX: usize = 16;

/// A command that a store executes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    Append,
    Decr,
    DecrBy,
    Del,
    Exists,
    Expire,
    ExpireAt,
    Get,
    GetDel,
    GetEx,
    HDel,
    HExists,
    HGet,
    HGetAll,
    HIncrBy,
    HLen,
    HMGet,
    HMSet,
    HSet,
    HSetNx,
    Incr,
    IncrBy,
    MGet,
    PExpire,
    PExpireAt,
    PSetEx,
    PTtl,
    Persist,
    Set,
    SetEx,
    SetNx,
    StrLen,
    Ttl,
    Type,
    Unlink,
    /// Deletes a lock if its value is the caller's: the one script that is recognised ([`scripts`]).
    Release,
    /// As [`Command::Release`], by the script's SHA-1.
    ReleaseBySha,
    /// Sets a lock's time to live if its value is the caller's. Ours alone: no client can ask for it.
    Renew,
}

/// Which arguments are keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    First,
    /// All after the name.
    All,
    /// The only key of a script, after its text and the number of keys.
    OfScript,
}

/// What may be done when nobody knows whether it was executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// It changes nothing, or the second time changes nothing more.
    Safe,
    /// It stores a value: again only if nothing else came for that key meanwhile.
    IfAlone,
    Never,
}

/// Whether it changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Read,
    Write,
}

/// A row of the allow-list.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    pub name: &'static str,
    pub command: Command,
    /// Arguments with the name, at least and at most.
    pub arity: (usize, usize),
    pub keys: Keys,
    pub effect: Effect,
    pub replay: Replay,
}

/// A command with its arguments, ready for a store: known, of the right length, its keys with the user's prefix.
#[derive(Debug, Clone)]
pub struct Request {
    pub rule: &'static Rule,
    /// With the name in front.
    pub arguments: Vec<Bytes>,
    /// The client had read this key, and it was there: a write of it that must be repeated never makes it anew.
    pub seen: bool,
}

/// Why there is no [`Request`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    Unknown,
    /// Too many arguments or too few.
    Arity(&'static str),
}

impl Request {
    /// Looks the command up, and puts `prefix` before its keys.
    ///
    /// # Errors
    /// [`Unfit`].
    pub fn new(mut arguments: Vec<Bytes>, prefix: &[u8]) -> Result<Self, Unfit> {
        let name = arguments.first().map(AsRef::as_ref).unwrap_or_default();
        let rule = find(name).ok_or(Unfit::Unknown)?;
        let (least, most) = rule.arity;
        if !(least..=most).contains(&arguments.len()) {
            return Err(Unfit::Arity(rule.name));
        }
        if !prefix.is_empty() {
            for key in keys_mut(rule.keys, &mut arguments) {
                *key = Bytes::from([prefix, key].concat());
            }
        }
        Ok(Self {
            rule,
            arguments,
            seen: false,
        })
    }

    /// One that the gateway makes itself, of a command that has a row; the name need not be repeated.
    pub fn own(rule: &'static Rule, arguments: &[&[u8]]) -> Self {
        let name = std::iter::once(Bytes::from_static(rule.name.as_bytes()));
        let given = arguments
            .iter()
            .map(|argument| Bytes::copy_from_slice(argument));
        Self {
            rule,
            arguments: name.chain(given).collect(),
            seen: false,
        }
    }

    pub fn keys(&self) -> &[Bytes] {
        let keys = match self.rule.keys {
            Keys::First => self.arguments.get(1..2),
            Keys::All => self.arguments.get(1..),
            Keys::OfScript => self.arguments.get(3..4),
        };
        keys.unwrap_or_default()
    }

    /// The argument at this place, the name being 0; empty if there is none.
    pub fn argument(&self, at: usize) -> &[u8] {
        self.arguments
            .get(at)
            .map(AsRef::as_ref)
            .unwrap_or_default()
    }
}

fn keys_mut(keys: Keys, arguments: &mut [Bytes]) -> &mut [Bytes] {
    let keys = match keys {
        Keys::First => arguments.get_mut(1..2),
        Keys::All => arguments.get_mut(1..),
        Keys::OfScript => arguments.get_mut(3..4),
    };
    keys.unwrap_or_default()
}

/// The row of a command, in any case of letters.
pub fn find(name: &[u8]) -> Option<&'static Rule> {
    let mut upper = [0_u8; NAME_MAX];
    let upper = upper.get_mut(..name.len())?;
    upper.copy_from_slice(name);
    upper.make_ascii_uppercase();
    let at = RULES.binary_search_by(|rule| rule.name.as_bytes().cmp(upper));
    RULES.get(at.ok()?)
}

/// The row of [`Command::Renew`], which no name leads to.
pub static RENEW: Rule = Rule {
    name: "EVAL",
    command: Command::Renew,
    arity: (6, 6),
    keys: Keys::OfScript,
    effect: Effect::Write,
    replay: Replay::Safe,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_are_in_order_and_found_in_any_case() {
        assert!(RULES.windows(2).all(|pair| pair[0].name < pair[1].name));
        for rule in RULES {
            assert_eq!(find(rule.name.to_lowercase().as_bytes()), Some(rule));
        }
        assert_eq!(find(b"FLUSHALL"), None);
        assert_eq!(find(&[b'A'; 1000]), None);
        assert_eq!(find(b""), None);
    }

    #[track_caller]
    fn check(line: &str, expected: Result<&str, Unfit>) {
        let words = line
            .split(' ')
            .map(|word| Bytes::copy_from_slice(word.as_bytes()));
        let made = Request::new(words.collect(), b"p:");
        let made = made.map(|request| {
            let words: Vec<_> = request
                .arguments
                .iter()
                .map(|word| String::from_utf8_lossy(word))
                .collect();
            words.join(" ")
        });
        assert_eq!(made, expected.map(str::to_owned), "{line}");
    }

    #[test]
    fn keys_get_the_prefix_and_nothing_else_does() {
        check("GET k", Ok("GET p:k"));
        check("del a b c", Ok("del p:a p:b p:c"));
        check("SET k v EX 10", Ok("SET p:k v EX 10"));
        check("HSET k f v", Ok("HSET p:k f v"));
        check("EVALSHA sha 1 k v", Ok("EVALSHA sha 1 p:k v"));
        check("GET", Err(Unfit::Arity("GET")));
        check("GET a b", Err(Unfit::Arity("GET")));
        check("KEYS *", Err(Unfit::Unknown));
    }
}
