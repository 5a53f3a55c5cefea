//! Foreign functions: those of Envoy that this host knows too, those it does not, and those nobody knows.

use super::super::case::Case;
use super::super::client::Request;
use super::super::hostcalls::{foreign, foreign_without_result, property};
use super::super::program::{Call, Phase, Program, Show};

/// `SetEnvoyFilterStateArguments`: 1 path, 2 value, 3 span.
fn filter_state(path: &str, value: &str, span: u8) -> Call {
    let mut bytes = Vec::new();
    for (tag, text) in [(0x0a, path), (0x12, value)] {
        if !text.is_empty() {
            bytes.extend([tag, u8::try_from(text.len()).expect("a short text")]);
            bytes.extend(text.as_bytes());
        }
    }
    if span > 0 {
        bytes.extend([0x18, span]);
    }
    foreign("set_envoy_filter_state", bytes)
        .labelled(format!("set_envoy_filter_state({path}, {value}, {span})"))
}

/// zlib's form of "hello, hello, hello".
const HELLO: [u8; 17] = [
    0x78, 0x9c, 0xcb, 0x48, 0xcd, 0xc9, 0xc9, 0xd7, 0x51, 0xc8, 0x40, 0xa2, 0x00, 0x44, 0x28, 0x06,
    0xd5,
];

pub(crate) fn cases() -> Vec<Case> {
    let at_headers = |name: &str, calls: Vec<Call>| {
        Case::new(
            format!("foreign/{name}"),
            Request::get("/plain"),
            Program::new().at(Phase::RequestHeaders, calls),
        )
    };
    let original = "envoy.network.transport_socket.original_dst_address";
    vec![
        at_headers(
            "unknown",
            vec![
                foreign("nobody_knows", ""),
                foreign("nobody_knows", "arguments"),
                foreign("", ""),
                foreign_without_result("nobody_knows", ""),
            ],
        ),
        at_headers(
            "clear route cache",
            vec![
                foreign("clear_route_cache", ""),
                foreign("clear_route_cache", "ignored"),
                foreign_without_result("clear_route_cache", ""),
            ],
        ),
        at_headers(
            "filter state",
            vec![
                filter_state(original, "127.0.0.1:80", 0),
                filter_state(original, "127.0.0.1:80", 1),
                filter_state(original, "127.0.0.1:80", 2),
                filter_state(original, "[::1]:80", 0),
                filter_state(original, "not an address", 0),
                filter_state(original, "127.0.0.1", 0),
                filter_state(original, "", 0),
                filter_state("nobody.knows", "value", 0),
                filter_state("", "", 0),
                foreign("set_envoy_filter_state", [0x0a, 200, 1]),
                foreign("set_envoy_filter_state", [0xff, 0xff]),
                property("filter_state\0envoy.network.transport_socket.original_dst_address")
                    .shown(Show::Presence),
            ],
        ),
        at_headers(
            "zlib",
            vec![
                foreign("compress", "hello, hello, hello").shown(Show::Presence),
                foreign("compress", "").shown(Show::Presence),
                foreign_without_result("compress", "hello"),
                foreign("uncompress", HELLO),
                foreign("uncompress", ""),
                foreign("uncompress", "not zlib"),
            ],
        ),
        at_headers(
            "of envoy only",
            vec![
                foreign("expr_create", "1 + 1"),
                foreign("expr_evaluate", [0, 0, 0, 0]),
                foreign("expr_delete", [0, 0, 0, 0]),
                foreign("declare_property", ""),
                foreign("verify_signature", ""),
                foreign("sign", ""),
            ],
        ),
    ]
}
