//! What VMs of a process share, as guests and the embedder see it.

use std::sync::{Arc, Mutex};

use evenkeel_host::embedder::QueueWaker;
use evenkeel_host::{Process, VmOptions};

use crate::puppet::{Puppet, Step, call, compiled, puppet_with, put};
use crate::world::options;

fn with(process: &Process, vm_id: &str) -> Puppet {
    puppet_with(
        &compiled().1,
        process.clone(),
        VmOptions {
            vm_id: vm_id.to_owned(),
            ..options()
        },
    )
}

fn tick(puppet: &Puppet, steps: Vec<Step>) -> Vec<u32> {
    puppet.strings.on("tick", steps);
    puppet.running.plugin.tick();
    puppet.strings.take_answers()
}

fn set(value: &'static str, cas: i64) -> Vec<Step> {
    vec![
        put(0x400, "key"),
        put(0x420, value),
        call(
            "proxy_set_shared_data",
            &[0x400, 3, 0x420, value.len() as i64, cas],
        ),
    ]
}

#[test]
fn shared_data_is_one_per_vm_id() {
    let process = Process::new();
    assert!(process.set_shared_data("a", b"key", b"before the first vm", 0));
    let (one, two, other) = (
        with(&process, "a"),
        with(&process, "a"),
        with(&process, "b"),
    );
    let get = || {
        vec![
            put(0x400, "key"),
            call("proxy_get_shared_data", &[0x400, 3, 0x800, 0x804, 0x808]),
        ]
    };
    assert_eq!((tick(&one, get()), tick(&other, get())), (vec![0], vec![1]));
    assert_eq!(tick(&one, set("by one", 0)), [0]);
    assert_eq!(
        tick(
            &two,
            [
                get(),
                vec![Step::ShowGiven(0x800, 0x804), Step::Show(0x808, 4)]
            ]
            .concat()
        ),
        [0]
    );
    let shown = two.strings.take_shown();
    assert_eq!(
        (&shown[0][16..22], shown[1].as_slice()),
        (&b"by one"[..], &[2, 0, 0, 0][..])
    );
    assert_eq!(tick(&two, set("by two", 2)), [0]);
    assert_eq!(tick(&one, set("late", 2)), [8]);
    assert_eq!(
        process.shared_data("a", b"key"),
        Some((b"by two".to_vec(), 3))
    );
    assert!(
        !process.set_shared_data("a", b"key", b"", 2)
            && process.set_shared_data("a", b"key", b"", 3)
    );
    assert_eq!(tick(&two, set("empty", 0)), [0]);
}

#[test]
fn shared_data_goes_with_the_last_vm_unless_it_is_pinned() {
    let process = Process::new();
    for (vm_id, pinned) in [("a", false), ("b", true)] {
        if pinned {
            process.pin_shared_data(vm_id);
        }
        let (one, two) = (with(&process, vm_id), with(&process, vm_id));
        tick(&one, set("v", 0));
        drop(one);
        assert!(process.shared_data(vm_id, b"key").is_some());
        drop(two);
        assert_eq!(process.shared_data(vm_id, b"key").is_some(), pinned);
    }
}

#[derive(Default)]
struct Woken(Mutex<Vec<(u32, u32)>>);

impl QueueWaker for Woken {
    fn wake(&self, root_context: u32, queue: u32) {
        self.0.lock().unwrap().push((root_context, queue));
    }
}

#[test]
fn a_queue_tells_whoever_registered_last() {
    let process = Process::new();
    let (first, second) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
    let vm = |waker: &Arc<Woken>| {
        puppet_with(
            &compiled().1,
            process.clone(),
            VmOptions {
                queue_waker: Some(waker.clone()),
                ..options()
            },
        )
    };
    let (one, two) = (vm(&first), vm(&second));
    let register = || {
        vec![
            put(0x400, "queue"),
            call("proxy_register_shared_queue", &[0x400, 5, 0x800]),
        ]
    };
    tick(&one, register());
    tick(&two, register());
    let sender = with(&process, "sender");
    let resolve = vec![
        put(0x400, "queue"),
        put(0x420, "test"),
        call("proxy_resolve_shared_queue", &[0x420, 4, 0x400, 5, 0x800]),
        Step::Show(0x800, 4),
    ];
    let send = vec![
        put(0x400, "hello"),
        call("proxy_enqueue_shared_queue", &[1, 0x400, 5]),
    ];
    assert_eq!(tick(&sender, [resolve, send].concat()), [0, 0]);
    assert_eq!(sender.strings.take_shown(), [vec![1, 0, 0, 0]]);
    assert_eq!(
        (
            first.0.lock().unwrap().len(),
            second.0.lock().unwrap().as_slice()
        ),
        (0, &[(1, 1)][..])
    );
    let receive = || call("proxy_dequeue_shared_queue", &[1, 0x800, 0x804]);
    // An answer that cannot be handed over stays.
    two.strings.on(
        "queue_ready",
        vec![
            call("proxy_dequeue_shared_queue", &[1, -1, 0x804]),
            receive(),
            Step::ShowGiven(0x800, 0x804),
            receive(),
        ],
    );
    two.running.vm.queue_ready(1, 1);
    assert_eq!(two.strings.take_answers(), [2, 0, 7]);
    assert_eq!(&two.strings.take_shown()[0][16..21], b"hello");
}

#[test]
fn metrics_of_all_vms_are_one() {
    let process = Process::new();
    let (one, two) = (with(&process, "a"), with(&process, "b"));
    let count = |by: i64| {
        vec![
            put(0x400, "my.count"),
            call("proxy_define_metric", &[0, 0x400, 8, 0x800]),
            call("proxy_increment_metric", &[0, by]),
        ]
    };
    assert_eq!(
        (tick(&one, count(2)), tick(&two, count(3))),
        (vec![0, 0], vec![0, 0])
    );
    assert_eq!(
        tick(
            &one,
            vec![call("proxy_get_metric", &[0, 0x800]), Step::Show(0x800, 8)]
        ),
        [0]
    );
    assert_eq!(one.strings.take_shown()[0], 5_u64.to_le_bytes());
    let mut text = String::new();
    process.render_metrics(&mut text);
    assert_eq!(text, "# TYPE my_count counter\nmy_count 5\n");
}
