//! What must hold of any input: the bodies of the fuzz targets, and of the test that replays their corpus.

#![allow(dead_code, reason = "each target uses one of them")]

use std::net::IpAddr;

use evenkeel_policy::client_ip::{AddressHeader, RealIp, TrustedNetworks, Walk};
use evenkeel_policy::routing::{Normal, normalise, split_query};

/// A trusted peer, and one that is not.
const PEERS: [[u8; 4]; 2] = [[10, 0, 0, 1], [192, 0, 2, 1]];

/// Lines are separated by line ends.
pub(crate) fn header_walk(data: &[u8]) {
    walk(AddressHeader::ForwardedFor, data);
    walk(AddressHeader::Named(b"x-real-ip".to_vec()), data);
}

pub(crate) fn forwarded(data: &[u8]) {
    walk(AddressHeader::Forwarded, data);
}

fn walk(header: AddressHeader, data: &[u8]) {
    let networks = ["10.0.0.0/8", "2001:db8::/32"].map(|text| text.parse().expect("a network"));
    let lines = || data.split(|byte| *byte == b'\n');
    for walk in [Walk::LastOnly, Walk::PastTrusted] {
        let real_ip = RealIp {
            trusted: TrustedNetworks::new(&networks),
            header: header.clone(),
            walk,
        };
        for peer in PEERS.map(IpAddr::from) {
            let client = real_ip.client(peer, lines());
            if !real_ip.trusted.contains(peer) {
                assert_eq!(client, peer, "a stranger's word");
            }
            assert_eq!(client, client.to_canonical(), "one form of an address");
            // A line that a stranger might have put before all others changes nothing unless everybody after it is trusted.
            let before = std::iter::once(&b"9.9.9.9"[..]).chain(lines().collect::<Vec<_>>());
            let before: Vec<&[u8]> = before.collect();
            let with_more = real_ip.client(peer, before.into_iter());
            if header == AddressHeader::ForwardedFor && !real_ip.trusted.contains(client) {
                assert_eq!(with_more, client, "what stands before a stranger");
            }
        }
    }
}

/// What is sent on has one form, without anything that servers read differently.
pub(crate) fn path(data: &[u8]) {
    let mut form = Vec::new();
    let Ok(normal) = normalise(data, &mut form) else {
        return;
    };
    let form = match normal {
        Normal::Written => form.as_slice(),
        Normal::AsReceived => data,
    };
    let mut again = Vec::new();
    assert_eq!(
        normalise(form, &mut again),
        Ok(Normal::AsReceived),
        "the form of a form"
    );
    let (path, query) = split_query(form);
    assert_eq!(query, split_query(data).1, "the query goes on as it came");
    if path.is_empty() || path == b"*" {
        return;
    }
    assert_eq!(path.first(), Some(&b'/'));
    assert!(
        path.iter().all(|byte| (b'!'..=b'~').contains(byte)),
        "printable"
    );
    assert!(
        !path.windows(2).any(|pair| pair == b"//"),
        "an empty segment"
    );
    let mut segments = path.split(|byte| *byte == b'/');
    assert!(
        !segments.any(|segment| segment == b"." || segment == b".."),
        "a dot segment"
    );
    let upper = path.to_ascii_uppercase();
    for hidden in ["%2F", "%00", "%2E", "%41", "%7E"] {
        let mut windows = upper.windows(3);
        assert!(
            !windows.any(|window| window == hidden.as_bytes()),
            "{hidden}"
        );
    }
}
