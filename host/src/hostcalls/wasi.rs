//! WASI, as much of it as Envoy offers: standard output goes to the log, the environment is the VM's, there are clocks and random
//! numbers, and no files, sockets or arguments. The same functions under both of its names.
//!
//! These answer WASI's errno, not a proxy-wasm status: 8 (BADF), 21 (FAULT: a bad address), 28 (INVAL), 44 (NOENT), 52 (NOSYS), 58 (NOTSUP).

use std::fs::File;
use std::io::Read;
use std::sync::OnceLock;
use std::time::Instant;

use wasmtime::{Caller, Linker};

use super::{Imports, clock, logging};
use crate::embedder::LogLevel;
use crate::guest_memory::{bytes, bytes_mut, offset, open, read_u32, write};
use crate::state::State;
use crate::status::Status;

const MODULES: [&str; 2] = ["wasi_snapshot_preview1", "wasi_unstable"];

const SUCCESS: u32 = 0;
const BADF: u32 = 8;
const FAULT: u32 = 21;
const INVAL: u32 = 28;
const NOENT: u32 = 44;
const NOSYS: u32 = 52;
const NOTSUP: u32 = 58;

/// Most bytes of one `random_get` (cpp-host `limits.h`).
const RANDOM_BYTES_MAX: u32 = 64 << 10;
/// Most slices of one `fd_write`.
const SLICES_MAX: u32 = 1024;
/// Most bytes of one `fd_write` that are kept for the log.
const WRITE_BYTES_MAX: usize = 64 << 10;

type Errno = Result<(), u32>;

fn fault(_: Status) -> u32 {
    FAULT
}

fn errno(outcome: Errno) -> u32 {
    outcome.err().unwrap_or(SUCCESS)
}

/// Functions that always answer the same.
macro_rules! constant {
    ($linker:ident, $imports:ident, $module:ident, $($name:literal ($($kind:ty),*) = $errno:ident;)*) => {$(
        $linker.func_wrap($module, $name, |$(_: $kind),*| -> u32 { $errno })?;
        $imports.add($module, $name);
    )*};
}

macro_rules! function {
    ($linker:ident, $imports:ident, $module:ident, $($name:literal = $function:path, ($($argument:ident : $kind:ty),*);)*) => {$(
        $linker.func_wrap($module, $name, |mut caller: Caller<'_, State>, $($argument: $kind),*| errno($function(&mut caller, $($argument),*)))?;
        $imports.add($module, $name);
    )*};
}

pub(super) fn link(linker: &mut Linker<State>, imports: &mut Imports) -> wasmtime::Result<()> {
    for module in MODULES {
        function! { linker, imports, module,
            "fd_write" = fd_write, (fd: u32, slices: u32, count: u32, written_at: u32);
            "fd_fdstat_get" = fd_fdstat_get, (fd: u32, stat_at: u32);
            "environ_get" = environ_get, (pointers_at: u32, texts_at: u32);
            "environ_sizes_get" = environ_sizes_get, (count_at: u32, bytes_at: u32);
            "args_sizes_get" = args_sizes_get, (count_at: u32, bytes_at: u32);
            "clock_time_get" = clock_time_get, (clock: u32, precision: u64, time_at: u32);
            "clock_res_get" = clock_res_get, (clock: u32, resolution_at: u32);
            "random_get" = random_get, (at: u32, length: u32);
            "poll_oneoff" = poll_oneoff, (subscriptions: u32, events_at: u32, count: u32, happened_at: u32);
        }
        link_constants(linker, imports, module)?;
        linker.func_wrap(
            module,
            "proc_exit",
            |caller: Caller<'_, State>, code: u32| {
                caller.data().environment.log(
                    LogLevel::Debug,
                    format!("the filter called proc_exit({code}), which has no effect").as_bytes(),
                );
            },
        )?;
        imports.add(module, "proc_exit");
    }
    Ok(())
}

fn link_constants(
    linker: &mut Linker<State>,
    imports: &mut Imports,
    module: &'static str,
) -> wasmtime::Result<()> {
    constant! { linker, imports, module,
        "args_get"(u32, u32) = SUCCESS;
        "sched_yield"() = SUCCESS;
        "fd_seek"(u32, i64, u32, u32) = SUCCESS;
        "fd_close"(u32) = SUCCESS;
        "fd_prestat_get"(u32, u32) = BADF;
        "path_open"(u32, u32, u32, u32, u32, u64, u64, u32, u32) = NOENT;
        "fd_read"(u32, u32, u32, u32) = NOSYS;
        "fd_prestat_dir_name"(u32, u32, u32) = NOSYS;
        "fd_advise"(u32, u64, u64, u32) = NOSYS;
        "fd_allocate"(u32, u64, u64) = NOSYS;
        "fd_datasync"(u32) = NOSYS;
        "fd_sync"(u32) = NOSYS;
        "fd_fdstat_set_flags"(u32, u32) = NOSYS;
        "fd_fdstat_set_rights"(u32, u64, u64) = NOSYS;
        "fd_filestat_get"(u32, u32) = NOSYS;
        "fd_filestat_set_size"(u32, u64) = NOSYS;
        "fd_filestat_set_times"(u32, u64, u64, u32) = NOSYS;
        "fd_pread"(u32, u32, u32, u64, u32) = NOSYS;
        "fd_pwrite"(u32, u32, u32, u64, u32) = NOSYS;
        "fd_readdir"(u32, u32, u32, u64, u32) = NOSYS;
        "fd_renumber"(u32, u32) = NOSYS;
        "fd_tell"(u32, u32) = NOSYS;
        "path_create_directory"(u32, u32, u32) = NOSYS;
        "path_filestat_get"(u32, u32, u32, u32, u32) = NOSYS;
        "path_filestat_set_times"(u32, u32, u32, u32, u64, u64, u32) = NOSYS;
        "path_link"(u32, u32, u32, u32, u32, u32, u32) = NOSYS;
        "path_readlink"(u32, u32, u32, u32, u32, u32) = NOSYS;
        "path_remove_directory"(u32, u32, u32) = NOSYS;
        "path_rename"(u32, u32, u32, u32, u32, u32) = NOSYS;
        "path_symlink"(u32, u32, u32, u32, u32) = NOSYS;
        "path_unlink_file"(u32, u32, u32) = NOSYS;
        "proc_raise"(u32) = NOSYS;
        "sock_accept"(u32, u32, u32) = NOSYS;
        "sock_recv"(u32, u32, u32, u32, u32, u32) = NOSYS;
        "sock_send"(u32, u32, u32, u32, u32) = NOSYS;
        "sock_shutdown"(u32, u32) = NOSYS;
    }
    Ok(())
}

/// 1 is logged as info, 2 as error, without a newline at the end. BADF: any other.
fn fd_write(
    caller: &mut Caller<'_, State>,
    fd: u32,
    slices: u32,
    count: u32,
    written_at: u32,
) -> Errno {
    let level = match fd {
        1 => LogLevel::Info,
        2 => LogLevel::Error,
        _ => return Err(BADF),
    };
    if count > SLICES_MAX {
        return Err(INVAL);
    }
    let (memory, state) = open(caller).map_err(fault)?;
    bytes(memory, written_at, 4).map_err(fault)?;
    let (mut line, mut written) = (Vec::new(), 0_u32);
    for index in 0..count {
        let slice = offset(slices, index * 8).map_err(fault)?;
        let at = read_u32(memory, slice).map_err(fault)?;
        let length = read_u32(memory, offset(slice, 4).map_err(fault)?).map_err(fault)?;
        let text = bytes(memory, at, length).map_err(fault)?;
        written = written.checked_add(length).ok_or(INVAL)?;
        let room = WRITE_BYTES_MAX.saturating_sub(line.len());
        line.extend_from_slice(text.get(..room).unwrap_or(text));
    }
    if written > 0 {
        state.environment.log(
            level,
            logging::line(line.strip_suffix(b"\n").unwrap_or(&line)),
        );
    }
    write(memory, written_at, written.to_le_bytes()).map_err(fault)
}

/// 1 and 2 may be written to. BADF: any other.
fn fd_fdstat_get(caller: &mut Caller<'_, State>, fd: u32, stat_at: u32) -> Errno {
    if fd != 1 && fd != 2 {
        return Err(BADF);
    }
    let mut stat = [0_u8; 24];
    // fs_rights_base: fd_write.
    stat[8] = 64;
    write(open(caller).map_err(fault)?.0, stat_at, stat).map_err(fault)
}

fn environ_get(caller: &mut Caller<'_, State>, pointers_at: u32, texts_at: u32) -> Errno {
    let (memory, state) = open(caller).map_err(fault)?;
    let (count, length) = environ_size(state)?;
    bytes(memory, pointers_at, count.checked_mul(4).ok_or(FAULT)?).map_err(fault)?;
    bytes(memory, texts_at, length).map_err(fault)?;
    let (mut pointer_at, mut text_at) = (pointers_at, texts_at);
    for (name, value) in &state.environment_variables {
        write(memory, pointer_at, text_at.to_le_bytes()).map_err(fault)?;
        pointer_at = offset(pointer_at, 4).map_err(fault)?;
        for part in [name.as_bytes(), b"=", value.as_bytes(), b"\0"] {
            let length = u32::try_from(part.len()).map_err(|_| FAULT)?;
            bytes_mut(memory, text_at, length)
                .map_err(fault)?
                .copy_from_slice(part);
            text_at = offset(text_at, length).map_err(fault)?;
        }
    }
    Ok(())
}

fn environ_sizes_get(caller: &mut Caller<'_, State>, count_at: u32, bytes_at: u32) -> Errno {
    let (count, length) = environ_size(caller.data())?;
    two(caller, count_at, count, bytes_at, length)
}

/// Number of variables and bytes of all `name=value NUL`.
fn environ_size(state: &State) -> Result<(u32, u32), u32> {
    let variables = &state.environment_variables;
    let length: usize = variables
        .iter()
        .map(|(name, value)| name.len() + value.len() + 2)
        .sum();
    Ok((
        u32::try_from(variables.len()).map_err(|_| FAULT)?,
        u32::try_from(length).map_err(|_| FAULT)?,
    ))
}

fn args_sizes_get(caller: &mut Caller<'_, State>, count_at: u32, bytes_at: u32) -> Errno {
    two(caller, count_at, 0, bytes_at, 0)
}

fn two(
    caller: &mut Caller<'_, State>,
    first_at: u32,
    first: u32,
    second_at: u32,
    second: u32,
) -> Errno {
    let (memory, _) = open(caller).map_err(fault)?;
    bytes(memory, second_at, 4).map_err(fault)?;
    write(memory, first_at, first.to_le_bytes()).map_err(fault)?;
    write(memory, second_at, second.to_le_bytes()).map_err(fault)
}

/// 0 wall clock, 1 monotonic. NOTSUP: any other.
fn clock_time_get(
    caller: &mut Caller<'_, State>,
    which: u32,
    _precision: u64,
    time_at: u32,
) -> Errno {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    let time = match which {
        0 => clock::wall_clock(caller.data()),
        1 => {
            u64::try_from(BEGIN.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
        }
        _ => return Err(NOTSUP),
    };
    write(open(caller).map_err(fault)?.0, time_at, time.to_le_bytes()).map_err(fault)
}

/// One nanosecond. NOTSUP: no such clock.
fn clock_res_get(caller: &mut Caller<'_, State>, which: u32, resolution_at: u32) -> Errno {
    if which > 1 {
        return Err(NOTSUP);
    }
    write(
        open(caller).map_err(fault)?.0,
        resolution_at,
        1_u64.to_le_bytes(),
    )
    .map_err(fault)
}

/// From the operating system. INVAL: more than [`RANDOM_BYTES_MAX`].
fn random_get(caller: &mut Caller<'_, State>, at: u32, length: u32) -> Errno {
    if length > RANDOM_BYTES_MAX {
        return Err(INVAL);
    }
    let (memory, _) = open(caller).map_err(fault)?;
    let target = bytes_mut(memory, at, length).map_err(fault)?;
    fill_random(target).map_err(|_| NOSYS)
}

/// Nothing is ever waited for: no events, at once, whatever was asked for (cpp-host `exports.cc`).
fn poll_oneoff(
    caller: &mut Caller<'_, State>,
    _subscriptions: u32,
    _events_at: u32,
    _count: u32,
    happened_at: u32,
) -> Errno {
    write(
        open(caller).map_err(fault)?.0,
        happened_at,
        0_u32.to_le_bytes(),
    )
    .map_err(fault)
}

fn fill_random(target: &mut [u8]) -> std::io::Result<()> {
    File::open("/dev/urandom")?.read_exact(target)
}
