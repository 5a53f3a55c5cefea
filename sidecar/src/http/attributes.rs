//! What an exchange knows of itself, as filters ask for it.
//!
//! What is known in which phase follows Envoy: facts of the upstream only once there is one, facts of the response only once
//! it has a head.

use evenkeel_host::embedder::{Attribute, Value};
use http::Version;

use crate::http::exchange::{Details, Exchange};

/// Answers with the value if it is known now.
pub(crate) fn answer(
    exchange: &Exchange,
    attribute: Attribute,
    answer: &mut dyn FnMut(Value<'_>),
) -> bool {
    connection(exchange, attribute, answer)
        || upstream(exchange, attribute, answer)
        || message(exchange, attribute, answer)
}

fn connection(
    exchange: &Exchange,
    attribute: Attribute,
    answer: &mut dyn FnMut(Value<'_>),
) -> bool {
    let client = &exchange.client;
    match attribute {
        Attribute::SourceAddress => answer(Value::Bytes(client.ends().peer_text.as_bytes())),
        Attribute::SourcePort => answer(Value::Int(i64::from(client.ends().peer.port()))),
        Attribute::DestinationAddress => answer(Value::Bytes(client.ends().local_text.as_bytes())),
        Attribute::DestinationPort => answer(Value::Int(i64::from(client.ends().local.port()))),
        Attribute::ConnectionId => answer(Value::Uint(client.id)),
        Attribute::ConnectionMtls => answer(Value::Bool(
            client.tls.get().is_some_and(|tls| tls.is_mutual),
        )),
        Attribute::TlsVersion => match client.tls.get() {
            Some(tls) => answer(Value::Bytes(tls.version.as_bytes())),
            None => return false,
        },
        Attribute::RequestedServerName => {
            answer(Value::Bytes(
                client
                    .tls
                    .get()
                    .map_or(b"", |tls| tls.server_name.as_bytes()),
            ));
        }
        // Inbound.
        Attribute::ListenerDirection => answer(Value::Int(1)),
        _ => return false,
    }
    true
}

fn upstream(exchange: &Exchange, attribute: Attribute, answer: &mut dyn FnMut(Value<'_>)) -> bool {
    let facts = &exchange.facts;
    match attribute {
        Attribute::UpstreamAddress => match facts.upstream.get() {
            Some(address) => answer(Value::Bytes(address.to_string().as_bytes())),
            None => return false,
        },
        Attribute::UpstreamPort => match facts.upstream.get() {
            Some(address) => answer(Value::Int(i64::from(address.port()))),
            None => return false,
        },
        Attribute::UpstreamLocalAddress => match facts.upstream_local.get() {
            Some(address) => answer(Value::Bytes(address.to_string().as_bytes())),
            None => return false,
        },
        Attribute::UpstreamNumEndpoints => match pool(exchange) {
            Some(pool) => answer(Value::Uint(pool.roster().members().count() as u64)),
            None => return false,
        },
        Attribute::UpstreamRequestAttemptCount => {
            answer(Value::Uint(u64::from(facts.attempts.get())))
        }
        Attribute::UpstreamTransportFailureReason => {
            if facts.attempts.get() == 0 {
                return false;
            }
            answer(Value::Bytes(facts.transport_failure.borrow().as_bytes()));
        }
        Attribute::UpstreamPoolReadyDuration => match facts.ready_after.get() {
            Some(duration) => answer(Value::Duration(duration)),
            None => return false,
        },
        Attribute::ClusterName => match pool(exchange) {
            Some(pool) => answer(Value::Bytes(pool.name.as_bytes())),
            None => return false,
        },
        _ => return false,
    }
    true
}

fn pool(exchange: &Exchange) -> Option<&crate::generation::Pool> {
    exchange.active.generation.pools.get(exchange.pool.get()?)
}

fn message(exchange: &Exchange, attribute: Attribute, answer: &mut dyn FnMut(Value<'_>)) -> bool {
    let facts = &exchange.facts;
    match attribute {
        Attribute::RequestId => {
            let request = exchange.request.borrow();
            match request.headers.get("x-request-id") {
                Some(id) => answer(Value::Bytes(id.as_bytes())),
                None => return false,
            }
        }
        Attribute::RequestProtocol => answer(Value::Bytes(
            protocol(exchange.request.borrow().version).as_bytes(),
        )),
        Attribute::RequestTime => {
            let wall = exchange.worker().clock.wall(exchange.started);
            answer(Value::TimestampNanos(
                i64::try_from(wall.as_nanos()).unwrap_or(i64::MAX),
            ));
        }
        Attribute::RequestDuration => match facts.ended.get() {
            Some(ended) => answer(Value::Duration(
                ended.saturating_duration_since(exchange.started),
            )),
            None => return false,
        },
        Attribute::RequestSize | Attribute::RequestTotalSize => {
            answer(int(facts.request_bytes.get()))
        }
        Attribute::ResponseCode => match facts.status.get() {
            0 => return false,
            status => answer(Value::Int(i64::from(status))),
        },
        Attribute::ResponseCodeDetails => {
            let details = facts.details.borrow();
            if matches!(*details, Details::None) {
                return false;
            }
            answer(Value::Bytes(details.text().as_bytes()));
        }
        Attribute::ResponseFlags => answer(int(facts.flags.get())),
        Attribute::ResponseSize | Attribute::ResponseTotalSize => {
            answer(int(facts.response_bytes.get()))
        }
        Attribute::ResponseBackendLatency => match facts.backend_latency() {
            Some(latency) => answer(Value::Duration(latency)),
            None => return false,
        },
        _ => return false,
    }
    true
}

fn int(value: u64) -> Value<'static> {
    Value::Int(i64::try_from(value).unwrap_or(i64::MAX))
}

/// As Envoy and access logs write it.
pub(crate) fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}
