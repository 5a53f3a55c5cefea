//! A guest that calls anything in any callback, and an owner that calls in any order: nothing panics, nothing is written but answers,
//! and the VM lives on.
//!
//! `EVENKEEL_SOAK=1` for the long form, which also watches the process's memory.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use evenkeel_host::embedder::{HeaderMap, HttpCallOutcome};
use evenkeel_host::http_filters::{Chain, HttpFilters};
use evenkeel_host::tcp_filters::{ClosedBy, TcpFilters};
use evenkeel_host::{Plugin, Process, Vm, VmOptions};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::hostcall_table::inputs;
use crate::hostile_calls::{Call, call};
use crate::puppet::{CALLBACKS, MEMORY_END, Step, compiled};
use crate::tcp::Connection;
use crate::world::{Stream, World, on_chain, options, owned};

const CASES: u32 = 600;
const CASES_SOAK: u32 = 60_000;
/// Calls of one callback.
const CALLS_MAX: usize = 4;
/// Streams, and connections, alive at once.
const STREAMS_MAX: usize = 4;
/// How much more memory the process may need after the long form than after a tenth of it.
const GROWTH_KIB_MAX: u64 = 64 << 10;

/// What the guest is told to do, by the same foreign functions as the puppet; see [`crate::puppet`].
#[derive(Default)]
struct Script {
    /// What to put into the memory before anything else.
    first: RefCell<VecDeque<Step>>,
    calls: RefCell<VecDeque<Call>>,
    /// Calls of this callback so far.
    count: RefCell<usize>,
    state: RefCell<Expect>,
    before: RefCell<Vec<u8>>,
    /// How many calls were judged, and how many of them answered Ok.
    judged: RefCell<(usize, usize)>,
}

/// What comes next in a callback.
#[derive(Default)]
enum Expect {
    #[default]
    Snapshot,
    Call,
    /// A call is being made.
    Answer(Call),
    /// It answered this.
    Result(Call, u32),
}

impl Script {
    fn pull(&self, name: &[u8], arguments: &[u8]) -> Option<Vec<u8>> {
        match name {
            b"step" => Some(self.step(arguments).encode()),
            b"dump" => {
                if let Expect::Result(call, status) = self.state.replace(Expect::Call) {
                    call.judge(status, &self.before.borrow(), arguments);
                    let mut judged = self.judged.borrow_mut();
                    judged.0 += 1;
                    judged.1 += usize::from(status == 0);
                }
                self.before.replace(arguments.to_vec());
                Some(Vec::new())
            }
            b"a-name" => Some(arguments.to_vec()),
            _ => None,
        }
    }

    fn step(&self, arguments: &[u8]) -> Step {
        let number =
            |at: usize| u32::from_le_bytes(arguments[at * 4..at * 4 + 4].try_into().unwrap());
        let snapshot = Step::Show(0, MEMORY_END);
        if number(6) == 1 {
            self.count.replace(0);
            self.state.replace(Expect::Snapshot);
        }
        if let Some(step) = self.first.borrow_mut().pop_front() {
            return step;
        }
        let (_, _, returns) = CALLBACKS[number(0) as usize];
        match self.state.take() {
            Expect::Snapshot => snapshot,
            Expect::Answer(call) => {
                self.state.replace(Expect::Result(call, number(7)));
                snapshot
            }
            Expect::Call | Expect::Result(..) => {
                let count = *self.count.borrow();
                self.count.replace(count + 1);
                let Some(call) = self
                    .calls
                    .borrow_mut()
                    .pop_front()
                    .filter(|_| count < CALLS_MAX)
                else {
                    // Starts succeed; other callbacks pause now and then.
                    let is_start = number(0) < 3;
                    let pauses = number(1).wrapping_add(count as u32) % 3 == 0;
                    return Step::Return(u32::from(returns && (is_start || pauses)));
                };
                let step = Step::Call(call.import().name, call.arguments.clone());
                self.state.replace(Expect::Answer(call));
                step
            }
        }
    }
}

/// What the owner does: which, to whom, how much, and whether it is the end.
type Deed = (u8, u8, u16, bool);

struct Theatre {
    script: Rc<Script>,
    world: Rc<World>,
    vm: Vm,
    plugins: Vec<Plugin>,
    chain: Rc<Chain>,
    streams: VecDeque<(Rc<Stream>, HttpFilters)>,
    connections: VecDeque<TcpFilters>,
}

impl Theatre {
    fn open(calls: Vec<Call>) -> Self {
        let script = Rc::new(Script::default());
        let puts = inputs()
            .into_iter()
            .filter(|step| matches!(step, Step::Put(..)));
        script.first.replace(puts.collect());
        let world = Rc::new(World::default());
        let pulled = script.clone();
        world.foreign.replace(Some(Box::new(move |name, arguments| {
            pulled.pull(name, arguments)
        })));
        let options = VmOptions {
            // Of the debug build of this test, which copies the guest's memory twice for each call.
            callback_deadline: Duration::from_secs(20),
            start_deadline: Duration::from_secs(20),
            ..options()
        };
        let vm = Vm::new(&compiled().1, &Process::new(), options, world.clone()).unwrap();
        let plugins = vec![
            vm.start_plugin("one", "root", b"configuration").unwrap(),
            vm.start_plugin("two", "root", b"configuration").unwrap(),
        ];
        script.calls.replace(calls.into());
        Self {
            script,
            world,
            vm,
            chain: Chain::new(plugins.clone()),
            plugins,
            streams: VecDeque::new(),
            connections: VecDeque::new(),
        }
    }

    fn act(&mut self, (what, whom, amount, is_end): Deed) {
        let data = || vec![b'd'; usize::from(amount)];
        match what % 20 {
            0 | 1 => self.new_stream(),
            2 => {
                let filters = TcpFilters::new(&self.chain, Rc::new(Connection::default()));
                self.connections.push_back(filters);
                self.connections.truncate(STREAMS_MAX);
            }
            3 => self.plugins[usize::from(whom) % 2].tick(),
            4 => self.vm.queue_ready(u32::from(whom), u32::from(amount % 8)),
            5 => self.plugins[usize::from(whom) % 2].foreign_function(u32::from(whom), &data()),
            6 => self.end_call(whom, data(), is_end),
            7 if is_end => self.plugins[1].stop(),
            7 => drop(self.vm.start_plugin("one more", "root", &data())),
            8..=10 => self.act_on_connection(what, whom, data(), is_end),
            _ => self.act_on_stream(what, whom, data(), is_end),
        }
    }

    fn new_stream(&mut self) {
        let (stream, filters) = on_chain(&self.chain);
        let maps = [
            HeaderMap::RequestTrailers,
            HeaderMap::ResponseHeaders,
            HeaderMap::ResponseTrailers,
        ];
        for map in maps {
            stream.put(map, &[(":status", "200"), ("present", "yes")]);
        }
        self.streams.push_back((stream, filters));
        while self.streams.len() > STREAMS_MAX {
            self.streams.pop_front();
        }
    }

    fn end_call(&self, whom: u8, body: Vec<u8>, is_reset: bool) {
        let token = self
            .world
            .calls
            .borrow_mut()
            .pop_front()
            .map(|call| call.token);
        let outcome = if is_reset {
            HttpCallOutcome::Reset
        } else {
            HttpCallOutcome::Response {
                headers: owned(&[(":status", "200"), ("present", "1")]),
                body,
                trailers: owned(&[("present", "2")]),
            }
        };
        // Also of a call that nobody made.
        self.vm
            .http_call_done(token.unwrap_or(u32::from(whom)), outcome);
    }

    fn act_on_connection(&mut self, what: u8, whom: u8, mut data: Vec<u8>, is_end: bool) {
        let count = self.connections.len().max(1);
        let Some(filters) = self.connections.get_mut(usize::from(whom) % count) else {
            return;
        };
        match (what % 20, whom / 4 % 4) {
            (8, _) => drop(filters.new_connection()),
            (9, 0) => drop(filters.upstream_data(&mut data, is_end)),
            (9, _) => drop(filters.downstream_data(&mut data, is_end)),
            (_, 0) => filters.upstream_closed(ClosedBy::Remote),
            (_, 1) => filters.downstream_closed(ClosedBy::Local),
            (_, 2) => filters.finish(),
            _ => {
                while filters.poll_event().is_some() {}
                filters.take_held_data();
            }
        }
    }

    fn act_on_stream(&mut self, what: u8, whom: u8, mut data: Vec<u8>, is_end: bool) {
        let count = self.streams.len().max(1);
        let Some((_, filters)) = self.streams.get_mut(usize::from(whom) % count) else {
            return;
        };
        match what % 20 {
            11 | 12 => drop(filters.request_headers(is_end)),
            13 => drop(filters.request_body(&mut data, is_end)),
            14 => drop(filters.request_trailers()),
            15 => drop(filters.response_headers(is_end)),
            16 => drop(filters.response_body(&mut data, is_end)),
            17 => drop(filters.response_trailers()),
            18 => {
                // Ends: the host queues a bounded number of events.
                while filters.poll_event().is_some() {}
                filters.take_held_request_body();
                filters.take_held_response_body();
            }
            _ => filters.finish(),
        }
    }
}

/// How many calls were judged, and how many of them answered Ok.
fn play(calls: Vec<Call>, deeds: Vec<Deed>) -> (usize, usize) {
    let mut theatre = Theatre::open(calls);
    deeds.into_iter().for_each(|deed| theatre.act(deed));
    theatre.streams.clear();
    theatre.connections.clear();
    theatre.plugins.iter().for_each(Plugin::stop);
    let failure = theatre.vm.failure();
    assert!(failure.is_none(), "{failure:?}");
    assert!(theatre.world.failures.borrow().is_empty());
    theatre.script.judged.take()
}

#[test]
fn whatever_a_guest_calls_wherever_only_answers_are_written() {
    let soak = std::env::var("EVENKEEL_SOAK").as_deref() == Ok("1");
    let cases = if soak { CASES_SOAK } else { CASES };
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let calls = proptest::collection::vec(call(), 0..60);
    let deeds = proptest::collection::vec(any::<Deed>(), 0..40);
    let (judged, fine) = (Cell::new(0), Cell::new(0));
    let (played, early) = (Cell::new(0), Cell::new(0));
    let outcome = TestRunner::new(config).run(&(calls, deeds), |(calls, deeds)| {
        let (more, more_fine) = play(calls, deeds);
        judged.set(judged.get() + more);
        fine.set(fine.get() + more_fine);
        played.set(played.get() + 1);
        if played.get() == cases / 10 {
            early.set(resident_kib());
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    let (judged, fine) = (judged.get(), fine.get());
    // A test of a guest that does nothing, or nothing right, would test nothing.
    assert!(
        judged > 10 * cases as usize && fine > judged / 10,
        "only {judged} calls, {fine} of them fine"
    );
    let grown = resident_kib().saturating_sub(early.get());
    assert!(!soak || grown < GROWTH_KIB_MAX, "{grown} KiB more");
}

/// Memory of this process.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0)
}
