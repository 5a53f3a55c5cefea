//! The order of callbacks, several filters in a chain, contexts and their end.

use evenkeel_host::embedder::HeaderMap;
use evenkeel_host::http_filters::{Chain, Verdict};

use crate::puppet::{Step, call, puppet, puppet_with, strung};
use crate::world::{on_chain, options};

#[test]
fn callbacks_come_in_envoys_order() {
    let puppet = puppet();
    let (stream, mut filters) = puppet.running.stream();
    filters.request_headers(false);
    filters.request_body(&mut b"abc".to_vec(), false);
    stream.put(HeaderMap::RequestTrailers, &[("t", "1")]);
    filters.request_trailers();
    stream.put(HeaderMap::ResponseHeaders, &[(":status", "200")]);
    filters.response_headers(false);
    filters.response_body(&mut Vec::new(), true);
    drop(filters);
    let trace = puppet.strings.trace.take();
    let expected: Vec<(&str, Vec<u32>)> = vec![
        ("context_create", vec![2, 1]),
        ("request_headers", vec![2, 6, 0]),
        ("request_body", vec![2, 3, 0]),
        ("request_trailers", vec![2, 1]),
        ("response_headers", vec![2, 1, 0]),
        ("response_body", vec![2, 0, 1]),
        ("log", vec![2]),
        ("done", vec![2]),
        ("delete", vec![2]),
    ];
    assert_eq!(trace, expected);
}

#[test]
fn a_stream_without_request_headers_has_no_filters() {
    let puppet = puppet();
    let (_, filters) = puppet.running.stream();
    drop(filters);
    assert!(puppet.strings.take_trace().is_empty());
}

#[test]
fn requests_go_forwards_and_responses_backwards() {
    let puppet = puppet();
    let second = puppet
        .running
        .vm
        .start_plugin("second", "second", b"")
        .unwrap();
    puppet.strings.take_trace();
    let chain = Chain::new(vec![puppet.running.plugin.clone(), second]);
    let (stream, mut filters) = on_chain(&chain);
    filters.request_headers(false);
    filters.request_body(&mut b"x".to_vec(), true);
    stream.put(HeaderMap::ResponseHeaders, &[(":status", "200")]);
    filters.response_headers(true);
    filters.finish();
    let seen: Vec<_> = puppet
        .strings
        .trace
        .take()
        .into_iter()
        .map(|(name, numbers)| (name, numbers[0]))
        .collect();
    let expected = [
        ("context_create", 3),
        ("request_headers", 3),
        ("context_create", 4),
        ("request_headers", 4),
        ("request_body", 3),
        ("request_body", 4),
        ("response_headers", 4),
        ("response_headers", 3),
        ("log", 3),
        ("log", 4),
        ("done", 3),
        ("delete", 3),
        ("done", 4),
        ("delete", 4),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn a_filter_sees_what_the_one_before_it_made_of_a_body() {
    let puppet = puppet();
    let second = puppet
        .running
        .vm
        .start_plugin("second", "second", b"")
        .unwrap();
    let chain = Chain::new(vec![puppet.running.plugin.clone(), second]);
    let (_, mut filters) = on_chain(&chain);
    filters.request_headers(false);
    puppet.strings.on(
        "request_body",
        vec![
            crate::puppet::put(0x400, "new"),
            call("proxy_set_buffer_bytes", &[0, 0, 2, 0x400, 3]),
        ],
    );
    puppet.strings.on(
        "request_body",
        vec![
            crate::puppet::put(0x400, "!?"),
            call("proxy_set_buffer_bytes", &[0, 99, 0, 0x400, 1]),
            call("proxy_set_buffer_bytes", &[0, 0, 0, 0x401, 1]),
            call("proxy_set_buffer_bytes", &[0, 1, 0, 0x401, 1]),
        ],
    );
    let mut data = b"__old".to_vec();
    assert!(matches!(
        filters.request_body(&mut data, true),
        Verdict::Continue
    ));
    assert_eq!(data, b"?newold!");
    assert_eq!(puppet.strings.take_answers(), [0, 0, 0, 2]);
}

#[test]
fn a_root_context_outlives_its_plugin_by_its_streams() {
    let puppet = puppet();
    let (_, mut filters) = puppet.running.stream();
    filters.request_headers(true);
    puppet.strings.take_trace();
    puppet.running.plugin.stop();
    puppet.running.plugin.stop();
    assert!(puppet.strings.take_trace().is_empty());
    puppet.running.plugin.tick();
    assert_eq!(puppet.strings.take_trace(), ["tick"]);
    filters.finish();
    assert_eq!(
        puppet.strings.take_trace(),
        ["log", "done", "delete", "done", "delete"]
    );
    puppet.running.plugin.tick();
    assert!(puppet.strings.take_trace().is_empty());
}

#[test]
fn a_root_context_that_is_not_done_is_deleted_when_it_says_so() {
    let puppet = puppet();
    puppet.strings.on("done", vec![Step::Return(0)]);
    puppet.running.plugin.stop();
    assert_eq!(puppet.strings.take_trace(), ["done"]);
    puppet.strings.on("tick", vec![call("proxy_done", &[])]);
    puppet.running.plugin.tick();
    assert_eq!(
        (puppet.strings.take_answers(), puppet.strings.take_trace()),
        (vec![0], vec!["tick", "delete"])
    );
}

#[test]
fn several_vms_make_one_chain() {
    let engine_and_module = crate::puppet::compiled();
    let (first, second) = (
        puppet(),
        puppet_with(&engine_and_module.1, Default::default(), options()),
    );
    let chain = Chain::new(vec![
        first.running.plugin.clone(),
        second.running.plugin.clone(),
    ]);
    let (_, mut filters) = on_chain(&chain);
    second.strings.on("request_headers", vec![Step::Trap]);
    assert!(matches!(filters.request_headers(true), Verdict::Failed));
    filters.finish();
    assert_eq!(
        first.strings.take_trace(),
        ["context_create", "request_headers", "log", "done", "delete"]
    );
    assert!(first.running.vm.failure().is_none() && second.running.vm.failure().is_some());
}

#[test]
fn an_embedders_own_event_carries_its_data() {
    let puppet = puppet();
    let read = call("proxy_get_buffer_bytes", &[8, 0, 99, 0x800, 0x804]);
    puppet.strings.on(
        "foreign_function",
        vec![read.clone(), Step::ShowGiven(0x800, 0x804)],
    );
    puppet.running.plugin.foreign_function(7, b"data");
    assert_eq!(
        puppet.strings.trace.take(),
        [("foreign_function", vec![1, 7, 4])]
    );
    assert_eq!(&puppet.strings.take_shown()[0][16..20], b"data");
    puppet.strings.on("tick", vec![read, Step::Show(0x804, 4)]);
    puppet.running.plugin.tick();
    assert_eq!(puppet.strings.take_shown()[0], [0; 4]);
}

#[test]
fn a_refused_configuration_is_told_apart_from_a_trap() {
    for (callback, step) in [
        ("vm_start", Step::Return(0)),
        ("configure", Step::Return(0)),
        ("configure", Step::Trap),
    ] {
        let (world, strings) = strung();
        let vm = evenkeel_host::Vm::new(
            &crate::puppet::compiled().1,
            &Default::default(),
            options(),
            world.clone(),
        )
        .unwrap();
        let trap = matches!(step, Step::Trap);
        strings.on(callback, vec![step]);
        let refused = vm.start_plugin("p", "r", b"").err().unwrap();
        assert_eq!(
            matches!(refused, evenkeel_host::StartError::Refused),
            !trap,
            "{refused}"
        );
        assert_eq!(
            (vm.failure().is_some(), world.failures.borrow().len()),
            (trap, usize::from(trap))
        );
        if !trap {
            assert_eq!(strings.take_trace().last(), Some(&"delete"));
            vm.start_plugin("p", "r", b"").unwrap();
        }
    }
}
