//! The thread that writes the access log, and reopens it when told to.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::access_log::CHUNKS_MAX;
use crate::config::LogTarget;

/// What the writer is told.
pub(crate) enum Message {
    /// Whole lines.
    Lines(Vec<u8>),
    /// The file was moved away: open it anew.
    Reopen,
    /// Write elsewhere from now on.
    Target(LogTarget),
}

/// The running writer.
pub(crate) struct Writer {
    messages: SyncSender<Message>,
    thread: JoinHandle<()>,
}

impl Writer {
    /// Opens the target and starts the thread.
    pub(crate) fn start(target: &LogTarget) -> io::Result<Self> {
        let output = Output::open(target)?;
        let (messages, received) = sync_channel(CHUNKS_MAX);
        let target = target.clone();
        let thread = std::thread::Builder::new()
            .name("evenkeel-log".to_owned())
            .spawn(move || run(output, target, &received))?;
        Ok(Self { messages, thread })
    }

    pub(crate) fn messages(&self) -> SyncSender<Message> {
        self.messages.clone()
    }

    /// Ends when every sender has gone and all is written.
    pub(crate) fn join(self) {
        drop(self.messages);
        // A writer that panicked has said so.
        let _ = self.thread.join();
    }
}

/// Whether a log can be written there.
pub(crate) fn check(target: &LogTarget) -> io::Result<()> {
    Output::open(target).map(drop)
}

enum Output {
    Stdout,
    File(File),
}

impl Output {
    fn open(target: &LogTarget) -> io::Result<Self> {
        match target {
            LogTarget::Stdout => Ok(Self::Stdout),
            LogTarget::File(path) => Ok(Self::File(
                OpenOptions::new().create(true).append(true).open(path)?,
            )),
        }
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(lines)?;
                stdout.flush()
            }
            Self::File(file) => file.write_all(lines),
        }
    }
}

fn run(mut output: Output, mut target: LogTarget, messages: &Receiver<Message>) {
    let mut is_failing = false;
    // Ends when the last sender is dropped.
    while let Ok(message) = messages.recv() {
        let (wanted, is_told) = match message {
            Message::Lines(lines) => {
                let result = output.write(&lines);
                if let (Err(error), false) = (&result, is_failing) {
                    tracing::error!("cannot write the access log {target}: {error}");
                }
                is_failing = result.is_err();
                continue;
            }
            Message::Reopen => (target.clone(), true),
            Message::Target(wanted) => (wanted, false),
        };
        match Output::open(&wanted) {
            Ok(opened) => {
                output = opened;
                target = wanted;
                if is_told {
                    tracing::info!("access log {target} reopened");
                }
            }
            Err(error) => {
                tracing::error!("cannot open the access log {wanted}, {target} stays: {error}")
            }
        }
    }
}
