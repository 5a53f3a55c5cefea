//! `proxy_call_foreign_function`: what Envoy offers beyond the ABI, by name.
//!
//! Here: `set_envoy_filter_state`, `clear_route_cache`, `compress`, `uncompress`. Everything else (also Envoy's `expr_*`, `declare_property`,
//! `sign`, `verify_signature`) is the embedder's to know, or NotFound, by which a guest recognises the host it runs in.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use wasmtime::Caller;

use crate::embedder::FilterStateOutcome;
use crate::guest_memory::{bytes, give_bytes, open, write};
use crate::raised::Owner;
use crate::state::State;
use crate::status::{Answer, Status};

/// Longest result of `compress` and `uncompress`, bytes.
const OUTPUT_BYTES_MAX: usize = 16 << 20;

/// `proxy_call_foreign_function(name, arguments, **result, *length)`; addresses of 0: the result is not wanted. NotFound: nobody knows the
/// function (or the filter state's path). BadArgument: it refuses the arguments. SerializationFailure: not zlib, or too long.
pub(super) fn call(
    caller: &mut Caller<'_, State>,
    name: u32,
    name_length: u32,
    arguments: u32,
    arguments_length: u32,
    pointer_at: u32,
    length_at: u32,
) -> Answer {
    let (memory, state) = open(caller)?;
    let name = bytes(memory, name, name_length)?;
    let arguments = bytes(memory, arguments, arguments_length)?;
    for place in [pointer_at, length_at] {
        bytes(memory, place, if place == 0 { 0 } else { 4 })?;
    }
    let result = match name {
        b"set_envoy_filter_state" => set_filter_state(state, arguments)?,
        b"clear_route_cache" => clear_route_cache(state),
        b"compress" => compress(arguments).ok_or(Status::SerializationFailure)?,
        b"uncompress" => uncompress(arguments).ok_or(Status::SerializationFailure)?,
        _ => of_embedder(state, name, arguments).ok_or(Status::NotFound)?,
    };
    if pointer_at != 0 && length_at != 0 {
        return give_bytes(caller, &result, pointer_at, length_at);
    }
    if length_at != 0 {
        let length = u32::try_from(result.len()).map_err(|_| Status::InternalFailure)?;
        write(open(caller)?.0, length_at, length.to_le_bytes())?;
    }
    Ok(())
}

fn of_embedder(state: &State, name: &[u8], arguments: &[u8]) -> Option<Vec<u8>> {
    let owner = state
        .active
        .stream
        .as_ref()
        .map(|context| &context.shared.owner);
    match owner {
        Some(Owner::Tcp(stream)) => stream
            .foreign_function(name, arguments)
            .or_else(|| state.environment.foreign_function(None, name, arguments)),
        Some(Owner::Http(stream)) => {
            state
                .environment
                .foreign_function(Some(&**stream), name, arguments)
        }
        None => state.environment.foreign_function(None, name, arguments),
    }
}

fn clear_route_cache(state: &State) -> Vec<u8> {
    if let Some(stream) = state
        .active
        .stream
        .as_ref()
        .and_then(|context| context.shared.http())
    {
        stream.clear_route_cache();
    }
    Vec::new()
}

/// Arguments: protobuf `{1: path, 2: value, 3: span}` (Envoy `foreign.cc`). The span is of no interest here: there is one stream.
fn set_filter_state(state: &State, arguments: &[u8]) -> Result<Vec<u8>, Status> {
    let (path, value) = filter_state_arguments(arguments).ok_or(Status::BadArgument)?;
    let context = state.active.stream.as_ref().ok_or(Status::NotFound)?;
    match context.shared.set_filter_state(path, value) {
        FilterStateOutcome::UnknownPath => Err(Status::NotFound),
        FilterStateOutcome::BadValue => Err(Status::BadArgument),
        FilterStateOutcome::Set => {
            // Readable as `filter_state\0path`; a full table does not undo what the embedder has taken.
            context.shared.published.borrow_mut().set_state(path, value);
            Ok(Vec::new())
        }
    }
}

/// Path and value. `None` for anything that is not exactly this message: unknown fields, wrong types, cut off, spans above 2, text that is
/// not UTF-8. A field that comes twice counts the last time, as protobuf says.
fn filter_state_arguments(mut data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut path, mut value): (&[u8], &[u8]) = (&[], &[]);
    while let Some((key, rest)) = data.split_first() {
        let (number, rest) = varint(rest)?;
        match key {
            0x0A | 0x12 => {
                let (text, rest) = rest.split_at_checked(usize::try_from(number).ok()?)?;
                std::str::from_utf8(text).ok()?;
                *(if *key == 0x0A { &mut path } else { &mut value }) = text;
                data = rest;
            }
            0x18 if number <= 2 => data = rest,
            _ => return None,
        }
    }
    Some((path, value))
}

fn varint(data: &[u8]) -> Option<(u64, &[u8])> {
    let mut value: u64 = 0;
    for (index, byte) in data.iter().take(10).enumerate() {
        let bits = u64::from(byte & 0x7F);
        if index == 9 && bits > 1 {
            return None;
        }
        value |= bits << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, data.get(index + 1..)?));
        }
    }
    None
}

fn compress(data: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).ok()?;
    encoder
        .finish()
        .ok()
        .filter(|out| out.len() <= OUTPUT_BYTES_MAX)
}

fn uncompress(data: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let limit = u64::try_from(OUTPUT_BYTES_MAX).ok()? + 1;
    ZlibDecoder::new(data)
        .take(limit)
        .read_to_end(&mut out)
        .ok()?;
    (out.len() <= OUTPUT_BYTES_MAX).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_exactly_the_message() {
        let good: [(&[u8], [&[u8]; 2]); 4] = [
            (b"\x0A\x01p\x12\x02vv\x18\x01", [b"p", b"vv"]),
            (b"\x12\x02vv\x0A\x01p", [b"p", b"vv"]),
            (b"\x0A\x01p\x0A\x01q", [b"q", b""]),
            (b"", [b"", b""]),
        ];
        for (data, [path, value]) in good {
            assert_eq!(
                filter_state_arguments(data),
                Some((path, value)),
                "{data:?}"
            );
        }
        let bad: [&[u8]; 6] = [
            b"\x0A\x05p",
            b"\x0A",
            b"\x18\x03",
            b"\x22\x00",
            b"\x0A\x01\xFF",
            b"\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F",
        ];
        for data in bad {
            assert_eq!(filter_state_arguments(data), None, "{data:?}");
        }
    }

    #[test]
    fn zlib_goes_both_ways_and_is_bounded() {
        let text = b"evenkeel".repeat(100);
        assert_eq!(uncompress(&compress(&text).unwrap()).unwrap(), text);
        assert_eq!(uncompress(b"no zlib"), None);
        let bomb = compress(&vec![0; OUTPUT_BYTES_MAX + 1]).unwrap();
        assert_eq!(uncompress(&bomb), None);
    }
}
