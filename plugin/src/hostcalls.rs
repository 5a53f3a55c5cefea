//! The host's functions that the filter calls, without panics, and with as few copies as there can be.
//!
//! The SDK's wrappers panic on every status they do not expect, and allocate for each header. Here every status is an answer: a
//! call that fails leaves the caller with "nothing there" or "not done", and no status is trusted to be one of a known set. This
//! is the only file of the filter with unsafe code: pointers and lengths that are handed to the host, buffers that the host
//! allocated through the SDK's `proxy_on_memory_allocate`, and symbols that the host looks for.

#![allow(unsafe_code)]

use std::ptr::null_mut;
use std::time::Duration;

use evenkeel_policy::upstream::ProbeCall;

/// Callbacks that this filter has something to do in; a host that knows this section may skip all others. Deletion is always told,
/// and finishes a stream where log and done are skipped.
#[used]
#[unsafe(link_section = "evenkeel.callbacks")]
static CALLBACKS: [u8; CALLBACK_NAMES.len()] = *CALLBACK_NAMES;
const CALLBACK_NAMES: &[u8; 68] =
    b"request_headers,response_headers,tick,http_call_response,queue_ready";

const OK: u32 = 0;
const REQUEST_HEADERS: u32 = 0;
const HTTP_CALL_RESPONSE_HEADERS: u32 = 6;
const HTTP_CALL_RESPONSE_BODY: u32 = 4;
const PLUGIN_CONFIGURATION: u32 = 7;

/// Levels of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Info = 2,
    Warn = 3,
    Error = 4,
}

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, message: *const u8, message_size: usize) -> u32;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_get_buffer_bytes(
        kind: u32,
        start: usize,
        max: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_get_header_map_value(
        map: u32,
        key: *const u8,
        key_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_replace_header_map_value(
        map: u32,
        key: *const u8,
        key_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_add_header_map_value(
        map: u32,
        key: *const u8,
        key_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_remove_header_map_value(map: u32, key: *const u8, key_size: usize) -> u32;
    fn proxy_get_property(
        path: *const u8,
        path_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_set_property(
        path: *const u8,
        path_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_get_shared_data(
        key: *const u8,
        key_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
        cas: *mut u32,
    ) -> u32;
    fn proxy_set_shared_data(
        key: *const u8,
        key_size: usize,
        value: *const u8,
        value_size: usize,
        cas: u32,
    ) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
    fn proxy_set_effective_context(id: u32) -> u32;
    fn proxy_continue_stream(kind: u32) -> u32;
    fn proxy_register_shared_queue(name: *const u8, name_size: usize, id: *mut u32) -> u32;
    fn proxy_enqueue_shared_queue(id: u32, message: *const u8, message_size: usize) -> u32;
    fn proxy_dequeue_shared_queue(id: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, offset: i64) -> u32;
    fn proxy_record_metric(id: u32, value: i64) -> u32;
}

/// A buffer that the host filled and the filter owns.
pub(crate) struct HostBytes(Vec<u8>);

impl HostBytes {
    /// The bytes.
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// Takes a buffer over; `None` if the call failed.
    fn taken(status: u32, data: *mut u8, size: usize) -> Option<Self> {
        if status != OK {
            return None;
        }
        if data.is_null() || size == 0 {
            return Some(Self(Vec::new()));
        }
        // SAFETY: the host allocated `size` bytes by the SDK's `proxy_on_memory_allocate`, whose buffers have a capacity of
        // exactly their size (a boxed slice of the global allocator), wrote them all, and keeps no pointer to them.
        Some(Self(unsafe { Vec::from_raw_parts(data, size, size) }))
    }
}

/// Writes a log line.
pub(crate) fn log(level: Level, message: &str) {
    // SAFETY: the host reads `message.len()` bytes there during the call.
    unsafe { proxy_log(level as u32, message.as_ptr(), message.len()) };
}

/// The wall clock, nanoseconds since 1970; 0 if the host has none. It may stand still, and go back.
pub(crate) fn now_ns() -> u64 {
    let mut time = 0;
    // SAFETY: the host writes 8 bytes to a place that lives through the call.
    unsafe { proxy_get_current_time_nanoseconds(&raw mut time) };
    time
}

/// Asks for ticks of the current root context.
pub(crate) fn set_tick_period_ms(period: u32) {
    // SAFETY: no pointers.
    unsafe { proxy_set_tick_period_milliseconds(period) };
}

/// The text the plugin is configured with; legal in `on_configure`.
pub(crate) fn plugin_configuration() -> Option<HostBytes> {
    let (mut data, mut size) = (null_mut(), 0);
    // SAFETY: the host writes a pointer and a length to places that live through the call.
    let status = unsafe {
        proxy_get_buffer_bytes(
            PLUGIN_CONFIGURATION,
            0,
            usize::MAX >> 1,
            &raw mut data,
            &raw mut size,
        )
    };
    HostBytes::taken(status, data, size)
}

/// Makes a call; its token, unless the host refuses it. Through the SDK, which has to know the token to hand the answer over; of the
/// statuses that hosts give here it takes all.
pub(crate) fn http_call(call: &ProbeCall, timeout_ms: u64) -> Option<u32> {
    let headers = call.headers.iter();
    let headers: Vec<(&str, &str)> = headers
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let body = (!call.body.is_empty()).then_some(call.body.as_slice());
    let timeout = Duration::from_millis(timeout_ms);
    proxy_wasm::hostcalls::dispatch_http_call(&call.cluster, headers, body, Vec::new(), timeout)
        .ok()
}

/// The status of a call's answer; legal while that is told. `None`: there is no answer.
pub(crate) fn call_status() -> Option<u16> {
    let (mut data, mut size) = (null_mut(), 0);
    let name = b":status";
    // SAFETY: the host reads the name, and writes a pointer and a length to places that live through the call.
    let status = unsafe {
        proxy_get_header_map_value(
            HTTP_CALL_RESPONSE_HEADERS,
            name.as_ptr(),
            name.len(),
            &raw mut data,
            &raw mut size,
        )
    };
    let value = HostBytes::taken(status, data, size)?;
    std::str::from_utf8(value.as_slice()).ok()?.parse().ok()
}

/// The first `max` bytes of a call's answer; legal while that is told.
pub(crate) fn call_body(max: usize) -> Option<HostBytes> {
    let (mut data, mut size) = (null_mut(), 0);
    // SAFETY: the host writes a pointer and a length to places that live through the call.
    let status = unsafe {
        proxy_get_buffer_bytes(
            HTTP_CALL_RESPONSE_BODY,
            0,
            max,
            &raw mut data,
            &raw mut size,
        )
    };
    HostBytes::taken(status, data, size)
}

/// All request headers in the ABI's encoding of pairs; legal while the request's head is with the filters.
pub(crate) fn request_header_pairs() -> Option<HostBytes> {
    let (mut data, mut size) = (null_mut(), 0);
    // SAFETY: as above.
    let status =
        unsafe { proxy_get_header_map_pairs(REQUEST_HEADERS, &raw mut data, &raw mut size) };
    HostBytes::taken(status, data, size)
}

/// Whose headers are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Headers {
    /// Legal while the request's head is with the filters.
    Request = 0,
    /// Legal while the response's head is.
    Response = 2,
}

/// One header of this name in the place of all of this name.
pub(crate) fn replace_header(of: Headers, name: &[u8], value: &[u8]) {
    // SAFETY: the host reads the two slices during the call.
    unsafe {
        proxy_replace_header_map_value(
            of as u32,
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    };
}

/// One more header of this name.
pub(crate) fn add_header(of: Headers, name: &[u8], value: &[u8]) {
    // SAFETY: the host reads the two slices during the call.
    unsafe {
        proxy_add_header_map_value(
            of as u32,
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    };
}

/// No header of this name.
pub(crate) fn remove_header(of: Headers, name: &[u8]) {
    // SAFETY: the host reads the slice during the call.
    unsafe { proxy_remove_header_map_value(of as u32, name.as_ptr(), name.len()) };
}

/// A property by its path, whose parts are separated by NUL.
pub(crate) fn property(path: &[u8]) -> Option<HostBytes> {
    let (mut data, mut size) = (null_mut(), 0);
    // SAFETY: the host reads the path, and writes a pointer and a length to places that live through the call.
    let status =
        unsafe { proxy_get_property(path.as_ptr(), path.len(), &raw mut data, &raw mut size) };
    HostBytes::taken(status, data, size)
}

/// A property that is a number: 8 bytes, little-endian.
pub(crate) fn number_property(path: &[u8]) -> Option<u64> {
    let bytes = property(path)?;
    Some(u64::from_le_bytes(bytes.as_slice().try_into().ok()?))
}

/// Publishes a property under a name of one part.
pub(crate) fn set_property(name: &[u8], value: &[u8]) {
    // SAFETY: the host reads the two slices during the call.
    unsafe { proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) };
}

/// A shared value and its compare-and-swap number.
pub(crate) fn shared_data(key: &[u8]) -> Option<(HostBytes, u32)> {
    let (mut data, mut size, mut cas) = (null_mut(), 0, 0);
    // SAFETY: the host reads the key, and writes to places that live through the call.
    let status = unsafe {
        proxy_get_shared_data(
            key.as_ptr(),
            key.len(),
            &raw mut data,
            &raw mut size,
            &raw mut cas,
        )
    };
    HostBytes::taken(status, data, size).map(|bytes| (bytes, cas))
}

/// Writes a shared value; the status is the host's (0 done, 8 somebody else wrote since `cas`).
pub(crate) fn set_shared_data(key: &[u8], value: &[u8], cas: u32) -> u32 {
    // SAFETY: the host reads the two slices during the call.
    unsafe { proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), cas) }
}

/// Answers the request here. `headers` are pairs in the ABI's encoding.
pub(crate) fn send_local_response(status: u32, details: &[u8], headers: &[u8], body: &[u8]) {
    const NO_GRPC_STATUS: i32 = -1;
    // SAFETY: the host reads the three slices during the call.
    unsafe {
        proxy_send_local_response(
            status,
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            NO_GRPC_STATUS,
        )
    };
}

/// Lets the host's functions act for this context until the callback ends; `false` if it is gone.
pub(crate) fn act_for(context: u32) -> bool {
    // SAFETY: no pointers.
    unsafe { proxy_set_effective_context(context) == OK }
}

/// Lets a request go on that was paused at its head; its headers are out of reach from then on.
pub(crate) fn continue_request() {
    const REQUEST: u32 = 0;
    // SAFETY: no pointers.
    unsafe { proxy_continue_stream(REQUEST) };
}

/// The number of a shared queue, of whose messages this root context is told from now on.
pub(crate) fn register_queue(name: &str) -> Option<u32> {
    let mut id = 0;
    // SAFETY: the host reads the name, and writes 4 bytes to a place that lives through the call.
    let status = unsafe { proxy_register_shared_queue(name.as_ptr(), name.len(), &raw mut id) };
    (status == OK).then_some(id)
}

/// Sends a message; `false` if the host does not take it.
pub(crate) fn enqueue(queue: u32, message: &[u8]) -> bool {
    // SAFETY: the host reads the message during the call.
    unsafe { proxy_enqueue_shared_queue(queue, message.as_ptr(), message.len()) == OK }
}

/// The oldest message of a queue.
pub(crate) fn dequeue(queue: u32) -> Option<HostBytes> {
    let (mut data, mut size) = (null_mut(), 0);
    // SAFETY: the host writes a pointer and a length to places that live through the call.
    let status = unsafe { proxy_dequeue_shared_queue(queue, &raw mut data, &raw mut size) };
    HostBytes::taken(status, data, size)
}

/// Kinds of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Metric {
    Counter = 0,
    Gauge = 1,
}

/// The number of a metric in this VM.
pub(crate) fn define_metric(kind: Metric, name: &str) -> Option<u32> {
    let mut id = 0;
    // SAFETY: the host reads the name, and writes 4 bytes to a place that lives through the call.
    let status =
        unsafe { proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &raw mut id) };
    (status == OK).then_some(id)
}

/// Adds to a counter.
pub(crate) fn increment_metric(id: u32, by: u64) {
    // SAFETY: no pointers.
    unsafe { proxy_increment_metric(id, i64::try_from(by).unwrap_or(i64::MAX)) };
}

/// Sets a gauge.
pub(crate) fn record_metric(id: u32, value: u64) {
    // SAFETY: no pointers.
    unsafe { proxy_record_metric(id, i64::try_from(value).unwrap_or(i64::MAX)) };
}

proxy_wasm::main! {{
    crate::root::install();
}}
