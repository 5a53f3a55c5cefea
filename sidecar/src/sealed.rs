//! The filter's native code, behind the executable's own: a sealed `evenkeel` starts without compiling.
//!
//! `evenkeel seal -o FILE` (the last step of `make build`) copies the running executable and appends what wasmtime compiled of the
//! embedded filter. At start the end of `/proc/self/exe` is looked at: code that was made from exactly this filter, by exactly this
//! wasmtime, for a machine like this one is taken (see [`evenkeel_host::Module::load`]), anything else is compiled as if nothing
//! were there. So an executable that nobody sealed, that was stripped, or that was copied to an older machine only starts slower.
//!
//! # Why behind the executable
//!
//! A build script that compiles the filter would need wasmtime and its compiler built a second time, for itself. The executable has
//! them already, and where it may run code from is a question that its file answers: who can change that can change all of it.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use evenkeel_host::Engine;

use crate::embedded;

/// The last bytes of a sealed executable, after the length of the artefact.
const MAGIC: &[u8; 16] = b"evenkeel sealed\n";
/// Length and magic.
const TRAILER_BYTES: usize = 8 + MAGIC.len();
/// Largest artefact that is read.
const ARTEFACT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What the running executable carries, if anything.
pub(crate) fn artefact() -> Option<Vec<u8>> {
    let mut file = File::open("/proc/self/exe").ok()?;
    let (start, length) = find(&mut file).ok()??;
    file.seek(SeekFrom::Start(start)).ok()?;
    let mut artefact = vec![0; usize::try_from(length).ok()?];
    file.read_exact(&mut artefact).ok()?;
    Some(artefact)
}

/// Writes a sealed copy of the running executable.
pub(crate) fn seal(out: &Path) -> anyhow::Result<()> {
    let artefact = Engine::new()?.precompile(embedded::FILTER)?;
    let mut executable = File::open("/proc/self/exe")?;
    let plain = match find(&mut executable)? {
        Some((start, _)) => start,
        None => executable.metadata()?.len(),
    };
    executable.rewind()?;
    let unfinished = out.with_extension("sealing");
    write(&unfinished, &mut executable.take(plain), &artefact)?;
    fs::set_permissions(&unfinished, fs::metadata("/proc/self/exe")?.permissions())?;
    fs::rename(&unfinished, out)?;
    Ok(())
}

fn write(path: &Path, executable: &mut impl Read, artefact: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    io::copy(executable, &mut file)?;
    file.write_all(artefact)?;
    file.write_all(&(artefact.len() as u64).to_le_bytes())?;
    file.write_all(MAGIC)
}

/// Where an artefact begins, and how long it is.
fn find(file: &mut (impl Read + Seek)) -> io::Result<Option<(u64, u64)>> {
    let end = file.seek(SeekFrom::End(0))?;
    let Some(trailer_at) = end.checked_sub(TRAILER_BYTES as u64) else {
        return Ok(None);
    };
    file.seek(SeekFrom::Start(trailer_at))?;
    let mut trailer = [0; TRAILER_BYTES];
    file.read_exact(&mut trailer)?;
    let Some((length, magic)) = trailer.split_first_chunk::<8>() else {
        return Ok(None);
    };
    let length = u64::from_le_bytes(*length);
    let start = trailer_at.checked_sub(length);
    Ok(start
        .filter(|_| magic == MAGIC && length <= ARTEFACT_BYTES_MAX)
        .map(|start| (start, length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], expected: Option<(u64, u64)>) {
        assert_eq!(find(&mut io::Cursor::new(bytes)).unwrap(), expected);
    }

    #[test]
    fn finds_what_was_appended_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sealed");
        write(&path, &mut &b"executable"[..], b"artefact").unwrap();
        let sealed = fs::read(&path).unwrap();
        check(&sealed, Some((10, 8)));
        check(b"", None);
        check(b"a short one", None);
        check(&sealed[..sealed.len() - 1], None);
        let longer_than_the_file = [&u64::MAX.to_le_bytes()[..], MAGIC].concat();
        check(&longer_than_the_file, None);
    }

    /// What wasmtime made is taken again by the same engine's rules.
    #[test]
    fn the_artefact_is_of_the_embedded_filter() {
        let engine = Engine::new().unwrap();
        let artefact = engine.precompile(embedded::FILTER).unwrap();
        assert!(evenkeel_host::Module::load(&engine, embedded::FILTER, Some(&artefact)).is_ok());
    }
}
