//! Lines of requests that never became an exchange: the keys and columns of the others, with what is not known left empty.

use std::time::Duration;

use crate::access_log::format::{TimeText, escaped, number};
use crate::http::attributes::protocol;
use crate::http::client::Client;
use crate::http::refused::Refused;

/// One JSON object a line.
pub(super) fn json(
    out: &mut Vec<u8>,
    client: &Client,
    refused: &Refused,
    wall: Duration,
    time: &TimeText,
) {
    out.extend_from_slice(b"{\"time\":\"");
    time.iso(out, wall);
    out.extend_from_slice(b"\",\"client_ip\":\"");
    out.extend_from_slice(client.ends().peer.ip().to_string().as_bytes());
    out.extend_from_slice(b"\",\"peer\":\"");
    out.extend_from_slice(client.ends().peer_text.as_bytes());
    let active = client.worker.active();
    if let Some(listener) = active.generation.config.listener_at(client.bind) {
        out.extend_from_slice(b"\",\"listener\":\"");
        out.extend_from_slice(listener.name.as_bytes());
    }
    out.extend_from_slice(b"\",\"method\":\"\",\"host\":\"\",\"path\":\"\",\"protocol\":\"");
    out.extend_from_slice(protocol(refused.version).as_bytes());
    out.extend_from_slice(b"\",\"status\":");
    number(out, u64::from(refused.status));
    out.extend_from_slice(b",\"bytes\":0,\"duration_ms\":");
    number(
        out,
        u64::try_from(refused.took.as_millis()).unwrap_or(u64::MAX),
    );
    out.extend_from_slice(b",\"attempts\":0,\"error\":\"");
    out.extend_from_slice(refused.code.as_bytes());
    out.extend_from_slice(b"\",\"details\":\"");
    escaped(out, refused.details.as_bytes());
    out.extend_from_slice(b"\"}\n");
}

/// Apache's combined log format: the request line is `-`, as Apache writes it for these.
pub(super) fn combined(
    out: &mut Vec<u8>,
    client: &Client,
    refused: &Refused,
    wall: Duration,
    time: &TimeText,
) {
    out.extend_from_slice(client.ends().peer.ip().to_string().as_bytes());
    out.extend_from_slice(b" - - [");
    time.common(out, wall);
    out.extend_from_slice(b"] \"-\" ");
    number(out, u64::from(refused.status));
    out.extend_from_slice(b" 0 \"-\" \"-\"\n");
}
