//! Header and trailer maps.
//!
//! A stream's map is legal only in its phase, as in Envoy: from its callback's begin until that has returned Continue (or the stream
//! is resumed); request headers are therefore gone after the request phase, and readable again in `on_log`. The maps of a call's
//! response are readable during its callback. Outside: BadArgument, except that reading all pairs answers Ok with none, and that in
//! `on_log` every map is there, if without content (NotFound).

use std::rc::Rc;

use wasmtime::Caller;

use crate::contexts::StreamContext;
use crate::embedder::{HeaderMap, HttpCallOutcome, HttpStream, Pairs};
use crate::guest_memory::{bytes, give, give_bytes, open, write};
use crate::pairs::{Decoded, Measure, Writer};
use crate::state::State;
use crate::status::{Answer, Refusal, Status};

/// A map by the ABI's number.
#[derive(Clone, Copy)]
enum MapKind {
    Stream(HeaderMap),
    CallHeaders,
    CallTrailers,
    /// gRPC is not served: these maps are never there.
    Grpc,
}

impl MapKind {
    fn from_abi(number: u32) -> Result<Self, Status> {
        Ok(match number {
            0 => MapKind::Stream(HeaderMap::RequestHeaders),
            1 => MapKind::Stream(HeaderMap::RequestTrailers),
            2 => MapKind::Stream(HeaderMap::ResponseHeaders),
            3 => MapKind::Stream(HeaderMap::ResponseTrailers),
            4 | 5 => MapKind::Grpc,
            6 => MapKind::CallHeaders,
            7 => MapKind::CallTrailers,
            _ => return Err(Status::BadArgument),
        })
    }
}

/// A map that may be read now.
enum Readable {
    Stream(Rc<StreamContext>, HeaderMap),
    Call(Rc<HttpCallOutcome>, MapKind),
}

impl Readable {
    fn visit(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        match self {
            Readable::Stream(context, map) => {
                if let Some(stream) = context.shared.http() {
                    stream.pairs(*map, visit);
                }
            }
            Readable::Call(outcome, kind) => call_pairs(outcome, *kind)
                .iter()
                .for_each(|(name, value)| visit(name, value)),
        }
    }
}

fn call_pairs(outcome: &HttpCallOutcome, kind: MapKind) -> &[(Vec<u8>, Vec<u8>)] {
    const NONE: &Pairs = &Pairs::new();
    match (outcome, kind) {
        (HttpCallOutcome::Response { headers, .. }, MapKind::CallHeaders) => headers,
        (HttpCallOutcome::Response { trailers, .. }, MapKind::CallTrailers) => trailers,
        _ => NONE,
    }
}

fn readable(state: &State, kind: MapKind) -> Option<Readable> {
    match kind {
        MapKind::Stream(map) => {
            let context = state
                .active
                .stream
                .as_ref()
                .filter(|context| context.map_readable(map))?;
            Some(Readable::Stream(context.clone(), map))
        }
        MapKind::CallHeaders => Some(Readable::Call(state.call_outcome.clone()?, kind)),
        MapKind::CallTrailers => {
            let outcome = state.call_outcome.clone()?;
            // No trailers is no map, as in Envoy.
            if call_pairs(&outcome, kind).is_empty() {
                None
            } else {
                Some(Readable::Call(outcome, kind))
            }
        }
        MapKind::Grpc => None,
    }
}

/// Runs `change` on a map that may be changed now.
fn change(
    state: &State,
    map: u32,
    change: impl FnOnce(&dyn HttpStream, HeaderMap) -> bool,
) -> Answer {
    let MapKind::Stream(map) = MapKind::from_abi(map)? else {
        return Err(Status::BadArgument.into());
    };
    let context = state
        .active
        .stream
        .as_ref()
        .filter(|context| context.map_writable(map))
        .ok_or(Status::BadArgument)?;
    let stream = context.shared.http().ok_or(Status::BadArgument)?;
    if !change(&**stream, map) {
        return Err(Status::BadArgument.into());
    }
    if map == HeaderMap::RequestHeaders {
        // ABI 0.2.1: every change of request headers implies it.
        stream.clear_route_cache();
    }
    Ok(())
}

/// `proxy_get_header_map_size(map, *size)`: bytes of all names and values. BadArgument: a map that could not be changed now
/// either (Envoy asks for the changeable one here).
pub(super) fn size(caller: &mut Caller<'_, State>, map: u32, size_at: u32) -> Answer {
    let MapKind::Stream(map) = MapKind::from_abi(map)? else {
        return Err(Status::BadArgument.into());
    };
    let (memory, state) = open(caller)?;
    let context = state
        .active
        .stream
        .as_ref()
        .filter(|context| context.map_writable(map))
        .ok_or(Status::BadArgument)?;
    let measure = measure(&Readable::Stream(context.clone(), map));
    let size = u32::try_from(measure.plain()).map_err(|_| Status::InternalFailure)?;
    Ok(write(memory, size_at, size.to_le_bytes())?)
}

fn measure(map: &Readable) -> Measure {
    let mut measure = Measure::default();
    map.visit(&mut |name, value| measure.add(name, value));
    measure
}

/// `proxy_get_header_map_pairs(map, **pairs, *length)`. Ok and no bytes for an empty map and for one that is not there now.
/// BadArgument: no such number. The pairs are written straight into the guest's memory.
pub(super) fn pairs(
    caller: &mut Caller<'_, State>,
    map: u32,
    pointer_at: u32,
    length_at: u32,
) -> Answer {
    let kind = MapKind::from_abi(map)?;
    let Some(map) = readable(caller.data(), kind) else {
        return give_bytes(caller, &[], pointer_at, length_at);
    };
    let measure = measure(&map);
    give(
        caller,
        measure.encoded(),
        pointer_at,
        length_at,
        |target, _| {
            let Some(mut writer) = Writer::new(target, measure) else {
                return false;
            };
            map.visit(&mut |name, value| writer.add(name, value));
            writer.complete()
        },
    )
}

/// `proxy_set_header_map_pairs(map, pairs)`: replaces the whole map. BadArgument: not in its phase, not pairs, or an illegal
/// name or value.
pub(super) fn set_pairs(
    caller: &mut Caller<'_, State>,
    map: u32,
    data: u32,
    length: u32,
) -> Answer {
    let (memory, state) = open(caller)?;
    let pairs = Decoded::parse(bytes(memory, data, length)?)?;
    change(state, map, |stream, map| {
        stream.replace_all(map, &mut pairs.iter())
    })
}

/// `proxy_get_header_map_value(map, name, **value, *length)`: the first of this name. NotFound: none. BadArgument: not in its phase.
pub(super) fn value(
    caller: &mut Caller<'_, State>,
    map: u32,
    name: u32,
    name_length: u32,
    pointer_at: u32,
    length_at: u32,
) -> Answer {
    let kind = MapKind::from_abi(map)?;
    let (memory, state) = open(caller)?;
    let name = bytes(memory, name, name_length)?;
    let mut found = state.scratch.take();
    found.clear();
    let looked_up = look_up(state, kind, name, &mut found);
    let answer = looked_up.and_then(|()| give_bytes(caller, &found, pointer_at, length_at));
    caller.data().scratch.replace(found);
    answer
}

fn look_up(state: &State, kind: MapKind, name: &[u8], found: &mut Vec<u8>) -> Answer {
    let mut present = false;
    let mut take = |value: &[u8]| {
        if !present {
            present = true;
            found.extend_from_slice(value);
        }
    };
    let logging = state
        .active
        .stream
        .as_ref()
        .is_some_and(|context| context.logging.get());
    let there = match kind {
        MapKind::Stream(map) => {
            let context = state
                .active
                .stream
                .as_ref()
                .filter(|context| context.map_readable(map));
            let stream = context.and_then(|context| context.shared.http());
            stream.is_some_and(|stream| stream.value(map, name, &mut take))
        }
        _ => match readable(state, kind) {
            Some(map) => {
                map.visit(&mut |key, value| {
                    if key.eq_ignore_ascii_case(name) {
                        take(value);
                    }
                });
                true
            }
            None => false,
        },
    };
    match (there || logging, present) {
        (false, _) => Err(Refusal::Status(Status::BadArgument)),
        (true, false) => Err(Refusal::Status(Status::NotFound)),
        (true, true) => Ok(()),
    }
}

/// `proxy_add_header_map_value(map, name, value)`. BadArgument: not in its phase, or an illegal name or value.
pub(super) fn add(
    caller: &mut Caller<'_, State>,
    map: u32,
    name: u32,
    name_length: u32,
    value: u32,
    value_length: u32,
) -> Answer {
    let (memory, state) = open(caller)?;
    let (name, value) = (
        bytes(memory, name, name_length)?,
        bytes(memory, value, value_length)?,
    );
    change(state, map, |stream, map| stream.add(map, name, value))
}

/// `proxy_replace_header_map_value(map, name, value)`. BadArgument: not in its phase, or an illegal name or value.
pub(super) fn replace(
    caller: &mut Caller<'_, State>,
    map: u32,
    name: u32,
    name_length: u32,
    value: u32,
    value_length: u32,
) -> Answer {
    let (memory, state) = open(caller)?;
    let (name, value) = (
        bytes(memory, name, name_length)?,
        bytes(memory, value, value_length)?,
    );
    change(state, map, |stream, map| stream.replace(map, name, value))
}

/// `proxy_remove_header_map_value(map, name)`: Ok also when there was none. BadArgument: not in its phase.
pub(super) fn remove(
    caller: &mut Caller<'_, State>,
    map: u32,
    name: u32,
    name_length: u32,
) -> Answer {
    let (memory, state) = open(caller)?;
    let name = bytes(memory, name, name_length)?;
    change(state, map, |stream, map| stream.remove(map, name))
}
