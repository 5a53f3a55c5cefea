//! `proxy_get_property` and `proxy_set_property`: Envoy's attributes by path, and what filters of a stream leave for others.
//!
//! A path's parts are separated by NUL; one at the end is tolerated. The host owns the names and encodings (integers, durations and
//! times 8 bytes little-endian, bool 1 byte, text as it is), the embedder the values ([`Attribute`]). What follows from the header maps
//! (`request.path`, `request.headers.x`) is derived here, and legal only when the map is. A whole map (`request.headers`) is always there on a
//! stream, empty when it is not legal. There is no `request.trailers`.
//!
//! Envoy's metadata (`metadata`, `xds.node`, `*_metadata`) and CEL's maps have no meaning here: NotFound, or SerializationFailure for a
//! bare map name, as in Envoy.

use std::collections::BTreeMap;

use wasmtime::Caller;

use crate::contexts::{RootContext, StreamContext};
use crate::embedder::{Attribute, HeaderMap, Value};
use crate::guest_memory::{bytes, give_bytes, open};
use crate::pairs::{Measure, Writer};
use crate::state::State;
use crate::status::{Answer, Status};

/// `proxy_get_property(path, **value, *length)`. NotFound: no such property, or not known in this phase.
/// SerializationFailure: the path names a map that has no encoding.
pub(super) fn get(
    caller: &mut Caller<'_, State>,
    path: u32,
    path_length: u32,
    pointer_at: u32,
    length_at: u32,
) -> Answer {
    let (memory, state) = open(caller)?;
    let path = bytes(memory, path, path_length)?;
    let mut value = state.scratch.take();
    value.clear();
    let found = find(state, path.strip_suffix(b"\0").unwrap_or(path), &mut value);
    let answer = match found {
        Ok(()) => give_bytes(caller, &value, pointer_at, length_at),
        Err(status) => Err(status.into()),
    };
    caller.data().scratch.replace(value);
    answer
}

/// `proxy_set_property(path, value)`: kept with the stream, readable as the same single-part path and as `filter_state\0wasm.<path>`; with
/// several parts it can be set but not read, as in Envoy. NotFound: not on a stream. InternalFailure: a bound is reached.
pub(super) fn set(
    caller: &mut Caller<'_, State>,
    path: u32,
    path_length: u32,
    value: u32,
    value_length: u32,
) -> Answer {
    let (memory, state) = open(caller)?;
    let path = bytes(memory, path, path_length)?;
    let value = bytes(memory, value, value_length)?;
    let context = state.active.stream.as_ref().ok_or(Status::NotFound)?;
    if context
        .shared
        .published
        .borrow_mut()
        .set_property(path, value)
    {
        Ok(())
    } else {
        Err(Status::InternalFailure.into())
    }
}

type Found = Result<(), Status>;

fn find(state: &State, path: &[u8], out: &mut Vec<u8>) -> Found {
    let root = state.active.root.as_deref();
    match path {
        b"plugin_name" => return text(root.map(|root| root.name.as_bytes()), out),
        b"plugin_root_id" => {
            return text(root.map(|root: &RootContext| root.root_id.as_bytes()), out);
        }
        b"plugin_vm_id" => return text(Some(state.vm_id.as_bytes()), out),
        _ => {}
    }
    let stream = state.active.stream.as_deref().ok_or(Status::NotFound)?;
    if let Some(attribute) = attribute(path) {
        return ask(stream, attribute, out);
    }
    let (first, rest) = match path.iter().position(|byte| *byte == 0) {
        Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..)),
        None => (path, None),
    };
    match (first, rest) {
        (b"request", Some(rest)) => request(stream, rest, out),
        (b"response", Some(rest)) => response(stream, rest, out),
        (b"filter_state", Some(key)) => text(stream.shared.published.borrow().state(key), out),
        (
            b"request"
            | b"response"
            | b"source"
            | b"destination"
            | b"connection"
            | b"upstream"
            | b"xds"
            | b"filter_state"
            | b"upstream_filter_state",
            None,
        ) => Err(Status::SerializationFailure),
        (key, None) => text(stream.shared.published.borrow().property(key), out),
        _ => Err(Status::NotFound),
    }
}

fn text(value: Option<&[u8]>, out: &mut Vec<u8>) -> Found {
    out.extend_from_slice(value.ok_or(Status::NotFound)?);
    Ok(())
}

/// The names of what the embedder knows (Envoy's attributes; `connection_id` is the older name).
fn attribute(path: &[u8]) -> Option<Attribute> {
    Some(match path {
        b"source\0address" => Attribute::SourceAddress,
        b"source\0port" => Attribute::SourcePort,
        b"destination\0address" => Attribute::DestinationAddress,
        b"destination\0port" => Attribute::DestinationPort,
        b"connection\0id" | b"connection_id" => Attribute::ConnectionId,
        b"connection\0mtls" => Attribute::ConnectionMtls,
        b"connection\0tls_version" => Attribute::TlsVersion,
        b"connection\0requested_server_name" => Attribute::RequestedServerName,
        b"connection\0termination_details" => Attribute::TerminationDetails,
        b"upstream\0address" => Attribute::UpstreamAddress,
        b"upstream\0port" => Attribute::UpstreamPort,
        b"upstream\0local_address" => Attribute::UpstreamLocalAddress,
        b"upstream\0num_endpoints" => Attribute::UpstreamNumEndpoints,
        b"upstream\0request_attempt_count" => Attribute::UpstreamRequestAttemptCount,
        b"upstream\0transport_failure_reason" => Attribute::UpstreamTransportFailureReason,
        b"upstream\0cx_pool_ready_duration" => Attribute::UpstreamPoolReadyDuration,
        b"request\0protocol" => Attribute::RequestProtocol,
        b"request\0time" => Attribute::RequestTime,
        b"request\0duration" => Attribute::RequestDuration,
        b"request\0size" => Attribute::RequestSize,
        b"request\0total_size" => Attribute::RequestTotalSize,
        b"response\0code" => Attribute::ResponseCode,
        b"response\0code_details" => Attribute::ResponseCodeDetails,
        b"response\0flags" => Attribute::ResponseFlags,
        b"response\0size" => Attribute::ResponseSize,
        b"response\0total_size" => Attribute::ResponseTotalSize,
        b"response\0backend_latency" => Attribute::ResponseBackendLatency,
        b"xds\0cluster_name" => Attribute::ClusterName,
        b"xds\0route_name" => Attribute::RouteName,
        b"xds\0listener_direction" => Attribute::ListenerDirection,
        _ => return None,
    })
}

fn ask(stream: &StreamContext, attribute: Attribute, out: &mut Vec<u8>) -> Found {
    if stream
        .shared
        .attribute(attribute, &mut |value| encode(value, out))
    {
        Ok(())
    } else {
        Err(Status::NotFound)
    }
}

fn encode(value: Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Bytes(bytes) => out.extend_from_slice(bytes),
        Value::Int(number) | Value::TimestampNanos(number) => {
            out.extend_from_slice(&number.to_le_bytes())
        }
        Value::Uint(number) => out.extend_from_slice(&number.to_le_bytes()),
        Value::Bool(yes) => out.push(u8::from(yes)),
        Value::Double(number) => out.extend_from_slice(&number.to_le_bytes()),
        Value::Duration(duration) => {
            let nanoseconds = i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
            out.extend_from_slice(&nanoseconds.to_le_bytes());
        }
    }
}

/// `request\0…` that follows from the request's headers (Envoy `expr/context.cc`).
fn request(stream: &StreamContext, rest: &[u8], out: &mut Vec<u8>) -> Found {
    let headers = HeaderMap::RequestHeaders;
    match rest {
        b"path" => first(stream, headers, b":path", out),
        b"url_path" => {
            first(stream, headers, b":path", out)?;
            let end = out
                .iter()
                .position(|byte| matches!(byte, b'?' | b'#'))
                .unwrap_or(out.len());
            out.truncate(end);
            Ok(())
        }
        b"query" => {
            first(stream, headers, b":path", out)?;
            let end = out
                .iter()
                .position(|byte| *byte == b'#')
                .unwrap_or(out.len());
            out.truncate(end);
            let start = out
                .iter()
                .position(|byte| *byte == b'?')
                .map_or(out.len(), |at| at + 1);
            out.drain(..start);
            Ok(())
        }
        b"host" => first(stream, headers, b":authority", out),
        b"method" => first(stream, headers, b":method", out),
        b"scheme" => first(stream, headers, b":scheme", out),
        b"useragent" => first(stream, headers, b"user-agent", out),
        b"referer" => first(stream, headers, b"referer", out),
        b"id" => match ask(stream, Attribute::RequestId, out) {
            Ok(()) => Ok(()),
            Err(_) => first(stream, headers, b"x-request-id", out),
        },
        _ => field(stream, rest, &[(b"headers", headers)], out),
    }
}

fn response(stream: &StreamContext, rest: &[u8], out: &mut Vec<u8>) -> Found {
    field(
        stream,
        rest,
        &[
            (b"headers", HeaderMap::ResponseHeaders),
            (b"trailers", HeaderMap::ResponseTrailers),
        ],
        out,
    )
}

/// `headers` and `trailers`: the whole map as pairs, or all values of one name joined with commas.
fn field(
    stream: &StreamContext,
    rest: &[u8],
    maps: &[(&[u8], HeaderMap)],
    out: &mut Vec<u8>,
) -> Found {
    for (name, map) in maps {
        let Some(rest) = rest.strip_prefix(*name) else {
            continue;
        };
        return match rest.split_first() {
            None => whole(stream, *map, out),
            Some((0, wanted)) => joined(stream, *map, wanted, out),
            Some(_) => Err(Status::NotFound),
        };
    }
    Err(Status::NotFound)
}

fn first(stream: &StreamContext, map: HeaderMap, name: &[u8], out: &mut Vec<u8>) -> Found {
    let http = stream
        .shared
        .http()
        .filter(|_| stream.map_readable(map))
        .ok_or(Status::NotFound)?;
    let mut found = false;
    http.value(map, name, &mut |value| {
        if !found {
            found = true;
            out.extend_from_slice(value);
        }
    });
    if found { Ok(()) } else { Err(Status::NotFound) }
}

fn joined(stream: &StreamContext, map: HeaderMap, name: &[u8], out: &mut Vec<u8>) -> Found {
    let http = stream
        .shared
        .http()
        .filter(|_| stream.map_readable(map))
        .ok_or(Status::NotFound)?;
    let name = if name.eq_ignore_ascii_case(b"host") {
        b":authority"
    } else {
        name
    };
    let mut found = false;
    http.pairs(map, &mut |key, value| {
        if key.eq_ignore_ascii_case(name) {
            if found {
                out.push(b',');
            }
            found = true;
            out.extend_from_slice(value);
        }
    });
    if found { Ok(()) } else { Err(Status::NotFound) }
}

/// All names of a map, each once, its values joined with commas. Unlike what `proxy_get_header_map_pairs` answers, no pairs are four
/// bytes here: their number.
fn whole(stream: &StreamContext, map: HeaderMap, out: &mut Vec<u8>) -> Found {
    let mut fields: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    if let Some(http) = stream.shared.http().filter(|_| stream.map_readable(map)) {
        http.pairs(map, &mut |name, value| match fields.get_mut(name) {
            Some(joined) => {
                joined.push(b',');
                joined.extend_from_slice(value);
            }
            None => {
                fields.insert(name.to_vec(), value.to_vec());
            }
        });
    }
    if fields.is_empty() {
        out.extend_from_slice(&0_u32.to_le_bytes());
        return Ok(());
    }
    let mut measure = Measure::default();
    for (name, value) in &fields {
        measure.add(name, value);
    }
    out.resize(measure.encoded(), 0);
    let mut writer = Writer::new(out, measure).ok_or(Status::SerializationFailure)?;
    for (name, value) in &fields {
        writer.add(name, value);
    }
    if writer.complete() {
        Ok(())
    } else {
        Err(Status::SerializationFailure)
    }
}
