//! What the host tells of a request: its peer, and its headers, both in the host's buffers, nothing copied.

use evenkeel_policy::client_ip::parse_socket_address;
use evenkeel_policy::exchange::{Head, Pairs};

use crate::hostcalls::{self, HostBytes};

/// The buffers of one request; legal to fetch while its head is with the filters.
pub(crate) struct RequestFacts {
    headers: Option<HostBytes>,
    source: Option<HostBytes>,
}

impl RequestFacts {
    /// Asks the host: two calls, two buffers.
    pub(crate) fn fetch() -> Self {
        Self {
            headers: hostcalls::request_header_pairs(),
            source: hostcalls::property(b"source\0address"),
        }
    }

    /// The request's head; without headers or peer if the host told none.
    pub(crate) fn head(&self) -> Head<Pairs<'_>> {
        let source = self.source.as_ref().map_or(&[][..], HostBytes::as_slice);
        let headers = self.headers.as_ref().map_or(&[][..], HostBytes::as_slice);
        Head {
            peer: parse_socket_address(source),
            pairs: Pairs::new(headers),
        }
    }
}
