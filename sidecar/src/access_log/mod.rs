//! The access log: a line for each exchange, formatted on the worker, written by a thread of its own.
//!
//! A worker collects lines and sends them on when it has [`CHUNK`] bytes, or once a second. The writer makes one system call
//! of each chunk. If the disk is so slow that [`CHUNKS_MAX`] chunks wait, further chunks are dropped and their lines counted:
//! the log never holds up a request.

mod format;
mod format_refused;
mod writer;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Instant;

use crate::clock::Clock;
use crate::config::LogFormat;
use crate::counters::WorkerCounters;
use crate::http::client::Client;
use crate::http::exchange::Exchange;
use crate::http::refused::Refused;

pub(crate) use writer::{Message, Writer, check as check_target};

/// Lines are sent to the writer when they are so many bytes.
const CHUNK: usize = 64 * 1024;
/// Chunks that may wait for the disk.
const CHUNKS_MAX: usize = 64;

/// One worker's end of the log.
pub(crate) struct LogBuffer {
    format: LogFormat,
    lines: RefCell<Vec<u8>>,
    count: Cell<u64>,
    time: format::TimeText,
    writer: SyncSender<Message>,
    clock: Rc<Clock>,
    counters: Arc<WorkerCounters>,
}

impl LogBuffer {
    pub(crate) fn new(
        format: LogFormat,
        writer: SyncSender<Message>,
        clock: &Rc<Clock>,
        counters: &Arc<WorkerCounters>,
    ) -> Self {
        Self {
            format,
            lines: RefCell::new(Vec::with_capacity(CHUNK)),
            count: Cell::new(0),
            time: format::TimeText::new(),
            writer,
            clock: Rc::clone(clock),
            counters: Arc::clone(counters),
        }
    }

    /// Adds the line of an exchange that has ended.
    pub(crate) fn exchange(&self, exchange: &Exchange, client_ip: Option<&str>) {
        {
            let lines = &mut *self.lines.borrow_mut();
            let ended = exchange.facts.ended.get().unwrap_or(exchange.started);
            let wall = self.clock.wall(ended);
            match self.format {
                LogFormat::Json => format::json(lines, exchange, client_ip, wall, &self.time),
                LogFormat::Combined => {
                    format::combined(lines, exchange, client_ip, wall, &self.time)
                }
            }
        }
        self.line_added();
    }

    /// Adds the line of a request that never became an exchange.
    pub(crate) fn refused(&self, client: &Client, refused: &Refused) {
        {
            let lines = &mut *self.lines.borrow_mut();
            let wall = self.clock.wall(Instant::now());
            match self.format {
                LogFormat::Json => {
                    format_refused::json(lines, client, refused, wall, &self.time);
                }
                LogFormat::Combined => {
                    format_refused::combined(lines, client, refused, wall, &self.time);
                }
            }
        }
        self.line_added();
    }

    fn line_added(&self) {
        self.count.set(self.count.get() + 1);
        if self.lines.borrow().len() >= CHUNK {
            self.flush();
        }
    }

    /// Sends what there is to the writer; never waits.
    pub(crate) fn flush(&self) {
        if self.lines.borrow().is_empty() {
            return;
        }
        let lines = self.lines.replace(Vec::with_capacity(CHUNK));
        let count = self.count.replace(0);
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.writer.try_send(Message::Lines(lines))
        {
            self.counters.log_lines_dropped.add(count);
        }
    }
}

impl Drop for LogBuffer {
    fn drop(&mut self) {
        self.flush();
    }
}
