//! From a decision to the host: changed headers, published properties, or an answer of our own.

use evenkeel_policy::client_ip::write_ip;
use evenkeel_policy::contract::{CLIENT_IP_PROPERTY, DECISION_PROPERTY, POOL_PROPERTY};
use evenkeel_policy::exchange::{Decided, Decision, Edit, Edits, Explain, Policy};

use crate::hostcalls;

/// Seconds after which a client may ask again when no server is eligible.
const RETRY_AFTER: &str = "5";

/// What becomes of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Forwarded,
    Answered,
    /// Nothing was done: all servers are full, and there is a line to wait in.
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
        Decision::AllFull { pool } => {
            turn_away(pool_name(pool), TurnedAway::AllFull, text);
            Outcome::Answered
        }
        Decision::Steered { pool, .. } | Decision::Routed { pool } => {
            hostcalls::set_property(POOL_PROPERTY.as_bytes(), pool_name(pool).as_bytes());
            for edit in edits.iter() {
                match edit {
                    Edit::Set { name, value } => hostcalls::replace_request_header(name, value),
                    Edit::Remove { name } => hostcalls::remove_request_header(name),
                }
            }
            Outcome::Forwarded
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

/// A short answer that says why, in its body, in a header and in the host's details.
fn answer(status: u32, why: &str, body: &str, more: &[(&str, &str)], text: &mut Vec<u8>) {
    text.clear();
    let named = [("content-type", "text/plain"), ("x-evenkeel-error", why)];
    let headers = named.iter().chain(more);
    let size = |text: &str| u32::try_from(text.len()).unwrap_or(0).to_le_bytes();
    text.extend(
        u32::try_from(named.len() + more.len())
            .unwrap_or(0)
            .to_le_bytes(),
    );
    for (name, value) in headers.clone() {
        text.extend(size(name));
        text.extend(size(value));
    }
    for (name, value) in headers {
        text.extend(name.bytes().chain([0]).chain(value.bytes()).chain([0]));
    }
    hostcalls::send_local_response(status, why.as_bytes(), text, body.as_bytes());
}
