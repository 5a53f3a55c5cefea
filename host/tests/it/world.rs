//! The embedder of these tests: an environment that writes down what it is told, streams that keep their maps in memory.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use evenkeel_host::embedder::*;
use evenkeel_host::http_filters::{Chain, HttpFilters};
use evenkeel_host::{Engine, Failure, Module, Plugin, Process, StartError, Vm, VmOptions};

/// An engine for one test.
pub(crate) fn engine() -> Engine {
    Engine::new().unwrap()
}

/// A module from WAT.
pub(crate) fn module(engine: &Engine, wat: &str) -> Module {
    Module::compile(engine, &wat::parse_str(wat).unwrap()).unwrap()
}

pub(crate) fn options() -> VmOptions {
    VmOptions {
        vm_id: "test".to_owned(),
        vm_configuration: b"vm configuration".to_vec(),
        environment_variables: vec![
            ("A".to_owned(), "1".to_owned()),
            ("LONG".to_owned(), "value".to_owned()),
        ],
        memory_max: 16 << 20,
        callback_deadline: Duration::from_millis(100),
        start_deadline: Duration::from_secs(5),
        queue_waker: None,
    }
}

type Foreign = Box<dyn Fn(&[u8], &[u8]) -> Option<Vec<u8>>>;

/// What the VM told its embedder.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) logs: RefCell<Vec<(LogLevel, String)>>,
    pub(crate) calls: RefCell<VecDeque<HttpCall>>,
    pub(crate) refuse_calls: Cell<Option<CallRefused>>,
    pub(crate) ticks: RefCell<Vec<(u32, Duration)>>,
    pub(crate) failures: RefCell<Vec<Failure>>,
    pub(crate) foreign: RefCell<Option<Foreign>>,
    /// Done in every log line: for guests that have to wait.
    pub(crate) on_log: RefCell<Option<Box<dyn Fn()>>>,
}

impl World {
    pub(crate) fn lines(&self) -> Vec<String> {
        self.logs
            .borrow()
            .iter()
            .map(|(_, line)| line.clone())
            .collect()
    }
}

impl Environment for World {
    fn log(&self, level: LogLevel, message: &[u8]) {
        self.logs
            .borrow_mut()
            .push((level, String::from_utf8_lossy(message).into_owned()));
        if let Some(action) = &*self.on_log.borrow() {
            action();
        }
    }
    fn log_level(&self) -> LogLevel {
        LogLevel::Warn
    }
    fn http_call(&self, call: HttpCall) -> Result<(), CallRefused> {
        if let Some(refused) = self.refuse_calls.get() {
            return Err(refused);
        }
        self.calls.borrow_mut().push_back(call);
        Ok(())
    }
    fn set_tick_period(&self, root_context: u32, period: Duration) {
        self.ticks.borrow_mut().push((root_context, period));
    }
    fn foreign_function(
        &self,
        _stream: Option<&dyn HttpStream>,
        name: &[u8],
        arguments: &[u8],
    ) -> Option<Vec<u8>> {
        self.foreign.borrow().as_ref()?(name, arguments)
    }
    fn failed(&self, failure: &Failure) {
        self.failures.borrow_mut().push(failure.clone());
    }
}

/// A VM of one module with one plugin, and its world.
pub(crate) struct Running {
    pub(crate) world: Rc<World>,
    pub(crate) vm: Vm,
    pub(crate) plugin: Plugin,
    pub(crate) chain: Rc<Chain>,
}

pub(crate) fn run(engine: &Engine, wat: &str) -> Running {
    run_with(engine, wat, Process::new(), options(), Rc::default()).unwrap()
}

pub(crate) fn run_with(
    engine: &Engine,
    wat: &str,
    process: Process,
    options: VmOptions,
    world: Rc<World>,
) -> Result<Running, StartError> {
    let vm = Vm::new(&module(engine, wat), &process, options, world.clone())?;
    let plugin = vm.start_plugin("plugin", "root", b"plugin configuration")?;
    let chain = Chain::new(vec![plugin.clone()]);
    Ok(Running {
        world,
        vm,
        plugin,
        chain,
    })
}

impl Running {
    pub(crate) fn stream(&self) -> (Rc<Stream>, HttpFilters) {
        on_chain(&self.chain)
    }
}

pub(crate) fn on_chain(chain: &Rc<Chain>) -> (Rc<Stream>, HttpFilters) {
    let stream = Rc::new(Stream::get("/path?a=1#f"));
    let filters = HttpFilters::new(chain, stream.clone());
    (stream, filters)
}

/// A stream in memory.
#[derive(Default)]
pub(crate) struct Stream {
    maps: RefCell<[Option<Pairs>; 4]>,
    pub(crate) woken: Cell<u32>,
    pub(crate) route_cleared: Cell<u32>,
    pub(crate) state: RefCell<Vec<(Vec<u8>, Vec<u8>)>>,
}

fn slot(map: HeaderMap) -> usize {
    match map {
        HeaderMap::RequestHeaders => 0,
        HeaderMap::RequestTrailers => 1,
        HeaderMap::ResponseHeaders => 2,
        HeaderMap::ResponseTrailers => 3,
    }
}

pub(crate) fn owned(pairs: &[(&str, &str)]) -> Pairs {
    pairs
        .iter()
        .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
        .collect()
}

impl Stream {
    pub(crate) fn get(path: &str) -> Self {
        let stream = Self::default();
        let host = (":authority", "example.test");
        stream.put(
            HeaderMap::RequestHeaders,
            &[
                host,
                (":path", path),
                (":method", "GET"),
                (":scheme", "http"),
                ("cookie", "a=1"),
                ("cookie", "b=2"),
            ],
        );
        stream
    }

    pub(crate) fn put(&self, map: HeaderMap, pairs: &[(&str, &str)]) {
        self.maps.borrow_mut()[slot(map)] = Some(owned(pairs));
    }

    pub(crate) fn field(&self, map: HeaderMap, name: &str) -> Option<String> {
        let mut found = None;
        self.value(map, name.as_bytes(), &mut |value| {
            found = Some(String::from_utf8_lossy(value).into_owned())
        });
        found
    }

    /// Waits for the owner's wake-up since the last time it was asked.
    pub(crate) fn was_woken(&self) -> bool {
        self.woken.replace(0) > 0
    }
}

impl HttpStream for Stream {
    fn pairs(&self, map: HeaderMap, visit: &mut dyn FnMut(&[u8], &[u8])) -> bool {
        let maps = self.maps.borrow();
        let Some(pairs) = &maps[slot(map)] else {
            return false;
        };
        pairs.iter().for_each(|(name, value)| visit(name, value));
        true
    }
    fn value(&self, map: HeaderMap, name: &[u8], visit: &mut dyn FnMut(&[u8])) -> bool {
        let maps = self.maps.borrow();
        let Some(pairs) = &maps[slot(map)] else {
            return false;
        };
        let name = if name.eq_ignore_ascii_case(b"host") {
            b":authority"
        } else {
            name
        };
        if let Some((_, value)) = pairs
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
        {
            visit(value);
        }
        true
    }
    fn add(&self, map: HeaderMap, name: &[u8], value: &[u8]) -> bool {
        let mut maps = self.maps.borrow_mut();
        let Some(pairs) = maps[slot(map)]
            .as_mut()
            .filter(|_| !name.is_empty() && !name.contains(&b' '))
        else {
            return false;
        };
        pairs.push((name.to_ascii_lowercase(), value.to_vec()));
        true
    }
    fn replace(&self, map: HeaderMap, name: &[u8], value: &[u8]) -> bool {
        self.remove(map, name) && self.add(map, name, value)
    }
    fn remove(&self, map: HeaderMap, name: &[u8]) -> bool {
        let mut maps = self.maps.borrow_mut();
        let Some(pairs) = &mut maps[slot(map)] else {
            return false;
        };
        pairs.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        true
    }
    fn replace_all(&self, map: HeaderMap, pairs: &mut dyn Iterator<Item = (&[u8], &[u8])>) -> bool {
        let mut maps = self.maps.borrow_mut();
        let Some(place) = &mut maps[slot(map)] else {
            return false;
        };
        *place = pairs
            .map(|(name, value)| (name.to_vec(), value.to_vec()))
            .collect();
        true
    }
    fn attribute(&self, attribute: Attribute, answer: &mut dyn FnMut(Value<'_>)) -> bool {
        self::attribute(attribute, answer)
    }
    fn clear_route_cache(&self) {
        self.route_cleared.set(self.route_cleared.get() + 1);
    }
    fn set_filter_state(&self, path: &[u8], value: &[u8]) -> FilterStateOutcome {
        set_state(&self.state, path, value)
    }
    fn wake(&self) {
        self.woken.set(self.woken.get() + 1);
    }
}

/// One of each encoding.
pub(crate) fn attribute(attribute: Attribute, answer: &mut dyn FnMut(Value<'_>)) -> bool {
    match attribute {
        Attribute::SourceAddress => answer(Value::Bytes(b"192.0.2.1:4711")),
        Attribute::SourcePort => answer(Value::Int(4711)),
        Attribute::ConnectionId => answer(Value::Uint(u64::MAX)),
        Attribute::ConnectionMtls => answer(Value::Bool(true)),
        Attribute::RequestTime => answer(Value::TimestampNanos(-1)),
        Attribute::RequestDuration => answer(Value::Duration(Duration::from_millis(2))),
        Attribute::ResponseFlags => answer(Value::Int(0x20)),
        Attribute::RequestSize => answer(Value::Double(0.5)),
        Attribute::RequestedServerName => answer(Value::Bytes(b"")),
        _ => return false,
    }
    true
}

pub(crate) fn set_state(
    table: &RefCell<Vec<(Vec<u8>, Vec<u8>)>>,
    path: &[u8],
    value: &[u8],
) -> FilterStateOutcome {
    match (path, value) {
        (b"envoy.known", b"bad") => FilterStateOutcome::BadValue,
        (b"envoy.known", _) => {
            table.borrow_mut().push((path.to_vec(), value.to_vec()));
            FilterStateOutcome::Set
        }
        _ => FilterStateOutcome::UnknownPath,
    }
}
