//! Pause, resume and held bodies, in both directions.

use evenkeel_host::embedder::HeaderMap;
use evenkeel_host::http_filters::{BODY_HELD_MAX, Chain, Event, HttpFilters, Verdict};

use crate::puppet::{Puppet, Step, call, puppet, put};
use crate::world::on_chain;

/// Does something for stream context `id` from a tick.
fn from_tick(puppet: &Puppet, id: i64, steps: Vec<Step>) -> Vec<u32> {
    puppet.strings.take_answers();
    let steps = [vec![call("proxy_set_effective_context", &[id])], steps].concat();
    puppet.strings.on("tick", steps);
    puppet.running.plugin.tick();
    puppet.strings.take_answers()
}

fn resume(puppet: &Puppet, id: i64, direction: i64) {
    assert_eq!(
        from_tick(
            puppet,
            id,
            vec![call("proxy_continue_stream", &[direction])]
        ),
        [0, 0]
    );
}

#[track_caller]
fn resumed(filters: &mut HttpFilters) -> Verdict {
    match filters.poll_event() {
        Some(Event::RequestResumed(verdict) | Event::ResponseResumed(verdict)) => verdict,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_paused_request_goes_on_by_an_event() {
    let puppet = puppet();
    let (stream, mut filters) = puppet.running.stream();
    puppet.strings.on("request_headers", vec![Step::Return(1)]);
    assert!(matches!(filters.request_headers(true), Verdict::Pause));
    assert!(filters.poll_event().is_none() && !stream.was_woken());
    resume(&puppet, 2, 0);
    assert!(stream.was_woken());
    assert!(matches!(resumed(&mut filters), Verdict::Continue));
    assert!(filters.poll_event().is_none());
    resume(&puppet, 2, 0);
    assert!(filters.poll_event().is_none(), "twice is harmless");
}

#[test]
fn request_headers_can_be_changed_until_the_resume() {
    let puppet = puppet();
    let (stream, mut filters) = puppet.running.stream();
    puppet.strings.on("request_headers", vec![Step::Return(1)]);
    filters.request_headers(true);
    let add = || call("proxy_add_header_map_value", &[0, 0x400, 6, 0x400, 6]);
    let answers = from_tick(
        &puppet,
        2,
        vec![
            put(0x400, "x-late"),
            add(),
            call("proxy_continue_stream", &[0]),
            add(),
        ],
    );
    assert_eq!(answers, [0, 0, 0, 2]);
    assert_eq!(
        stream.field(HeaderMap::RequestHeaders, "x-late").as_deref(),
        Some("x-late")
    );
}

#[test]
fn a_resume_inside_the_callback_is_no_pause() {
    let puppet = puppet();
    let (stream, mut filters) = puppet.running.stream();
    puppet.strings.on(
        "request_headers",
        vec![call("proxy_continue_stream", &[0]), Step::Return(1)],
    );
    assert!(matches!(filters.request_headers(true), Verdict::Continue));
    assert!(filters.poll_event().is_none() && !stream.was_woken());
}

#[test]
fn the_second_filter_waits_for_the_first() {
    let puppet = puppet();
    let second = puppet
        .running
        .vm
        .start_plugin("second", "second", b"")
        .unwrap();
    let chain = Chain::new(vec![puppet.running.plugin.clone(), second]);
    puppet.strings.take_trace();
    let (_, mut filters) = on_chain(&chain);
    puppet.strings.on("request_headers", vec![Step::Return(1)]);
    puppet.strings.on("request_headers", vec![Step::Return(1)]);
    filters.request_headers(true);
    assert_eq!(
        puppet.strings.take_trace(),
        ["context_create", "request_headers"]
    );
    resume(&puppet, 3, 0);
    assert!(filters.poll_event().is_none(), "now the second holds");
    assert_eq!(
        puppet.strings.take_trace(),
        ["tick", "context_create", "request_headers"]
    );
    resume(&puppet, 4, 0);
    assert!(matches!(resumed(&mut filters), Verdict::Continue));
}

#[test]
fn a_paused_response_goes_on_too_and_its_map_stays_open() {
    let puppet = puppet();
    let (stream, mut filters) = puppet.running.stream();
    filters.request_headers(true);
    stream.put(HeaderMap::ResponseHeaders, &[(":status", "200")]);
    puppet.strings.on("response_headers", vec![Step::Return(1)]);
    assert!(matches!(filters.response_headers(false), Verdict::Pause));
    let add = call("proxy_add_header_map_value", &[2, 0x400, 1, 0x400, 1]);
    assert_eq!(
        from_tick(
            &puppet,
            2,
            vec![put(0x400, "x"), add, call("proxy_continue_stream", &[1])]
        ),
        [0, 0, 0]
    );
    assert!(matches!(resumed(&mut filters), Verdict::Continue));
    assert!(matches!(
        filters.response_body(&mut b"x".to_vec(), true),
        Verdict::Continue
    ));
}

#[test]
fn body_fed_during_a_pause_comes_in_one_piece() {
    let puppet = puppet();
    let (_, mut filters) = puppet.running.stream();
    puppet.strings.on("request_headers", vec![Step::Return(1)]);
    filters.request_headers(false);
    for (piece, end) in [("one ", false), ("two", true)] {
        let mut data = piece.as_bytes().to_vec();
        assert!(matches!(filters.request_body(&mut data, end), Verdict::Pause) && data.is_empty());
    }
    puppet.strings.trace.take();
    resume(&puppet, 2, 0);
    assert!(matches!(resumed(&mut filters), Verdict::Continue));
    assert_eq!(
        puppet.strings.trace.take()[1],
        ("request_body", vec![2, 7, 1])
    );
    assert_eq!(filters.take_held_request_body(), b"one two");
}

#[test]
fn a_held_body_grows_and_is_let_go_as_a_whole() {
    let puppet = puppet();
    let (_, mut filters) = puppet.running.stream();
    filters.request_headers(false);
    puppet.strings.on("request_body", vec![Step::Return(1)]);
    let mut data = b"one ".to_vec();
    assert!(matches!(filters.request_body(&mut data, false), Verdict::Pause) && data.is_empty());
    puppet.strings.on(
        "request_body",
        vec![
            put(0x400, "1"),
            call("proxy_set_buffer_bytes", &[0, 0, 3, 0x400, 1]),
        ],
    );
    data = b"two".to_vec();
    assert!(matches!(
        filters.request_body(&mut data, true),
        Verdict::Continue
    ));
    assert_eq!(data, b"1 two");
    let lengths: Vec<_> = puppet
        .strings
        .trace
        .take()
        .into_iter()
        .filter(|(name, _)| *name == "request_body")
        .map(|(_, n)| n[1])
        .collect();
    assert_eq!(lengths, [4, 7]);
}

#[test]
fn a_held_body_can_be_seen_and_let_go_from_elsewhere() {
    let puppet = puppet();
    let (_, mut filters) = puppet.running.stream();
    filters.request_headers(false);
    puppet.strings.on("request_body", vec![Step::Return(1)]);
    filters.request_body(&mut b"held".to_vec(), true);
    let steps = vec![
        call("proxy_get_buffer_bytes", &[0, 1, 9, 0x800, 0x804]),
        Step::ShowGiven(0x800, 0x804),
        call("proxy_continue_stream", &[0]),
    ];
    assert_eq!(from_tick(&puppet, 2, steps), [0, 0, 0]);
    assert_eq!(&puppet.strings.take_shown()[0][16..19], b"eld");
    assert!(matches!(resumed(&mut filters), Verdict::Continue));
    assert_eq!(filters.take_held_request_body(), b"held");
}

#[test]
fn trailers_let_a_held_body_go_before_them() {
    let puppet = puppet();
    let second = puppet
        .running
        .vm
        .start_plugin("second", "second", b"")
        .unwrap();
    let chain = Chain::new(vec![puppet.running.plugin.clone(), second]);
    let (stream, mut filters) = on_chain(&chain);
    filters.request_headers(false);
    puppet.strings.on("request_body", vec![Step::Return(1)]);
    filters.request_body(&mut b"held".to_vec(), false);
    stream.put(HeaderMap::RequestTrailers, &[("t", "1")]);
    puppet.strings.trace.take();
    assert!(matches!(filters.request_trailers(), Verdict::Continue));
    assert_eq!(filters.take_held_request_body(), b"held");
    let seen: Vec<_> = puppet
        .strings
        .trace
        .take()
        .into_iter()
        .map(|(name, numbers)| (name, numbers[0]))
        .collect();
    assert_eq!(
        seen,
        [
            ("request_trailers", 3),
            ("request_body", 4),
            ("request_trailers", 4)
        ]
    );
}

#[test]
fn trailers_can_be_held() {
    let puppet = puppet();
    let (stream, mut filters) = puppet.running.stream();
    filters.request_headers(false);
    stream.put(HeaderMap::RequestTrailers, &[("t", "1")]);
    puppet.strings.on("request_trailers", vec![Step::Return(1)]);
    assert!(matches!(filters.request_trailers(), Verdict::Pause));
    resume(&puppet, 2, 0);
    assert!(matches!(resumed(&mut filters), Verdict::Continue));
}

#[test]
fn too_long_a_request_body_is_413() {
    let puppet = puppet();
    let (_, mut filters) = puppet.running.stream();
    filters.request_headers(false);
    puppet.strings.on("request_body", vec![Step::Return(1)]);
    assert!(matches!(
        filters.request_body(&mut vec![0; BODY_HELD_MAX], false),
        Verdict::Pause
    ));
    let verdict = filters.request_body(&mut vec![0; 1], false);
    assert!(matches!(verdict, Verdict::LocalReply(reply) if reply.status == 413));
}

#[test]
fn too_long_a_response_body_is_500_or_a_reset() {
    for held_headers in [true, false] {
        let puppet = puppet();
        let (stream, mut filters) = puppet.running.stream();
        filters.request_headers(true);
        stream.put(HeaderMap::ResponseHeaders, &[(":status", "200")]);
        puppet.strings.on(
            "response_headers",
            vec![Step::Return(u32::from(held_headers))],
        );
        filters.response_headers(false);
        puppet.strings.on("response_body", vec![Step::Return(1)]);
        let verdict = filters.response_body(&mut vec![0; BODY_HELD_MAX + 1], false);
        match verdict {
            Verdict::LocalReply(reply) => assert!(held_headers && reply.status == 500),
            other => assert!(!held_headers && matches!(other, Verdict::Reset)),
        }
    }
}
