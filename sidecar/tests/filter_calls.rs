//! How often the filter calls its host for one request: every hostcall and every buffer in the guest costs, in Envoy most of all.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::rc::Rc;
use std::time::Duration;

use evenkeel::embedded;
use evenkeel_host::embedder::{
    Attribute, CallRefused, Environment, FilterStateOutcome, HeaderMap, HttpCall, HttpStream,
    LogLevel, Value,
};
use evenkeel_host::http_filters::{Chain, HttpFilters, Verdict};
use evenkeel_host::{Engine, Failure, Module, Plugin, Process, Usage, Vm, VmOptions};
use evenkeel_policy::config::{ListenerIdentity, Mode, filter_configuration};
use evenkeel_policy::contract::{HTTP_ROOT_ID, VM_ID};

/// The design's bounds for a warm round-robin request.
const HOSTCALLS_MAX: u64 = 14;
const ALLOCATIONS_MAX: u64 = 2;

/// Answers after each tick that the filter asks its host about (`attempts_watch.rs`).
const ASKED_EACH_TICK: usize = 16;

/// A request as a browser sends it through one trusted proxy.
const REQUEST: [(&[u8], &[u8]); 9] = [
    (b":authority", b"www.example.com"),
    (b":path", b"/index.php?id=1"),
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b"user-agent", b"Mozilla/5.0"),
    (b"accept", b"*/*"),
    (b"cookie", b"PHPSESSID=4kq2v9d0s1b7n3m8c6x5z2l1ha"),
    (b"x-forwarded-for", b"198.51.100.7"),
    (b"x-request-id", b"7"),
];

struct Browser;

impl HttpStream for Browser {
    fn pairs(&self, map: HeaderMap, visit: &mut dyn FnMut(&[u8], &[u8])) -> bool {
        match map {
            HeaderMap::RequestHeaders => {
                REQUEST.iter().for_each(|(name, value)| visit(name, value))
            }
            HeaderMap::ResponseHeaders => visit(b":status", b"200"),
            HeaderMap::RequestTrailers | HeaderMap::ResponseTrailers => return false,
        }
        true
    }

    fn value(&self, _: HeaderMap, _: &[u8], _: &mut dyn FnMut(&[u8])) -> bool {
        true
    }

    fn add(&self, _: HeaderMap, _: &[u8], _: &[u8]) -> bool {
        true
    }

    fn replace(&self, _: HeaderMap, _: &[u8], _: &[u8]) -> bool {
        true
    }

    fn remove(&self, _: HeaderMap, _: &[u8]) -> bool {
        true
    }

    fn replace_all(&self, _: HeaderMap, _: &mut dyn Iterator<Item = (&[u8], &[u8])>) -> bool {
        true
    }

    fn attribute(&self, attribute: Attribute, answer: &mut dyn FnMut(Value<'_>)) -> bool {
        match attribute {
            Attribute::SourceAddress => answer(Value::Bytes(b"10.0.0.9:40000")),
            Attribute::UpstreamRequestAttemptCount => answer(Value::Uint(1)),
            _ => return false,
        }
        true
    }

    fn set_filter_state(&self, _: &[u8], _: &[u8]) -> FilterStateOutcome {
        FilterStateOutcome::UnknownPath
    }

    fn wake(&self) {}
}

struct Quiet;

impl Environment for Quiet {
    fn log(&self, level: LogLevel, message: &[u8]) {
        assert!(
            level < LogLevel::Warn,
            "{}",
            String::from_utf8_lossy(message)
        );
    }

    fn log_level(&self) -> LogLevel {
        LogLevel::Info
    }

    fn http_call(&self, _: HttpCall) -> Result<(), CallRefused> {
        Err(CallRefused::UnknownUpstream)
    }

    fn set_tick_period(&self, _: u32, _: Duration) {}

    fn foreign_function(&self, _: Option<&dyn HttpStream>, _: &[u8], _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn failed(&self, failure: &Failure) {
        panic!("{failure}");
    }
}

fn plugin() -> Plugin {
    let module = Module::compile(&Engine::new().unwrap(), embedded::FILTER).unwrap();
    let options = VmOptions {
        vm_id: VM_ID.to_owned(),
        vm_configuration: Vec::new(),
        environment_variables: Vec::new(),
        memory_max: 64 << 20,
        callback_deadline: Duration::from_secs(10),
        start_deadline: Duration::from_secs(60),
        queue_waker: None,
    };
    let vm = Vm::new(&module, &Process::new(), options, Rc::new(Quiet)).unwrap();
    let policy = serde_json::json!({
        "real_ip": {"trusted": ["10.0.0.0/8", "192.168.0.0/16"]},
        "routes": [{"match": {"path_prefix": "/static"}, "pool": "shop"}, {"pool": "shop"}],
        "pools": {"shop": {"servers": [
            {"address": "127.0.0.1:81"}, {"address": "127.0.0.1:82"}, {"address": "127.0.0.1:83"},
        ]}},
    });
    let identity = ListenerIdentity {
        name: "web".to_owned(),
        mode: Mode::Http,
        pool: None,
    };
    let configuration = filter_configuration(&identity, &policy);
    vm.start_plugin("evenkeel", HTTP_ROOT_ID, configuration.as_bytes())
        .unwrap()
}

fn one_request(plugin: &Plugin, chain: &Rc<Chain>) -> Usage {
    let before = plugin.vm().usage().unwrap();
    let mut filters = HttpFilters::new(chain, Rc::new(Browser));
    assert!(matches!(filters.request_headers(true), Verdict::Continue));
    assert!(matches!(filters.response_headers(false), Verdict::Continue));
    filters.finish();
    let after = plugin.vm().usage().unwrap();
    Usage {
        hostcalls: after.hostcalls - before.hostcalls,
        allocations: after.allocations - before.allocations,
    }
}

#[test]
fn a_warm_round_robin_request_needs_few_hostcalls_and_two_allocations() {
    let plugin = plugin();
    let chain = Chain::new(vec![plugin.clone()]);
    // The first claims a slot, and the first few answers after every tick are looked at more closely.
    for _ in 0..ASKED_EACH_TICK {
        one_request(&plugin, &chain);
    }
    for _ in 0..100 {
        let used = one_request(&plugin, &chain);
        assert!(used.hostcalls > 0, "the counter counts nothing");
        assert!(used.hostcalls <= HOSTCALLS_MAX, "{used:?}");
        assert!(used.allocations <= ALLOCATIONS_MAX, "{used:?}");
    }
}
