//! A request that never became an exchange: its head was malformed, too large, too late, or broke off.
//!
//! hyper answers what it cannot parse by itself, and the connection's task answers a head that does not come. No filter saw such a
//! request and no route was looked for, so there is no [`Exchange`](crate::http::exchange::Exchange); but who looks for the
//! reason of a 400 must find its line in the log, and the request in the metrics.
//!
//! Streams of HTTP/2 that h2 refuses one by one (a malformed head: `RST_STREAM`) are not seen here: it tells nobody. What it ends
//! the whole connection for is; heads that are too large are refused in [`crate::http::server`], which sees them.

use std::time::Duration;

use http::Version;

use crate::clock::TICK;
use crate::http::client::Client;

/// How h2 begins its words about a `GOAWAY` that the client sent.
const RECEIVED: &str = "connection error received";

/// Why, and what was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) version: Version,
    /// 0: nothing was answered, because nobody is there to read it, or because HTTP/2 ends connections without a status.
    pub(crate) status: u16,
    /// One word, as in `x-evenkeel-error`.
    pub(crate) code: &'static str,
    /// In hyper's words.
    pub(crate) details: String,
    /// Between the first bytes of the head and this, to a tick.
    pub(crate) took: Duration,
}

impl Refused {
    /// What ended an HTTP/1 connection, if that was a head: `None` for errors of an exchange, which has its own line.
    pub(crate) fn by_http1(client: &Client, error: &hyper::Error) -> Option<Self> {
        let (status, code) = if error.is_parse_version_h2() {
            // The preface of HTTP/2 where ALPN said HTTP/1: closed without a word.
            (0, "bad_request")
        } else if error.is_parse_too_large() {
            // RFC 9110 section 15.5.15: hyper tells the two apart in words only.
            match error.to_string().starts_with("URI") {
                true => (414, "uri_too_long"),
                false => (431, "head_too_large"),
            }
        } else if error.is_parse() {
            (400, "bad_request")
        } else if client.awaits_head() {
            (0, "request_incomplete")
        } else {
            return None;
        };
        Some(Self::new(
            client,
            Version::HTTP_11,
            status,
            code,
            words(error),
        ))
    }

    /// What ended an HTTP/2 connection, if the client broke the protocol: `None` if it merely left.
    pub(crate) fn by_http2(client: &Client, error: &hyper::Error) -> Option<Self> {
        let source = std::error::Error::source(error)?;
        // A lost connection, or a client that ends it for reasons of its own.
        if source.is::<std::io::Error>() || source.to_string().starts_with(RECEIVED) {
            return None;
        }
        Some(Self::new(
            client,
            Version::HTTP_2,
            0,
            "bad_request",
            words(error),
        ))
    }

    /// The head did not come within `timeouts.client_header`, though it had begun.
    pub(crate) fn late(client: &Client) -> Self {
        let details = "the request head did not arrive in time".to_owned();
        Self::new(client, Version::HTTP_11, 408, "request_timeout", details)
    }

    fn new(
        client: &Client,
        version: Version,
        status: u16,
        code: &'static str,
        details: String,
    ) -> Self {
        let ticks = client.worker.clock.now().saturating_sub(client.since());
        Self {
            version,
            status,
            code,
            details,
            took: TICK * ticks,
        }
    }

    /// Counts it and logs it. The janitor has counted the connections that were late.
    pub(crate) fn record(&self, client: &Client) {
        let worker = &client.worker;
        worker.counters.requests.add(1);
        let class = usize::from(self.status / 100);
        if let Some(counter) = worker.counters.responses.get(class) {
            counter.add(1);
        }
        if let Some(log) = worker.log.borrow().as_ref() {
            log.refused(client, self);
        }
        tracing::debug!(peer = %client.ends().peer, "request refused: {} {}", self.code, self.details);
    }
}

/// hyper's words, and those of what it builds on.
fn words(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
