//! Commands on text, as Redis 7 answers them (its `t_string.c`).

use bytes::Bytes;

use super::table::{Deadline, Value};
use super::{At, NO_INTEGER, SYNTAX, WRONG_TYPE, number};
use crate::backend::Failure;
use crate::resp::Reply;

/// What a command comes to.
type Outcome = Result<Reply, Failure>;

/// No text is longer (Redis: `proto-max-bulk-len`).
const TEXT_MAX: usize = 512 * 1024 * 1024;

/// The text of the key, read; `Err`: what is there is no text.
fn text(at: &mut At<'_>, key: &[u8]) -> Result<Option<Bytes>, Reply> {
    match at
        .table
        .read(at.now, at.database, key)
        .map(|entry| &entry.value)
    {
        None => Ok(None),
        Some(Value::Text(text)) => Ok(Some(text.clone())),
        Some(Value::Hash(_)) => Err(WRONG_TYPE),
    }
}

/// The same for the first key, without counting as a reader, with its deadline.
fn unread(at: &mut At<'_>) -> Result<Option<(Bytes, Deadline)>, Reply> {
    let key = at.arguments.get(1).cloned().unwrap_or_default();
    match at
        .table
        .get(at.now, at.database, &key)
        .map(|entry| (&entry.value, entry.deadline))
    {
        None => Ok(None),
        Some((Value::Text(text), deadline)) => Ok(Some((text.clone(), deadline))),
        Some((Value::Hash(_), _)) => Err(WRONG_TYPE),
    }
}

fn put(at: &mut At<'_>, text: &[u8], deadline: Deadline) -> Result<(), Failure> {
    // A copy: the argument is a slice of everything the client sent with it.
    let (value, arguments) = (Value::Text(Bytes::copy_from_slice(text)), at.arguments);
    let key = arguments.get(1).map(AsRef::as_ref).unwrap_or_default();
    at.table.put(at.now, at.database, key, value, deadline)
}

fn told(text: Result<Option<Bytes>, Reply>) -> Reply {
    match text {
        Ok(Some(text)) => Reply::Bulk(text),
        Ok(None) => Reply::Nil,
        Err(reply) => reply,
    }
}

pub(super) fn get(mut at: At<'_>) -> Outcome {
    let key = at.arguments.get(1).cloned().unwrap_or_default();
    Ok(told(text(&mut at, &key)))
}

pub(super) fn mget(mut at: At<'_>) -> Outcome {
    let keys = at.arguments.get(1..).unwrap_or_default();
    let answers = keys.iter().map(|key| match text(&mut at, key) {
        Ok(Some(text)) => Reply::Bulk(text),
        Ok(None) | Err(_) => Reply::Nil,
    });
    Ok(Reply::Array(answers.collect()))
}

pub(super) fn length(mut at: At<'_>) -> Outcome {
    Ok(match unread(&mut at) {
        Ok(text) => Reply::Integer(count(text.map_or(0, |(text, _)| text.len()))),
        Err(reply) => reply,
    })
}

/// What stands after the value of `SET`, or after the key of `GETEX`.
#[derive(Debug, Default, PartialEq)]
struct Options {
    deadline: Option<Deadline>,
    keeps_deadline: bool,
    persists: bool,
    only_if: Option<OnlyIf>,
    gives_old: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum OnlyIf {
    Absent,
    Present,
}

/// Options from the argument at `first` on.
fn options(at: &At<'_>, first: usize, command: &str) -> Result<Options, Reply> {
    let mut options = Options::default();
    let mut words = at.arguments.get(first..).unwrap_or_default().iter();
    // Ends: each turn takes a word.
    while let Some(word) = words.next() {
        let word = word.to_ascii_uppercase();
        let is_timed = options.deadline.is_some() || options.keeps_deadline || options.persists;
        match (word.as_slice(), command) {
            (b"NX", "set") if options.only_if.is_none() => options.only_if = Some(OnlyIf::Absent),
            (b"XX", "set") if options.only_if.is_none() => options.only_if = Some(OnlyIf::Present),
            (b"GET", "set") => options.gives_old = true,
            (b"KEEPTTL", "set") if !is_timed => options.keeps_deadline = true,
            (b"PERSIST", "getex") if !is_timed => options.persists = true,
            (b"EX" | b"PX" | b"EXAT" | b"PXAT", _) if !is_timed => {
                let time = words.next().ok_or(SYNTAX)?;
                let scale = if word.starts_with(b"P") { 1 } else { 1_000 };
                let since = if word.ends_with(b"AT") { 0 } else { at.now };
                options.deadline = Some(deadline(time, scale, since, command)?);
            }
            _ => return Err(SYNTAX),
        }
    }
    Ok(options)
}

/// A deadline from a number of `scale` milliseconds after `since`; it must lie after 1970.
fn deadline(time: &[u8], scale: u64, since: u64, command: &str) -> Result<Deadline, Reply> {
    let time = number(time).ok_or(NO_INTEGER)?;
    let invalid = || Reply::Error(format!("ERR invalid expire time in '{command}' command").into());
    let time = u64::try_from(time)
        .ok()
        .filter(|time| *time > 0)
        .ok_or_else(invalid)?;
    let time = time
        .checked_mul(scale)
        .and_then(|time| time.checked_add(since));
    time.filter(|time| i64::try_from(*time).is_ok())
        .ok_or_else(invalid)
}

pub(super) fn set(mut at: At<'_>) -> Outcome {
    let options = match options(&at, 3, "set") {
        Ok(options) => options,
        Err(reply) => return Ok(reply),
    };
    let now = at.now;
    let key = at.arguments.get(1).cloned().unwrap_or_default();
    let old = at
        .table
        .get(now, at.database, &key)
        .map(|entry| (entry.value.clone(), entry.deadline));
    let old_text = match (&old, options.gives_old) {
        (Some((Value::Hash(_), _)), true) => return Ok(WRONG_TYPE),
        (Some((Value::Text(text), _)), true) => Reply::Bulk(text.clone()),
        _ => Reply::Nil,
    };
    let is_wanted = match options.only_if {
        Some(OnlyIf::Absent) => old.is_none(),
        Some(OnlyIf::Present) => old.is_some(),
        None => true,
    };
    if !is_wanted {
        return Ok(old_text);
    }
    let kept = old.map_or(0, |(_, deadline)| deadline);
    let deadline = match options.deadline {
        Some(deadline) => deadline,
        None if options.keeps_deadline => kept,
        None => 0,
    };
    let value = at.arguments.get(2).cloned().unwrap_or_default();
    put(&mut at, &value, deadline)?;
    if deadline != 0 && deadline <= now {
        at.table.remove(now, at.database, &key);
    }
    Ok(if options.gives_old {
        old_text
    } else {
        Reply::OK
    })
}

pub(super) fn set_ex(mut at: At<'_>, scale: u64) -> Outcome {
    let command = if scale == 1 { "psetex" } else { "setex" };
    let deadline = match deadline(at.argument(2), scale, at.now, command) {
        Ok(deadline) => deadline,
        Err(reply) => return Ok(reply),
    };
    let value = at.arguments.get(3).cloned().unwrap_or_default();
    put(&mut at, &value, deadline)?;
    Ok(Reply::OK)
}

pub(super) fn set_nx(mut at: At<'_>) -> Outcome {
    let key = at.arguments.get(1).cloned().unwrap_or_default();
    if at.table.get(at.now, at.database, &key).is_some() {
        return Ok(Reply::Integer(0));
    }
    let value = at.arguments.get(2).cloned().unwrap_or_default();
    put(&mut at, &value, 0)?;
    Ok(Reply::Integer(1))
}

pub(super) fn get_ex(mut at: At<'_>) -> Outcome {
    let options = match options(&at, 2, "getex") {
        Ok(options) => options,
        Err(reply) => return Ok(reply),
    };
    let key = at.arguments.get(1).cloned().unwrap_or_default();
    let text = text(&mut at, &key);
    if let Ok(Some(_)) = text
        && let Some(deadline) = options.deadline.or(options.persists.then_some(0))
    {
        at.table.set_deadline(at.now, at.database, &key, deadline);
    }
    Ok(told(text))
}

pub(super) fn get_del(mut at: At<'_>) -> Outcome {
    let key = at.arguments.get(1).cloned().unwrap_or_default();
    let text = text(&mut at, &key);
    if let Ok(Some(_)) = text {
        at.table.remove(at.now, at.database, &key);
    }
    Ok(told(text))
}

pub(super) fn append(mut at: At<'_>) -> Outcome {
    let (old, deadline) = match unread(&mut at) {
        Ok(old) => old.unwrap_or_default(),
        Err(reply) => return Ok(reply),
    };
    let more = at.arguments.get(2).cloned().unwrap_or_default();
    if old.len() + more.len() > TEXT_MAX {
        return Ok(Reply::Error(
            "ERR string exceeds maximum allowed size (proto-max-bulk-len)".into(),
        ));
    }
    let new = [old, more].concat();
    put(&mut at, &new, deadline)?;
    Ok(Reply::Integer(count(new.len())))
}

/// Adds to a number; `by` is `None` if what the client sent is none.
pub(super) fn add(mut at: At<'_>, by: Option<i64>) -> Outcome {
    let Some(by) = by else {
        return Ok(NO_INTEGER);
    };
    let (old, deadline) = match unread(&mut at) {
        Ok(old) => old.unwrap_or((Bytes::from_static(b"0"), 0)),
        Err(reply) => return Ok(reply),
    };
    let Some(old) = number(&old) else {
        return Ok(NO_INTEGER);
    };
    let Some(new) = old.checked_add(by) else {
        return Ok(Reply::Error(
            "ERR increment or decrement would overflow".into(),
        ));
    };
    put(&mut at, new.to_string().as_bytes(), deadline)?;
    Ok(Reply::Integer(new))
}

/// A length as a reply says it.
pub(super) fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
