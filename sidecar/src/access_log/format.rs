//! Log lines, put together byte by byte: this runs for every request.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use http::header::{HeaderName, REFERER, USER_AGENT};

use crate::http::attributes::protocol;
use crate::http::exchange::Exchange;

const SECONDS_A_DAY: u64 = 86_400;
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// The text of the current second, made once a second.
pub(super) struct TimeText {
    second: Cell<u64>,
    /// `2026-11-23T11:50:02`.
    iso: RefCell<String>,
    /// `23/Nov/2026:11:50:02 +0000`.
    common: RefCell<String>,
}

impl TimeText {
    pub(super) fn new() -> Self {
        let text = Self {
            second: Cell::new(u64::MAX),
            iso: RefCell::default(),
            common: RefCell::default(),
        };
        text.update(0);
        text
    }

    /// Writes `2026-11-23T11:50:02.123Z`.
    pub(super) fn iso(&self, out: &mut Vec<u8>, wall: Duration) {
        self.update(wall.as_secs());
        out.extend_from_slice(self.iso.borrow().as_bytes());
        out.push(b'.');
        padded(out, u64::from(wall.subsec_millis()), 3);
        out.push(b'Z');
    }

    /// Writes `23/Nov/2026:11:50:02 +0000`.
    pub(super) fn common(&self, out: &mut Vec<u8>, wall: Duration) {
        self.update(wall.as_secs());
        out.extend_from_slice(self.common.borrow().as_bytes());
    }

    fn update(&self, second: u64) {
        if self.second.replace(second) == second {
            return;
        }
        let (year, month, day) = civil(second / SECONDS_A_DAY);
        let of_day = second % SECONDS_A_DAY;
        let (hour, minute, rest) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        let name = usize::try_from(month - 1)
            .ok()
            .and_then(|month| MONTHS.get(month))
            .copied()
            .unwrap_or_default();
        self.iso.replace(format!(
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{rest:02}"
        ));
        self.common.replace(format!(
            "{day:02}/{name}/{year:04}:{hour:02}:{minute:02}:{rest:02} +0000"
        ));
    }
}

/// Year, month, day of a day since the epoch: Howard Hinnant's `civil_from_days`, for days from 1970 on.
fn civil(day: u64) -> (u64, u64, u64) {
    let shifted = day + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// One JSON object a line.
pub(super) fn json(
    out: &mut Vec<u8>,
    exchange: &Exchange,
    client_ip: Option<&str>,
    wall: Duration,
    time: &TimeText,
) {
    let facts = &exchange.facts;
    let head = exchange.request.borrow();
    out.extend_from_slice(b"{\"time\":\"");
    time.iso(out, wall);
    out.extend_from_slice(b"\",\"client_ip\":\"");
    client(out, exchange, client_ip);
    out.extend_from_slice(b"\",\"peer\":\"");
    out.extend_from_slice(exchange.client.ends().peer_text.as_bytes());
    let config = &exchange.active.generation.config;
    if let Some(listener) = config.listener_at(exchange.client.bind) {
        out.extend_from_slice(b"\",\"listener\":\"");
        out.extend_from_slice(listener.name.as_bytes());
    }
    out.extend_from_slice(b"\",\"method\":\"");
    escaped(out, head.method.as_str().as_bytes());
    out.extend_from_slice(b"\",\"host\":\"");
    escaped(out, head.host().map_or(b"", |host| host.as_bytes()));
    out.extend_from_slice(b"\",\"path\":\"");
    escaped(out, head.path.as_str().as_bytes());
    out.extend_from_slice(b"\",\"protocol\":\"");
    out.extend_from_slice(protocol(head.version).as_bytes());
    out.extend_from_slice(b"\",\"status\":");
    number(out, u64::from(facts.status.get()));
    out.extend_from_slice(b",\"bytes\":");
    number(out, facts.response_bytes.get());
    out.extend_from_slice(b",\"duration_ms\":");
    let micros = facts.ended.get().map_or(0, |ended| {
        ended
            .saturating_duration_since(exchange.started)
            .as_micros()
    });
    let micros = u64::try_from(micros).unwrap_or(u64::MAX);
    number(out, micros / 1000);
    out.push(b'.');
    padded(out, micros % 1000, 3);
    upstream(out, exchange);
    out.extend_from_slice(b",\"attempts\":");
    number(out, u64::from(facts.attempts.get()));
    if let Some(why) = facts.why.get() {
        out.extend_from_slice(b",\"error\":\"");
        let code = if why.code().is_empty() {
            "filter_reply"
        } else {
            why.code()
        };
        out.extend_from_slice(code.as_bytes());
        out.push(b'"');
    }
    if facts.why.get().is_some() || facts.flags.get() != 0 {
        out.extend_from_slice(b",\"details\":\"");
        escaped(out, facts.details.borrow().text().as_bytes());
        out.push(b'"');
    }
    if let Some(id) = head.headers.get(HeaderName::from_static("x-request-id")) {
        out.extend_from_slice(b",\"request_id\":\"");
        escaped(out, id.as_bytes());
        out.push(b'"');
    }
    out.extend_from_slice(b"}\n");
}

fn upstream(out: &mut Vec<u8>, exchange: &Exchange) {
    let Some(pool) = exchange
        .pool
        .get()
        .and_then(|number| exchange.active.generation.pools.get(number))
    else {
        return;
    };
    out.extend_from_slice(b",\"pool\":\"");
    out.extend_from_slice(pool.name.as_bytes());
    out.push(b'"');
    let reach = exchange.reach.borrow();
    let number = exchange.server.get();
    let Some(server) = reach
        .as_ref()
        .zip(number)
        .and_then(|(reach, number)| reach.server(number))
    else {
        return;
    };
    out.extend_from_slice(b",\"upstream\":\"");
    out.extend_from_slice(server.text.as_bytes());
    out.push(b'"');
}

/// Apache's combined log format, as nginx writes it.
pub(super) fn combined(
    out: &mut Vec<u8>,
    exchange: &Exchange,
    client_ip: Option<&str>,
    wall: Duration,
    time: &TimeText,
) {
    let head = exchange.request.borrow();
    client(out, exchange, client_ip);
    out.extend_from_slice(b" - - [");
    time.common(out, wall);
    out.extend_from_slice(b"] \"");
    escaped(out, head.method.as_str().as_bytes());
    out.push(b' ');
    escaped(out, head.path.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(protocol(head.version).as_bytes());
    out.extend_from_slice(b"\" ");
    number(out, u64::from(exchange.facts.status.get()));
    out.push(b' ');
    number(out, exchange.facts.response_bytes.get());
    for name in [REFERER, USER_AGENT] {
        out.extend_from_slice(b" \"");
        escaped(
            out,
            head.headers
                .get(name)
                .map_or(b"-", |value| value.as_bytes()),
        );
        out.push(b'"');
    }
    out.push(b'\n');
}

fn client(out: &mut Vec<u8>, exchange: &Exchange, client_ip: Option<&str>) {
    match client_ip {
        Some(ip) => escaped(out, ip.as_bytes()),
        None => out.extend_from_slice(exchange.client.ends().peer.ip().to_string().as_bytes()),
    }
}

/// Escapes as JSON does; bytes that are not ASCII are written as if they were Latin-1, so that a line is always valid.
pub(super) fn escaped(out: &mut Vec<u8>, text: &[u8]) {
    if text
        .iter()
        .all(|&byte| (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\')
    {
        return out.extend_from_slice(text);
    }
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0x20..0x7f => out.push(byte),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.push(hex(byte >> 4));
                out.push(hex(byte & 15));
            }
        }
    }
}

const fn hex(digit: u8) -> u8 {
    if digit < 10 {
        b'0' + digit
    } else {
        b'a' + digit - 10
    }
}

pub(super) fn number(out: &mut Vec<u8>, value: u64) {
    padded(out, value, 1);
}

/// Decimal, with zeros before it up to `width`.
fn padded(out: &mut Vec<u8>, mut value: u64, width: usize) {
    let start = out.len();
    // At most the 20 digits of a u64.
    while value > 0 || out.len() < start + width {
        out.push(b'0' + u8::try_from(value % 10).unwrap_or(0));
        value /= 10;
    }
    if let Some(digits) = out.get_mut(start..) {
        digits.reverse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_civil_calendar_is_right() {
        for (day, expected) in [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (19_723, (2024, 1, 1)),
            (20_780, (2026, 11, 23)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(civil(day), expected, "day {day}");
        }
    }

    #[test]
    fn the_text_of_a_second() {
        let time = TimeText::new();
        time.update(1_795_434_602);
        assert_eq!(*time.iso.borrow(), "2026-11-23T11:50:02");
        assert_eq!(*time.common.borrow(), "23/Nov/2026:11:50:02 +0000");
    }

    #[test]
    fn whatever_is_escaped_is_valid_json() {
        let all: Vec<u8> = (0..=255).collect();
        let mut line = vec![b'"'];
        escaped(&mut line, &all);
        line.push(b'"');
        let text: String = serde_json::from_slice(&line).unwrap();
        assert_eq!(
            text.chars().map(u32::from).collect::<Vec<_>>(),
            (0..=255).collect::<Vec<_>>()
        );
    }

    #[test]
    fn numbers_are_padded() {
        let mut out = Vec::new();
        for (value, width) in [(0, 1), (7, 3), (1234, 3), (u64::MAX, 1)] {
            padded(&mut out, value, width);
            out.push(b' ');
        }
        assert_eq!(out, b"0 007 1234 18446744073709551615 ");
    }
}
