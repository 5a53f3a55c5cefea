//! The rows of the allow-list, in the order of their names.
//!
//! `DEL`, `EXPIRE` and their like count as safe to repeat: the second time changes nothing more, though its answer may be another
//! number, which no session handler looks at. A field of a hash is never set again: the hash may be gone by then, and would come back.

use super::Command::*;
use super::Effect::{Read, Write};
use super::Keys::{All, First, OfScript};
use super::Replay::{IfAlone, Never, Safe};
use super::{Command, Effect, Keys, Replay, Rule};

/// As many arguments as the gateway takes.
const MANY: usize = usize::MAX;

#[rustfmt::skip]
pub static RULES: &[Rule] = &[
    row("APPEND", Append, (3, 3), First, Write, Never),
    row("DECR", Decr, (2, 2), First, Write, Never),
    row("DECRBY", DecrBy, (3, 3), First, Write, Never),
    row("DEL", Del, (2, MANY), All, Write, Safe),
    row("EVAL", Release, (5, 5), OfScript, Write, Safe),
    row("EVALSHA", ReleaseBySha, (5, 5), OfScript, Write, Safe),
    row("EXISTS", Exists, (2, MANY), All, Read, Safe),
    row("EXPIRE", Expire, (3, 3), First, Write, Safe),
    row("EXPIREAT", ExpireAt, (3, 3), First, Write, Safe),
    row("GET", Get, (2, 2), First, Read, Safe),
    row("GETDEL", GetDel, (2, 2), First, Write, Never),
    row("GETEX", GetEx, (2, 4), First, Write, Safe),
    row("HDEL", HDel, (3, MANY), First, Write, Safe),
    row("HEXISTS", HExists, (3, 3), First, Read, Safe),
    row("HGET", HGet, (3, 3), First, Read, Safe),
    row("HGETALL", HGetAll, (2, 2), First, Read, Safe),
    row("HINCRBY", HIncrBy, (4, 4), First, Write, Never),
    row("HLEN", HLen, (2, 2), First, Read, Safe),
    row("HMGET", HMGet, (3, MANY), First, Read, Safe),
    row("HMSET", HMSet, (4, MANY), First, Write, Never),
    row("HSET", HSet, (4, MANY), First, Write, Never),
    row("HSETNX", HSetNx, (4, 4), First, Write, Never),
    row("INCR", Incr, (2, 2), First, Write, Never),
    row("INCRBY", IncrBy, (3, 3), First, Write, Never),
    row("MGET", MGet, (2, MANY), All, Read, Safe),
    row("PERSIST", Persist, (2, 2), First, Write, Safe),
    row("PEXPIRE", PExpire, (3, 3), First, Write, Safe),
    row("PEXPIREAT", PExpireAt, (3, 3), First, Write, Safe),
    row("PSETEX", PSetEx, (4, 4), First, Write, IfAlone),
    row("PTTL", PTtl, (2, 2), First, Read, Safe),
    row("SET", Set, (3, 8), First, Write, IfAlone),
    row("SETEX", SetEx, (4, 4), First, Write, IfAlone),
    row("SETNX", SetNx, (3, 3), First, Write, Never),
    row("STRLEN", StrLen, (2, 2), First, Read, Safe),
    row("TTL", Ttl, (2, 2), First, Read, Safe),
    row("TYPE", Type, (2, 2), First, Read, Safe),
    row("UNLINK", Unlink, (2, MANY), All, Write, Safe),
];

const fn row(
    name: &'static str,
    command: Command,
    arity: (usize, usize),
    keys: Keys,
    effect: Effect,
    replay: Replay,
) -> Rule {
    Rule {
        name,
        command,
        arity,
        keys,
        effect,
        replay,
    }
}
