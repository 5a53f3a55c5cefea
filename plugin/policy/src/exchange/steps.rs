//! Steps of a decision: the client's address, limits, answers, the path that is sent, the headers that steer.

use std::net::IpAddr;

use super::action::Action;
use super::decision::{Answered, Surroundings};
use super::edits::Edits;
use super::hash_key::KeyFacts;
use super::noted::{Lines, Noted};
use super::reply::Reply;
use super::rewrite::{Rewrite, Rewritten};
use super::template::Values;
use crate::balance::Choices;
use crate::client_ip::{AddressHeader, RealIp};
use crate::contract::{
    MAX_RETRIES_HEADER, POOL_HEADER, RETRIABLE_STATUSES_HEADER, RETRY_ON_HEADER, STEERING_HEADER,
};
use crate::limits::{Admitted, Limit, ROUTE_LIMITS_MAX, Wanted};
use crate::random::Sequence;
use crate::routing::{Normal, PathFault, normalise};
use crate::upstream::Pool;

/// Answers as a route does that has no pool.
pub(super) fn answer(action: &Action, values: &Values<'_>, reply: &mut Reply) -> Answered {
    match action {
        Action::Redirect { status, location } => {
            reply.redirect(*status, location, values);
            Answered::Redirected
        }
        Action::Respond(respond) => {
            reply.respond(respond, values);
            Answered::Responded
        }
        Action::Deny { status } => {
            reply.error(*status, "denied", "this request is not allowed");
            Answered::Denied
        }
        // Not asked for these.
        Action::Pool { .. } => Answered::Denied,
    }
}

/// The target as a route rewrites it, in its normal form; `None`: it stays as it is.
pub(super) fn rewritten<'t>(
    rewrite: &Rewrite,
    path: &[u8],
    query: &[u8],
    (text, normal): (&'t mut Vec<u8>, &'t mut Vec<u8>),
) -> Result<Option<&'t [u8]>, PathFault> {
    if rewrite.apply(path, query, text) == Rewritten::Unchanged {
        return Ok(None);
    }
    Ok(Some(match normalise(text, normal)? {
        Normal::AsReceived => text,
        Normal::Written => normal,
    }))
}

/// Writes the keys of a request under its limits, and asks.
pub(super) fn admitted<'a, 'l, H>(
    limits: impl Iterator<Item = &'l Limit> + Clone,
    facts: &KeyFacts<'_, H>,
    keys: &mut Vec<u8>,
    random: &mut Sequence,
    surroundings: &mut impl Surroundings,
) -> Admitted
where
    H: Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
{
    keys.clear();
    let mut ends = Vec::with_capacity(ROUTE_LIMITS_MAX);
    for limit in limits.clone() {
        limit.key.write(facts, keys);
        ends.push(keys.len());
    }
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let wanted: Vec<Wanted<'_>> = limits
        .zip(starts.zip(&ends))
        .filter_map(|(limit, (start, end))| {
            let key = keys.get(start..*end)?;
            (!key.is_empty()).then_some(Wanted { limit, key })
        })
        .collect();
    surroundings.admit(&wanted, random)
}

/// The client's address, as a trusted peer tells it.
pub(super) fn client<'a, H>(real_ip: &RealIp, peer: IpAddr, noted: &Noted<'a>, pairs: &H) -> IpAddr
where
    H: DoubleEndedIterator<Item = (&'a [u8], &'a [u8])> + Clone,
{
    match (&real_ip.header, noted.forwarded_for) {
        (AddressHeader::ForwardedFor, Lines::None) => real_ip.client(peer, std::iter::empty()),
        (AddressHeader::ForwardedFor, Lines::One(line)) => {
            real_ip.client(peer, std::iter::once(line))
        }
        _ => {
            let name = real_ip.header.name();
            let lines = pairs.clone().filter(|(known, _)| *known == name);
            real_ip.client(peer, lines.map(|(_, value)| value))
        }
    }
}

/// The headers that name the pool, its servers (unless the host chooses them), and how to go on to the next.
pub(super) fn steer(pool: &Pool, choices: Option<&Choices>, method: &[u8], edits: &mut Edits) {
    match choices {
        Some(choices) => edits.set_with(STEERING_HEADER.as_bytes(), |out| {
            for (place, server) in choices.iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(pool.endpoint(server).as_bytes());
            }
        }),
        // What a client sent would steer.
        None => edits.remove(STEERING_HEADER.as_bytes()),
    }
    edits.set_with(POOL_HEADER.as_bytes(), |out| {
        out.extend_from_slice(pool.name().as_bytes());
    });
    // `reset` also covers a server that breaks off in the middle of its work, which is only harmless to repeat for methods that
    // may be repeated (RFC 9110 section 9.2.2).
    let retry_on = pool.retry_on();
    let repeatable = matches!(
        method,
        b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE"
    );
    let conditions = if repeatable {
        &retry_on.repeatable
    } else {
        &retry_on.unsent
    };
    edits.set_with(RETRY_ON_HEADER.as_bytes(), |out| {
        out.extend_from_slice(conditions.as_bytes());
    });
    if repeatable && !retry_on.statuses.is_empty() {
        let statuses = retry_on.statuses.as_bytes();
        edits.set_with(RETRIABLE_STATUSES_HEADER.as_bytes(), |out| {
            out.extend_from_slice(statuses);
        });
    }
    // At most ENDPOINTS_MAX - 1, one digit.
    let retries = match choices {
        Some(choices) => u8::try_from(choices.len().saturating_sub(1)).unwrap_or(0),
        None => pool.retries(),
    };
    let retries = retries.min(9);
    edits.set_with(MAX_RETRIES_HEADER.as_bytes(), |out| {
        out.push(b'0' + retries)
    });
}
