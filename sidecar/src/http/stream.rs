//! An exchange as the filter host sees it: header maps, attributes, wake-ups.
//!
//! HTTP/1's `Host` and HTTP/2's `:authority` are one thing to filters, `:authority`; it is kept as the `host` header and told
//! apart here.

use evenkeel_host::embedder::{Attribute, FilterStateOutcome, HeaderMap as Map, HttpStream, Value};
use evenkeel_policy::contract;
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, StatusCode};

use crate::http::exchange::Exchange;
use crate::http::{attributes, head::RequestHead};

/// Most pairs that a filter may put into one map.
const PAIRS_MAX: usize = 1024;

impl HttpStream for Exchange {
    fn pairs(&self, map: Map, visit: &mut dyn FnMut(&[u8], &[u8])) -> bool {
        match map {
            Map::RequestHeaders => {
                let head = self.request.borrow();
                visit(
                    b":authority",
                    head.host().map_or(b"", HeaderValue::as_bytes),
                );
                visit(b":path", head.path.as_str().as_bytes());
                visit(b":method", head.method.as_str().as_bytes());
                visit(b":scheme", self.scheme());
                for (name, value) in &head.headers {
                    if name != HOST {
                        visit(name.as_str().as_bytes(), value.as_bytes());
                    }
                }
                true
            }
            Map::ResponseHeaders => {
                let response = self.response.borrow();
                let Some(head) = response.as_ref() else {
                    return false;
                };
                visit(b":status", head.status.as_str().as_bytes());
                visit_all(&head.headers, visit)
            }
            Map::RequestTrailers => self
                .request_trailers
                .borrow()
                .as_ref()
                .is_some_and(|map| visit_all(map, visit)),
            Map::ResponseTrailers => self
                .response_trailers
                .borrow()
                .as_ref()
                .is_some_and(|map| visit_all(map, visit)),
        }
    }

    fn count(&self, map: Map) -> usize {
        match map {
            Map::RequestHeaders => {
                let head = self.request.borrow();
                // Four pseudo-headers, of which one is `host`.
                (4 + head.headers.len()).saturating_sub(usize::from(head.host().is_some()))
            }
            Map::ResponseHeaders => self
                .response
                .borrow()
                .as_ref()
                .map_or(0, |head| 1 + head.headers.len()),
            Map::RequestTrailers => self
                .request_trailers
                .borrow()
                .as_ref()
                .map_or(0, http::HeaderMap::len),
            Map::ResponseTrailers => self
                .response_trailers
                .borrow()
                .as_ref()
                .map_or(0, http::HeaderMap::len),
        }
    }

    fn value(&self, map: Map, name: &[u8], visit: &mut dyn FnMut(&[u8])) -> bool {
        let name = in_lower_case(name);
        match map {
            Map::RequestHeaders => {
                let head = self.request.borrow();
                match name {
                    b":path" => visit(head.path.as_str().as_bytes()),
                    b":method" => visit(head.method.as_str().as_bytes()),
                    b":scheme" => visit(self.scheme()),
                    b":authority" => {
                        if let Some(host) = head.host() {
                            visit(host.as_bytes());
                        }
                    }
                    _ => visit_first(&head.headers, name, visit),
                }
                true
            }
            Map::ResponseHeaders => {
                let response = self.response.borrow();
                let Some(head) = response.as_ref() else {
                    return false;
                };
                if name == b":status" {
                    visit(head.status.as_str().as_bytes());
                } else {
                    visit_first(&head.headers, name, visit);
                }
                true
            }
            Map::RequestTrailers | Map::ResponseTrailers => self
                .with_fields(map, |fields| visit_first(fields, name, visit))
                .is_some(),
        }
    }

    fn add(&self, map: Map, name: &[u8], value: &[u8]) -> bool {
        if name.first() == Some(&b':') || is_host(map, name) {
            return self.replace(map, name, value);
        }
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        else {
            return false;
        };
        self.with_fields(map, |fields| {
            fields.len() < PAIRS_MAX && fields.try_append(name, value).is_ok()
        })
        .unwrap_or(false)
    }

    fn replace(&self, map: Map, name: &[u8], value: &[u8]) -> bool {
        if name.first() == Some(&b':') {
            return self.replace_pseudo(map, name, value);
        }
        let (Some(name), Ok(value)) = (header_name(name), HeaderValue::from_bytes(value)) else {
            return false;
        };
        self.with_fields(map, |fields| {
            fields.len() < PAIRS_MAX && fields.try_insert(name, value).is_ok()
        })
        .unwrap_or(false)
    }

    fn remove(&self, map: Map, name: &[u8]) -> bool {
        if name.first() == Some(&b':') {
            // A message without them is none: they stay.
            return true;
        }
        let Ok(name) = HeaderName::from_bytes(name) else {
            return true;
        };
        self.with_fields(map, |fields| drop(fields.remove(name)))
            .is_some()
    }

    fn replace_all(&self, map: Map, pairs: &mut dyn Iterator<Item = (&[u8], &[u8])>) -> bool {
        let mut fields = HeaderMap::new();
        let mut pseudo: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for (name, value) in pairs.take(PAIRS_MAX) {
            if name.first() == Some(&b':') {
                pseudo.push((name.to_vec(), value.to_vec()));
                continue;
            }
            let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
            else {
                return false;
            };
            if fields.try_append(name, value).is_err() {
                return false;
            }
        }
        if self.with_fields(map, |old| *old = fields).is_none() {
            return false;
        }
        pseudo
            .iter()
            .all(|(name, value)| self.replace_pseudo(map, name, value))
    }

    fn attribute(&self, attribute: Attribute, answer: &mut dyn FnMut(Value<'_>)) -> bool {
        attributes::answer(self, attribute, answer)
    }

    fn set_filter_state(&self, _path: &[u8], _value: &[u8]) -> FilterStateOutcome {
        // What Envoy offers here for HTTP (hash keys, original destination) is not how this proxy is steered.
        FilterStateOutcome::UnknownPath
    }

    fn wake(&self) {
        Exchange::wake(self);
    }
}

impl Exchange {
    pub(crate) fn scheme(&self) -> &'static [u8] {
        if self.client.tls.get().is_some() {
            b"https"
        } else {
            b"http"
        }
    }

    fn with_fields<T>(&self, map: Map, change: impl FnOnce(&mut HeaderMap) -> T) -> Option<T> {
        match map {
            Map::RequestHeaders => Some(change(&mut self.request.borrow_mut().headers)),
            Map::ResponseHeaders => self
                .response
                .borrow_mut()
                .as_mut()
                .map(|head| change(&mut head.headers)),
            Map::RequestTrailers => self.request_trailers.borrow_mut().as_mut().map(change),
            Map::ResponseTrailers => self.response_trailers.borrow_mut().as_mut().map(change),
        }
    }

    fn replace_pseudo(&self, map: Map, name: &[u8], value: &[u8]) -> bool {
        let name = in_lower_case(name);
        match map {
            Map::RequestHeaders => {
                replace_request_pseudo(&mut self.request.borrow_mut(), name, value)
            }
            Map::ResponseHeaders => {
                let mut response = self.response.borrow_mut();
                let Some(head) = response.as_mut().filter(|_| name == b":status") else {
                    return false;
                };
                StatusCode::from_bytes(value)
                    .map(|status| head.status = status)
                    .is_ok()
            }
            Map::RequestTrailers | Map::ResponseTrailers => false,
        }
    }
}

fn replace_request_pseudo(head: &mut RequestHead, name: &[u8], value: &[u8]) -> bool {
    match name {
        b":path" => PathAndQuery::try_from(value)
            .map(|path| head.path = path)
            .is_ok(),
        b":method" => Method::from_bytes(value)
            .map(|method| head.method = method)
            .is_ok(),
        b":authority" => HeaderValue::from_bytes(value)
            .map(|host| head.headers.insert(HOST, host))
            .is_ok(),
        // The scheme is a fact of the connection.
        b":scheme" => true,
        _ => false,
    }
}

/// A pseudo-header as HTTP/2 writes it, however the filter does. Other names stay as they are: the maps know them in any case.
fn in_lower_case(name: &[u8]) -> &[u8] {
    const PSEUDO: [&[u8]; 5] = [b":path", b":method", b":scheme", b":authority", b":status"];
    if name.first() != Some(&b':') {
        return name;
    }
    PSEUDO
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(name))
        .unwrap_or(name)
}

/// Names that the filter sets on every request: known ones need neither a check nor an allocation.
static FREQUENT: [HeaderName; 7] = [
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static(contract::STEERING_HEADER),
    HeaderName::from_static(contract::POOL_HEADER),
    HeaderName::from_static(contract::RETRY_ON_HEADER),
    HeaderName::from_static(contract::MAX_RETRIES_HEADER),
];

fn header_name(name: &[u8]) -> Option<HeaderName> {
    let known = FREQUENT
        .iter()
        .find(|known| known.as_str().as_bytes() == name);
    known.cloned().or_else(|| HeaderName::from_bytes(name).ok())
}

fn is_host(map: Map, name: &[u8]) -> bool {
    map == Map::RequestHeaders && name.eq_ignore_ascii_case(b"host")
}

fn visit_all(fields: &HeaderMap, visit: &mut dyn FnMut(&[u8], &[u8])) -> bool {
    for (name, value) in fields {
        visit(name.as_str().as_bytes(), value.as_bytes());
    }
    true
}

fn visit_first(fields: &HeaderMap, name: &[u8], visit: &mut dyn FnMut(&[u8])) {
    let value = std::str::from_utf8(name)
        .ok()
        .and_then(|name| fields.get(name));
    if let Some(value) = value {
        visit(value.as_bytes());
    }
}
