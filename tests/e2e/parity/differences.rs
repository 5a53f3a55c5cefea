//! Where the two hosts may differ, each with its reason; and the comparison that allows nothing else.

use std::fmt::Write as _;

/// A difference that is meant: in cases whose name begins with `cases`, lines that hold `line`.
#[derive(Debug)]
pub(crate) struct Difference {
    cases: &'static str,
    line: &'static str,
    #[expect(dead_code, reason = "told by Debug, to whoever reads the failure")]
    reason: &'static str,
}

const fn differs(cases: &'static str, line: &'static str, reason: &'static str) -> Difference {
    Difference {
        cases,
        line,
        reason,
    }
}

pub(crate) const DIFFERENCES: &[Difference] = &[
    // ---- what each proxy answers of its own ----
    differs(
        "",
        "client: 503",
        "each proxy words its own answers; ours say why, and a server that closed is a 502",
    ),
    differs(
        "",
        "client: 502",
        "each proxy words its own answers; ours say why, and a server that closed is a 502",
    ),
    differs(
        "order/server",
        "stream1 response_body(",
        "the length of such an answer",
    ),
    differs(
        "properties/of a refused connection",
        "property(response.",
        "the details of such an answer",
    ),
    differs(
        "properties/of a server that closes",
        "property(response.",
        "the details of such an answer, and of a response that breaks off",
    ),
    differs(
        "properties/of",
        "property(upstream.transport_failure_reason)",
        "the words are those of the network library",
    ),
    differs(
        "trap/",
        "client: ",
        "evenkeel lets a response that has begun go on without the filter; Envoy cuts it off",
    ),
    differs(
        "close",
        "client: ",
        "how much of a response that breaks off reaches the client is a matter of time",
    ),
    differs(
        "reply/response",
        "client: ",
        "how much of a response that breaks off reaches the client is a matter of time",
    ),
    differs(
        "shape/not modified with a body",
        "client: ",
        "Envoy sends a body with a 304, which the client takes for the next response",
    ),
    // ---- header maps ----
    differs(
        "maps/odd",
        "request_headers: ",
        "Envoy takes names and values that are no HTTP, also line ends, which smuggle headers",
    ),
    differs(
        "maps/odd pairs",
        "response_trailers: ",
        "Envoy takes pairs it cannot read for none and empties the map; we refuse them and keep it",
    ),
    differs(
        "maps/",
        "client: ",
        "trailers that the response did not announce are not sent (RFC 9110, 6.6.2)",
    ),
    // ---- properties that are Envoy's own ----
    differs(
        "properties/",
        "property(xds.",
        "names of Envoy's own configuration",
    ),
    differs(
        "properties/tick",
        "property(xds)",
        "names of Envoy's own configuration",
    ),
    differs(
        "properties/call_response",
        "property(xds)",
        "names of Envoy's own configuration",
    ),
    differs(
        "properties/",
        "property(metadata)",
        "dynamic metadata is Envoy's",
    ),
    differs(
        "properties/",
        "property(request.id)",
        "Envoy makes an id for each request, evenkeel none",
    ),
    differs(
        "properties/",
        "property(request.headers_bytes)",
        "new in Envoy 1.37, and of no use to a filter that steers",
    ),
    differs(
        "properties/",
        "property(response.grpc_status)",
        "Envoy makes one up from the HTTP status",
    ),
    differs(
        "properties/",
        "property(connection.peer_certificate_valid)",
        "client certificates are not served yet",
    ),
    differs(
        "properties/request_",
        "property(upstream.",
        "evenkeel reads a body when a server is there to take it",
    ),
    differs(
        "properties/",
        "property() ->",
        "the nameless property has no meaning",
    ),
    differs(
        "properties/set",
        "property(filter_state|wasm.probe|parts)",
        "Envoy cannot read a property of several parts back",
    ),
    // ---- calls that fail ----
    differs(
        "call/",
        ", [], 5000) -> 2",
        "a call that fails writes nothing here",
    ),
    differs(
        "call/no ",
        " -> 10 ",
        "a call that fails writes nothing here",
    ),
    differs(
        "foreign/",
        " -> 2 ",
        "a call that fails writes nothing here",
    ),
    differs(
        "foreign/",
        " -> 1 ",
        "a call that fails writes nothing here",
    ),
    differs(
        "foreign/",
        " -> 3 ",
        "a call that fails writes nothing here",
    ),
    differs(
        "foreign/filter state",
        "original_dst_address",
        "evenkeel steers HTTP by header only",
    ),
    differs(
        "foreign/of envoy only",
        "foreign(",
        "CEL, declared properties and signatures are Envoy's",
    ),
    differs(
        "pointers/",
        " -> 2 ",
        "a call that fails writes nothing here",
    ),
    differs(
        "pointers/",
        "_sizes_get with argument 1",
        "a call that fails writes nothing here",
    ),
    differs(
        "pointers/shared",
        "argument 2 ",
        "Envoy looks at the pointer only when it has something to write",
    ),
    differs(
        "pointers/resolve_queue",
        "argument 2 ",
        "Envoy looks at the pointer only when it has something to write",
    ),
    differs(
        "pointers/grpc",
        "grpc_",
        "gRPC calls are not served: InternalFailure",
    ),
    differs(
        "system/grpc",
        "grpc_",
        "gRPC calls are not served: InternalFailure",
    ),
    // ---- the rest ----
    differs(
        "metrics/kinds",
        "define_metric(1, probe_counter)",
        "Prometheus has one kind for a name",
    ),
    differs("metrics/kinds", "define_metric(0, )", "a metric has a name"),
    differs(
        "continue 0/request_headers",
        "",
        "Envoy's next filter never sees a request that is continued while it is not paused",
    ),
    differs(
        "continue 1/response_headers",
        "client: ",
        "Envoy mangles a response that is continued while it is not paused",
    ),
    differs(
        "contexts/effective",
        "effective_context(Number(0))",
        "context 0 is Envoy's own of the VM; here it is none",
    ),
    differs(
        "",
        "status -> 0 ",
        "Envoy keeps the status of the last failed call for ever, without its message; here it ends with its callback",
    ),
    differs(
        "reply/response_headers",
        "property(response.headers.x-p-reply)",
        "Envoy's properties still show the response that was replaced",
    ),
    differs(
        "paused response/reply",
        "property(response.headers.x-p-reply)",
        "Envoy's properties still show the response that was replaced",
    ),
    differs(
        "twice/in both directions",
        "property(response.headers.x-p-reply)",
        "Envoy's properties still show the response that was replaced",
    ),
    differs(
        "paused/reply, then continue",
        "property(upstream.address)",
        "Envoy begins a request that is answered in the same callback",
    ),
    differs(
        "paused/continue, then reply",
        "property(upstream.address)",
        "Envoy begins a request that is answered in the same callback",
    ),
    differs(
        "buffers/",
        "buffer(5, ",
        "there is no gRPC message; BadArgument would do too",
    ),
    differs(
        "buffers/",
        "buffer_status(5)",
        "there is no gRPC message; BadArgument would do too",
    ),
    differs(
        "properties/of a refused connection",
        "stream1 response_body(",
        "the length of such an answer",
    ),
    differs(
        "properties/of a server that closes",
        "stream1 response_body(",
        "the length of such an answer",
    ),
    differs(
        "paused/",
        "stream1 request_body(",
        "Envoy begins a request that is answered in the same callback",
    ),
    differs(
        "reply/response_body",
        "property(response.code_details)",
        "a reply that comes after the response's head is none: the stream breaks off",
    ),
    differs(
        "reply/response_trailers",
        "property(response.code_details)",
        "a reply that comes after the response's head is none: the stream breaks off",
    ),
];

/// Cases that kill Envoy 1.40 (a segmentation fault): there is nothing to be equal to. Here they run on evenkeel only, which must
/// survive them and end the stream.
pub(crate) const ENVOY_DIES: &[&str] = &[
    "continue 1/request_headers",
    "continue 1/request_body",
    "continue 1/request_trailers",
    "continue 1/response_trailers",
    "close 0/response_trailers",
    "close 1/response_trailers",
    "close 0/log",
    "close 1/log",
    "close 0/done",
    "close 1/done",
    "reply/log",
    "reply/done",
    "twice/reply, then close",
    "twice/close, then reply",
    "paused/continue the other way, then this",
];

/// Statuses of Envoy's that the Rust SDK's enumeration does not have: a guest built with it must never see them. Ours for theirs.
const STATUSES: [(&str, &str); 2] = [("-> 6", "-> 2"), ("-> 12", "-> 10")];

/// The differences of one case that no entry allows, as text; marks the entries that allowed one.
pub(crate) fn unexpected(
    case: &str,
    envoy: &[String],
    evenkeel: &[String],
    used: &mut [bool],
) -> String {
    let envoy: Vec<String> = envoy.iter().map(|line| translate_status(line)).collect();
    let mut text = String::new();
    for (side, line) in unmatched(&envoy, evenkeel) {
        let allowed = DIFFERENCES
            .iter()
            .position(|entry| case.starts_with(entry.cases) && line.contains(entry.line));
        match allowed.and_then(|place| used.get_mut(place)) {
            Some(used) => *used = true,
            None => {
                let _ = writeln!(text, "  {side} {line}");
            }
        }
    }
    text
}

fn translate_status(line: &str) -> String {
    for (theirs, ours) in STATUSES {
        let is_whole = |rest: &str| rest.is_empty() || rest.starts_with(' ');
        if let Some((before, after)) = line.split_once(theirs)
            && is_whole(after)
        {
            return format!("{before}{ours}{after}");
        }
    }
    line.to_owned()
}

/// The lines that are not in a longest common subsequence of both.
fn unmatched<'a>(envoy: &'a [String], evenkeel: &'a [String]) -> Vec<(&'static str, &'a str)> {
    let (rows, columns) = (envoy.len(), evenkeel.len());
    // common[i][j]: the length of the longest common subsequence of what is left from i and from j on.
    let mut common = vec![vec![0_usize; columns + 1]; rows + 1];
    for i in (0..rows).rev() {
        for j in (0..columns).rev() {
            common[i][j] = if envoy[i] == evenkeel[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut lines = Vec::new();
    while i < rows || j < columns {
        if i < rows && j < columns && envoy[i] == evenkeel[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == columns || (i < rows && common[i + 1][j] >= common[i][j + 1]) {
            lines.push(("envoy   ", envoy[i].as_str()));
            i += 1;
        } else {
            lines.push(("evenkeel", evenkeel[j].as_str()));
            j += 1;
        }
    }
    lines
}
