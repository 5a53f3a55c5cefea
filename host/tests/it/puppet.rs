//! A guest that does what a test tells it: one module with every import and every callback.
//!
//! In each callback it asks, by a foreign function, what to do next, does it, and says what came of it: call a host function with given numbers,
//! show memory, change memory, trap, loop, grow, return. So a test is a list of steps in Rust, and every host function can be
//! called in every callback with every pointer. The guest's allocator fills what it gives, and 16 bytes on either side, with 0xAA.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fmt::Write;
use std::rc::Rc;
use std::sync::OnceLock;

use evenkeel_host::{Engine, Module, Process, Vm, VmOptions};

use crate::world::{Running, World, options};

/// One import. WASI's has two modules, and so two names for a test: its own, and one that begins with [`UNSTABLE`].
pub(crate) struct Import {
    pub(crate) module: &'static str,
    /// As tests call it.
    pub(crate) name: &'static str,
    /// A letter for each parameter: `i` i32, `I` i64.
    pub(crate) parameters: &'static str,
}

/// Before the name of a function of `wasi_unstable`.
pub(crate) const UNSTABLE: &str = "unstable_";

impl Import {
    /// As the module calls it.
    pub(crate) fn own_name(&self) -> &'static str {
        self.name.strip_prefix(UNSTABLE).unwrap_or(self.name)
    }

    fn returns(&self) -> bool {
        !SILENT.contains(&self.own_name())
    }
}

/// Every import. That none is missing is tested in `hostcall_table`.
pub(crate) fn imports() -> &'static [Import] {
    static IMPORTS: OnceLock<Vec<Import>> = OnceLock::new();
    IMPORTS.get_or_init(|| {
        let import = |module, name, parameters| Import {
            module,
            name,
            parameters,
        };
        let env = ENV.iter().map(|(name, kinds)| import("env", name, kinds));
        let preview = WASI
            .iter()
            .map(|(name, kinds)| import("wasi_snapshot_preview1", name, kinds));
        let unstable = WASI.iter().map(|(name, kinds)| {
            let name = Box::leak(format!("{UNSTABLE}{name}").into_boxed_str());
            import("wasi_unstable", name, kinds)
        });
        env.chain(preview).chain(unstable).collect()
    })
}

/// Functions that answer nothing.
const SILENT: [&str; 2] = ["proc_exit", "emscripten_notify_memory_growth"];

const ENV: &[(&str, &str)] = &[
    ("proxy_log", "iii"),
    ("proxy_get_log_level", "i"),
    ("proxy_get_current_time_nanoseconds", "i"),
    ("proxy_set_tick_period_milliseconds", "i"),
    ("proxy_get_buffer_bytes", "iiiii"),
    ("proxy_get_buffer_status", "iii"),
    ("proxy_set_buffer_bytes", "iiiii"),
    ("proxy_get_header_map_size", "ii"),
    ("proxy_get_header_map_pairs", "iii"),
    ("proxy_set_header_map_pairs", "iii"),
    ("proxy_get_header_map_value", "iiiii"),
    ("proxy_add_header_map_value", "iiiii"),
    ("proxy_replace_header_map_value", "iiiii"),
    ("proxy_remove_header_map_value", "iii"),
    ("proxy_get_property", "iiii"),
    ("proxy_set_property", "iiii"),
    ("proxy_get_shared_data", "iiiii"),
    ("proxy_set_shared_data", "iiiii"),
    ("proxy_register_shared_queue", "iii"),
    ("proxy_resolve_shared_queue", "iiiii"),
    ("proxy_enqueue_shared_queue", "iii"),
    ("proxy_dequeue_shared_queue", "iii"),
    ("proxy_continue_stream", "i"),
    ("proxy_close_stream", "i"),
    ("proxy_send_local_response", "iiiiiiii"),
    ("proxy_http_call", "iiiiiiiiii"),
    ("proxy_grpc_call", "iiiiiiiiiiii"),
    ("proxy_grpc_stream", "iiiiiiiii"),
    ("proxy_grpc_send", "iiii"),
    ("proxy_grpc_cancel", "i"),
    ("proxy_grpc_close", "i"),
    ("proxy_get_status", "iii"),
    ("proxy_set_effective_context", "i"),
    ("proxy_done", ""),
    ("proxy_call_foreign_function", "iiiiii"),
    ("proxy_define_metric", "iiii"),
    ("proxy_get_metric", "ii"),
    ("proxy_record_metric", "iI"),
    ("proxy_increment_metric", "iI"),
    ("pthread_equal", "ii"),
    ("emscripten_notify_memory_growth", "i"),
];

pub(crate) const WASI: &[(&str, &str)] = &[
    ("fd_write", "iiii"),
    ("fd_read", "iiii"),
    ("fd_seek", "iIii"),
    ("fd_tell", "ii"),
    ("fd_close", "i"),
    ("fd_advise", "iIIi"),
    ("fd_allocate", "iII"),
    ("fd_datasync", "i"),
    ("fd_sync", "i"),
    ("fd_fdstat_get", "ii"),
    ("fd_fdstat_set_flags", "ii"),
    ("fd_fdstat_set_rights", "iII"),
    ("fd_filestat_get", "ii"),
    ("fd_filestat_set_size", "iI"),
    ("fd_filestat_set_times", "iIIi"),
    ("fd_pread", "iiiIi"),
    ("fd_pwrite", "iiiIi"),
    ("fd_readdir", "iiiIi"),
    ("fd_renumber", "ii"),
    ("fd_prestat_get", "ii"),
    ("fd_prestat_dir_name", "iii"),
    ("path_open", "iiiiiIIii"),
    ("path_create_directory", "iii"),
    ("path_filestat_get", "iiiii"),
    ("path_filestat_set_times", "iiiiIIi"),
    ("path_link", "iiiiiii"),
    ("path_readlink", "iiiiii"),
    ("path_remove_directory", "iii"),
    ("path_rename", "iiiiii"),
    ("path_symlink", "iiiii"),
    ("path_unlink_file", "iii"),
    ("environ_get", "ii"),
    ("environ_sizes_get", "ii"),
    ("args_get", "ii"),
    ("args_sizes_get", "ii"),
    ("clock_time_get", "iIi"),
    ("clock_res_get", "ii"),
    ("random_get", "ii"),
    ("poll_oneoff", "iiii"),
    ("sched_yield", ""),
    ("proc_exit", "i"),
    ("proc_raise", "i"),
    ("sock_accept", "iii"),
    ("sock_recv", "iiiiii"),
    ("sock_send", "iiiii"),
    ("sock_shutdown", "ii"),
];

/// Every callback: name without `proxy_on_`, parameters, whether it returns a number.
pub(crate) const CALLBACKS: &[(&str, usize, bool)] = &[
    ("context_create", 2, false),
    ("vm_start", 2, true),
    ("configure", 2, true),
    ("tick", 1, false),
    ("request_headers", 3, true),
    ("request_body", 3, true),
    ("request_trailers", 2, true),
    ("response_headers", 3, true),
    ("response_body", 3, true),
    ("response_trailers", 2, true),
    ("http_call_response", 5, false),
    ("queue_ready", 2, false),
    ("foreign_function", 3, false),
    ("new_connection", 1, true),
    ("downstream_data", 3, true),
    ("upstream_data", 3, true),
    ("downstream_connection_close", 2, false),
    ("upstream_connection_close", 2, false),
    ("done", 1, true),
    ("log", 1, false),
    ("delete", 1, false),
];

/// The memory that the puppet needs itself: names, what it is told and says, and where its free memory begins (at [`FREE_AT`]).
pub(crate) const OWN: std::ops::Range<usize> = 0x80..0x160;
pub(crate) const FREE_AT: usize = 0x150;

/// Pages of the puppet's memory.
pub(crate) const MEMORY_PAGES: u32 = 4;
pub(crate) const MEMORY_END: u32 = MEMORY_PAGES << 16;

/// The puppet's text. `extra` goes into the module.
pub(crate) fn wat(extra: &str) -> String {
    let mut out = String::from("(module\n");
    for import in imports() {
        let kinds: String = import
            .parameters
            .chars()
            .map(|kind| if kind == 'i' { " i32" } else { " i64" })
            .collect();
        let parameters = if kinds.is_empty() {
            String::new()
        } else {
            format!("(param{kinds})")
        };
        let result = if import.returns() { "(result i32)" } else { "" };
        writeln!(
            out,
            r#"(import "{}" "{}" (func ${} {parameters} {result}))"#,
            import.module,
            import.own_name(),
            import.name
        )
        .unwrap();
    }
    out.push_str(CORE);
    out.push_str("(func $dispatch (param $index i32) (param $at i32) (result i32)\n");
    for (index, import) in imports().iter().enumerate() {
        let name = import.name;
        write!(
            out,
            "(if (i32.eq (local.get $index) (i32.const {index})) (then (call ${name}"
        )
        .unwrap();
        for (position, kind) in import.parameters.chars().enumerate() {
            let load = format!("(i64.load offset={} (local.get $at))", position * 8);
            if kind == 'i' {
                write!(out, " (i32.wrap_i64 {load})").unwrap()
            } else {
                write!(out, " {load}").unwrap()
            }
        }
        let nothing = if import.returns() {
            ""
        } else {
            "(i32.const 0)"
        };
        writeln!(out, ") {nothing} return))").unwrap();
    }
    out.push_str("unreachable)\n");
    for (index, (name, parameters, returns)) in CALLBACKS.iter().enumerate() {
        let kinds = " i32".repeat(*parameters);
        let result = if *returns { "(result i32)" } else { "" };
        let stores: String = (0..*parameters)
            .map(|n| {
                format!(
                    "(i32.store offset={} (i32.const 0x100) (local.get {n}))",
                    4 + 4 * n
                )
            })
            .collect();
        let run = if *returns {
            "(call $run)"
        } else {
            "(drop (call $run))"
        };
        writeln!(out, r#"(func (export "proxy_on_{name}") (param{kinds}) {result} (i32.store (i32.const 0x100) (i32.const {index})) {stores} {run})"#)
            .unwrap();
    }
    out.push_str(extra);
    out.push(')');
    out
}

/// What a step's answer looks like: an operation and its numbers, as in [`Step::encode`].
const CORE: &str = r#"
(memory (export "memory") 4)
(data (i32.const 0x80) "step") (data (i32.const 0x90) "dump")
(global $free (mut i32) (i32.const 0x10000))
(func (export "proxy_abi_version_0_2_1"))
(func (export "malloc") (param $size i32) (result i32) (local $at i32)
  (local.set $at (i32.add (global.get $free) (i32.const 16)))
  (if (i32.gt_u (i32.add (local.get $at) (i32.add (local.get $size) (i32.const 16))) (i32.const 0x40000)) (then (return (i32.const 0))))
  (memory.fill (global.get $free) (i32.const 0xAA) (i32.add (local.get $size) (i32.const 32)))
  (global.set $free (i32.and (i32.add (i32.add (local.get $at) (local.get $size)) (i32.const 31)) (i32.const 0xFFFFFFF0)))
  (i32.store (i32.const 0x150) (global.get $free))
  (local.get $at))
(func $show (param $at i32) (param $size i32)
  (drop (call $proxy_call_foreign_function (i32.const 0x90) (i32.const 4) (local.get $at) (local.get $size) (i32.const 0) (i32.const 0))))
(func $run (result i32) (local $at i32) (local $op i32) (local $a i32) (local $b i32)
  (global.set $free (i32.const 0x10000))
  (i32.store (i32.const 0x150) (global.get $free))
  (i32.store (i32.const 0x118) (i32.const 1))
  (loop $next
    (i32.store (i32.const 0x140) (i32.const 0))
    (if (call $proxy_call_foreign_function (i32.const 0x80) (i32.const 4) (i32.const 0x100) (i32.const 0x20) (i32.const 0x140) (i32.const 0x144))
      (then (return (i32.const 0))))
    (local.set $at (i32.load (i32.const 0x140)))
    (local.set $op (i32.load (local.get $at)))
    (local.set $a (i32.load offset=4 (local.get $at)))
    (local.set $b (i32.load offset=8 (local.get $at)))
    (i32.store (i32.const 0x118) (i32.const 0))
    (if (i32.eq (local.get $op) (i32.const 0)) (then (return (local.get $a))))
    (if (i32.eq (local.get $op) (i32.const 1)) (then (i32.store (i32.const 0x11C) (call $dispatch (local.get $a) (i32.add (local.get $at) (i32.const 8))))))
    (if (i32.eq (local.get $op) (i32.const 2)) (then (call $show (local.get $a) (local.get $b))))
    (if (i32.eq (local.get $op) (i32.const 3)) (then (memory.copy (local.get $a) (i32.add (local.get $at) (i32.const 12)) (local.get $b))))
    (if (i32.eq (local.get $op) (i32.const 4)) (then unreachable))
    (if (i32.eq (local.get $op) (i32.const 5)) (then (loop $for_ever (br $for_ever))))
    (if (i32.eq (local.get $op) (i32.const 6)) (then (i32.store (i32.const 0x11C) (memory.grow (local.get $a)))))
    (if (i32.eq (local.get $op) (i32.const 7)) (then (call $show (i32.sub (i32.load (local.get $a)) (i32.const 16)) (i32.add (i32.load (local.get $b)) (i32.const 32)))))
    (if (i32.eq (local.get $op) (i32.const 8)) (then
      (loop $count (local.set $a (i32.sub (local.get $a) (i32.const 1))) (br_if $count (local.get $a)))))
    (br $next))
  unreachable)
"#;

/// One thing to do.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Ends the callback.
    Return(u32),
    Call(&'static str, Vec<i64>),
    Show(u32, u32),
    Put(u32, Vec<u8>),
    Trap,
    LoopForEver,
    Grow(u32),
    /// Shows what was allocated for an answer, given where its pointer and length are, and 16 bytes on either side.
    ShowGiven(u32, u32),
    /// A loop of so many rounds.
    Count(u32),
}

impl Step {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let head = |op: u32, a: u32, b: u32| {
            [op, a, b]
                .iter()
                .flat_map(|number| number.to_le_bytes())
                .collect::<Vec<_>>()
        };
        match self {
            Step::Return(value) => head(0, *value, 0),
            Step::Call(name, arguments) => {
                let index = imports()
                    .iter()
                    .position(|import| import.name == *name)
                    .unwrap_or_else(|| panic!("{name}"));
                let mut out = head(1, index as u32, 0);
                out.truncate(8);
                arguments
                    .iter()
                    .for_each(|argument| out.extend_from_slice(&argument.to_le_bytes()));
                out.resize(8 + 12 * 8, 0);
                out
            }
            Step::Show(at, length) => head(2, *at, *length),
            Step::Put(at, data) => [head(3, *at, data.len() as u32), data.clone()].concat(),
            Step::Trap => head(4, 0, 0),
            Step::LoopForEver => head(5, 0, 0),
            Step::Grow(pages) => head(6, *pages, 0),
            Step::ShowGiven(pointer_at, length_at) => head(7, *pointer_at, *length_at),
            Step::Count(rounds) => head(8, *rounds, 0),
        }
    }
}

pub(crate) fn call(name: &'static str, arguments: &[i64]) -> Step {
    Step::Call(name, arguments.to_vec())
}

pub(crate) fn put(at: u32, data: impl AsRef<[u8]>) -> Step {
    Step::Put(at, data.as_ref().to_vec())
}

/// The strings of the puppet.
#[derive(Default)]
pub(crate) struct Strings {
    scripts: RefCell<HashMap<&'static str, VecDeque<Vec<Step>>>>,
    running: RefCell<VecDeque<Step>>,
    last: RefCell<Option<Step>>,
    /// Every callback with its arguments.
    pub(crate) trace: RefCell<Vec<(&'static str, Vec<u32>)>>,
    /// What host functions and `Grow` answered.
    pub(crate) answers: RefCell<Vec<u32>>,
    /// What was shown.
    pub(crate) shown: RefCell<Vec<Vec<u8>>>,
}

impl Strings {
    /// What to do the next time this callback comes (after what was said before).
    pub(crate) fn on(&self, callback: &'static str, steps: Vec<Step>) {
        assert!(
            CALLBACKS.iter().any(|(known, _, _)| *known == callback),
            "{callback}"
        );
        self.scripts
            .borrow_mut()
            .entry(callback)
            .or_default()
            .push_back(steps);
    }

    pub(crate) fn take_answers(&self) -> Vec<u32> {
        self.answers.take()
    }

    pub(crate) fn take_shown(&self) -> Vec<Vec<u8>> {
        self.shown.take()
    }

    /// Names of the callbacks since the last time.
    pub(crate) fn take_trace(&self) -> Vec<&'static str> {
        self.trace
            .take()
            .into_iter()
            .map(|(name, _)| name)
            .collect()
    }

    fn pull(&self, name: &[u8], arguments: &[u8]) -> Option<Vec<u8>> {
        match name {
            b"dump" => self.shown.borrow_mut().push(arguments.to_vec()),
            b"step" => {
                let number = |at: usize| {
                    u32::from_le_bytes(arguments[at * 4..at * 4 + 4].try_into().unwrap())
                };
                let (callback, parameters, returns) = CALLBACKS[number(0) as usize];
                if number(6) == 1 {
                    self.trace
                        .borrow_mut()
                        .push((callback, (0..parameters).map(|n| number(1 + n)).collect()));
                    let script = self
                        .scripts
                        .borrow_mut()
                        .get_mut(callback)
                        .and_then(VecDeque::pop_front);
                    self.running.replace(script.unwrap_or_default().into());
                } else if matches!(self.last.take(), Some(Step::Call(..) | Step::Grow(_))) {
                    self.answers.borrow_mut().push(number(7));
                }
                let default = if returns && matches!(callback, "vm_start" | "configure" | "done") {
                    1
                } else {
                    0
                };
                let step = self
                    .running
                    .borrow_mut()
                    .pop_front()
                    .unwrap_or(Step::Return(default));
                self.last.replace(Some(step.clone()));
                return Some(step.encode());
            }
            b"echo" => return Some(arguments.to_vec()),
            _ => return None,
        }
        Some(Vec::new())
    }
}

/// The compiled puppet, once for all tests.
pub(crate) fn compiled() -> &'static (Engine, Module) {
    static PUPPET: OnceLock<(Engine, Module)> = OnceLock::new();
    PUPPET.get_or_init(|| {
        let engine = Engine::new().unwrap();
        let module = crate::world::module(&engine, &wat(""));
        (engine, module)
    })
}

/// A puppet that runs.
pub(crate) struct Puppet {
    pub(crate) strings: Rc<Strings>,
    pub(crate) running: Running,
}

pub(crate) fn puppet() -> Puppet {
    puppet_with(&compiled().1, Process::new(), options())
}

pub(crate) fn puppet_with(module: &Module, process: Process, options: VmOptions) -> Puppet {
    let (world, strings) = strung();
    let vm = Vm::new(module, &process, options, world.clone()).unwrap();
    let plugin = vm
        .start_plugin("plugin", "root", b"plugin configuration")
        .unwrap();
    strings.take_trace();
    let chain = evenkeel_host::http_filters::Chain::new(vec![plugin.clone()]);
    Puppet {
        strings,
        running: Running {
            world,
            vm,
            plugin,
            chain,
        },
    }
}

/// A world whose guest's strings are in hand before it starts.
pub(crate) fn strung() -> (Rc<World>, Rc<Strings>) {
    let (world, strings) = (Rc::new(World::default()), Rc::new(Strings::default()));
    let pulled = strings.clone();
    world.foreign.replace(Some(Box::new(move |name, arguments| {
        pulled.pull(name, arguments)
    })));
    (world, strings)
}
