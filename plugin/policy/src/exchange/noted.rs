//! What a request's headers say, read in one pass, in which those are marked for removal that must not go on.

use super::decision::Explain;
use super::edits::Edits;
use super::forwarded::{Peer, must_go};
use super::header_rules::HeaderRules;
use crate::client_ip::{AddressHeader, RealIp};
use crate::contract::{
    EXPLAIN_HEADER, MAX_RETRIES_HEADER, POOL_HEADER, RETRY_ON_HEADER, STEERING_HEADER,
};

pub(super) const REAL_IP: &[u8] = b"x-real-ip";
pub(super) const FORWARDED_FOR: &[u8] = b"x-forwarded-for";
pub(super) const FORWARDED_PROTO: &[u8] = b"x-forwarded-proto";
pub(super) const FORWARDED_HOST: &[u8] = b"x-forwarded-host";
pub(super) const FORWARDED_PORT: &[u8] = b"x-forwarded-port";
pub(super) const REQUEST_ID: &[u8] = b"x-request-id";
pub(super) const FORWARDED: &[u8] = b"forwarded";

/// What a request's headers say. Of what only trusted peers may say, a stranger's word is not noted.
pub(super) struct Noted<'a> {
    pub(super) method: &'a [u8],
    /// The request's target as received: path and query.
    pub(super) target: &'a [u8],
    pub(super) host: &'a [u8],
    pub(super) scheme: &'static [u8],
    pub(super) request_id: Option<&'a [u8]>,
    pub(super) forwarded_proto: Option<&'a [u8]>,
    pub(super) forwarded_host: Option<&'a [u8]>,
    pub(super) forwarded_port: Option<&'a [u8]>,
    /// Whoever said it.
    pub(super) forwarded_for: Lines<'a>,
    pub(super) explain: Explain,
}

/// The lines of a header that may come more than once, and nearly never does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lines<'a> {
    None,
    One(&'a [u8]),
    /// To be looked for once more.
    Several,
}

impl<'a> Lines<'a> {
    fn and(self, line: &'a [u8]) -> Self {
        match self {
            Self::None => Self::One(line),
            Self::One(_) | Self::Several => Self::Several,
        }
    }
}

/// Reads the headers once, and marks for removal those that must not go on.
pub(super) fn note<'a>(
    pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    peer: Peer,
    real_ip: Option<&RealIp>,
    rules: &HeaderRules,
    edits: &mut Edits,
) -> Noted<'a> {
    let mut noted = Noted {
        method: b"",
        target: b"",
        host: b"",
        scheme: b"http",
        request_id: None,
        forwarded_proto: None,
        forwarded_host: None,
        forwarded_port: None,
        forwarded_for: Lines::None,
        explain: Explain::NotAsked,
    };
    let address_header = real_ip.and_then(|real_ip| match &real_ip.header {
        AddressHeader::Named(name) => Some(name.as_slice()),
        AddressHeader::ForwardedFor | AddressHeader::Forwarded | AddressHeader::ProxyProtocol => {
            None
        }
    });
    let removes = !rules.remove.is_empty();
    for (name, value) in pairs {
        // Most headers are let through by their first letter.
        let is_told = match name.first() {
            Some(b':') => {
                noted.pseudo(name, value);
                continue;
            }
            Some(b'x') => noted.is_told(name, value, peer),
            _ => false,
        };
        let removed = removes && rules.removes(name);
        if removed || (!is_told && must_go(name, peer, address_header) && !is_set(name)) {
            edits.remove(name);
        }
    }
    noted
}

impl<'a> Noted<'a> {
    fn pseudo(&mut self, name: &[u8], value: &'a [u8]) {
        match name {
            b":method" => self.method = value,
            b":path" => self.target = value,
            b":authority" => self.host = value,
            b":scheme" if value.eq_ignore_ascii_case(b"https") => self.scheme = b"https",
            _ => {}
        }
    }

    /// Takes note of a header that is set or removed later, once: whether it is one.
    fn is_told(&mut self, name: &[u8], value: &'a [u8], peer: Peer) -> bool {
        let place = match name {
            REAL_IP => return true,
            FORWARDED_FOR => {
                self.forwarded_for = self.forwarded_for.and(value);
                return true;
            }
            FORWARDED_PROTO => &mut self.forwarded_proto,
            FORWARDED_HOST => &mut self.forwarded_host,
            FORWARDED_PORT => &mut self.forwarded_port,
            REQUEST_ID => &mut self.request_id,
            _ => {
                if name == EXPLAIN_HEADER.as_bytes() {
                    self.explain = Explain::Asked;
                }
                return false;
            }
        };
        if peer == Peer::Trusted && place.is_none() {
            *place = Some(value);
        }
        true
    }
}

/// What is set anyway need not be removed before.
fn is_set(name: &[u8]) -> bool {
    let set = [
        STEERING_HEADER,
        POOL_HEADER,
        RETRY_ON_HEADER,
        MAX_RETRIES_HEADER,
    ];
    set.iter().any(|set| set.as_bytes() == name)
}
