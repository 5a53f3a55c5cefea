//! Shared queues: a name per `vm_id`, one consumer (whoever registered last), anyone may send.
//!
//! Envoy's queues are unbounded; these are not. A queue goes with the last VM of the `vm_id` that registered it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::embedder::QueueWaker;

/// Most queues of a process.
pub(crate) const QUEUES_MAX: usize = 1024;
/// Longest queue name, bytes.
pub(crate) const NAME_BYTES_MAX: usize = 256;
/// Most messages waiting in one queue.
pub(crate) const MESSAGES_MAX: usize = 10_000;
/// Most bytes waiting in one queue.
pub(crate) const BYTES_MAX: usize = 16 << 20;
/// Most bytes waiting in all queues of a process, each message counted with [`MESSAGE_COST`].
pub(crate) const TOTAL_BYTES_MAX: usize = 64 << 20;
/// What a message costs besides its bytes.
const MESSAGE_COST: usize = 64;
/// How often a consumer is told of messages it has fetched already. A consumer is told once for each message, as in Envoy; one that
/// sends to itself and fetches within one callback would otherwise pile up news without end.
const STALE_NEWS_MAX: usize = 1000;

/// Whom a queue tells.
pub(crate) struct Consumer {
    pub(crate) waker: Option<Arc<dyn QueueWaker>>,
    pub(crate) root_context: u32,
}

struct Queue {
    vm_id: String,
    name: Vec<u8>,
    consumer: Consumer,
    messages: VecDeque<Vec<u8>>,
    bytes: usize,
    /// How often the consumer has been told and has not been called yet.
    news: usize,
}

#[derive(Default)]
struct Table {
    queues: HashMap<u32, Queue>,
    /// Of all queues, with [`MESSAGE_COST`].
    bytes: usize,
    last: u32,
}

/// All queues of a process.
#[derive(Default)]
pub(crate) struct Queues {
    table: Mutex<Table>,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    Yes,
    NoSuchQueue,
    Full,
}

impl Queues {
    /// The queue's number; the new consumer replaces the old one. `None`: too many queues, or too long a name.
    pub(crate) fn register(&self, vm_id: &str, name: &[u8], consumer: Consumer) -> Option<u32> {
        let mut table = self.table();
        if let Some(id) = table.find(vm_id, name) {
            if let Some(queue) = table.queues.get_mut(&id) {
                queue.consumer = consumer;
                queue.news = 0;
            }
            return Some(id);
        }
        if table.queues.len() >= QUEUES_MAX || name.len() > NAME_BYTES_MAX {
            return None;
        }
        table.last = table.last.checked_add(1)?;
        let id = table.last;
        let queue = Queue {
            vm_id: vm_id.to_owned(),
            name: name.to_vec(),
            consumer,
            messages: VecDeque::new(),
            bytes: 0,
            news: 0,
        };
        table.queues.insert(id, queue);
        Some(id)
    }

    pub(crate) fn resolve(&self, vm_id: &[u8], name: &[u8]) -> Option<u32> {
        self.table().find(std::str::from_utf8(vm_id).ok()?, name)
    }

    /// Sends, and tells the consumer after the lock is released.
    pub(crate) fn send(&self, id: u32, message: &[u8]) -> Sent {
        let (waker, root_context) = {
            let mut table = self.table();
            let total = table.bytes.saturating_add(message.len() + MESSAGE_COST);
            let Some(queue) = table.queues.get_mut(&id) else {
                return Sent::NoSuchQueue;
            };
            if queue.messages.len() >= MESSAGES_MAX
                || queue.bytes + message.len() > BYTES_MAX
                || total > TOTAL_BYTES_MAX
            {
                return Sent::Full;
            }
            queue.bytes += message.len();
            queue.messages.push_back(message.to_vec());
            let tells = queue.news < queue.messages.len().max(STALE_NEWS_MAX);
            queue.news += usize::from(tells);
            let waker = queue.consumer.waker.clone().filter(|_| tells);
            let root_context = queue.consumer.root_context;
            table.bytes = total;
            (waker, root_context)
        };
        if let Some(waker) = waker {
            waker.wake(root_context, id);
        }
        Sent::Yes
    }

    /// The oldest message; `Some(None)`: nothing there.
    pub(crate) fn receive(&self, id: u32) -> Option<Option<Vec<u8>>> {
        let mut table = self.table();
        let queue = table.queues.get_mut(&id)?;
        let message = queue.messages.pop_front();
        if let Some(message) = &message {
            queue.bytes = queue.bytes.saturating_sub(message.len());
            table.bytes = table.bytes.saturating_sub(message.len() + MESSAGE_COST);
        }
        Some(message)
    }

    /// The consumer is being called.
    pub(crate) fn has_heard(&self, id: u32) {
        if let Some(queue) = self.table().queues.get_mut(&id) {
            queue.news = queue.news.saturating_sub(1);
        }
    }

    /// Puts a message back that the guest had no room for.
    pub(crate) fn put_back(&self, id: u32, message: Vec<u8>) {
        let mut table = self.table();
        let size = message.len();
        if let Some(queue) = table.queues.get_mut(&id) {
            queue.bytes += size;
            queue.messages.push_front(message);
            table.bytes += size + MESSAGE_COST;
        }
    }

    pub(crate) fn drop_of(&self, vm_id: &str) {
        let mut table = self.table();
        table.queues.retain(|_, queue| queue.vm_id != vm_id);
        let left = |queue: &Queue| queue.bytes + queue.messages.len() * MESSAGE_COST;
        table.bytes = table.queues.values().map(left).sum();
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// At most [`QUEUES_MAX`] comparisons, when a guest starts.
    fn find(&self, vm_id: &str, name: &[u8]) -> Option<u32> {
        self.queues
            .iter()
            .find(|(_, queue)| queue.vm_id == vm_id && queue.name == name)
            .map(|(id, _)| *id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nobody() -> Consumer {
        Consumer {
            waker: None,
            root_context: 1,
        }
    }

    #[test]
    fn delivers_in_order_by_name_and_vm_id() {
        let queues = Queues::default();
        let id = queues.register("a", b"q", nobody()).unwrap();
        assert_eq!(queues.register("a", b"q", nobody()), Some(id));
        assert_ne!(queues.register("b", b"q", nobody()), Some(id));
        assert_eq!(
            (queues.resolve(b"a", b"q"), queues.resolve(b"a", b"r")),
            (Some(id), None)
        );
        assert_eq!(
            (
                queues.send(id, b"1"),
                queues.send(id, b""),
                queues.send(99, b"x")
            ),
            (Sent::Yes, Sent::Yes, Sent::NoSuchQueue)
        );
        assert_eq!(queues.receive(id), Some(Some(b"1".to_vec())));
        assert_eq!(queues.receive(id), Some(Some(Vec::new())));
        assert_eq!((queues.receive(id), queues.receive(99)), (Some(None), None));
        queues.drop_of("a");
        assert_eq!(queues.receive(id), None);
    }

    #[test]
    fn a_queue_is_bounded() {
        let queues = Queues::default();
        let id = queues.register("a", b"q", nobody()).unwrap();
        assert!((0..MESSAGES_MAX).all(|_| queues.send(id, b"") == Sent::Yes));
        assert_eq!(queues.send(id, b""), Sent::Full);
        let big = queues.register("a", b"big", nobody()).unwrap();
        assert_eq!(queues.send(big, &vec![0; BYTES_MAX + 1]), Sent::Full);
        assert_eq!(
            queues.register("a", &[0; NAME_BYTES_MAX + 1], nobody()),
            None
        );
    }
    #[test]
    fn all_queues_together_are_bounded() {
        let queues = Queues::default();
        let message = vec![0; BYTES_MAX / 2];
        let mut sent = 0;
        for number in 0..QUEUES_MAX {
            let id = queues
                .register("a", &number.to_le_bytes(), nobody())
                .unwrap();
            sent += usize::from(queues.send(id, &message) == Sent::Yes);
        }
        assert_eq!(sent, TOTAL_BYTES_MAX / (message.len() + MESSAGE_COST));
        queues.drop_of("a");
        let id = queues.register("a", b"q", nobody()).unwrap();
        assert_eq!(queues.send(id, &message), Sent::Yes);
    }

    #[derive(Default)]
    struct Counter(std::sync::atomic::AtomicUsize);

    impl QueueWaker for Counter {
        fn wake(&self, _: u32, _: u32) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    #[test]
    fn a_consumer_is_told_of_each_message_but_not_without_end_of_those_it_has_fetched() {
        let (queues, told) = (Queues::default(), Arc::new(Counter::default()));
        let consumer = Consumer {
            waker: Some(told.clone()),
            root_context: 1,
        };
        let id = queues.register("a", b"q", consumer).unwrap();
        let count = || told.0.swap(0, std::sync::atomic::Ordering::Relaxed);
        for _ in 0..MESSAGES_MAX {
            queues.send(id, b"");
        }
        assert_eq!(count(), MESSAGES_MAX);
        for _ in 0..MESSAGES_MAX {
            queues.has_heard(id);
            queues.receive(id);
        }
        for _ in 0..MESSAGES_MAX {
            queues.send(id, b"");
            queues.receive(id);
        }
        assert_eq!(count(), STALE_NEWS_MAX);
    }
}
