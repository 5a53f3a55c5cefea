//! What the host tells of a request: its peer, and its headers, both in the host's buffers, nothing copied.

use evenkeel_policy::client_ip::parse_socket_address;
use evenkeel_policy::contract::TCP_PEER_PROPERTY;
use evenkeel_policy::exchange::{Head, Pairs, Policy};

use crate::hostcalls::{self, HostBytes};

/// The buffers of one request; legal to fetch while its head is with the filters.
pub(crate) struct RequestFacts {
    headers: Option<HostBytes>,
    source: Option<HostBytes>,
    tcp_peer: Option<HostBytes>,
}

impl RequestFacts {
    /// Asks the host: two calls, two buffers, and one more where a route looks at the socket's address.
    pub(crate) fn fetch(policy: &Policy) -> Self {
        let tcp_peer = policy
            .needs_tcp_peer()
            .then(|| hostcalls::property(TCP_PEER_PROPERTY.as_bytes()));
        Self {
            headers: hostcalls::request_header_pairs(),
            source: hostcalls::property(b"source\0address"),
            tcp_peer: tcp_peer.flatten(),
        }
    }

    /// The request's head; without headers or peer if the host told none.
    pub(crate) fn head(&self) -> Head<Pairs<'_>> {
        let source = self.source.as_ref().map_or(&[][..], HostBytes::as_slice);
        let headers = self.headers.as_ref().map_or(&[][..], HostBytes::as_slice);
        Head {
            peer: parse_socket_address(source),
            tcp_peer: self
                .tcp_peer
                .as_ref()
                .and_then(|peer| parse_socket_address(peer.as_slice())),
            pairs: Pairs::new(headers),
        }
    }
}
