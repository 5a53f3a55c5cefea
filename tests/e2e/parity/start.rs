//! How a VM and its plugin start, and what the root context may do while it is configured.
//!
//! The plugin's configuration is a program: the probe runs it in `on_configure`.

use super::case::{Case, wait_for_a_vm};
use super::client::Request;
use super::hostcalls::{
    CALL_HEADERS, PLUGIN_CONFIGURATION, REQUEST_BODY, REQUEST_HEADERS, RESPONSE_HEADERS,
    VM_CONFIGURATION, add, buffer, buffer_status, call, close_stream, continue_stream,
    effective_context, get, local_response, log_level, number, pairs, property, register_queue,
    set_buffer, set_property, set_shared, shared, status, tick_period, time,
};
use super::hosts::Host;
use super::program::{Argument, Phase, Program, Show};
use super::trace::{Line, render};

/// What the plugin is configured with.
pub(crate) fn program() -> Program {
    let calls = [
        buffer(PLUGIN_CONFIGURATION, 0, 10),
        buffer(PLUGIN_CONFIGURATION, 0, u32::MAX).shown(Show::Length),
        buffer(PLUGIN_CONFIGURATION, 100_000, 1),
        buffer_status(PLUGIN_CONFIGURATION).shown(Show::Presence),
        set_buffer(PLUGIN_CONFIGURATION, 0, 10, "changed"),
        buffer(VM_CONFIGURATION, 0, 10),
        buffer_status(VM_CONFIGURATION),
        buffer(REQUEST_BODY, 0, 10),
        get(REQUEST_HEADERS, "x"),
        pairs(REQUEST_HEADERS),
        add(RESPONSE_HEADERS, "x", "1"),
        get(CALL_HEADERS, ":status"),
        property("plugin_name"),
        property("plugin_root_id"),
        property("plugin_vm_id"),
        property("source.address"),
        property("request.path"),
        property("missing"),
        set_property("configured", "1"),
        property("configured"),
        set_shared("configured", "1", number(0)),
        shared("configured"),
        register_queue("configured"),
        log_level(),
        time(),
        status(),
        tick_period(0),
        effective_context(Argument::Context),
        effective_context(number(987_654_321)),
        continue_stream(0),
        close_stream(0),
        local_response(418, "", "", &[]),
        call(48, "sched_yield", []),
    ];
    Program::new().at(Phase::Configure, calls)
}

/// The trace of the last start before the first stream: Envoy starts a VM several times (a trial, the main thread, each worker).
pub(crate) fn trace(host: &Host) -> Vec<String> {
    wait_for_a_vm(host);
    let (lines, _) = host.lines_since(0, std::time::Duration::ZERO, |_| true);
    let creates = |line: &Line, is_stream: bool| matches!(line, Line::Callback { phase, arguments: [parent, ..], .. } if *phase == Phase::ContextCreate as u32 && (*parent != 0) == is_stream);
    let end = lines
        .iter()
        .position(|line| creates(line, true))
        .unwrap_or(lines.len());
    let started = lines.get(..end).unwrap_or_default();
    let begin = started
        .iter()
        .rposition(|line| creates(line, false))
        .unwrap_or_default();
    let case = Case::new("start", Request::get("/"), program());
    render(&case, started.get(begin..).unwrap_or_default())
}
