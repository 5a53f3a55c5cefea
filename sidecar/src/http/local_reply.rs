//! Answers that no server gave: why, with which status, and in which words.

use evenkeel_host::embedder::Pairs;
use http::StatusCode;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};

use crate::http::exchange::{ResponseHead, flags};

/// Header that says why, in one word.
const ERROR_HEADER: &str = "x-evenkeel-error";
/// Seconds after which whoever was answered 503 may ask again; the filter says the same.
const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("5");

/// Why the proxy answers itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    BadRequest,
    MethodNotServed,
    ExpectationFailed,
    RequestTimeout,
    BodyTooLong,
    HeadTooLarge,
    NoRoute,
    UnknownPool,
    NoHealthyUpstream,
    UpstreamConnectFailed,
    UpstreamConnectTimeout,
    UpstreamReset,
    UpstreamBadResponse,
    ResponseTimeout,
    FilterFailed,
    FilterTimeout,
    /// A filter's own answer.
    Filter,
}

/// Everything that is said about a [`Why`].
struct Words {
    status: u16,
    /// For the header and the log.
    code: &'static str,
    /// `response.code_details`, in Envoy's words where it has any.
    details: &'static str,
    flags: u64,
    text: &'static str,
}

impl Why {
    #[rustfmt::skip]
    const fn words(self) -> Words {
        let (status, code, details, flags, text) = match self {
            Self::BadRequest => (400, "bad_request", "http1.codec_error", flags::BAD_REQUEST, "the request is malformed"),
            Self::MethodNotServed => (405, "method_not_served", "method_not_served", flags::BAD_REQUEST, "this method is not served"),
            Self::ExpectationFailed => (417, "expectation_failed", "expectation_failed", flags::BAD_REQUEST, "the expectation is not known"),
            Self::RequestTimeout => (408, "request_timeout", "stream_idle_timeout", flags::IDLE_TIMEOUT, "the request body did not arrive in time"),
            Self::BodyTooLong => (413, "body_too_long", "request_payload_too_large", flags::BAD_REQUEST, "the request body is too long"),
            Self::HeadTooLarge => (431, "head_too_large", "http2.codec_error", flags::BAD_REQUEST, "the request head is too large"),
            Self::NoRoute => (404, "no_route", "route_not_found", flags::NO_ROUTE, "no route leads there"),
            Self::UnknownPool => (503, "no_healthy_upstream", "cluster_not_found", flags::NO_POOL, "no such pool"),
            Self::NoHealthyUpstream => (503, "no_healthy_upstream", "no_healthy_upstream", flags::NO_HEALTHY_UPSTREAM, "no server is available"),
            Self::UpstreamConnectFailed => (503, "upstream_connect_failed", "upstream_reset_before_response_started{remote_connection_failure}", flags::CONNECT_FAILURE, "no server could be reached"),
            Self::UpstreamConnectTimeout => (504, "upstream_connect_timeout", "upstream_reset_before_response_started{connection_timeout}", flags::CONNECT_FAILURE, "no server could be reached in time"),
            Self::UpstreamReset => (502, "upstream_reset", "upstream_reset_before_response_started{connection_termination}", flags::CONNECTION_TERMINATION, "the server closed the connection before it answered"),
            Self::UpstreamBadResponse => (502, "upstream_reset", "upstream_reset_before_response_started{protocol_error}", flags::UPSTREAM_RESET, "the server's answer is not HTTP"),
            Self::ResponseTimeout => (504, "response_timeout", "upstream_per_try_idle_timeout", flags::RESPONSE_TIMEOUT, "the server did not answer in time"),
            Self::FilterFailed => (503, "filter_failed", "wasm_fail_stream", 0, "the filter failed"),
            Self::FilterTimeout => (504, "filter_timeout", "stream_idle_timeout", flags::IDLE_TIMEOUT, "a filter held the request too long"),
            Self::Filter => (0, "", "", 0, ""),
        };
        Words { status, code, details, flags, text }
    }

    /// The word in the header and the log; empty for a filter's own answer.
    pub(crate) const fn code(self) -> &'static str {
        self.words().code
    }

    pub(crate) const fn details(self) -> &'static str {
        self.words().details
    }

    pub(crate) const fn flags(self) -> u64 {
        self.words().flags
    }

    /// Whether the client's connection must end with the answer: what follows on it cannot be told from the body.
    pub(crate) const fn closes(self) -> bool {
        matches!(
            self,
            Self::BadRequest
                | Self::MethodNotServed
                | Self::ExpectationFailed
                | Self::RequestTimeout
                | Self::BodyTooLong
        )
    }
}

/// An answer, ready to become the response.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// As filters see it: with its length, if it has any.
    pub(crate) fn into_parts(mut self) -> (ResponseHead, Vec<u8>) {
        if self.body.is_empty() {
            self.headers.remove(CONTENT_LENGTH);
        } else {
            self.headers
                .insert(CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        }
        let head = ResponseHead {
            status: self.status,
            headers: self.headers,
        };
        (head, self.body)
    }
}

/// The proxy's own words.
pub(crate) fn own(why: Why) -> Reply {
    let words = why.words();
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(
        HeaderName::from_static(ERROR_HEADER),
        HeaderValue::from_static(words.code),
    );
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    if why.closes() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if words.status == 503 {
        headers.insert(RETRY_AFTER, RETRY_AFTER_S);
    }
    let status = StatusCode::from_u16(words.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Reply {
        status,
        headers,
        body: format!("{}\n", words.text).into_bytes(),
    }
}

/// A filter's words. Pairs that are not legal headers are left out; a status outside 200–599 becomes 500.
pub(crate) fn of_filter(status: u16, pairs: Pairs, body: Vec<u8>) -> Reply {
    let status = StatusCode::from_u16(status)
        .ok()
        .filter(|status| (200..600).contains(&status.as_u16()));
    let mut headers = HeaderMap::with_capacity(pairs.len() + 1);
    for (name, value) in pairs {
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(&name),
            HeaderValue::from_bytes(&value),
        ) {
            headers.append(name, value);
        }
    }
    if !body.is_empty() && !headers.contains_key(CONTENT_TYPE) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    Reply {
        status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        headers,
        body,
    }
}
