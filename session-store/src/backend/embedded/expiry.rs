//! Commands on keys whatever their values: deadlines, presence, locks (Redis: `expire.c`, `db.c`).

use super::strings::count;
use super::table::Value;
use super::{At, NO_INTEGER, number};
use crate::backend::Failure;
use crate::resp::Reply;

pub(super) fn delete(at: At<'_>) -> Reply {
    let keys = at.arguments.get(1..).unwrap_or_default();
    let gone = keys
        .iter()
        .filter(|key| at.table.remove(at.now, at.database, key));
    Reply::Integer(count(gone.count()))
}

/// A key that is named twice counts twice, as in Redis.
pub(super) fn exists(at: At<'_>) -> Reply {
    let keys = at.arguments.get(1..).unwrap_or_default();
    let there = keys
        .iter()
        .filter(|key| at.table.get(at.now, at.database, key).is_some());
    Reply::Integer(count(there.count()))
}

pub(super) fn kind(at: At<'_>) -> Reply {
    let key = at.arguments.get(1).cloned().unwrap_or_default();
    let kind = match at
        .table
        .get(at.now, at.database, &key)
        .map(|entry| &entry.value)
    {
        None => "none",
        Some(Value::Text(_)) => "string",
        Some(Value::Hash(_)) => "hash",
    };
    Reply::Simple(kind.into())
}

/// A time that has passed deletes.
pub(super) fn expire(at: At<'_>, scale: i64, since: u64) -> Result<Reply, Failure> {
    let Some(time) = number(at.argument(2)) else {
        return Ok(NO_INTEGER);
    };
    let since = i64::try_from(since).unwrap_or(i64::MAX);
    let Some(deadline) = time
        .checked_mul(scale)
        .and_then(|time| time.checked_add(since))
    else {
        let command = String::from_utf8_lossy(at.argument(0)).to_ascii_lowercase();
        return Ok(Reply::Error(
            format!("ERR invalid expire time in '{command}' command").into(),
        ));
    };
    let key = at.arguments.get(1).cloned().unwrap_or_default();
    // 0 would be never; 1970 is as long ago.
    let deadline = u64::try_from(deadline).unwrap_or(0).max(1);
    let is_there = at.table.set_deadline(at.now, at.database, &key, deadline);
    Ok(Reply::Integer(i64::from(is_there)))
}

/// In units of `scale` milliseconds, rounded as Redis does; -1: no deadline, -2: no key.
pub(super) fn left(at: At<'_>, scale: u64) -> Reply {
    let key = at.arguments.get(1).cloned().unwrap_or_default();
    let left = match at
        .table
        .get(at.now, at.database, &key)
        .map(|entry| entry.deadline)
    {
        None => -2,
        Some(0) => -1,
        Some(deadline) => {
            let left = deadline.saturating_sub(at.now);
            i64::try_from(left.saturating_add(scale / 2) / scale).unwrap_or(i64::MAX)
        }
    };
    Reply::Integer(left)
}

pub(super) fn persist(at: At<'_>) -> Reply {
    let key = at.arguments.get(1).cloned().unwrap_or_default();
    let is_timed = at
        .table
        .get(at.now, at.database, &key)
        .is_some_and(|entry| entry.deadline != 0);
    if is_timed {
        at.table.set_deadline(at.now, at.database, &key, 0);
    }
    Reply::Integer(i64::from(is_timed))
}

/// `EVAL text 1 key secret`: deletes the key if its value is the secret.
pub(super) fn release(at: At<'_>) -> Reply {
    let key = at.arguments.get(3).cloned().unwrap_or_default();
    let is_mine = is_mine(&at);
    if is_mine {
        at.table.remove(at.now, at.database, &key);
    }
    Reply::Integer(i64::from(is_mine))
}

/// `EVAL text 1 key secret milliseconds`.
pub(super) fn renew(at: At<'_>) -> Reply {
    let key = at.arguments.get(3).cloned().unwrap_or_default();
    let left = number(at.argument(5)).and_then(|left| u64::try_from(left).ok());
    let is_mine = is_mine(&at);
    if let (true, Some(left)) = (is_mine, left) {
        at.table
            .set_deadline(at.now, at.database, &key, at.now.saturating_add(left));
    }
    Reply::Integer(i64::from(is_mine))
}

fn is_mine(at: &At<'_>) -> bool {
    at.table.peek(at.now, at.database, at.argument(3)) == Some(at.argument(4))
}
