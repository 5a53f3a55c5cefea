//! The cheapest stream a filter can run on: header maps in memory, a fixed peer and a fixed server.

use std::cell::{Cell, RefCell};

use evenkeel_host::embedder::{Attribute, FilterStateOutcome, HeaderMap, HttpStream, Value};

type Pair = (Vec<u8>, Vec<u8>);

/// Attributes answer as they would at the end of a request that the first server answered.
#[derive(Debug, Default)]
pub struct MemoryStream {
    request: RefCell<Vec<Pair>>,
    response: RefCell<Vec<Pair>>,
    answered: Cell<bool>,
}

impl MemoryStream {
    /// A new request on the same memory.
    pub fn request(&self, pairs: &[(&str, &str)]) {
        fill(&mut self.request.borrow_mut(), pairs);
        self.response.borrow_mut().clear();
        self.answered.set(false);
    }

    /// Its answer.
    pub fn response(&self, pairs: &[(&str, &str)]) {
        fill(&mut self.response.borrow_mut(), pairs);
        self.answered.set(true);
    }

    /// The value the filter left in a request header.
    pub fn request_value(&self, name: &str) -> Option<String> {
        let request = self.request.borrow();
        let (_, value) = request.iter().find(|(known, _)| known == name.as_bytes())?;
        Some(String::from_utf8_lossy(value).into_owned())
    }

    fn map(&self, map: HeaderMap) -> Option<&RefCell<Vec<Pair>>> {
        match map {
            HeaderMap::RequestHeaders => Some(&self.request),
            HeaderMap::ResponseHeaders if self.answered.get() => Some(&self.response),
            _ => None,
        }
    }
}

fn fill(map: &mut Vec<Pair>, pairs: &[(&str, &str)]) {
    map.clear();
    map.extend(
        pairs
            .iter()
            .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())),
    );
}

impl HttpStream for MemoryStream {
    fn pairs(&self, map: HeaderMap, visit: &mut dyn FnMut(&[u8], &[u8])) -> bool {
        let Some(pairs) = self.map(map) else {
            return false;
        };
        pairs
            .borrow()
            .iter()
            .for_each(|(name, value)| visit(name, value));
        true
    }

    fn value(&self, map: HeaderMap, name: &[u8], visit: &mut dyn FnMut(&[u8])) -> bool {
        let Some(pairs) = self.map(map) else {
            return false;
        };
        let name = if name.eq_ignore_ascii_case(b"host") {
            b":authority"
        } else {
            name
        };
        let pairs = pairs.borrow();
        if let Some((_, value)) = pairs
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
        {
            visit(value);
        }
        true
    }

    fn add(&self, map: HeaderMap, name: &[u8], value: &[u8]) -> bool {
        let Some(pairs) = self.map(map) else {
            return false;
        };
        pairs
            .borrow_mut()
            .push((name.to_ascii_lowercase(), value.to_vec()));
        true
    }

    fn replace(&self, map: HeaderMap, name: &[u8], value: &[u8]) -> bool {
        self.remove(map, name) && self.add(map, name, value)
    }

    fn remove(&self, map: HeaderMap, name: &[u8]) -> bool {
        let Some(pairs) = self.map(map) else {
            return false;
        };
        pairs
            .borrow_mut()
            .retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        true
    }

    fn replace_all(&self, map: HeaderMap, pairs: &mut dyn Iterator<Item = (&[u8], &[u8])>) -> bool {
        let Some(known) = self.map(map) else {
            return false;
        };
        *known.borrow_mut() = pairs
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec()))
            .collect();
        true
    }

    fn attribute(&self, attribute: Attribute, answer: &mut dyn FnMut(Value<'_>)) -> bool {
        let value = match attribute {
            Attribute::SourceAddress => Value::Bytes(b"10.1.2.3:40000"),
            Attribute::SourcePort => Value::Int(40000),
            Attribute::DestinationAddress => Value::Bytes(b"192.0.2.1:80"),
            Attribute::DestinationPort => Value::Int(80),
            Attribute::UpstreamAddress if self.answered.get() => Value::Bytes(b"192.0.2.11:80"),
            Attribute::UpstreamRequestAttemptCount if self.answered.get() => Value::Uint(1),
            Attribute::ResponseCode if self.answered.get() => Value::Int(200),
            Attribute::ResponseFlags if self.answered.get() => Value::Int(0),
            Attribute::ResponseCodeDetails if self.answered.get() => Value::Bytes(b"via_upstream"),
            _ => return false,
        };
        answer(value);
        true
    }

    fn set_filter_state(&self, _path: &[u8], _value: &[u8]) -> FilterStateOutcome {
        FilterStateOutcome::UnknownPath
    }

    fn wake(&self) {}
}
