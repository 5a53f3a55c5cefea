//! From the lines the probe logs to lines that can be compared.
//!
//! What differs between two runs by nature is named instead of numbered: contexts (`root`, `stream1`), tokens, queues and
//! compare-and-swap numbers (`token#1`). Headers that each proxy adds of its own are left out, and so is their number.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::case::Case;
use super::program::{Call, Phase, Show};

/// Headers a proxy may add, set or take away of its own, at any time: those of one hop, of its own name, and steering.
/// A name that ends in `*` is a prefix.
const OWN_HEADERS: [&str; 10] = [
    "x-request-id",
    "x-forwarded-proto",
    "x-envoy-*",
    "x-evenkeel-*",
    "x-gateway-destination-endpoint",
    "date",
    "server",
    "connection",
    "transfer-encoding",
    "te",
];

/// One line of the probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    Callback {
        context: u32,
        phase: u32,
        arguments: [u32; 4],
    },
    Operation {
        context: u32,
        phase: u32,
        index: usize,
        status: u32,
        outputs: Vec<Output>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Output {
    Untouched,
    Number(u32),
    Wide(u64),
    Bytes {
        is_null: bool,
        length: u32,
        bytes: Vec<u8>,
    },
    /// Only one of pointer and length was written.
    Half(u32, u32),
}

/// The probe's line in a line of a proxy's log, if it holds one.
pub(crate) fn parse(log_line: &str) -> Option<Line> {
    let (_, rest) = log_line.split_once("TRACE ")?;
    let mut words = rest.split_ascii_whitespace();
    let kind = words.next()?;
    let mut numbers = words
        .clone()
        .map_while(|word| u32::from_str_radix(word, 16).ok());
    let (context, phase) = (numbers.next()?, numbers.next()?);
    if kind == "C" {
        let arguments = [
            numbers.next()?,
            numbers.next()?,
            numbers.next()?,
            numbers.next()?,
        ];
        return Some(Line::Callback {
            context,
            phase,
            arguments,
        });
    }
    let (index, status) = (numbers.next()?, numbers.next()?);
    let mut words = words.skip(4);
    let mut outputs = Vec::new();
    while let Some(word) = words.next() {
        // What a proxy adds behind the message (fields, colours) is not of the probe.
        let Some(output) = parse_output(word, &mut words) else {
            break;
        };
        outputs.push(output);
    }
    Some(Line::Operation {
        context,
        phase,
        index: usize::try_from(index).ok()?,
        status,
        outputs,
    })
}

fn parse_output<'a>(word: &str, words: &mut impl Iterator<Item = &'a str>) -> Option<Output> {
    let hex = |text: &str| u32::from_str_radix(text, 16).ok();
    match word {
        "-" => Some(Output::Untouched),
        "?" => Some(Output::Half(hex(words.next()?)?, hex(words.next()?)?)),
        "p" | "z" => {
            let (length, digits) = words.next()?.split_once(':')?;
            let digits: String = digits.chars().take_while(char::is_ascii_hexdigit).collect();
            let bytes = digits
                .as_bytes()
                .chunks_exact(2)
                .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
            Some(Output::Bytes {
                is_null: word == "z",
                length: hex(length)?,
                bytes: bytes.collect(),
            })
        }
        _ => {
            let (high, low) = word.split_once('_')?;
            Some(match (hex(high)?, hex(low)?) {
                (0xaaaa_aaaa, 0xaaaa_aaaa) => Output::Untouched,
                (0xaaaa_aaaa, low) => Output::Number(low),
                (high, low) => Output::Wide((u64::from(high) << 32) | u64::from(low)),
            })
        }
    }
}

/// Names contexts and ids in the order they appear.
#[derive(Default)]
pub(crate) struct Names {
    streams: Vec<u32>,
    ids: HashMap<(&'static str, u64), usize>,
}

impl Names {
    fn context(&self, id: u32) -> String {
        match self.streams.iter().position(|stream| *stream == id) {
            Some(place) => format!("stream{}", place + 1),
            None => "root".to_owned(),
        }
    }

    fn id(&mut self, kind: &'static str, value: u64) -> String {
        let next = self.ids.keys().filter(|(other, _)| *other == kind).count() + 1;
        let place = self.ids.entry((kind, value)).or_insert(next);
        format!("{kind}#{place}")
    }
}

/// The comparable lines of one case.
pub(crate) fn render(case: &Case, lines: &[Line]) -> Vec<String> {
    let program = &case.program;
    let mut names = Names::default();
    let mut rendered = Vec::new();
    for line in merge_body_callbacks(case, lines) {
        rendered.push(match &line {
            Line::Callback {
                context,
                phase,
                arguments,
            } => render_callback(&mut names, *context, *phase, *arguments),
            Line::Operation {
                context,
                phase,
                index,
                status,
                outputs,
            } => {
                let call = program.call(*phase, *index);
                let label =
                    call.map_or_else(|| "unknown call".to_owned(), |call| one_line(&call.label));
                let mut text = format!(
                    "{} {}: {label} -> {status}",
                    names.context(*context),
                    phase_name(*phase)
                );
                for output in outputs {
                    let _ = write!(
                        text,
                        " {}",
                        render_output(&mut names, call, *status, output)
                    );
                }
                text
            }
        });
    }
    rendered
}

/// How many pieces a body arrives in is the network's matter: neighbours without a call between them become one.
fn merge_body_callbacks(case: &Case, lines: &[Line]) -> Vec<Line> {
    let mut merged: Vec<Line> = Vec::new();
    for line in lines {
        let mut line = line.clone();
        if let Line::Callback {
            context,
            phase,
            arguments: [length, ended, ..],
        } = &mut line
            && [Phase::RequestBody as u32, Phase::ResponseBody as u32].contains(phase)
        {
            if case.has_cut_body {
                *length = 0;
            }
            if let Some(Line::Callback {
                context: before,
                phase: phase_before,
                arguments: [length_before, ended_before, ..],
            }) = merged.last_mut()
                && before == context
                && phase_before == phase
            {
                // Of a body that is held, each callback tells the whole.
                *length_before = if case.program.pauses(*phase) {
                    *length
                } else {
                    *length_before + *length
                };
                *ended_before |= *ended;
                continue;
            }
        }
        merged.push(line);
    }
    merged
}

fn phase_name(phase: u32) -> String {
    Phase::ALL
        .iter()
        .find(|known| **known as u32 == phase)
        .map_or_else(|| format!("phase {phase}"), |known| known.name())
}

fn render_callback(names: &mut Names, context: u32, phase: u32, [a, b, c, d]: [u32; 4]) -> String {
    if phase == Phase::ContextCreate as u32 && a != 0 {
        names.streams.push(context);
    }
    let who = names.context(context);
    let what = phase_name(phase);
    match Phase::ALL.iter().find(|known| **known as u32 == phase) {
        Some(Phase::ContextCreate) => format!(
            "{who} {what}({})",
            if a == 0 { "no parent" } else { "root" }
        ),
        // The number of headers counts the proxy's own ones.
        Some(Phase::RequestHeaders | Phase::ResponseHeaders) => {
            format!("{who} {what}(end_of_stream {b})")
        }
        Some(Phase::RequestTrailers | Phase::ResponseTrailers) => format!("{who} {what}({a})"),
        Some(Phase::RequestBody | Phase::ResponseBody) => {
            format!("{who} {what}({a} bytes, end_of_stream {b})")
        }
        Some(Phase::CallResponse) => {
            let headers = if b == 0 { "no headers" } else { "headers" };
            format!(
                "{who} {what}({}, {headers}, {c} bytes, {d} trailers)",
                names.id("token", u64::from(a))
            )
        }
        Some(Phase::QueueReady) => format!("{who} {what}({})", names.id("queue", u64::from(a))),
        Some(Phase::VmStart | Phase::Configure) => format!("{who} {what}({a} bytes)"),
        _ => format!("{who} {what}({a})"),
    }
}

fn render_output(names: &mut Names, call: Option<&Call>, status: u32, output: &Output) -> String {
    let show = call.map_or(Show::Exact, |call| call.show);
    let kind = match call.map_or(0, |call| call.function) {
        17 => "cas",
        19 | 20 => "queue",
        _ => "id",
    };
    match (output, show) {
        (Output::Untouched, _) => "untouched".to_owned(),
        (Output::Half(pointer, length), _) => {
            let part = |value: u32| {
                if value == 0xaaaa_aaaa {
                    "untouched".to_owned()
                } else {
                    value.to_string()
                }
            };
            format!("pointer {} length {}", part(*pointer), part(*length))
        }
        (Output::Number(_) | Output::Wide(_), Show::Length | Show::Presence) => {
            "written".to_owned()
        }
        // An id that was not given is zero or a leftover.
        (Output::Number(value), Show::Id) if status == 0 => names.id(kind, u64::from(*value)),
        (Output::Number(value), _) => value.to_string(),
        (Output::Wide(value), _) => format!("{value:#x}"),
        (
            Output::Bytes {
                is_null,
                length,
                bytes,
            },
            show,
        ) => {
            let null = if *is_null { "null " } else { "" };
            match show {
                Show::Presence => format!("{null}written"),
                Show::Length => format!("{null}{length} bytes"),
                Show::Pairs => format!("{null}{}", render_pairs(bytes)),
                Show::Host => format!("{null}{}", without_port(&String::from_utf8_lossy(bytes))),
                Show::Exact | Show::Id => format!("{null}{}", render_bytes(bytes)),
            }
        }
    }
}

/// Names and values hold line ends too.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|character| {
            if character.is_control() {
                character.escape_default().to_string()
            } else {
                character.to_string()
            }
        })
        .collect()
}

/// Text in quotes where it is text, else hexadecimal.
pub(crate) fn render_bytes(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text)
            if text.chars().all(|character| {
                !character.is_control() || character == '\n' || character == '\r'
            }) =>
        {
            format!("{text:?}")
        }
        _ => bytes.iter().fold("0x".to_owned(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        }),
    }
}

fn without_port(address: &str) -> String {
    match address.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => format!("{host}:PORT"),
        _ => format!("{address:?}"),
    }
}

/// Whether proxies add this header of their own.
pub(crate) fn is_own_header(name: &str) -> bool {
    OWN_HEADERS.iter().any(|own| {
        own.strip_suffix('*')
            .map_or(*own == name, |prefix| name.starts_with(prefix))
    })
}

fn render_pairs(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "no bytes".to_owned();
    }
    match decode_pairs(bytes) {
        Some(pairs) => {
            // The order of different names has no meaning (RFC 9110, 5.3), that of equal ones has.
            let mut shown: Vec<_> = pairs
                .iter()
                .filter(|(name, _)| !is_own_header(&String::from_utf8_lossy(name)))
                .collect();
            shown.sort_by_key(|(name, _)| name);
            let shown: Vec<String> = shown
                .iter()
                .map(|(name, value)| {
                    format!(
                        "{}: {}",
                        String::from_utf8_lossy(name),
                        String::from_utf8_lossy(value)
                    )
                })
                .collect();
            format!("{shown:?}")
        }
        None => format!("not pairs: {}", render_bytes(bytes)),
    }
}

/// Pairs as the ABI carries them; `None` if the bytes are not exactly that.
fn decode_pairs(bytes: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let number = |at: usize| {
        let four = bytes.get(at..at.checked_add(4)?)?;
        usize::try_from(u32::from_le_bytes(four.try_into().ok()?)).ok()
    };
    let count = number(0)?;
    let mut at = 4 + count.checked_mul(8)?;
    let mut take = |length: usize| {
        let part = bytes.get(at..at.checked_add(length)?)?.to_vec();
        at += length;
        (bytes.get(at) == Some(&0)).then_some(())?;
        at += 1;
        Some(part)
    };
    let mut pairs = Vec::new();
    for k in 0..count {
        pairs.push((take(number(4 + k * 8)?)?, take(number(8 + k * 8)?)?));
    }
    (at == bytes.len()).then_some(pairs)
}
