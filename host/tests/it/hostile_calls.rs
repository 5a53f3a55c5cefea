//! Random calls of host functions, and the referee that says after each what of the guest's memory may have changed.
//!
//! What an argument is comes from the table of `hostcall_rows`. Numbers are chosen so that many calls mean something and the rest is
//! wrong in every way: addresses at the end, beyond, wrapping, overlapping; lengths of nothing and of everything.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::OnceLock;

use proptest::prelude::*;
use proptest::sample::select;

use crate::hostcall_rows::{HEAD, IOVEC, Kind, L, NAME, P, PAIRS, PATH, STATE, T, VALUE, rows};
use crate::puppet::{FREE_AT, Import, MEMORY_END, OWN, imports};

/// One call of a function, by its place in [`imports`].
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) function: usize,
    pub(crate) arguments: Vec<i64>,
}

impl Call {
    pub(crate) fn import(&self) -> &'static Import {
        &imports()[self.function]
    }
}

/// What each argument of a function is.
fn kinds(name: &str) -> &'static [Kind] {
    static KINDS: OnceLock<HashMap<&'static str, Vec<Kind>>> = OnceLock::new();
    let table = KINDS.get_or_init(|| {
        let mut table: HashMap<&'static str, Vec<Kind>> = HashMap::new();
        // The first row of a function that does not say another length is its shape.
        for row in rows() {
            let shape: Vec<Kind> = row.arguments.iter().map(|(_, kind)| *kind).collect();
            let known = table.entry(row.name).or_insert_with(|| shape.clone());
            for (known, kind) in known.iter_mut().zip(shape) {
                if *known == Kind::N || *known == Kind::Out(0) {
                    *known = kind;
                }
            }
        }
        table
    });
    &table[name]
}

fn address() -> impl Strategy<Value = i64> {
    let end = i64::from(MEMORY_END);
    let prepared = vec![
        NAME,
        NAME + 16,
        NAME + 32,
        NAME + 40,
        VALUE,
        PAIRS,
        PAIRS + 32,
        STATE,
        STATE + 32,
        IOVEC,
        PATH,
    ];
    prop_oneof![
        4 => select(prepared),
        4 => select(vec![P, L, T, P + 1, L + 3]),
        2 => 0x200..end,
        2 => end - 40..end + 8,
        1 => select(vec![0, -1, -4, i64::from(i32::MAX), i64::from(u32::MAX) - 3]),
    ]
}

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![
        6 => 0..10_i64,
        3 => select(vec![14, 16, 22, 200, 403, HEAD.len() as i64]),
        1 => 0..0x3000_i64,
        1 => 0x10000..i64::from(MEMORY_END) + 2,
        1 => select(vec![-1, i64::from(i32::MIN), i64::from(i32::MAX), i64::from(u32::MAX), i64::MIN, i64::MAX]),
        1 => any::<i64>(),
    ]
}

/// Any function with any arguments, each mostly of its kind.
pub(crate) fn call() -> impl Strategy<Value = Call> {
    let count = imports().len();
    let of_the_abi = imports()
        .iter()
        .filter(|import| import.module == "env")
        .count();
    // `env` comes first.
    let function = prop_oneof![4 => 0..of_the_abi, 1 => of_the_abi..count];
    function.prop_flat_map(|function| {
        let shape = kinds(imports()[function].name);
        let arguments: Vec<BoxedStrategy<i64>> = shape
            .iter()
            .map(|kind| match kind {
                Kind::N => prop_oneof![9 => number(), 1 => address()].boxed(),
                _ => prop_oneof![9 => address(), 1 => number()].boxed(),
            })
            .collect();
        arguments.prop_map(move |arguments| {
            Call {
                function,
                arguments,
            }
            .away_from_own()
        })
    })
}

impl Call {
    /// The puppet would not survive an answer in the memory it needs itself, nor a function that is called by its own names.
    fn away_from_own(mut self) -> Self {
        let is_foreign = self.import().own_name() == "proxy_call_foreign_function";
        for at in 0..self.arguments.len() {
            let name = (is_foreign && at == 0).then(|| self.pointer(0)..self.pointer(0) + 4);
            let range = self.output(at).or(name);
            if range.is_some_and(|range| overlap(&range, &OWN)) {
                self.arguments[at] = 0x2000;
            }
        }
        self
    }

    fn pointer(&self, at: usize) -> usize {
        self.arguments[at] as u32 as usize
    }

    /// Where it writes for this argument if it answers Ok.
    fn output(&self, at: usize) -> Option<Range<usize>> {
        let start = self.pointer(at);
        let length = match kinds(self.import().name)[at] {
            Kind::N | Kind::In => return None,
            Kind::Maybe(_) if start == 0 => return None,
            // Says its length itself.
            Kind::Out(_) if self.import().own_name() == "random_get" => self.pointer(at + 1),
            Kind::Out(length) | Kind::Maybe(length) => length as usize,
        };
        Some(start..start.saturating_add(length))
    }

    fn outputs(&self) -> Vec<Range<usize>> {
        (0..self.arguments.len())
            .filter_map(|at| self.output(at))
            .collect()
    }

    /// Where the address and the length of what the guest was given stand, if the function gives something.
    fn given_at(&self) -> Option<(usize, usize)> {
        let pointer = match self.import().own_name() {
            "proxy_get_header_map_pairs" | "proxy_dequeue_shared_queue" | "proxy_get_status" => 1,
            "proxy_get_property" | "proxy_get_shared_data" => 2,
            "proxy_get_buffer_bytes" | "proxy_get_header_map_value" => 3,
            "proxy_call_foreign_function" => 4,
            _ => return None,
        };
        Some((self.pointer(pointer), self.pointer(pointer + 1)))
    }

    /// The referee: the memory before and after, and the status.
    pub(crate) fn judge(&self, status: u32, before: &[u8], after: &[u8]) {
        let name = self.import().name;
        let is_abi = name.starts_with("proxy_");
        assert!(
            !is_abi || [0, 1, 2, 3, 4, 7, 8, 10].contains(&status),
            "{self:?}: status {status} is none"
        );
        assert_eq!(before.len(), after.len(), "{self:?}");
        let free = |memory: &[u8]| word(memory, FREE_AT);
        let mut allowed = vec![OWN, free(before)..free(after)];
        if status == 0 {
            allowed.extend(self.outputs());
        }
        let mut expected = before.to_vec();
        for range in allowed {
            let range = range.start.min(after.len())..range.end.min(after.len());
            expected[range.clone()].copy_from_slice(&after[range]);
        }
        // As a whole first: comparing byte by byte takes its time in a debug build.
        if expected != after {
            let at = (0..after.len()).find(|at| expected[*at] != after[*at]);
            panic!("{name} {self:x?} -> {status} wrote at {at:x?}");
        }
        if status == 0 {
            self.judge_gift(before, after);
        }
    }

    /// What was given is inside what was allocated for it: the 16 bytes on either side are as the allocator left them.
    fn judge_gift(&self, before: &[u8], after: &[u8]) {
        let Some((pointer_at, length_at)) = self.given_at() else {
            return;
        };
        let heap = word(before, FREE_AT)..word(after, FREE_AT);
        // Of outputs that overlap one another, or what was given, there is nothing to be learned.
        let outputs = self.outputs();
        let is_blurred = outputs.iter().enumerate().any(|(at, range)| {
            overlap(range, &heap) || outputs[..at].iter().any(|other| overlap(range, other))
        });
        if is_blurred || pointer_at == 0 || length_at == 0 {
            return;
        }
        let (start, length) = (word(after, pointer_at), word(after, length_at));
        if start == 0 {
            assert_eq!(length, 0, "{self:?} gave {length} bytes of nothing");
            return;
        }
        assert!(
            heap.contains(&start) && start + length + 16 <= heap.end,
            "{self:?} gave {start:#x}, {length} of {heap:x?}"
        );
        for guard in [start - 16..start, start + length..start + length + 16] {
            assert!(
                after[guard.clone()].iter().all(|byte| *byte == 0xAA),
                "{self:?} wrote a guard at {guard:x?}"
            );
        }
    }
}

fn overlap(one: &Range<usize>, other: &Range<usize>) -> bool {
    one.start < other.end && other.start < one.end
}

fn word(memory: &[u8], at: usize) -> usize {
    u32::from_le_bytes(memory[at..at + 4].try_into().unwrap()) as usize
}
