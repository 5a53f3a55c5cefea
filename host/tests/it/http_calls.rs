//! Calls: how they start, what their ends look like to the guest, and streams that are gone by then.

use std::time::Duration;

use evenkeel_host::embedder::{CallRefused, HttpCallOutcome};
use evenkeel_host::http_filters::{Event, Verdict};

use crate::puppet::{Puppet, Step, call, puppet, put};
use crate::world::owned;

const HEAD: &[u8] = b"\x03\0\0\0\x07\0\0\0\x03\0\0\0\x05\0\0\0\x01\0\0\0\x0A\0\0\0\x01\0\0\0:method\0GET\0:path\0/\0:authority\0h\0";

fn dispatch() -> Vec<Step> {
    let arguments = [
        0x400,
        2,
        0x420,
        HEAD.len() as i64,
        0x410,
        4,
        0,
        0,
        250,
        0x800,
    ];
    vec![
        put(0x400, "up"),
        put(0x410, "body"),
        put(0x420, HEAD),
        call("proxy_http_call", &arguments),
        Step::Show(0x800, 4),
    ]
}

fn answer(status: &str) -> HttpCallOutcome {
    HttpCallOutcome::Response {
        headers: owned(&[(":status", status), ("x", "1")]),
        body: b"found".to_vec(),
        trailers: owned(&[]),
    }
}

/// A stream that waits for a call, and the call's token.
fn waiting(
    puppet: &Puppet,
) -> (
    std::rc::Rc<crate::world::Stream>,
    evenkeel_host::http_filters::HttpFilters,
    u32,
) {
    let (stream, mut filters) = puppet.running.stream();
    puppet.strings.on(
        "request_headers",
        [dispatch(), vec![Step::Return(1)]].concat(),
    );
    assert!(matches!(filters.request_headers(true), Verdict::Pause));
    assert_eq!(puppet.strings.take_answers(), [0]);
    puppet.strings.take_shown();
    let token = puppet
        .running
        .world
        .calls
        .borrow_mut()
        .pop_front()
        .unwrap()
        .token;
    (stream, filters, token)
}

#[test]
fn a_call_is_handed_to_the_embedder_as_it_was_meant() {
    let puppet = puppet();
    puppet.strings.on("tick", dispatch());
    puppet.running.plugin.tick();
    let made = puppet.running.world.calls.borrow_mut().pop_front().unwrap();
    assert_eq!(
        (made.upstream.as_slice(), made.body.as_slice(), made.timeout),
        (&b"up"[..], &b"body"[..], Duration::from_millis(250))
    );
    assert_eq!(
        made.headers,
        owned(&[(":method", "GET"), (":path", "/"), (":authority", "h")])
    );
    assert_eq!(
        puppet.strings.take_shown(),
        [made.token.to_le_bytes().to_vec()]
    );
    assert_eq!(made.token % 4, 0);
}

#[test]
fn a_refused_call_has_a_status_and_no_callback() {
    let puppet = puppet();
    for (refused, status) in [
        (CallRefused::UnknownUpstream, 2),
        (CallRefused::NoEndpoints, 10),
    ] {
        puppet.running.world.refuse_calls.set(Some(refused));
        puppet
            .strings
            .on("tick", [vec![put(0x800, [0xAA; 4])], dispatch()].concat());
        puppet.running.plugin.tick();
        assert_eq!(
            (puppet.strings.take_answers(), puppet.strings.take_shown()),
            (vec![status], vec![vec![0xAA; 4]])
        );
    }
}

#[test]
fn the_answer_comes_on_the_root_context_and_resumes_the_stream() {
    let puppet = puppet();
    let (stream, mut filters, token) = waiting(&puppet);
    puppet.strings.on(
        "http_call_response",
        vec![
            put(0x400, ":status"),
            call("proxy_get_header_map_value", &[6, 0x400, 7, 0x800, 0x804]),
            Step::ShowGiven(0x800, 0x804),
            call("proxy_get_buffer_bytes", &[4, 0, 100, 0x800, 0x804]),
            Step::ShowGiven(0x800, 0x804),
            call("proxy_get_header_map_value", &[7, 0x400, 7, 0x800, 0x804]),
            call("proxy_set_effective_context", &[2]),
            call("proxy_continue_stream", &[0]),
        ],
    );
    puppet.strings.trace.take();
    puppet.running.vm.http_call_done(token, answer("200"));
    assert_eq!(
        puppet.strings.trace.take(),
        [("http_call_response", vec![1, token, 2, 5, 0])]
    );
    assert_eq!(puppet.strings.take_answers(), [0, 0, 2, 0, 0]);
    let shown = puppet.strings.take_shown();
    assert_eq!(
        (&shown[0][16..19], &shown[1][16..21]),
        (&b"200"[..], &b"found"[..])
    );
    assert!(
        stream.was_woken()
            && matches!(
                filters.poll_event(),
                Some(Event::RequestResumed(Verdict::Continue))
            )
    );
    puppet.running.vm.http_call_done(token, answer("200"));
    assert!(puppet.strings.take_trace().is_empty(), "once");
}

#[test]
fn a_reset_has_no_headers_and_a_status() {
    let puppet = puppet();
    let (_, _filters, token) = waiting(&puppet);
    let status = || {
        vec![
            call("proxy_get_status", &[0x808, 0x800, 0x804]),
            Step::Show(0x808, 4),
        ]
    };
    puppet.strings.on(
        "http_call_response",
        [status(), vec![Step::ShowGiven(0x800, 0x804)]].concat(),
    );
    puppet.strings.trace.take();
    puppet
        .running
        .vm
        .http_call_done(token, HttpCallOutcome::Reset);
    assert_eq!(
        puppet.strings.trace.take(),
        [("http_call_response", vec![1, token, 0, 0, 0])]
    );
    let shown = puppet.strings.take_shown();
    assert_eq!(
        (shown[0].as_slice(), &shown[1][16..21]),
        (&[11, 0, 0, 0][..], &b"reset"[..])
    );
    // The text lives as long as the callback, as in Envoy.
    puppet
        .strings
        .on("tick", [status(), vec![Step::Show(0x804, 4)]].concat());
    puppet.running.plugin.tick();
    assert_eq!(puppet.strings.take_shown()[1], [0; 4]);
}

#[test]
fn after_a_reset_neither_maps_nor_a_body_are_there() {
    let puppet = puppet();
    let (_, _filters, token) = waiting(&puppet);
    puppet.strings.take_answers();
    puppet.strings.on(
        "http_call_response",
        vec![
            put(0x400, ":status"),
            call("proxy_get_header_map_value", &[6, 0x400, 7, 0x800, 0x804]),
            call("proxy_get_buffer_bytes", &[4, 0, 100, 0x800, 0x804]),
            call("proxy_get_buffer_status", &[4, 0x800, 0x804]),
            call("proxy_get_header_map_pairs", &[6, 0x800, 0x804]),
        ],
    );
    puppet
        .running
        .vm
        .http_call_done(token, HttpCallOutcome::Reset);
    assert_eq!(puppet.strings.take_answers(), [2, 1, 1, 0]);
}

#[test]
fn a_call_outlives_its_stream() {
    let puppet = puppet();
    let (_, filters, token) = waiting(&puppet);
    drop(filters);
    puppet.strings.take_trace();
    puppet.strings.on(
        "http_call_response",
        vec![call("proxy_set_effective_context", &[2])],
    );
    puppet.running.vm.http_call_done(token, answer("200"));
    assert_eq!(
        (puppet.strings.take_trace(), puppet.strings.take_answers()),
        (vec!["http_call_response"], vec![2])
    );
}

#[test]
fn calls_from_log_are_made_and_those_of_a_gone_root_are_forgotten() {
    let puppet = puppet();
    let (_, mut filters) = puppet.running.stream();
    filters.request_headers(true);
    puppet.strings.on("log", dispatch());
    filters.finish();
    let token = puppet
        .running
        .world
        .calls
        .borrow_mut()
        .pop_front()
        .unwrap()
        .token;
    puppet.running.plugin.stop();
    puppet.strings.take_trace();
    puppet.running.vm.http_call_done(token, answer("200"));
    puppet.running.vm.http_call_done(12345, answer("200"));
    assert!(puppet.strings.take_trace().is_empty());
}

#[test]
fn a_trap_in_the_answer_fails_the_waiting_stream() {
    let puppet = puppet();
    let (stream, mut filters, token) = waiting(&puppet);
    puppet.strings.on("http_call_response", vec![Step::Trap]);
    puppet.running.vm.http_call_done(token, answer("200"));
    assert!(stream.was_woken() && matches!(filters.poll_event(), Some(Event::Failed)));
    puppet.running.vm.http_call_done(token, answer("200"));
}
