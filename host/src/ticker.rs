//! The thread that moves the engine's epoch on while some VM is inside a callback.
//!
//! Compiled code compares an epoch number at loop heads and function entries; when it has moved, the VM's epoch callback looks at
//! the thread's CPU time and ends a guest that used too much. So the clock need not be precise and calls need no timer of their own: a call
//! sets a flag in its VM's own cache line and clears it afterwards. While no flag has been seen for a while the thread looks only
//! once a second ([`IDLE_TICK`]); the first call after that wakes it up.
//!
//! # Why a look once a second and not none
//! A thread that goes to sleep for ever at the very moment a call begins would need a full fence in every call to be seen. One look a second
//! costs nothing measurable and bounds that race: such a guest is stopped a second late.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, Thread};
use std::time::Duration;

/// Time between two looks while VMs work.
pub(crate) const TICK: Duration = Duration::from_millis(10);
/// Time between two looks while none does.
pub(crate) const IDLE_TICK: Duration = Duration::from_secs(1);
/// Looks without any call seen before the thread goes idle.
const QUIET_TICKS_MAX: u32 = 20;

/// One VM's flags, alone in their cache lines.
#[repr(align(128))]
#[derive(Default)]
pub(crate) struct Activity {
    inside: AtomicBool,
    /// A call happened since the last look.
    called: AtomicBool,
}

struct Shared {
    activities: Mutex<Vec<Weak<Activity>>>,
    idle: AtomicBool,
}

/// Starts with the engine, ends with it.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

impl Ticker {
    pub(crate) fn start(engine: wasmtime::EngineWeak) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            activities: Mutex::new(Vec::new()),
            idle: AtomicBool::new(false),
        });
        let weak = Arc::downgrade(&shared);
        let handle = thread::Builder::new()
            .name("wasm-epoch".to_owned())
            .spawn(move || run(&weak, &engine))?;
        Ok(Self {
            shared,
            thread: handle.thread().clone(),
        })
    }

    pub(crate) fn register(&self) -> Arc<Activity> {
        let activity = Arc::new(Activity::default());
        let mut activities = self
            .shared
            .activities
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        activities.retain(|known| known.strong_count() > 0);
        activities.push(Arc::downgrade(&activity));
        activity
    }

    /// Marks the begin of a callback.
    pub(crate) fn enter(&self, activity: &Activity) {
        activity.inside.store(true, Ordering::Relaxed);
        activity.called.store(true, Ordering::Relaxed);
        if self.shared.idle.load(Ordering::Relaxed)
            && self.shared.idle.swap(false, Ordering::Relaxed)
        {
            self.thread.unpark();
        }
    }

    /// Marks its end.
    pub(crate) fn leave(activity: &Activity) {
        activity.inside.store(false, Ordering::Relaxed);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.thread.unpark();
    }
}

fn run(shared: &Weak<Shared>, engine: &wasmtime::EngineWeak) {
    let mut quiet: u32 = 0;
    // Ends when the engine is gone.
    loop {
        thread::park_timeout(if quiet < QUIET_TICKS_MAX {
            TICK
        } else {
            IDLE_TICK
        });
        let (Some(shared), Some(engine)) = (shared.upgrade(), engine.upgrade()) else {
            return;
        };
        let (mut inside, mut called) = (false, false);
        {
            let activities = shared
                .activities
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            for activity in activities.iter().filter_map(Weak::upgrade) {
                inside |= activity.inside.load(Ordering::Relaxed);
                called |= activity.called.swap(false, Ordering::Relaxed);
            }
        }
        if inside {
            engine.increment_epoch();
        }
        quiet = if inside || called {
            0
        } else {
            quiet.saturating_add(1)
        };
        if quiet >= QUIET_TICKS_MAX {
            shared.idle.store(true, Ordering::Relaxed);
        }
    }
}
