//! The log on disk: what was acknowledged is in it.
//!
//! The folder holds `base-N` (everything that was there when it was made), `log-N` and later logs (every effect since), and
//! `lock`. A reply leaves only after `write(2)` took its records, so a killed process loses nothing that was acknowledged; how much a
//! power failure may cost is bounded by how often [`Log::sync`] is called. When the logs have grown past the base a new base is written
//! by a thread of its own while the next log is already in use; it counts once it was synced and renamed.
//!
//! # Why a log of our own, and not an embedded database
//! redb keeps what is not synced in its process: surviving `kill -9` means an fsync for each commit there. fjall's journal would do, but
//! everything is in memory here anyway (eviction, deadlines and the bound on memory need it), so its tables would hold a second copy
//! and compact it for nobody. What is left of the work is appending records and reading them in order.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::record::{self, HEAD, Record, Restored};

/// What each file begins with: what it is, and the version of its format.
const MAGIC: &[u8; 16] = b"evenkeel-store-1";
/// A log shorter than this is never worth a new base.
const REWRITE_MIN: u64 = 16 * 1024 * 1024;
/// A new base is made when the log is so many times the base that it follows.
const REWRITE_FACTOR: u64 = 2;

/// The files of one store, open for appending.
#[derive(Debug)]
pub(super) struct Log {
    folder: PathBuf,
    number: u64,
    file: Arc<File>,
    /// Bytes in the log that is appended to.
    length: u64,
    /// Bytes of the base before it.
    base: u64,
    is_dirty: bool,
    rewriting: Arc<AtomicBool>,
    /// Held as long as the store is open: no second process writes here.
    _lock: File,
}

/// What was found at the start.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Loaded {
    pub records: u64,
    /// Bytes at the end of a log that were no record: written when the process, or the power, ended.
    pub torn: u64,
}

impl Log {
    /// Opens the log in `folder`, makes it if there is none, and tells `apply` every record in order.
    ///
    /// # Errors
    /// The folder cannot be used; another process uses it; a file is not of this format.
    pub(super) fn open(
        folder: &Path,
        apply: &mut dyn FnMut(Restored),
    ) -> io::Result<(Self, Loaded)> {
        std::fs::create_dir_all(folder)?;
        let lock = File::create(folder.join("lock"))?;
        if lock.try_lock().is_err() {
            return Err(io::Error::other("another process uses this folder"));
        }
        let (bases, logs) = numbers(folder)?;
        let first = bases.iter().max().copied().unwrap_or(0);
        let mut loaded = Loaded::default();
        let mut base = 0;
        if bases.contains(&first) {
            let name = path(folder, "base", first);
            base = load(&name, apply, &mut loaded)?;
            // It was synced before it counted: sessions are missing, and nobody may be told that they never were.
            if loaded.torn > 0 {
                let what = format!("{} is damaged after {base} bytes", name.display());
                return Err(io::Error::other(what));
            }
        }
        let mut later: Vec<u64> = logs
            .iter()
            .copied()
            .filter(|number| *number >= first)
            .collect();
        later.sort_unstable();
        let mut length = None;
        for number in &later {
            length = Some(load(&path(folder, "log", *number), apply, &mut loaded)?);
        }
        let number = later.last().copied().unwrap_or(first);
        let name = path(folder, "log", number);
        let file = match length {
            Some(length) => {
                let file = OpenOptions::new().append(true).open(&name)?;
                // What follows a torn record could never be read.
                file.set_len(length)?;
                file
            }
            None => create(&name)?,
        };
        let log = Self {
            folder: folder.to_owned(),
            number,
            file: Arc::new(file),
            length: length.unwrap_or(MAGIC.len() as u64),
            base,
            is_dirty: false,
            rewriting: Arc::default(),
            _lock: lock,
        };
        log.remove_before(first);
        Ok((log, loaded))
    }

    /// Writes what waits; what the disk did not take goes on waiting.
    pub(super) fn append(&mut self, waiting: &mut Vec<u8>) -> io::Result<()> {
        // Ends: each turn writes some of it, or returns.
        while !waiting.is_empty() {
            let written = match (&*self.file).write(waiting) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            waiting.drain(..written);
            self.length += written as u64;
            self.is_dirty = true;
        }
        Ok(())
    }

    /// The file to sync, if there is anything to sync in it.
    pub(super) fn take_to_sync(&mut self) -> Option<Arc<File>> {
        std::mem::take(&mut self.is_dirty).then(|| Arc::clone(&self.file))
    }

    /// Whether the log has grown so far past its base that a new base is worth its while.
    pub(super) fn is_long(&self) -> bool {
        self.length > REWRITE_MIN.max(self.base.saturating_mul(REWRITE_FACTOR))
            && !self.rewriting.load(Ordering::Acquire)
    }

    /// No new log could be begun: this one must grow as much again before that is tried anew.
    pub(super) fn postpone(&mut self) {
        self.base = self.length;
    }

    /// Goes on in a new log, and has a thread write `everything` as the base of it.
    pub(super) fn rewrite(&mut self, everything: Vec<Vec<u8>>) -> io::Result<()> {
        let number = self.number + 1;
        let old = std::mem::replace(
            &mut self.file,
            Arc::new(create(&path(&self.folder, "log", number))?),
        );
        self.number = number;
        self.length = MAGIC.len() as u64;
        self.base = everything.iter().map(|part| part.len() as u64).sum();
        self.rewriting.store(true, Ordering::Release);
        let (folder, rewriting) = (self.folder.clone(), Arc::clone(&self.rewriting));
        std::thread::Builder::new().name("store-base".to_owned()).spawn(move || {
            // Until the base counts, the log before is the only place of its records.
            let written = old.sync_data().and_then(|()| write_base(&folder, number, &everything));
            match written {
                Ok(()) => remove_before(&folder, number),
                Err(error) => tracing::warn!("session_store.path: no new base could be written, the logs go on growing: {error}"),
            }
            rewriting.store(false, Ordering::Release);
        })?;
        Ok(())
    }

    fn remove_before(&self, first: u64) {
        remove_before(&self.folder, first);
    }
}

/// Everything as the parts of a base; each is as large as one write should be.
pub(super) fn encode_all<'a>(entries: impl Iterator<Item = Record<'a>>) -> Vec<Vec<u8>> {
    const PART: usize = 1024 * 1024;
    let mut parts = vec![Vec::with_capacity(PART)];
    for entry in entries {
        if parts.last().is_none_or(|part: &Vec<u8>| part.len() >= PART) {
            parts.push(Vec::with_capacity(PART));
        }
        if let Some(part) = parts.last_mut() {
            entry.encode(part);
        }
    }
    parts
}

fn write_base(folder: &Path, number: u64, parts: &[Vec<u8>]) -> io::Result<()> {
    let unfinished = folder.join(format!("base-{number}.new"));
    let mut out = BufWriter::new(File::create(&unfinished)?);
    out.write_all(MAGIC)?;
    for part in parts {
        out.write_all(part)?;
    }
    out.into_inner()?.sync_all()?;
    std::fs::rename(&unfinished, path(folder, "base", number))?;
    File::open(folder)?.sync_all()
}

fn create(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .append(true)
        .create_new(true)
        .open(path)?;
    file.write_all(MAGIC)?;
    Ok(file)
}

fn path(folder: &Path, kind: &str, number: u64) -> PathBuf {
    folder.join(format!("{kind}-{number}"))
}

/// The numbers of the bases and logs that are there.
fn numbers(folder: &Path) -> io::Result<(Vec<u64>, Vec<u64>)> {
    let (mut bases, mut logs) = (Vec::new(), Vec::new());
    for file in std::fs::read_dir(folder)? {
        let name = file?.file_name();
        let Some((kind, number)) = name.to_str().and_then(|name| name.split_once('-')) else {
            continue;
        };
        match (kind, number.parse()) {
            ("base", Ok(number)) => bases.push(number),
            ("log", Ok(number)) => logs.push(number),
            _ => {}
        }
    }
    Ok((bases, logs))
}

/// Removes what a later base has made needless; a file that stays is tried again at the next start.
fn remove_before(folder: &Path, first: u64) {
    let Ok((bases, logs)) = numbers(folder) else {
        return;
    };
    for (kind, numbers) in [("base", bases), ("log", logs)] {
        for number in numbers.into_iter().filter(|number| *number < first) {
            let _ = std::fs::remove_file(path(folder, kind, number));
        }
    }
}

/// Tells every record of a file; returns where the last whole one ends.
fn load(path: &Path, apply: &mut dyn FnMut(Restored), loaded: &mut Loaded) -> io::Result<u64> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut input = BufReader::with_capacity(1024 * 1024, file);
    let mut magic = [0; MAGIC.len()];
    if input.read_exact(&mut magic).is_err() || magic != *MAGIC {
        // A log that was made by a process that ended before it could write anything.
        if size < MAGIC.len() as u64 {
            std::fs::write(path, MAGIC)?;
            return Ok(MAGIC.len() as u64);
        }
        let what = format!("{} is no log of this version", path.display());
        return Err(io::Error::other(what));
    }
    let mut end = MAGIC.len() as u64;
    // Ends: each turn goes past a record of the file, or returns.
    loop {
        let mut head = [0; HEAD];
        if input.read_exact(&mut head).is_err() {
            break;
        }
        let left = size.saturating_sub(end + HEAD as u64);
        let Some(length) = record::length(head).filter(|length| *length as u64 <= left) else {
            break;
        };
        let mut payload = vec![0; length];
        input.read_exact(&mut payload)?;
        let Some(restored) = record::decode(head, payload) else {
            break;
        };
        apply(restored);
        loaded.records += 1;
        end += (HEAD + length) as u64;
    }
    if size > end {
        loaded.torn += size - end;
        tracing::warn!(
            "session_store.path: the last {} bytes of {} are no whole record and are dropped: written when the process or the power ended",
            size - end,
            path.display()
        );
    }
    Ok(end)
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
