//! A request's head, made fit for filters: checked, its authority in one place, cleared of what no client may say.

use evenkeel_policy::contract;
use evenkeel_policy::routing::is_authority;
use http::header::{EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{Method, StatusCode, Uri, Version, request};

use crate::config::Limits;
use crate::http::hop_by_hop::{self, HopByHop};

/// The head as filters see and change it. The authority is in `headers`, as `host`.
#[derive(Debug)]
pub(crate) struct RequestHead {
    pub(crate) method: Method,
    pub(crate) path: PathAndQuery,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
}

/// What each line of a head counts besides its name and value (RFC 9113 section 6.5.2).
const LIST_ENTRY_BYTES: usize = 32;

/// Why a request is refused before anything is done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed {
    pub(crate) status: StatusCode,
    pub(crate) why: &'static str,
}

const fn bad(why: &'static str) -> Malformed {
    Malformed {
        status: StatusCode::BAD_REQUEST,
        why,
    }
}

/// Headers that steer: only filters may set them, and no server gets them.
const STEERING: [&str; 7] = [
    contract::STEERING_HEADER,
    contract::POOL_HEADER,
    contract::RETRY_ON_HEADER,
    contract::MAX_RETRIES_HEADER,
    contract::RETRIABLE_STATUSES_HEADER,
    contract::EXPLAIN_HEADER,
    "x-envoy-original-dst-host",
];
/// Envoy's timeouts and retry budget by request.
const STEERING_PREFIX: &str = "x-envoy-upstream-rq-";

/// Whether only filters may set `name`, and no server gets it.
pub(crate) fn is_steering(name: &HeaderName) -> bool {
    let name = name.as_str();
    (name.starts_with("x-e") || name.starts_with("x-g"))
        && (STEERING.contains(&name) || name.starts_with(STEERING_PREFIX))
}

impl RequestHead {
    /// Takes what hyper parsed. Answers also what the hop-by-hop headers said.
    pub(crate) fn new(parts: request::Parts) -> (Self, Result<HopByHop, Malformed>) {
        let mut head = Self {
            method: parts.method,
            path: PathAndQuery::from_static("/"),
            version: parts.version,
            headers: parts.headers,
        };
        let checked = head.check(parts.uri);
        (head, checked)
    }

    fn check(&mut self, uri: Uri) -> Result<HopByHop, Malformed> {
        let uri = uri.into_parts();
        if uri.authority.is_some() && uri.scheme.is_none() && self.method != Method::CONNECT {
            return Err(bad("the request target is not a path"));
        }
        if let Some(path) = uri.path_and_query {
            self.path = path;
        } else if self.method == Method::OPTIONS {
            self.path = PathAndQuery::from_static("*");
        }
        if self.method == Method::CONNECT {
            return Err(Malformed {
                status: StatusCode::METHOD_NOT_ALLOWED,
                why: "CONNECT is not served",
            });
        }
        let is_star = self.path.as_str() == "*" && self.method == Method::OPTIONS;
        if !self.path.as_str().starts_with('/') && !is_star {
            return Err(bad("the request target is not a path"));
        }
        if !is_framed_clearly(&self.headers) {
            return Err(bad("an unknown Transfer-Encoding"));
        }
        // RFC 9112 section 3.2: exactly one Host in HTTP/1.1. Section 3.2.2: the target's authority wins over it.
        let hosts = self.headers.get_all(HOST).iter().count();
        if hosts > 1 {
            return Err(bad("more than one Host"));
        }
        if hosts == 0 && self.version == Version::HTTP_11 {
            return Err(bad("no Host"));
        }
        if let Some(authority) = uri.authority {
            let host =
                HeaderValue::from_str(authority.as_str()).map_err(|_| bad("bad authority"))?;
            self.headers.insert(HOST, host);
        }
        if self
            .headers
            .get(HOST)
            .is_some_and(|host| !is_authority(host.as_bytes()))
        {
            return Err(bad("bad Host"));
        }
        if self.headers.keys().any(is_steering) {
            let names: Vec<HeaderName> = self
                .headers
                .keys()
                .filter(|name| is_steering(name))
                .cloned()
                .collect();
            for name in names {
                self.headers.remove(name);
            }
        }
        let hop_by_hop = hop_by_hop::remove(&mut self.headers)
            .map_err(|_| bad("too many names in Connection"))?;
        if self
            .headers
            .get(EXPECT)
            .is_some_and(|expect| !expect.as_bytes().eq_ignore_ascii_case(b"100-continue"))
        {
            return Err(Malformed {
                status: StatusCode::EXPECTATION_FAILED,
                why: "unknown expectation",
            });
        }
        Ok(hop_by_hop)
    }

    /// Whether the head is larger than `limits.header_bytes`, counted as RFC 9113 section 6.5.2 counts, or has more lines than
    /// `limits.headers`. HTTP/1 heads were measured while they were read.
    pub(crate) fn is_too_large(&self, limits: &Limits) -> bool {
        if self.version != Version::HTTP_2 {
            return false;
        }
        let lines = self.headers.iter();
        let bytes: usize = lines
            .map(|(name, value)| name.as_str().len() + value.len() + LIST_ENTRY_BYTES)
            .sum();
        let pseudo = [self.method.as_str().len(), self.path.as_str().len()];
        let pseudo: usize = pseudo.iter().map(|value| value + LIST_ENTRY_BYTES).sum();
        self.headers.len() > limits.headers || bytes + pseudo > limits.header_bytes
    }

    /// RFC 9110 section 9.2.2: whether doing it twice is as good as once.
    pub(crate) fn is_idempotent(&self) -> bool {
        matches!(
            self.method,
            Method::GET
                | Method::HEAD
                | Method::OPTIONS
                | Method::PUT
                | Method::DELETE
                | Method::TRACE
        )
    }

    pub(crate) fn host(&self) -> Option<&HeaderValue> {
        self.headers.get(HOST)
    }
}

/// Whether `Transfer-Encoding`, if there is one, is `chunked` and nothing besides: no other coding is undone here, and whoever reads two of
/// them, or a list, may find another end of the body. (What is not `chunked` in the end, hyper has refused; and beside `Content-Length` it
/// closes the connection, RFC 9112 section 6.1.)
fn is_framed_clearly(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(target: &str, headers: &[(&str, &str)]) -> request::Parts {
        let mut builder = http::Request::builder().uri(target);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    #[track_caller]
    fn check(target: &str, headers: &[(&str, &str)], expected: Result<&str, StatusCode>) {
        let result = RequestHead::new(parts(target, headers));
        match (result, expected) {
            ((head, Ok(_)), Ok(host)) => assert_eq!(head.host().unwrap(), host),
            ((_, Err(malformed)), Err(status)) => {
                assert_eq!(malformed.status, status, "{}", malformed.why)
            }
            (result, expected) => panic!("{result:?} is not {expected:?}"),
        }
    }

    #[test]
    fn one_authority_is_found_or_the_request_refused() {
        check("/", &[("host", "a.example:80")], Ok("a.example:80"));
        check(
            "http://b.example/x",
            &[("host", "a.example")],
            Ok("b.example"),
        );
        check("/", &[], Err(StatusCode::BAD_REQUEST));
        check(
            "/",
            &[("host", "a"), ("host", "a")],
            Err(StatusCode::BAD_REQUEST),
        );
        check("/", &[("host", "a b")], Err(StatusCode::BAD_REQUEST));
        check("/", &[("host", "evil@a")], Err(StatusCode::BAD_REQUEST));
        for target in ["*", "a.example:80"] {
            let host = [("host", "a.example:80")];
            check(target, &host, Err(StatusCode::BAD_REQUEST));
        }
        check(
            "/",
            &[("host", "a"), ("expect", "tea")],
            Err(StatusCode::EXPECTATION_FAILED),
        );
    }

    #[test]
    fn a_body_is_chunked_or_the_request_refused() {
        for (codings, is_fine) in [
            (&["chunked"][..], true),
            (&["Chunked"], true),
            (&["gzip, chunked"], false),
            (&["chunked, chunked"], false),
            (&[",chunked"], false),
            (&["gzip", "chunked"], false),
            (&["chunked", "chunked"], false),
        ] {
            let mut headers = vec![("host", "a")];
            headers.extend(codings.iter().map(|coding| ("transfer-encoding", *coding)));
            let expected = is_fine.then_some("a").ok_or(StatusCode::BAD_REQUEST);
            check("/", &headers, expected);
        }
    }

    #[test]
    fn what_steers_is_taken_from_clients() {
        let steering = [
            "x-gateway-destination-endpoint",
            "x-evenkeel-pool",
            "x-evenkeel-explain",
            "x-envoy-original-dst-host",
            "x-envoy-retry-on",
            "x-envoy-max-retries",
            "x-envoy-retriable-status-codes",
            "x-envoy-upstream-rq-timeout-ms",
            "x-envoy-upstream-rq-per-try-timeout-ms",
        ];
        let mut headers: Vec<(&str, &str)> =
            steering.iter().map(|name| (*name, "10.0.0.1:80")).collect();
        headers.extend([
            ("host", "a"),
            ("x-envoy-external-address", "1.2.3.4"),
            ("x-evenkeel-else", "1"),
        ]);
        let (head, checked) = RequestHead::new(parts("/", &headers));
        assert!(checked.is_ok());
        let mut left: Vec<&str> = head.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(
            left,
            ["host", "x-envoy-external-address", "x-evenkeel-else"]
        );
    }
}
