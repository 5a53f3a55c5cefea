//! Local replies and closes, in each phase and from outside.

use evenkeel_host::embedder::HeaderMap;
use evenkeel_host::http_filters::{Chain, Event, Verdict};

use crate::puppet::{Step, call, puppet, put};
use crate::world::{on_chain, owned};

/// Answers 403 "no" with a header.
fn reply() -> Vec<Step> {
    vec![
        put(0x400, "why"),
        put(0x410, "no"),
        put(0x420, b"\x01\0\0\0\x01\0\0\0\x01\0\0\0x\0y\0"),
        call(
            "proxy_send_local_response",
            &[403, 0x400, 3, 0x410, 2, 0x420, 16, -1],
        ),
    ]
}

#[test]
fn a_reply_from_the_request_phase_passes_the_response_filters() {
    let puppet = puppet();
    let (stream, mut filters) = puppet.running.stream();
    // Whatever the callback returns.
    puppet.strings.on("request_headers", reply());
    let Verdict::LocalReply(found) = filters.request_headers(false) else {
        panic!()
    };
    assert_eq!(
        (found.status, found.details.as_str(), found.body.as_slice()),
        (403, "why", &b"no"[..])
    );
    assert_eq!(found.headers, owned(&[("x", "y")]));
    puppet.strings.take_trace();
    stream.put(HeaderMap::ResponseHeaders, &[(":status", "403")]);
    // The request's headers are still there: the callback did not continue.
    puppet.strings.on(
        "response_headers",
        vec![call("proxy_remove_header_map_value", &[0, 0x400, 3])],
    );
    assert!(matches!(filters.response_headers(false), Verdict::Continue));
    assert!(matches!(
        filters.response_body(&mut b"no".to_vec(), true),
        Verdict::Continue
    ));
    assert!(matches!(
        filters.request_body(&mut b"late".to_vec(), true),
        Verdict::Continue
    ));
    drop(filters);
    assert_eq!(
        puppet.strings.take_trace(),
        ["response_headers", "response_body", "log", "done", "delete"]
    );
    assert_eq!(puppet.strings.take_answers(), [0, 0]);
}

#[test]
fn filters_behind_the_one_that_answers_are_made_for_their_log_only() {
    let puppet = puppet();
    let second = puppet
        .running
        .vm
        .start_plugin("second", "second", b"")
        .unwrap();
    let chain = Chain::new(vec![puppet.running.plugin.clone(), second]);
    let (_, mut filters) = on_chain(&chain);
    puppet.strings.take_trace();
    puppet.strings.on("request_headers", reply());
    filters.request_headers(true);
    filters.response_headers(false);
    drop(filters);
    let seen: Vec<_> = puppet
        .strings
        .trace
        .take()
        .into_iter()
        .map(|(name, numbers)| (name, numbers[0]))
        .collect();
    let first = [
        ("context_create", 3),
        ("request_headers", 3),
        ("response_headers", 3),
        ("log", 3),
    ];
    assert_eq!(
        seen,
        [
            &first[..],
            &[
                ("context_create", 4),
                ("log", 4),
                ("done", 3),
                ("delete", 3),
                ("done", 4),
                ("delete", 4)
            ]
        ]
        .concat()
    );
}

#[test]
fn a_reply_from_the_response_headers_replaces_the_response_without_a_second_callback() {
    let puppet = puppet();
    let (stream, mut filters) = puppet.running.stream();
    filters.request_headers(true);
    stream.put(HeaderMap::ResponseHeaders, &[(":status", "200")]);
    puppet.strings.on("response_headers", reply());
    assert!(matches!(
        filters.response_headers(false),
        Verdict::LocalReply(_)
    ));
    puppet.strings.take_trace();
    assert!(matches!(filters.response_headers(false), Verdict::Continue));
    assert!(matches!(
        filters.response_body(&mut b"no".to_vec(), true),
        Verdict::Continue
    ));
    assert!(puppet.strings.take_trace().is_empty());
}

#[test]
fn a_reply_after_the_head_is_gone_is_a_reset() {
    let puppet = puppet();
    let (stream, mut filters) = puppet.running.stream();
    filters.request_headers(true);
    stream.put(HeaderMap::ResponseHeaders, &[(":status", "200")]);
    filters.response_headers(false);
    puppet.strings.on("response_body", reply());
    assert!(matches!(
        filters.response_body(&mut b"x".to_vec(), false),
        Verdict::Reset
    ));
}

#[test]
fn replies_from_request_body_and_trailers_count_as_well() {
    for phase in ["request_body", "request_trailers"] {
        let puppet = puppet();
        let (stream, mut filters) = puppet.running.stream();
        filters.request_headers(false);
        puppet.strings.on(phase, reply());
        let body = filters.request_body(&mut b"x".to_vec(), false);
        stream.put(HeaderMap::RequestTrailers, &[]);
        let verdict = if phase == "request_body" {
            body
        } else {
            filters.request_trailers()
        };
        assert!(matches!(verdict, Verdict::LocalReply(_)), "{phase}");
    }
}

#[test]
fn one_reply_whatever_the_order_and_number() {
    let resume = || call("proxy_continue_stream", &[0]);
    for steps in [
        [reply(), vec![resume()]].concat(),
        [vec![resume()], reply(), reply()].concat(),
    ] {
        let puppet = puppet();
        let (stream, mut filters) = puppet.running.stream();
        puppet.strings.on("request_headers", vec![Step::Return(1)]);
        filters.request_headers(true);
        puppet.strings.on(
            "tick",
            [vec![call("proxy_set_effective_context", &[2])], steps].concat(),
        );
        puppet.running.plugin.tick();
        assert!(stream.was_woken());
        assert!(
            matches!(filters.poll_event(), Some(Event::LocalReply(reply)) if reply.status == 403)
        );
        assert!(filters.poll_event().is_none());
        puppet.strings.on(
            "tick",
            [vec![call("proxy_set_effective_context", &[2])], reply()].concat(),
        );
        puppet.running.plugin.tick();
        assert!(filters.poll_event().is_none(), "answered already");
    }
}

#[test]
fn a_reply_to_another_stream_does_not_stop_ones_own() {
    let puppet = puppet();
    let (first, mut firsts) = puppet.running.stream();
    puppet.strings.on("request_headers", vec![Step::Return(1)]);
    firsts.request_headers(true);
    let (_, mut seconds) = puppet.running.stream();
    puppet.strings.on(
        "request_headers",
        [vec![call("proxy_set_effective_context", &[2])], reply()].concat(),
    );
    assert!(matches!(seconds.request_headers(true), Verdict::Continue));
    assert!(first.was_woken());
    assert!(matches!(firsts.poll_event(), Some(Event::LocalReply(_))));
}

#[test]
fn a_close_is_a_reset_without_an_answer() {
    for kind in [0, 1] {
        let puppet = puppet();
        let (_, mut filters) = puppet.running.stream();
        puppet.strings.on(
            "request_headers",
            vec![call("proxy_close_stream", &[kind]), Step::Return(1)],
        );
        assert!(matches!(filters.request_headers(true), Verdict::Reset));
        let (other, mut others) = puppet.running.stream();
        others.request_headers(true);
        puppet.strings.on(
            "tick",
            vec![
                call("proxy_set_effective_context", &[3]),
                call("proxy_close_stream", &[kind]),
            ],
        );
        puppet.running.plugin.tick();
        assert!(other.was_woken() && matches!(others.poll_event(), Some(Event::Reset)));
    }
}

#[test]
fn replies_from_log_and_from_root_contexts_go_nowhere() {
    let puppet = puppet();
    let (stream, mut filters) = puppet.running.stream();
    filters.request_headers(true);
    puppet.strings.on("tick", reply());
    puppet.running.plugin.tick();
    puppet.strings.on("log", reply());
    filters.finish();
    assert_eq!(puppet.strings.take_answers(), [0, 0]);
    assert!(!stream.was_woken() && filters.poll_event().is_none());
}

#[test]
fn a_filter_can_answer_before_it_has_seen_anything() {
    for callbacks in ["request_headers", "log"] {
        let section = format!(r#"(@custom "evenkeel.callbacks" "{callbacks}")"#);
        let module =
            crate::world::module(&crate::puppet::compiled().0, &crate::puppet::wat(&section));
        let puppet =
            crate::puppet::puppet_with(&module, Default::default(), crate::world::options());
        puppet.strings.on("context_create", reply());
        let (_, mut filters) = puppet.running.stream();
        assert!(
            matches!(filters.request_headers(true), Verdict::LocalReply(_)),
            "{callbacks}"
        );
    }
}

#[test]
fn a_grpc_status_becomes_a_header() {
    let puppet = puppet();
    let (_, mut filters) = puppet.running.stream();
    puppet.strings.on(
        "request_headers",
        vec![call(
            "proxy_send_local_response",
            &[200, 0, 0, 0, 0, 0, 0, 7],
        )],
    );
    assert!(
        matches!(filters.request_headers(true), Verdict::LocalReply(reply) if reply.headers == owned(&[("grpc-status", "7")]))
    );
}

#[test]
fn of_two_replies_the_first_is_sent_with_the_details_of_the_last_as_one_word() {
    let puppet = puppet();
    let (_, mut filters) = puppet.running.stream();
    let second = [
        put(0x600, "in\tother words\n"),
        call(
            "proxy_send_local_response",
            &[500, 0x600, 15, 0x600, 2, 0, 0, -1],
        ),
    ];
    puppet
        .strings
        .on("request_headers", [reply(), second.to_vec()].concat());
    let Verdict::LocalReply(found) = filters.request_headers(true) else {
        panic!()
    };
    assert_eq!(
        (found.status, found.details.as_str(), found.body.as_slice()),
        (403, "in_other_words_", &b"no"[..])
    );
}
