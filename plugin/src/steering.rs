//! From a decision to the host: changed headers, published properties, or an answer of our own.

use evenkeel_policy::client_ip::write_ip;
use evenkeel_policy::contract::{CLIENT_IP_PROPERTY, DECISION_PROPERTY, POOL_PROPERTY};
use evenkeel_policy::exchange::{Decided, Decision, Edit, Edits, Explain, Policy, Reply};

use crate::hostcalls::{self, Headers};

/// Seconds after which a client may ask again when no server is eligible.
const RETRY_AFTER: &str = "5";

/// What becomes of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Forwarded,
    Answered,
    /// Nothing was done: all servers are full, and there is a line to wait in; or it is not its turn yet under a limit.
    MustWait,
}

/// Carries a decision out. `text` is a buffer to write in.
pub(crate) fn carry_out(
    policy: &Policy,
    decided: &Decided,
    edits: &Edits,
    text: &mut Vec<u8>,
) -> Outcome {
    if let Decision::AllFull { pool } = decided.decision
        && policy
            .pools()
            .get(pool)
            .is_some_and(|pool| pool.queue().is_some())
    {
        return Outcome::MustWait;
    }
    if let Decision::Delayed { .. } = decided.decision {
        return Outcome::MustWait;
    }
    text.clear();
    if let Some(client) = decided.client {
        write_ip(client, text);
    }
    hostcalls::set_property(CLIENT_IP_PROPERTY.as_bytes(), text);
    if decided.explain == Explain::Asked {
        policy.explain(decided, text);
        hostcalls::set_property(DECISION_PROPERTY.as_bytes(), text);
    }
    let pool_name = |pool: usize| policy.pools().get(pool).map_or("", |pool| pool.name());
    match decided.decision {
        Decision::NoRoute => {
            answer(
                404,
                "no_route",
                "no route matches this request\n",
                &[],
                text,
            );
            Outcome::Answered
        }
        Decision::Answered(_) => {
            send(policy.reply(), text);
            Outcome::Answered
        }
        Decision::NoServer { pool } => {
            hostcalls::set_property(POOL_PROPERTY.as_bytes(), pool_name(pool).as_bytes());
            let body = "no server is available for this request\n";
            answer(
                503,
                "no_healthy_upstream",
                body,
                &[("retry-after", RETRY_AFTER)],
                text,
            );
            Outcome::Answered
        }
        // Dealt with above.
        Decision::Delayed { .. } => Outcome::MustWait,
        Decision::AllFull { pool } => {
            turn_away(pool_name(pool), TurnedAway::AllFull, text);
            Outcome::Answered
        }
        Decision::Steered { pool, .. } | Decision::Routed { pool } => {
            hostcalls::set_property(POOL_PROPERTY.as_bytes(), pool_name(pool).as_bytes());
            change(Headers::Request, edits);
            Outcome::Forwarded
        }
    }
}

/// Changes headers, in order.
pub(crate) fn change(of: Headers, edits: &Edits) {
    for edit in edits.iter() {
        match edit {
            Edit::Set { name, value } => hostcalls::replace_header(of, name, value),
            Edit::Add { name, value } => hostcalls::add_header(of, name, value),
            Edit::Remove { name } => hostcalls::remove_header(of, name),
        }
    }
}

/// Why a request is not served although there are servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TurnedAway {
    /// All have as many requests as they take, and nobody waits for them.
    AllFull,
    /// As many as may do so wait already.
    QueueFull,
    /// It has waited as long as one may.
    QueueTimeout,
}

/// Answers the request of the current context.
pub(crate) fn turn_away(pool: &str, reason: TurnedAway, text: &mut Vec<u8>) {
    let (details, body) = match reason {
        TurnedAway::AllFull => (
            "max_conns",
            "all servers have as many requests as they take\n",
        ),
        TurnedAway::QueueFull => (
            "queue_full",
            "all servers are busy, and no more requests may wait\n",
        ),
        TurnedAway::QueueTimeout => (
            "queue_timeout",
            "all servers were busy for as long as a request may wait\n",
        ),
    };
    hostcalls::set_property(POOL_PROPERTY.as_bytes(), pool.as_bytes());
    answer(503, details, body, &[("retry-after", RETRY_AFTER)], text);
}

/// Answers a request that would have to wait for its turn where as many as may do so wait already.
pub(crate) fn too_many_wait(text: &mut Vec<u8>) {
    let body = "too many requests wait for their turn\n";
    let more = [("retry-after", RETRY_AFTER)];
    answer(429, "rate_limited", body, &more, text);
}

/// A short answer that says why, in its body, in a header and in the host's details.
fn answer(status: u16, why: &str, body: &str, more: &[(&str, &str)], text: &mut Vec<u8>) {
    let named = [("content-type", "text/plain"), ("x-evenkeel-error", why)];
    let headers = named.iter().chain(more);
    let headers = headers.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    encode(headers, text);
    hostcalls::send_local_response(u32::from(status), why.as_bytes(), text, body.as_bytes());
}

/// An answer of the policy's.
fn send(reply: &Reply, text: &mut Vec<u8>) {
    let headers = reply.headers.iter();
    let headers = headers.map(|(name, value)| (name.as_slice(), value.as_slice()));
    encode(headers, text);
    let (status, why) = (u32::from(reply.status), reply.why.as_bytes());
    hostcalls::send_local_response(status, why, text, &reply.body);
}

/// Writes pairs in the ABI's encoding.
fn encode<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone, text: &mut Vec<u8>) {
    let size = |size: usize| u32::try_from(size).unwrap_or(0).to_le_bytes();
    text.clear();
    text.extend(size(pairs.clone().count()));
    for (name, value) in pairs.clone() {
        text.extend(size(name.len()));
        text.extend(size(value.len()));
    }
    for (name, value) in pairs {
        text.extend_from_slice(name);
        text.push(0);
        text.extend_from_slice(value);
        text.push(0);
    }
}
