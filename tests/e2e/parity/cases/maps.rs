//! Header maps: every operation on every map in every phase, and the odd names and values.

use super::super::case::Case;
use super::super::client::Request;
use super::super::hostcalls::{
    CALL_HEADERS, CALL_TRAILERS, REQUEST_HEADERS, REQUEST_TRAILERS, RESPONSE_HEADERS,
    RESPONSE_TRAILERS, add, get, map_size, pairs, remove, replace, set_pairs, set_raw_pairs,
};
use super::super::program::{Call, Phase, Program, Step};
use super::in_every_phase;

/// The gRPC maps (4, 5) never have content here; 8 and the largest number name no map.
const MAPS: [u32; 10] = [
    REQUEST_HEADERS,
    REQUEST_TRAILERS,
    RESPONSE_HEADERS,
    RESPONSE_TRAILERS,
    4,
    5,
    CALL_HEADERS,
    CALL_TRAILERS,
    8,
    u32::MAX,
];

/// A name that is there in the full exchange.
fn present_in(map: u32) -> &'static str {
    match map {
        REQUEST_HEADERS => "x-p-one",
        REQUEST_TRAILERS => "x-trailer",
        RESPONSE_TRAILERS | CALL_TRAILERS => "x-end",
        _ => "content-type",
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let read = |map: u32| {
        [
            get(map, present_in(map)),
            get(map, "x-p-missing"),
            map_size(map),
            pairs(map),
        ]
    };
    let write = |map: u32| {
        [
            add(map, "x-p-added", "1"),
            add(map, "X-P-Added", "2"),
            replace(map, present_in(map), "replaced"),
            replace(map, "x-p-new", "new"),
            remove(map, "x-p-added"),
            remove(map, "x-p-missing"),
            get(map, present_in(map)),
            get(map, "x-p-new"),
            pairs(map),
        ]
    };
    let everywhere = |operations: &dyn Fn(u32) -> Vec<Call>| -> Vec<Step> {
        MAPS.into_iter()
            .flat_map(operations)
            .map(Step::from)
            .collect()
    };
    let mut cases = in_every_phase("maps/read", &everywhere(&|map| read(map).to_vec()));
    cases.extend(in_every_phase(
        "maps/write",
        &everywhere(&|map| write(map).to_vec()),
    ));
    cases.extend(in_every_phase(
        "maps/set",
        &everywhere(&|map| vec![set_whole(map), pairs(map)]),
    ));
    cases.extend([
        names_of_requests(),
        names_of_responses(),
        odd_names(),
        odd_values(),
        odd_pairs(),
        seen_by_the_origin(),
    ]);
    cases.push(empty_maps());
    cases
}

/// All pairs anew, with those an exchange cannot do without.
fn set_whole(map: u32) -> Call {
    match map {
        REQUEST_HEADERS => set_pairs(
            map,
            &[
                (":authority", "set.test"),
                (":method", "POST"),
                (":path", "/trailers"),
                (":scheme", "http"),
                ("transfer-encoding", "chunked"),
                ("x-forwarded-proto", "http"),
                ("x-p-set", "1"),
            ],
        ),
        RESPONSE_HEADERS | CALL_HEADERS => set_pairs(
            map,
            &[(":status", "202"), ("x-p-set", "1"), ("X-P-Set", "2")],
        ),
        _ => set_pairs(map, &[("x-p-set", "1")]),
    }
}

fn names_of_requests() -> Case {
    let names = [
        ":authority",
        "host",
        "HOST",
        "Host",
        ":path",
        ":method",
        ":METHOD",
        ":scheme",
        ":status",
        "x-p-many",
        "X-P-MANY",
        "x-p-empty",
        "",
        "x-p-on",
    ];
    let reads = names.into_iter().map(|name| get(REQUEST_HEADERS, name));
    let writes = [
        replace(REQUEST_HEADERS, "host", "replaced.test"),
        get(REQUEST_HEADERS, ":authority"),
        replace(REQUEST_HEADERS, ":authority", "again.test"),
        get(REQUEST_HEADERS, "host"),
        replace(REQUEST_HEADERS, ":path", "/echo?replaced"),
        get(REQUEST_HEADERS, ":path"),
        replace(REQUEST_HEADERS, ":PATH", "/echo?upper"),
        get(REQUEST_HEADERS, ":Path"),
        replace(REQUEST_HEADERS, "X-P-One", "upper"),
        replace(REQUEST_HEADERS, "x-p-many", "single"),
        add(REQUEST_HEADERS, "x-p-empty", ""),
        add(REQUEST_HEADERS, "cookie", "a=1"),
        add(REQUEST_HEADERS, "cookie", "b=2"),
        get(REQUEST_HEADERS, "cookie"),
        remove(REQUEST_HEADERS, "REFERER"),
        pairs(REQUEST_HEADERS),
    ];
    let program = Program::new().at(Phase::RequestHeaders, reads.chain(writes).map(Step::from));
    Case::new("maps/names of requests", Request::get("/echo"), program)
}

fn names_of_responses() -> Case {
    let program = Program::new().at(
        Phase::ResponseHeaders,
        [
            get(RESPONSE_HEADERS, ":status"),
            get(RESPONSE_HEADERS, ":STATUS"),
            replace(RESPONSE_HEADERS, ":STATUS", "206"),
            get(RESPONSE_HEADERS, "set-cookie"),
            get(RESPONSE_HEADERS, "X-ORIGIN"),
            get(RESPONSE_HEADERS, ":path"),
            get(RESPONSE_HEADERS, "host"),
            add(RESPONSE_HEADERS, "set-cookie", "c=3"),
            get(RESPONSE_HEADERS, "set-cookie"),
            pairs(RESPONSE_HEADERS),
            replace(RESPONSE_HEADERS, ":status", "203"),
            get(RESPONSE_HEADERS, ":status"),
            replace(RESPONSE_HEADERS, "set-cookie", "d=4"),
            remove(RESPONSE_HEADERS, "content-type"),
            add(RESPONSE_HEADERS, "x-p-empty", ""),
            pairs(RESPONSE_HEADERS),
        ],
    );
    Case::new("maps/names of responses", Request::get("/plain"), program)
}

fn odd_names() -> Case {
    let names = ["", " ", "x p", "x-p:", "x-p\u{e9}", "x-p\n", "x-p\0", "(x)"];
    let writes = names.into_iter().flat_map(|name| {
        [
            add(REQUEST_HEADERS, name, "v"),
            replace(REQUEST_HEADERS, name, "v"),
            get(REQUEST_HEADERS, name),
            remove(REQUEST_HEADERS, name),
        ]
    });
    Case::new(
        "maps/odd names",
        Request::get("/echo"),
        Program::new().at(Phase::RequestHeaders, writes.map(Step::from)),
    )
}

fn odd_values() -> Case {
    let values = [
        " spaces ",
        "\ttab\t",
        "caf\u{e9}",
        "a\nb",
        "a\r\nx-p-smuggled: 1",
        "a\0b",
        "\u{7f}",
    ];
    let writes = values.into_iter().flat_map(|value| {
        [
            add(REQUEST_HEADERS, "x-p-odd", value),
            get(REQUEST_HEADERS, "x-p-odd"),
            remove(REQUEST_HEADERS, "x-p-odd"),
        ]
    });
    Case::new(
        "maps/odd values",
        Request::get("/echo"),
        Program::new().at(Phase::RequestHeaders, writes.map(Step::from)),
    )
}

/// Bytes that are not pairs: the count, a length or an end is wrong.
fn odd_pairs() -> Case {
    let raw: [&[u8]; 9] = [
        &[0],
        &[0, 0, 0, 0],
        &[1, 0, 0, 0],
        &[1, 0, 0],
        &[1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, b'a', 0, b'b'],
        &[1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, b'a', b'b', b'c', b'd'],
        &[1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, b'a', 0, b'b', 0, b'c'],
        &[255, 255, 255, 255, 1, 0, 0, 0],
        &[1, 0, 0, 0, 255, 255, 255, 255, 1, 0, 0, 0, b'a', 0, b'b', 0],
    ];
    let steps = raw.into_iter().flat_map(|bytes| {
        [
            set_raw_pairs(RESPONSE_TRAILERS, bytes),
            pairs(RESPONSE_TRAILERS),
        ]
    });
    Case::new(
        "maps/odd pairs",
        Request::get("/trailers"),
        Program::new().at(Phase::ResponseTrailers, steps.map(Step::from)),
    )
}

/// What a filter changes is what the server gets, and what the client gets back.
fn seen_by_the_origin() -> Case {
    let program = Program::new()
        .at(
            Phase::RequestHeaders,
            [
                remove(REQUEST_HEADERS, "x-p-one"),
                add(REQUEST_HEADERS, "x-p-many", "c"),
                replace(REQUEST_HEADERS, "user-agent", "probe"),
            ],
        )
        .at(
            Phase::RequestTrailers,
            [
                add(REQUEST_TRAILERS, "x-p-more", "1"),
                replace(REQUEST_TRAILERS, "x-trailer", "three"),
            ],
        )
        .at(
            Phase::ResponseHeaders,
            [
                replace(RESPONSE_HEADERS, "x-origin", "b"),
                add(RESPONSE_HEADERS, "x-p-more", "1"),
            ],
        );
    Case::new(
        "maps/seen by the origin",
        Request::with_trailers("/echo"),
        program,
    )
}

fn empty_maps() -> Case {
    let program = Program::new().at(
        Phase::ResponseTrailers,
        [
            remove(RESPONSE_TRAILERS, "x-end"),
            pairs(RESPONSE_TRAILERS),
            map_size(RESPONSE_TRAILERS),
            set_pairs(RESPONSE_TRAILERS, &[]),
            pairs(RESPONSE_TRAILERS),
        ],
    );
    Case::new("maps/empty", Request::get("/trailers"), program)
}
