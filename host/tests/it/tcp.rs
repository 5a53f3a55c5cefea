//! TCP connections: steering, data, the order of the end.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use evenkeel_host::embedder::{Attribute, FilterStateOutcome, TcpStream, Value};
use evenkeel_host::http_filters::{BODY_HELD_MAX, Chain};
use evenkeel_host::tcp_filters::{ClosedBy, TcpEvent, TcpFilters, TcpVerdict};

use crate::puppet::{Puppet, Step, call, puppet, put};
use crate::world::{attribute, set_state};

/// A connection in memory.
#[derive(Default)]
pub(crate) struct Connection {
    pub(crate) state: RefCell<Vec<(Vec<u8>, Vec<u8>)>>,
    pub(crate) woken: Cell<u32>,
}

impl TcpStream for Connection {
    fn attribute(&self, which: Attribute, answer: &mut dyn FnMut(Value<'_>)) -> bool {
        attribute(which, answer)
    }
    fn set_filter_state(&self, path: &[u8], value: &[u8]) -> FilterStateOutcome {
        set_state(&self.state, path, value)
    }
    fn foreign_function(&self, name: &[u8], arguments: &[u8]) -> Option<Vec<u8>> {
        (name == b"of_connection").then(|| [b"got ", arguments].concat())
    }
    fn wake(&self) {
        self.woken.set(self.woken.get() + 1);
    }
}

fn connect(puppet: &Puppet) -> (Rc<Connection>, TcpFilters) {
    let connection = Rc::new(Connection::default());
    let filters = TcpFilters::new(&puppet.running.chain, connection.clone());
    (connection, filters)
}

#[test]
fn a_connection_ends_in_envoys_order() {
    let puppet = puppet();
    let (_, mut filters) = connect(&puppet);
    assert_eq!(filters.new_connection(), TcpVerdict::Continue);
    let mut data = b"hello".to_vec();
    assert_eq!(
        filters.downstream_data(&mut data, false),
        TcpVerdict::Continue
    );
    assert_eq!(data, b"hello");
    filters.upstream_data(&mut data, true);
    filters.upstream_closed(ClosedBy::Remote);
    filters.downstream_closed(ClosedBy::Local);
    filters.finish();
    let trace = puppet.strings.trace.borrow().clone();
    let names: Vec<_> = trace.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names,
        [
            "context_create",
            "new_connection",
            "downstream_data",
            "upstream_data",
            "upstream_connection_close",
            "downstream_connection_close",
            "done",
            "log",
            "delete"
        ]
    );
    assert_eq!(
        (trace[2].1.as_slice(), trace[3].1.as_slice()),
        (&[2, 5, 0][..], &[2, 5, 1][..])
    );
    assert_eq!((trace[4].1[1], trace[5].1[1]), (2, 1));
}

#[test]
fn the_end_is_whole_even_if_nobody_told_of_it() {
    let puppet = puppet();
    let (_, mut filters) = connect(&puppet);
    filters.new_connection();
    drop(filters);
    assert_eq!(
        puppet.strings.take_trace(),
        [
            "context_create",
            "new_connection",
            "upstream_connection_close",
            "downstream_connection_close",
            "done",
            "log",
            "delete"
        ]
    );
}

#[test]
fn a_filter_steers_by_filter_state_and_by_the_connections_own_function() {
    let puppet = puppet();
    let (connection, mut filters) = connect(&puppet);
    puppet.strings.on(
        "new_connection",
        vec![
            put(0x400, "set_envoy_filter_state"),
            put(0x420, b"\x0A\x0Benvoy.known\x12\x0810.0.0.1"),
            put(0x440, "of_connection"),
            call("proxy_call_foreign_function", &[0x400, 22, 0x420, 23, 0, 0]),
            call(
                "proxy_call_foreign_function",
                &[0x440, 13, 0x420, 1, 0x800, 0x804],
            ),
            Step::ShowGiven(0x800, 0x804),
        ],
    );
    assert_eq!(filters.new_connection(), TcpVerdict::Continue);
    assert_eq!(puppet.strings.take_answers(), [0, 0]);
    assert_eq!(
        *connection.state.borrow(),
        [(b"envoy.known".to_vec(), b"10.0.0.1".to_vec())]
    );
    assert_eq!(&puppet.strings.take_shown()[0][16..21], b"got \x0A");
}

#[test]
fn a_paused_connection_is_resumed_by_an_event_and_loses_no_byte() {
    let puppet = puppet();
    let (connection, mut filters) = connect(&puppet);
    puppet.strings.on("new_connection", vec![Step::Return(1)]);
    assert_eq!(filters.new_connection(), TcpVerdict::Pause);
    let mut early = b"early".to_vec();
    assert_eq!(
        filters.downstream_data(&mut early, false),
        TcpVerdict::Pause
    );
    assert!(early.is_empty());
    puppet.strings.on(
        "tick",
        vec![
            call("proxy_set_effective_context", &[2]),
            call("proxy_continue_stream", &[2]),
        ],
    );
    puppet.running.plugin.tick();
    assert_eq!(connection.woken.get(), 1);
    assert_eq!(filters.poll_event(), Some(TcpEvent::Resumed));
    assert_eq!(
        (filters.take_held_data(), filters.poll_event()),
        (b"early".to_vec(), None)
    );
}

#[test]
fn held_data_grows_until_the_filter_lets_go_and_is_bounded() {
    let puppet = puppet();
    let (_, mut filters) = connect(&puppet);
    filters.new_connection();
    puppet.strings.on("downstream_data", vec![Step::Return(1)]);
    assert_eq!(
        filters.downstream_data(&mut b"one ".to_vec(), false),
        TcpVerdict::Pause
    );
    let mut data = b"two".to_vec();
    assert_eq!(
        filters.downstream_data(&mut data, false),
        TcpVerdict::Continue
    );
    assert_eq!(data, b"one two");
    puppet.strings.on("downstream_data", vec![Step::Return(1)]);
    filters.downstream_data(&mut vec![0; 10], false);
    assert_eq!(
        filters.downstream_data(&mut vec![0; BODY_HELD_MAX], false),
        TcpVerdict::Close
    );
}

#[test]
fn a_filter_closes_its_connection() {
    let puppet = puppet();
    let (_, mut filters) = connect(&puppet);
    puppet
        .strings
        .on("new_connection", vec![call("proxy_close_stream", &[2])]);
    assert_eq!(filters.new_connection(), TcpVerdict::Close);
    let (other, mut others) = connect(&puppet);
    others.new_connection();
    puppet.strings.on(
        "tick",
        vec![
            call("proxy_set_effective_context", &[3]),
            call("proxy_close_stream", &[3]),
        ],
    );
    puppet.running.plugin.tick();
    assert_eq!(
        (other.woken.get(), others.poll_event(), others.poll_event()),
        (1, Some(TcpEvent::Close), None)
    );
}

#[test]
fn data_of_the_server_goes_backwards_through_the_chain() {
    let puppet = puppet();
    let second = puppet
        .running
        .vm
        .start_plugin("second", "second", b"")
        .unwrap();
    let chain = Chain::new(vec![puppet.running.plugin.clone(), second]);
    let mut filters = TcpFilters::new(&chain, Rc::new(Connection::default()));
    puppet.strings.take_trace();
    filters.new_connection();
    filters.downstream_data(&mut b"a".to_vec(), false);
    filters.upstream_data(&mut b"b".to_vec(), false);
    let ids: Vec<_> = puppet
        .strings
        .trace
        .borrow()
        .iter()
        .map(|(name, numbers)| (*name, numbers[0]))
        .collect();
    assert_eq!(
        ids[4..],
        [
            ("downstream_data", 3),
            ("downstream_data", 4),
            ("upstream_data", 4),
            ("upstream_data", 3)
        ]
    );
}

#[test]
fn a_trap_fails_the_connection_and_wakes_the_others() {
    let puppet = puppet();
    let (other, mut others) = connect(&puppet);
    others.new_connection();
    let (_, mut filters) = connect(&puppet);
    puppet.strings.on("new_connection", vec![Step::Trap]);
    assert_eq!(filters.new_connection(), TcpVerdict::Failed);
    assert_eq!(
        (other.woken.get(), others.poll_event()),
        (1, Some(TcpEvent::Failed))
    );
    assert_eq!(
        others.downstream_data(&mut vec![1], false),
        TcpVerdict::Failed
    );
}
