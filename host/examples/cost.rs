//! What a filter costs a stream: a guest of a few hostcalls on an empty stream, and the time of its whole life.
//!
//! `cargo run --release -p evenkeel-host --example cost`. The guest does what a balancing filter does: reads the headers as pairs and two properties,
//! replaces four headers, reads and writes shared data, counts a metric, publishes a property, and finishes in its log.

use std::cell::RefCell;
use std::error::Error;
use std::rc::Rc;
use std::time::{Duration, Instant};

use evenkeel_host::embedder::*;
use evenkeel_host::http_filters::{Chain, HttpFilters};
use evenkeel_host::{Engine, Failure, Module, Process, Vm, VmOptions};

/// Streams of one round; the best of [`ROUNDS`] counts.
const STREAMS: u32 = 100_000;
const ROUNDS: usize = 10;

const GUEST: &str = r#"(module
  (import "env" "proxy_get_header_map_pairs" (func $pairs (param i32 i32 i32) (result i32)))
  (import "env" "proxy_replace_header_map_value" (func $replace (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_property" (func $property (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_property" (func $publish (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_shared_data" (func $get (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_shared_data" (func $set (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_increment_metric" (func $count (param i32 i64) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "source\00address") (data (i32.const 48) "upstream\00address")
  (data (i32.const 80) "x-real-ip") (data (i32.const 96) "x-gateway-destination-endpoint") (data (i32.const 128) "192.0.2.100:8080")
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 4096))
  (func (export "proxy_on_configure") (param i32 i32) (result i32) (drop (call $define (i32.const 0) (i32.const 80) (i32.const 9) (i32.const 0))) (i32.const 1))
  (func $steer (drop (call $replace (i32.const 0) (i32.const 80) (i32.const 9) (i32.const 128) (i32.const 11)))
    (drop (call $replace (i32.const 0) (i32.const 96) (i32.const 30) (i32.const 128) (i32.const 16))))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (drop (call $pairs (i32.const 0) (i32.const 0) (i32.const 4)))
    (drop (call $property (i32.const 16) (i32.const 14) (i32.const 0) (i32.const 4)))
    (call $steer) (call $steer)
    (drop (call $get (i32.const 80) (i32.const 9) (i32.const 0) (i32.const 4) (i32.const 8)))
    (drop (call $set (i32.const 80) (i32.const 9) (i32.const 128) (i32.const 11) (i32.const 0)))
    (drop (call $publish (i32.const 80) (i32.const 9) (i32.const 128) (i32.const 11)))
    (i32.const 0))
  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
    (drop (call $property (i32.const 48) (i32.const 16) (i32.const 0) (i32.const 4))) (i32.const 0))
  (func (export "proxy_on_log") (param i32) (drop (call $count (i32.const 0) (i64.const 1))))
  (@custom "evenkeel.callbacks" "request_headers,response_headers,log"))"#;

struct Quiet;

impl Environment for Quiet {
    fn log(&self, _: LogLevel, _: &[u8]) {}
    fn log_level(&self) -> LogLevel {
        LogLevel::Error
    }
    fn http_call(&self, _: HttpCall) -> Result<(), CallRefused> {
        Err(CallRefused::UnknownUpstream)
    }
    fn set_tick_period(&self, _: u32, _: Duration) {}
    fn foreign_function(&self, _: Option<&dyn HttpStream>, _: &[u8], _: &[u8]) -> Option<Vec<u8>> {
        None
    }
    fn failed(&self, failure: &Failure) {
        println!("{failure}");
    }
}

/// Eleven request headers; a replacement overwrites the value in its place.
struct Head(RefCell<Vec<(&'static [u8], Vec<u8>)>>);

const NAMES: [&[u8]; 13] = [
    b":authority",
    b":path",
    b":method",
    b":scheme",
    b"user-agent",
    b"accept",
    b"accept-encoding",
    b"accept-language",
    b"cookie",
    b"referer",
    b"x-request-id",
    b"x-real-ip",
    b"x-gateway-destination-endpoint",
];

impl HttpStream for Head {
    fn pairs(&self, map: HeaderMap, visit: &mut dyn FnMut(&[u8], &[u8])) -> bool {
        self.0
            .borrow()
            .iter()
            .take(11)
            .for_each(|(name, value)| visit(name, value));
        map == HeaderMap::RequestHeaders
    }
    fn value(&self, _: HeaderMap, _: &[u8], _: &mut dyn FnMut(&[u8])) -> bool {
        true
    }
    fn add(&self, _: HeaderMap, _: &[u8], _: &[u8]) -> bool {
        true
    }
    fn replace(&self, _: HeaderMap, name: &[u8], value: &[u8]) -> bool {
        if let Some((_, place)) = self
            .0
            .borrow_mut()
            .iter_mut()
            .find(|(known, _)| *known == name)
        {
            place.clear();
            place.extend_from_slice(value);
        }
        true
    }
    fn remove(&self, _: HeaderMap, _: &[u8]) -> bool {
        true
    }
    fn replace_all(&self, _: HeaderMap, _: &mut dyn Iterator<Item = (&[u8], &[u8])>) -> bool {
        true
    }
    fn attribute(&self, _: Attribute, answer: &mut dyn FnMut(Value<'_>)) -> bool {
        answer(Value::Bytes(b"192.0.2.100:4711"));
        true
    }
    fn set_filter_state(&self, _: &[u8], _: &[u8]) -> FilterStateOutcome {
        FilterStateOutcome::UnknownPath
    }
    fn count(&self, _: HeaderMap) -> usize {
        11
    }
    fn wake(&self) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let engine = Engine::new()?;
    let module = Module::compile(&engine, &wat::parse_str(GUEST)?)?;
    let options = VmOptions {
        vm_id: "cost".to_owned(),
        vm_configuration: Vec::new(),
        environment_variables: Vec::new(),
        memory_max: 16 << 20,
        callback_deadline: Duration::from_millis(100),
        start_deadline: Duration::from_secs(10),
        queue_waker: None,
    };
    let vm = Vm::new(&module, &Process::new(), options, Rc::new(Quiet))?;
    let chain = Chain::new(vec![vm.start_plugin("cost", "cost", b"")?]);
    let head = Head(RefCell::new(
        NAMES
            .iter()
            .map(|name| (*name, b"a value of some length".to_vec()))
            .collect(),
    ));
    let stream: Rc<dyn HttpStream> = Rc::new(head);
    for (name, life) in [
        ("create and drop", 0),
        ("request headers", 1),
        ("whole life", 2),
    ] {
        let best = (0..ROUNDS)
            .map(|_| {
                let begin = Instant::now();
                for _ in 0..STREAMS {
                    let mut filters = HttpFilters::new(&chain, stream.clone());
                    if life > 0 {
                        filters.request_headers(true);
                    }
                    if life > 1 {
                        filters.response_headers(false);
                    }
                }
                begin.elapsed()
            })
            .min()
            .unwrap_or_default();
        println!(
            "{name}: {:.0} ns",
            best.as_secs_f64() * 1e9 / f64::from(STREAMS)
        );
    }
    Ok(())
}
