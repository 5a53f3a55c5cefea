//! Answers that no server gives: redirects, what a route responds, refusals.

use super::action::Respond;
use super::template::{Template, Values};
use crate::limits::Refusal;
use crate::routing::PathFault;

/// An answer. One for each policy: its buffers are used again.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    pub status: u16,
    /// In a word: for logs, and for `x-evenkeel-error` where it is an error.
    pub why: &'static str,
    /// By lower-case name.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    pub body: Vec<u8>,
}

impl Reply {
    /// An error, with a line for people.
    pub(super) fn error(&mut self, status: u16, why: &'static str, body: &str) {
        self.begin(status, why);
        self.header(b"content-type", b"text/plain");
        self.header(b"x-evenkeel-error", why.as_bytes());
        self.body.extend_from_slice(body.as_bytes());
        self.body.push(b'\n');
    }

    pub(super) fn bad_path(&mut self, fault: PathFault) {
        self.error(400, "bad_path", &fault.to_string());
    }

    pub(super) fn limited(&mut self, status: u16, why: Refusal) {
        let (name, retry_after_s) = match why {
            Refusal::Rate { retry_after_s } => ("rate_limited", retry_after_s),
            Refusal::InFlight => ("too_many_at_once", 1),
        };
        self.error(status, name, &why.to_string());
        self.header(b"retry-after", retry_after_s.to_string().as_bytes());
    }

    pub(super) fn redirect(&mut self, status: u16, location: &Template, values: &Values<'_>) {
        self.begin(status, "redirect");
        let mut value = Vec::new();
        location.write(values, &mut value);
        self.headers.push((b"location".to_vec(), value));
    }

    pub(super) fn respond(&mut self, respond: &Respond, values: &Values<'_>) {
        self.begin(respond.status, "respond");
        for (name, template) in &respond.headers {
            let mut value = Vec::new();
            template.write(values, &mut value);
            self.headers.push((name.to_vec(), value));
        }
        let has_type = respond
            .headers
            .iter()
            .any(|(name, _)| **name == *b"content-type");
        if !has_type && !respond.body.is_empty() {
            self.header(b"content-type", b"text/plain; charset=utf-8");
        }
        self.body.extend_from_slice(&respond.body);
    }

    pub(super) fn header(&mut self, name: &[u8], value: &[u8]) {
        self.headers.push((name.to_vec(), value.to_vec()));
    }

    fn begin(&mut self, status: u16, why: &'static str) {
        self.status = status;
        self.why = why;
        self.headers.clear();
        self.body.clear();
    }
}
