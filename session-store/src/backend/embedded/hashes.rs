//! Commands on hashes, as Redis 7 answers them (its `t_hash.c`): Magento keeps its sessions in them.
//!
//! A hash is written anew as a whole, in memory and in the log: a session's has five fields.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::strings::count;
use super::table::{Deadline, Value};
use super::{At, WRONG_TYPE, number};
use crate::backend::Failure;
use crate::resp::Reply;

type Outcome = Result<Reply, Failure>;
type Fields = BTreeMap<Bytes, Bytes>;

/// Fields of one hash. Over this a hash is no session, and each write of it would take long.
const FIELDS_MAX: usize = 4096;

/// What a command that sets fields says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// How many are new.
    Added,
    Ok,
}

/// The fields of the key, read; `None`: there is no such key.
fn fields<'t>(at: &'t mut At<'_>) -> Result<Option<&'t Fields>, Reply> {
    let key = at.arguments.get(1).map(AsRef::as_ref).unwrap_or_default();
    match at
        .table
        .read(at.now, at.database, key)
        .map(|entry| &entry.value)
    {
        None => Ok(None),
        Some(Value::Hash(fields)) => Ok(Some(fields)),
        Some(Value::Text(_)) => Err(WRONG_TYPE),
    }
}

/// A copy to change, with the key's deadline; it does not count as read.
fn copy(at: &mut At<'_>) -> Result<(Fields, Deadline), Reply> {
    let key = at.arguments.get(1).map(AsRef::as_ref).unwrap_or_default();
    match at
        .table
        .get(at.now, at.database, key)
        .map(|entry| (&entry.value, entry.deadline))
    {
        None => Ok((Fields::new(), 0)),
        Some((Value::Hash(fields), deadline)) => Ok((fields.clone(), deadline)),
        Some((Value::Text(_), _)) => Err(WRONG_TYPE),
    }
}

/// A hash without fields is no key.
fn put(at: &mut At<'_>, fields: Fields, deadline: Deadline) -> Result<(), Failure> {
    let key = at.arguments.get(1).map(AsRef::as_ref).unwrap_or_default();
    if fields.is_empty() {
        at.table.remove(at.now, at.database, key);
        return Ok(());
    }
    if fields.len() > FIELDS_MAX {
        return Err(Failure::Impossible(
            "a hash of more than 4096 fields is no session",
        ));
    }
    at.table
        .put(at.now, at.database, key, Value::Hash(fields), deadline)
}

fn told(value: Option<&Bytes>) -> Reply {
    value.cloned().map_or(Reply::Nil, Reply::Bulk)
}

/// One answer about the fields, whether there are any or not.
fn asked(mut at: At<'_>, answer: impl FnOnce(&Fields) -> Reply) -> Outcome {
    Ok(match fields(&mut at) {
        Ok(found) => answer(found.unwrap_or(&Fields::new())),
        Err(reply) => reply,
    })
}

pub(super) fn get(at: At<'_>) -> Outcome {
    let name = at.arguments.get(2).cloned().unwrap_or_default();
    asked(at, |fields| told(fields.get(&name)))
}

pub(super) fn get_many(at: At<'_>) -> Outcome {
    let names = at.arguments.get(2..).unwrap_or_default();
    asked(at, |fields| {
        Reply::Array(names.iter().map(|name| told(fields.get(name))).collect())
    })
}

pub(super) fn get_all(at: At<'_>) -> Outcome {
    asked(at, |fields| {
        let parts = fields.iter().flat_map(|(name, value)| [name, value]);
        Reply::Map(parts.cloned().map(Reply::Bulk).collect())
    })
}

pub(super) fn exists(at: At<'_>) -> Outcome {
    let name = at.arguments.get(2).cloned().unwrap_or_default();
    asked(at, |fields| {
        Reply::Integer(i64::from(fields.contains_key(&name)))
    })
}

pub(super) fn length(at: At<'_>) -> Outcome {
    asked(at, |fields| Reply::Integer(count(fields.len())))
}

pub(super) fn set(mut at: At<'_>, answer: Answer) -> Outcome {
    let pairs = at.arguments.get(2..).unwrap_or_default().chunks(2);
    if pairs.clone().any(|pair| pair.len() != 2) {
        let command = String::from_utf8_lossy(at.argument(0)).to_ascii_lowercase();
        return Ok(Reply::Error(
            format!("ERR wrong number of arguments for '{command}' command").into(),
        ));
    }
    let (mut fields, deadline) = match copy(&mut at) {
        Ok(copied) => copied,
        Err(reply) => return Ok(reply),
    };
    let before = fields.len();
    for pair in pairs {
        if let [name, value] = pair {
            fields.insert(owned(name), owned(value));
        }
    }
    let added = fields.len() - before;
    put(&mut at, fields, deadline)?;
    Ok(match answer {
        Answer::Added => Reply::Integer(count(added)),
        Answer::Ok => Reply::OK,
    })
}

pub(super) fn set_nx(mut at: At<'_>) -> Outcome {
    let (mut fields, deadline) = match copy(&mut at) {
        Ok(copied) => copied,
        Err(reply) => return Ok(reply),
    };
    let name = owned(at.argument(2));
    if fields.contains_key(&name) {
        return Ok(Reply::Integer(0));
    }
    fields.insert(name, owned(at.argument(3)));
    put(&mut at, fields, deadline)?;
    Ok(Reply::Integer(1))
}

pub(super) fn delete(mut at: At<'_>) -> Outcome {
    let (mut fields, deadline) = match copy(&mut at) {
        Ok(copied) => copied,
        Err(reply) => return Ok(reply),
    };
    let names = at.arguments.get(2..).unwrap_or_default();
    let gone = names
        .iter()
        .filter(|name| fields.remove(*name).is_some())
        .count();
    if gone > 0 {
        put(&mut at, fields, deadline)?;
    }
    Ok(Reply::Integer(count(gone)))
}

pub(super) fn add(mut at: At<'_>) -> Outcome {
    let Some(by) = number(at.argument(3)) else {
        return Ok(super::NO_INTEGER);
    };
    let (mut fields, deadline) = match copy(&mut at) {
        Ok(copied) => copied,
        Err(reply) => return Ok(reply),
    };
    let name = owned(at.argument(2));
    let Some(old) = fields.get(&name).map_or(Some(0), |value| number(value)) else {
        return Ok(Reply::Error("ERR hash value is not an integer".into()));
    };
    let Some(new) = old.checked_add(by) else {
        return Ok(Reply::Error(
            "ERR increment or decrement would overflow".into(),
        ));
    };
    fields.insert(name, new.to_string().into());
    put(&mut at, fields, deadline)?;
    Ok(Reply::Integer(new))
}

/// A copy: the argument is a slice of everything the client sent with it.
fn owned(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
