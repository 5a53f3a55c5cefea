//! Properties: every name of Envoy's that a filter can read, in every phase, and what `set_property` stores.

use super::super::case::Case;
use super::super::client::Request;
use super::super::hostcalls::{property, set_property};
use super::super::program::{Call, Phase, Program, Show, Step};
use super::in_every_phase;

/// Names whose value must be equal to the byte.
const EXACT: [&str; 54] = [
    "upstream.address",
    "upstream.port",
    "upstream.num_endpoints",
    "upstream.request_attempt_count",
    "upstream.transport_failure_reason",
    "upstream.server_name",
    "response.code",
    "response.code_details",
    "response.flags",
    "response.size",
    "response.grpc_status",
    "response.headers.x-origin",
    "response.headers.set-cookie",
    "response.headers.missing",
    "response.trailers.x-end",
    "request.path",
    "request.url_path",
    "request.query",
    "request.host",
    "request.method",
    "request.scheme",
    "request.useragent",
    "request.referer",
    "request.protocol",
    "request.size",
    "request.headers.x-p-one",
    "request.headers.X-P-One",
    "request.headers.x-p-many",
    "request.headers.x-p-empty",
    "request.headers.missing",
    "request.headers.host",
    "request.missing",
    "connection.mtls",
    "connection.peer_certificate_valid",
    "connection.tls_version",
    "connection.requested_server_name",
    "connection.subject_peer_certificate",
    "connection.termination_details",
    "connection.missing",
    "missing",
    "missing.part",
    "",
    "plugin_vm_id",
    "plugin_name",
    "plugin_root_id",
    "source.missing",
    "cluster_name",
    "route_name",
    "node",
    "listener_direction",
    "xds.listener_direction",
    "xds.cluster_name",
    "filter_state.missing",
    "metadata.filter_metadata.missing.key",
];

/// Names that only a whole subtree has.
const BARE: [&str; 9] = [
    "source",
    "destination",
    "connection",
    "request",
    "response",
    "upstream",
    "xds",
    "filter_state",
    "metadata",
];

/// Names of whole header maps.
const MAPS: [&str; 4] = [
    "request.headers",
    "request.trailers",
    "response.headers",
    "response.trailers",
];

/// Names whose value depends on the run.
const VARYING: [(&str, Show); 19] = [
    ("source.address", Show::Host),
    ("source.port", Show::Length),
    ("destination.address", Show::Host),
    ("destination.port", Show::Length),
    ("connection.id", Show::Length),
    ("connection_id", Show::Length),
    ("upstream.local_address", Show::Host),
    ("upstream.cx_pool_ready_duration", Show::Length),
    ("response.total_size", Show::Length),
    ("response.backend_latency", Show::Length),
    ("request.id", Show::Length),
    ("request.time", Show::Length),
    ("request.duration", Show::Length),
    ("request.total_size", Show::Length),
    ("request.headers_bytes", Show::Length),
    ("xds.route_name", Show::Presence),
    ("xds.virtual_host_name", Show::Presence),
    ("xds.filter_chain_name", Show::Presence),
    ("xds.node.id", Show::Presence),
];

fn all() -> Vec<Call> {
    let exact = EXACT.into_iter().map(property).chain(
        BARE.into_iter()
            .map(|name| property(name).shown(Show::Presence)),
    );
    let maps = MAPS
        .into_iter()
        .map(|name| property(name).shown(Show::Pairs));
    let varying = VARYING
        .into_iter()
        .map(|(name, show)| property(name).shown(show));
    exact.chain(maps).chain(varying).collect()
}

pub(crate) fn cases() -> Vec<Case> {
    let all: Vec<Step> = all().into_iter().map(Step::from).collect();
    let mut cases = in_every_phase("properties", &all);
    // At the end of other ways an exchange can go.
    let at_end = |name: &str, request: Request| {
        let program = Program::new()
            .at(Phase::ResponseHeaders, outcome())
            .at(Phase::Done, [latency()])
            .at(Phase::Log, outcome());
        Case::new(format!("properties/of {name}"), request, program)
    };
    let gone = Request {
        abort_after: Some(Phase::RequestHeaders),
        ..Request::get("/hang")
    };
    cases.extend([
        at_end("a get", Request::get("/plain?a=1&b=2")),
        at_end("a post", Request::post("/echo", "some body")),
        at_end(
            "a head",
            Request {
                method: "HEAD",
                ..Request::get("/plain")
            },
        ),
        at_end("no content", Request::get("/no-content")),
        at_end("an empty body", Request::get("/empty")),
        at_end("a slow answer", Request::get("/slow?100")),
        at_end("a refused connection", Request::get("/dead/plain")),
        at_end("a refused first server", Request::get("/mixed/plain")),
        at_end("a server that closes", Request::get("/reset")),
        at_end("a server that closes in its body", Request::get("/half")),
        at_end("a client gone", gone),
        at_end(
            "no route",
            Request {
                method: "PUT",
                ..Request::get("/plain")
            },
        ),
    ]);
    cases.extend(in_every_phase("properties/set", &published()));
    cases.push(kept_for_the_stream());
    cases
}

fn outcome() -> Vec<Step> {
    let names = [
        "request.path",
        "request.url_path",
        "request.query",
        "request.size",
        "request.protocol",
        "response.code",
        "response.code_details",
        "response.flags",
        "response.size",
        "upstream.address",
        "upstream.request_attempt_count",
        "upstream.transport_failure_reason",
        "xds.cluster_name",
    ];
    names
        .into_iter()
        .map(|name| property(name).into())
        .chain([latency()])
        .collect()
}

/// Known when the last of the response has come.
fn latency() -> Step {
    property("response.backend_latency")
        .shown(Show::Length)
        .into()
}

/// Written and read back: whole, through `filter_state`, with several parts, over a known name, empty.
fn published() -> Vec<Step> {
    vec![
        property("probe_key").into(),
        set_property("probe_key", "value").into(),
        property("probe_key").into(),
        property("filter_state\0wasm.probe_key").into(),
        property("wasm.probe_key\0")
            .labelled("property(wasm.probe_key, one part)")
            .into(),
        set_property("probe_key", "second").into(),
        property("probe_key").into(),
        set_property("probe.dotted", "dotted").into(),
        property("probe.dotted\0")
            .labelled("property(probe.dotted, one part and NUL)")
            .into(),
        set_property("probe\0parts", "parts").into(),
        property("probe\0parts").into(),
        property("filter_state\0wasm.probe\0parts").into(),
        property("probe").into(),
        set_property("probe_bytes", [0, 255, 0]).into(),
        property("probe_bytes").into(),
        set_property("probe_empty", "").into(),
        property("probe_empty").into(),
        set_property("", "nameless").into(),
        property("").into(),
        set_property("request\0path", "/forged").into(),
        property("request.path").into(),
        set_property("plugin_name", "forged").into(),
        property("plugin_name").into(),
    ]
}

/// What one phase stores, the later ones read.
fn kept_for_the_stream() -> Case {
    let program = Program::new()
        .at(Phase::RequestHeaders, [set_property("kept", "1")])
        .at(
            Phase::ResponseHeaders,
            [property("kept"), set_property("kept", "2")],
        )
        .at(Phase::Log, [property("kept")])
        .at(Phase::Done, [property("kept")]);
    Case::new(
        "properties/kept for the stream",
        Request::get("/plain"),
        program,
    )
}
