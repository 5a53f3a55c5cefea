//! Names and encodings of properties, what is readable when, and what filters leave for others.

use evenkeel_host::embedder::HeaderMap;

use crate::puppet::{Puppet, Step, call, puppet, put};

/// Reads a property in the next `callback`.
fn read(path: &[u8]) -> Vec<Step> {
    vec![
        put(0x800, [0; 8]),
        put(0x400, path),
        call(
            "proxy_get_property",
            &[0x400, path.len() as i64, 0x800, 0x804],
        ),
        Step::Show(0x804, 4),
        Step::ShowGiven(0x800, 0x804),
    ]
}

/// The value, or the status.
fn answers(puppet: &Puppet) -> Vec<Result<Vec<u8>, u32>> {
    let shown = puppet.strings.take_shown();
    puppet
        .strings
        .take_answers()
        .into_iter()
        .zip(shown.chunks(2))
        .map(|(status, shown)| {
            let length = u32::from_le_bytes(shown[0].clone().try_into().unwrap()) as usize;
            if status == 0 {
                Ok(if length == 0 {
                    Vec::new()
                } else {
                    shown[1][16..16 + length].to_vec()
                })
            } else {
                Err(status)
            }
        })
        .collect()
}

/// `ShowGiven` of nothing would look before address 0: only with a value.
fn read_in(callback: &'static str, paths: &[&[u8]]) -> Vec<Result<Vec<u8>, u32>> {
    let mut found = Vec::new();
    for path in paths {
        let puppet = puppet();
        let mut steps = read(path);
        // A pointer of 0 would be shown from -16: point at something.
        steps.insert(3, Step::Put(0x7F0, vec![0; 4]));
        puppet.strings.on(callback, steps);
        let (stream, mut filters) = puppet.running.stream();
        stream.put(
            HeaderMap::ResponseHeaders,
            &[(":status", "200"), ("set-cookie", "a"), ("set-cookie", "b")],
        );
        filters.request_headers(false);
        filters.response_headers(false);
        filters.finish();
        drop(filters);
        puppet.running.plugin.tick();
        if puppet.running.vm.failure().is_some() {
            // The value was empty: nothing was given, so showing it trapped.
            found.push(Ok(Vec::new()));
        } else {
            found.extend(answers(&puppet));
        }
    }
    found
}

#[test]
fn encodings_are_envoys() {
    let rows: &[(&[u8], &[u8])] = &[
        (b"source\0address", b"192.0.2.1:4711"),
        (b"source\0address\0", b"192.0.2.1:4711"),
        (b"source\0port", &4711_i64.to_le_bytes()),
        (b"connection\0id", &u64::MAX.to_le_bytes()),
        (b"connection_id", &u64::MAX.to_le_bytes()),
        (b"connection\0mtls", &[1]),
        (b"request\0time", &(-1_i64).to_le_bytes()),
        (b"request\0duration", &2_000_000_i64.to_le_bytes()),
        (b"request\0size", &0.5_f64.to_le_bytes()),
        (b"plugin_name", b"plugin"),
        (b"plugin_root_id", b"root"),
        (b"plugin_vm_id", b"test"),
        (b"request\0path", b"/path?a=1#f"),
        (b"request\0url_path", b"/path"),
        (b"request\0query", b"a=1"),
        (b"request\0host", b"example.test"),
        (b"request\0method", b"GET"),
        (b"request\0scheme", b"http"),
        (b"request\0headers\0cookie", b"a=1,b=2"),
        (b"request\0headers\0Host", b"example.test"),
    ];
    let paths: Vec<&[u8]> = rows.iter().map(|(path, _)| *path).collect();
    let expected: Vec<Result<Vec<u8>, u32>> =
        rows.iter().map(|(_, value)| Ok(value.to_vec())).collect();
    assert_eq!(read_in("request_headers", &paths), expected);
    // The same at the end: request headers are readable again.
    assert_eq!(read_in("log", &paths), expected);
}

#[test]
fn what_is_not_known_is_not_found_and_bare_maps_cannot_be_encoded() {
    let rows: &[(&[u8], u32)] = &[
        (b"upstream\0address", 1),
        (b"request\0referer", 1),
        (b"request\0useragent", 1),
        (b"request\0id", 1),
        (b"request\0headers\0absent", 1),
        (b"request\0headersx", 1),
        (b"response\0headers\0:status", 1),
        (b"source\0what", 1),
        (b"cluster_name", 1),
        (b"metadata", 1),
        (b"", 1),
        (b"filter_state", 3),
        (b"xds", 3),
        (b"request", 3),
        (b"source", 3),
    ];
    let paths: Vec<&[u8]> = rows.iter().map(|(path, _)| *path).collect();
    let expected: Vec<Result<Vec<u8>, u32>> = rows.iter().map(|(_, status)| Err(*status)).collect();
    let found: Vec<_> = paths
        .iter()
        .map(|path| status_in("request_headers", path))
        .map(Err)
        .collect();
    assert_eq!(found, expected);
}

/// The status only.
fn status_in(callback: &'static str, path: &[u8]) -> u32 {
    let puppet = puppet();
    let steps = vec![
        put(0x400, path),
        call(
            "proxy_get_property",
            &[0x400, path.len() as i64, 0x800, 0x804],
        ),
    ];
    puppet.strings.on(callback, steps);
    let (stream, mut filters) = puppet.running.stream();
    stream.put(HeaderMap::ResponseHeaders, &[(":status", "200")]);
    filters.request_headers(false);
    filters.response_headers(false);
    filters.finish();
    puppet.running.plugin.tick();
    puppet.strings.take_answers()[0]
}

#[test]
fn maps_are_readable_in_their_phase_only() {
    let request: &[u8] = b"request\0path";
    let response: &[u8] = b"response\0headers\0set-cookie";
    assert_eq!(
        [
            status_in("response_headers", request),
            status_in("tick", request)
        ],
        [1, 1]
    );
    assert_eq!(
        read_in("response_headers", &[response]),
        [Ok(b"a,b".to_vec())]
    );
    assert_eq!(read_in("log", &[response]), [Ok(b"a,b".to_vec())]);
    assert_eq!(
        read_in("request_headers", &[b"connection\0requested_server_name"]),
        [Ok(Vec::new())]
    );
    let whole: &[u8] =
        b"\x02\0\0\0\x07\0\0\0\x03\0\0\0\x0A\0\0\0\x03\0\0\0:status\x00200\0set-cookie\0a,b\0";
    assert_eq!(
        read_in("log", &[b"response\0headers"]),
        [Ok(whole.to_vec())]
    );
    // A map that is not legal now is one without content.
    assert_eq!(
        read_in("request_headers", &[b"response\0headers"]),
        [Ok(vec![0; 4])]
    );
}

#[test]
fn on_a_root_context_only_the_plugin_is_known() {
    assert_eq!(
        read_in("tick", &[b"plugin_root_id"]),
        [Ok(b"root".to_vec())]
    );
    assert_eq!(
        [
            status_in("tick", b"source\0address"),
            status_in("tick", b"filter_state")
        ],
        [1, 1]
    );
}

#[test]
fn what_a_filter_sets_others_read() {
    let puppet = puppet();
    let (_, mut filters) = puppet.running.stream();
    let set = |key: &'static str, value: &'static str| {
        vec![
            put(0x400, key),
            put(0x440, value),
            call(
                "proxy_set_property",
                &[0x400, key.len() as i64, 0x440, value.len() as i64],
            ),
        ]
    };
    puppet.strings.on(
        "request_headers",
        [
            set("evenkeel.client_ip", "192.0.2.9"),
            set("a\0b", "unreadable"),
        ]
        .concat(),
    );
    filters.request_headers(true);
    puppet.strings.take_answers();
    let get = |path: &'static [u8]| {
        vec![
            put(0x400, path),
            call(
                "proxy_get_property",
                &[0x400, path.len() as i64, 0x800, 0x804],
            ),
        ]
    };
    let steps = [
        get(b"evenkeel.client_ip"),
        vec![Step::ShowGiven(0x800, 0x804)],
        get(b"filter_state\0wasm.evenkeel.client_ip"),
        get(b"a\0b"),
        get(b"a"),
    ]
    .concat();
    puppet.strings.on("log", steps);
    let mut seen = Vec::new();
    assert!(filters.published("evenkeel.client_ip", &mut |value| {
        seen.extend_from_slice(value)
    }));
    assert!(!filters.published("absent", &mut |_| ()));
    filters.finish();
    assert_eq!(seen, b"192.0.2.9");
    assert_eq!(puppet.strings.take_answers(), [0, 0, 1, 1]);
    assert_eq!(&puppet.strings.take_shown()[0][16..25], b"192.0.2.9");
}

#[test]
fn filter_state_goes_to_the_embedder_and_can_be_read_back() {
    let puppet = puppet();
    let (stream, mut filters) = puppet.running.stream();
    let message = |value: &str| {
        [
            b"\x0A\x0Benvoy.known\x12".to_vec(),
            vec![value.len() as u8],
            value.as_bytes().to_vec(),
        ]
        .concat()
    };
    let set = |value: &str| {
        vec![
            put(0x400, "set_envoy_filter_state"),
            put(0x420, message(value)),
            call(
                "proxy_call_foreign_function",
                &[0x400, 22, 0x420, 15 + value.len() as i64, 0, 0],
            ),
        ]
    };
    let get = vec![
        put(0x400, b"filter_state\0envoy.known"),
        call("proxy_get_property", &[0x400, 24, 0x800, 0x804]),
    ];
    puppet
        .strings
        .on("request_headers", [set("good"), set("bad"), get].concat());
    filters.request_headers(true);
    assert_eq!(puppet.strings.take_answers(), [0, 2, 0]);
    assert_eq!(
        *stream.state.borrow(),
        [(b"envoy.known".to_vec(), b"good".to_vec())]
    );
}
