//! Every host function the probe can call, as one expression each.

use super::origin;
use super::program::{Argument, Call, Show};

/// The maps of the ABI.
pub(crate) const REQUEST_HEADERS: u32 = 0;
pub(crate) const REQUEST_TRAILERS: u32 = 1;
pub(crate) const RESPONSE_HEADERS: u32 = 2;
pub(crate) const RESPONSE_TRAILERS: u32 = 3;
pub(crate) const CALL_HEADERS: u32 = 6;
pub(crate) const CALL_TRAILERS: u32 = 7;
/// The buffers of the ABI.
pub(crate) const REQUEST_BODY: u32 = 0;
pub(crate) const RESPONSE_BODY: u32 = 1;
pub(crate) const CALL_BODY: u32 = 4;
pub(crate) const VM_CONFIGURATION: u32 = 6;
pub(crate) const PLUGIN_CONFIGURATION: u32 = 7;

pub(crate) fn number(value: u32) -> Argument {
    Argument::Number(value)
}

pub(crate) fn text(bytes: impl AsRef<[u8]>) -> Argument {
    Argument::Text(bytes.as_ref().to_vec())
}

/// Any call, with the label it has in the trace.
pub(crate) fn call(
    function: u8,
    label: impl Into<String>,
    arguments: impl Into<Vec<Argument>>,
) -> Call {
    Call {
        function,
        label: label.into(),
        arguments: arguments.into(),
        show: Show::Exact,
    }
}

fn quoted(bytes: impl AsRef<[u8]>) -> String {
    format!("{:?}", String::from_utf8_lossy(bytes.as_ref()))
}

pub(crate) fn log(level: u32, message: &str) -> Call {
    call(1, format!("log({level})"), [number(level), text(message)])
}

pub(crate) fn log_level() -> Call {
    call(2, "log_level", [Argument::Cell])
}

pub(crate) fn time() -> Call {
    call(3, "time", [Argument::Cell]).shown(Show::Presence)
}

pub(crate) fn tick_period(milliseconds: u32) -> Call {
    call(
        4,
        format!("tick_period({milliseconds})"),
        [number(milliseconds)],
    )
}

pub(crate) fn buffer(which: u32, start: u32, max: u32) -> Call {
    call(
        5,
        format!("buffer({which}, {start}, {max})"),
        [number(which), number(start), number(max), Argument::Result],
    )
}

pub(crate) fn set_buffer(which: u32, start: u32, size: u32, data: impl AsRef<[u8]>) -> Call {
    let label = format!("set_buffer({which}, {start}, {size}, {})", quoted(&data));
    call(
        6,
        label,
        [number(which), number(start), number(size), text(data)],
    )
}

pub(crate) fn buffer_status(which: u32) -> Call {
    call(
        7,
        format!("buffer_status({which})"),
        [number(which), Argument::Cell, Argument::Cell],
    )
}

pub(crate) fn map_size(map: u32) -> Call {
    call(8, format!("map_size({map})"), [number(map), Argument::Cell]).shown(Show::Presence)
}

pub(crate) fn pairs(map: u32) -> Call {
    call(9, format!("pairs({map})"), [number(map), Argument::Result]).shown(Show::Pairs)
}

pub(crate) fn set_pairs(map: u32, pairs: &[(&str, &str)]) -> Call {
    call(
        10,
        format!("set_pairs({map}, {pairs:?})"),
        [number(map), text(encode_pairs(pairs))],
    )
}

/// `set_header_map_pairs` with bytes that need not be pairs.
pub(crate) fn set_raw_pairs(map: u32, bytes: &[u8]) -> Call {
    call(
        10,
        format!("set_raw_pairs({map}, {bytes:02x?})"),
        [number(map), text(bytes)],
    )
}

pub(crate) fn get(map: u32, name: &str) -> Call {
    call(
        11,
        format!("get({map}, {name})"),
        [number(map), text(name), Argument::Result],
    )
}

pub(crate) fn replace(map: u32, name: &str, value: &str) -> Call {
    call(
        12,
        format!("replace({map}, {name}, {value})"),
        [number(map), text(name), text(value)],
    )
}

pub(crate) fn add(map: u32, name: &str, value: &str) -> Call {
    call(
        13,
        format!("add({map}, {name}, {value})"),
        [number(map), text(name), text(value)],
    )
}

pub(crate) fn remove(map: u32, name: &str) -> Call {
    call(
        14,
        format!("remove({map}, {name})"),
        [number(map), text(name)],
    )
}

/// `path` with its parts joined by `.` where no part holds one, else by NUL.
pub(crate) fn property(path: &str) -> Call {
    let joined = if path.contains('\0') {
        path.to_owned()
    } else {
        path.replace('.', "\0")
    };
    call(
        15,
        format!("property({})", path.replace('\0', "|")),
        [text(joined), Argument::Result],
    )
}

pub(crate) fn set_property(path: &str, value: impl AsRef<[u8]>) -> Call {
    call(
        16,
        format!(
            "set_property({}, {})",
            path.replace('\0', "|"),
            quoted(&value)
        ),
        [text(path), text(value)],
    )
}

/// Value and number are compared; the numbers themselves count in the whole process, so they are shown as ids.
pub(crate) fn shared(key: &str) -> Call {
    call(
        17,
        format!("shared({key})"),
        [text(key), Argument::Result, Argument::Cell],
    )
    .shown(Show::Id)
}

pub(crate) fn set_shared(key: &str, value: &str, cas: Argument) -> Call {
    call(
        18,
        format!("set_shared({key}, {value}, {cas:?})"),
        [text(key), text(value), cas],
    )
}

pub(crate) fn register_queue(name: &str) -> Call {
    call(
        19,
        format!("register_queue({name})"),
        [text(name), Argument::Cell],
    )
    .shown(Show::Id)
}

pub(crate) fn resolve_queue(vm_id: &str, name: &str) -> Call {
    call(
        20,
        format!("resolve_queue({vm_id}, {name})"),
        [text(vm_id), text(name), Argument::Cell],
    )
    .shown(Show::Id)
}

pub(crate) fn enqueue(queue: Argument, value: &str) -> Call {
    call(
        21,
        format!("enqueue({queue:?}, {value})"),
        [queue, text(value)],
    )
}

pub(crate) fn dequeue(queue: Argument) -> Call {
    call(22, format!("dequeue({queue:?})"), [queue, Argument::Result])
}

pub(crate) fn continue_stream(which: u32) -> Call {
    call(23, format!("continue_stream({which})"), [number(which)])
}

pub(crate) fn close_stream(which: u32) -> Call {
    call(24, format!("close_stream({which})"), [number(which)])
}

pub(crate) fn local_response(
    status: u32,
    details: &str,
    body: &str,
    headers: &[(&str, &str)],
) -> Call {
    let arguments = [
        number(status),
        text(details),
        text(body),
        text(encode_pairs(headers)),
        number(u32::MAX),
    ];
    call(
        25,
        format!("local_response({status}, {details}, {body}, {headers:?})"),
        arguments,
    )
}

pub(crate) fn http_call(
    upstream: &str,
    headers: &[(&str, &str)],
    body: &str,
    trailers: &[(&str, &str)],
    timeout_ms: u32,
) -> Call {
    // A pool's cluster is strict: a call names the server.
    let endpoint = match upstream {
        "alive" => origin::ALIVE.to_string(),
        "dead" => origin::DEAD.to_string(),
        _ => String::new(),
    };
    let mut steered = headers.to_vec();
    if !endpoint.is_empty() {
        steered.push(("x-gateway-destination-endpoint", &endpoint));
    }
    unsteered_call(upstream, &steered, body, trailers, timeout_ms).labelled(format!(
        "http_call({upstream}, {headers:?}, {body}, {trailers:?}, {timeout_ms})"
    ))
}

/// A call with just these headers.
pub(crate) fn unsteered_call(
    upstream: &str,
    headers: &[(&str, &str)],
    body: &str,
    trailers: &[(&str, &str)],
    timeout_ms: u32,
) -> Call {
    let arguments = [
        text(upstream),
        text(encode_pairs(headers)),
        text(body),
        text(encode_pairs(trailers)),
        number(timeout_ms),
        Argument::Cell,
    ];
    call(
        26,
        format!("unsteered_call({upstream}, {headers:?})"),
        arguments,
    )
    .shown(Show::Presence)
}

/// A GET that a server of the pool answers.
pub(crate) fn http_get(upstream: &str, path: &str, timeout_ms: u32) -> Call {
    http_call(
        upstream,
        &[
            (":method", "GET"),
            (":path", path),
            (":authority", "call.test"),
        ],
        "",
        &[],
        timeout_ms,
    )
}

pub(crate) fn grpc_call(upstream: &str) -> Call {
    let arguments = [
        text(upstream),
        text("service"),
        text("method"),
        text(""),
        text("message"),
        number(100),
        Argument::Cell,
    ];
    call(27, format!("grpc_call({upstream})"), arguments).shown(Show::Presence)
}

pub(crate) fn grpc_stream(upstream: &str) -> Call {
    let arguments = [
        text(upstream),
        text("service"),
        text("method"),
        text(""),
        Argument::Cell,
    ];
    call(28, format!("grpc_stream({upstream})"), arguments).shown(Show::Presence)
}

pub(crate) fn grpc_send(token: u32) -> Call {
    call(
        29,
        format!("grpc_send({token})"),
        [number(token), text("message"), number(1)],
    )
}

pub(crate) fn grpc_cancel(token: u32) -> Call {
    call(30, format!("grpc_cancel({token})"), [number(token)])
}

pub(crate) fn grpc_close(token: u32) -> Call {
    call(31, format!("grpc_close({token})"), [number(token)])
}

pub(crate) fn status() -> Call {
    call(32, "status", [Argument::Cell, Argument::Result])
}

pub(crate) fn effective_context(context: Argument) -> Call {
    call(33, format!("effective_context({context:?})"), [context])
}

pub(crate) fn done() -> Call {
    call(34, "done", [])
}

pub(crate) fn foreign(name: &str, arguments: impl AsRef<[u8]>) -> Call {
    let label = format!("foreign({name}, {})", quoted(&arguments));
    call(35, label, [text(name), text(arguments), Argument::Result])
}

/// A foreign function whose result nobody wants: both pointers null.
pub(crate) fn foreign_without_result(name: &str, arguments: impl AsRef<[u8]>) -> Call {
    let label = format!("foreign_without_result({name}, {})", quoted(&arguments));
    call(
        35,
        label,
        [text(name), text(arguments), number(0), number(0)],
    )
}

pub(crate) fn define_metric(kind: u32, name: &str) -> Call {
    call(
        36,
        format!("define_metric({kind}, {name})"),
        [number(kind), text(name), Argument::Cell],
    )
    .shown(Show::Presence)
}

pub(crate) fn metric(id: Argument) -> Call {
    call(37, format!("metric({id:?})"), [id, Argument::Cell])
}

pub(crate) fn record_metric(id: Argument, value: i64) -> Call {
    call(
        38,
        format!("record_metric({id:?}, {value})"),
        [id, Argument::Wide(value.cast_unsigned())],
    )
}

pub(crate) fn increment_metric(id: Argument, offset: i64) -> Call {
    call(
        39,
        format!("increment_metric({id:?}, {offset})"),
        [id, Argument::Wide(offset.cast_unsigned())],
    )
}

/// Header pairs as the ABI carries them: count, lengths, then names and values, each ended by NUL. No pairs, no bytes.
pub(crate) fn encode_pairs(pairs: &[(&str, &str)]) -> Vec<u8> {
    if pairs.is_empty() {
        return Vec::new();
    }
    let length = |value: usize| u32::try_from(value).expect("a short text").to_le_bytes();
    let mut bytes = length(pairs.len()).to_vec();
    for (name, value) in pairs {
        bytes.extend(length(name.len()));
        bytes.extend(length(value.len()));
    }
    for (name, value) in pairs {
        bytes.extend(name.as_bytes());
        bytes.push(0);
        bytes.extend(value.as_bytes());
        bytes.push(0);
    }
    bytes
}
