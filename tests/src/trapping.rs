//! evenkeel with a filter that traps when it is told to: nobody knows how to make the real one.
//!
//! The module gets one more function, which is exported in place of `proxy_on_request_headers`: it traps on requests with many
//! headers and calls the real one for all others. What it takes more room is taken off custom sections that nobody reads, so
//! that the module fits in its place in the executable; the copy then runs it here, and gives it to Envoy.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::{Request, peers};

/// Requests with at least so many headers, pseudo-headers among them, are poison. Below 64: one byte says it.
const HEADERS: u8 = 60;
const CALLBACK: &[u8] = b"proxy_on_request_headers";

/// The executable.
pub struct Trapping {
    _directory: TempDir,
    pub path: PathBuf,
}

/// A copy of the executable in which `filter`, which it has embedded, traps on [`poison`].
pub fn trapping(filter: &[u8]) -> Trapping {
    let directory = TempDir::new().unwrap();
    let (plain, path) = (
        directory.path().join("plain"),
        directory.path().join("evenkeel"),
    );
    let mut bytes = std::fs::read(peers::evenkeel()).unwrap();
    // A constant may be in it more than once.
    let starts: Vec<usize> = bytes
        .windows(8)
        .enumerate()
        .filter(|(at, eight)| *eight == &filter[..8] && bytes[*at..].starts_with(filter))
        .map(|(at, _)| at)
        .collect();
    assert!(!starts.is_empty(), "another filter is in the executable");
    let trapping = with_trap(filter);
    for start in starts {
        bytes[start..start + filter.len()].copy_from_slice(&trapping);
    }
    std::fs::write(&plain, bytes).unwrap();
    std::fs::set_permissions(&plain, std::fs::Permissions::from_mode(0o755)).unwrap();
    seal(&plain, &path);
    Trapping {
        _directory: directory,
        path,
    }
}

/// What it traps on.
pub fn poison() -> Request {
    (0..HEADERS).fold(Request::get("/"), |request, number| {
        request.header(&format!("X-Poison-{number}"), "1")
    })
}

/// So that each start does not compile the filter.
fn seal(plain: &Path, path: &Path) {
    let output = Command::new(plain)
        .arg("seal")
        .arg("--out")
        .arg(path)
        .output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// The same module with the trap, of the same length.
fn with_trap(module: &[u8]) -> Vec<u8> {
    let (header, mut rest) = module.split_at(8);
    let mut sections: Vec<(u8, Vec<u8>)> = Vec::new();
    while let Some((id, after)) = rest.split_first() {
        rest = after;
        let length = number(&mut rest);
        let (payload, after) = rest.split_at(length);
        sections.push((*id, payload.to_vec()));
        rest = after;
    }
    let of = |wanted: u8| {
        let found = sections.iter().position(|(id, _)| *id == wanted);
        found.unwrap_or_else(|| panic!("no section {wanted}"))
    };
    let (imports, functions, exports, code) = (of(2), of(3), of(7), of(10));
    let imported = imported_functions(&sections[imports].1);
    let mut types = sections[functions].1.as_slice();
    let defined = number(&mut types);
    let types: Vec<usize> = (0..defined).map(|_| number(&mut types)).collect();
    let (real, export) = exported(&sections[exports].1, imported + defined);
    sections[exports].1 = export;
    sections[functions].1 = appended(&sections[functions].1, &leb(types[real - imported]));
    let mut body = vec![0, 0x20, 1, 0x41, HEADERS, 0x4f, 0x04, 0x40, 0x00, 0x0b];
    body.extend([0x20, 0, 0x20, 1, 0x20, 2, 0x10]);
    body.extend(leb(real));
    body.push(0x0b);
    let body = [leb(body.len()), body].concat();
    sections[code].1 = appended(&sections[code].1, &body);
    let mut out = header.to_vec();
    for (id, payload) in &sections {
        if *id != 0 || is_read(payload) {
            out.push(*id);
            out.extend(leb(payload.len()));
            out.extend(payload);
        }
    }
    pad(&mut out, module.len());
    out
}

/// Our host looks at this custom section, and at no other.
fn is_read(custom: &[u8]) -> bool {
    custom[1..].starts_with(b"evenkeel.")
}

/// A custom section without a name, up to this length.
fn pad(out: &mut Vec<u8>, length: usize) {
    let left = length.checked_sub(out.len() + 6);
    let left = left.expect("custom sections that are long enough");
    out.push(0);
    // A length of five bytes, whatever it is.
    let bytes: [u8; 5] = std::array::from_fn(|at| (left >> (7 * at)) as u8 & 0x7f | 0x80);
    out.extend(&bytes[..4]);
    out.push(bytes[4] & 0x7f);
    out.resize(length, 0);
}

/// Of an import section: how many functions.
fn imported_functions(mut section: &[u8]) -> usize {
    let count = number(&mut section);
    for _ in 0..count {
        for _ in 0..2 {
            let length = number(&mut section);
            section = &section[length..];
        }
        assert_eq!(section[0], 0, "only functions are imported");
        section = &section[1..];
        number(&mut section);
    }
    count
}

/// The function that the callback's export names, and the section with `instead` in its place.
fn exported(section: &[u8], instead: usize) -> (usize, Vec<u8>) {
    let length = CALLBACK.len();
    let name = section.windows(length).position(|name| name == CALLBACK);
    let at = name.expect("the callback") + length;
    assert_eq!(section[at], 0, "it is a function");
    let mut rest = &section[at + 1..];
    let real = number(&mut rest);
    (real, [&section[..=at], &leb(instead), rest].concat())
}

/// A vector with one more entry.
fn appended(vector: &[u8], entry: &[u8]) -> Vec<u8> {
    let mut entries = vector;
    let count = number(&mut entries);
    [&leb(count + 1), entries, entry].concat()
}

/// Reads a LEB128 number.
fn number(bytes: &mut &[u8]) -> usize {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            return value;
        }
    }
}

fn leb(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
