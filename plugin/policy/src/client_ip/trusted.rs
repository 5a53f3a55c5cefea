//! The networks whose word is taken, as sorted ranges: membership is a binary search, however many there are.

use std::net::IpAddr;

use ipnet::IpNet;

/// A set of addresses. IPv4-mapped IPv6 addresses and networks are the IPv4 ones.
#[derive(Debug, Clone, Default)]
pub struct TrustedNetworks {
    /// First and last address, sorted, apart from each other.
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl TrustedNetworks {
    pub fn new(networks: &[IpNet]) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            // The first and last address of a network within ::ffff:0:0/96 are mapped ones; of a wider one, not both.
            match (
                network.network().to_canonical(),
                network.broadcast().to_canonical(),
            ) {
                (IpAddr::V4(first), IpAddr::V4(last)) => v4.push((first.to_bits(), last.to_bits())),
                _ => {
                    if let IpNet::V6(network) = network {
                        v6.push((network.network().to_bits(), network.broadcast().to_bits()));
                    }
                }
            }
        }
        Self {
            v4: merged(v4),
            v6: merged(v6),
        }
    }

    /// Whether no address is in the set.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether `address` is in the set.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => covers(&self.v4, address.to_bits()),
            IpAddr::V6(address) => covers(&self.v6, address.to_bits()),
        }
    }
}

fn covers<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= address);
    after
        .checked_sub(1)
        .and_then(|index| ranges.get(index))
        .is_some_and(|(_, last)| address <= *last)
}

/// Sorted, overlapping ranges joined.
fn merged<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut apart: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match apart.last_mut() {
            Some(before) if first <= before.1 => before.1 = before.1.max(last),
            _ => apart.push((first, last)),
        }
    }
    apart
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    #[test]
    fn mapped_networks_and_addresses_are_ipv4() {
        let set = TrustedNetworks::new(&[
            "::ffff:10.0.0.0/104".parse().unwrap(),
            "2001:db8::/32".parse().unwrap(),
        ]);
        for inside in ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1"] {
            assert!(set.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["11.1.2.3", "::ffff:11.0.0.1", "2001:db9::1", "::10.1.2.3"] {
            assert!(!set.contains(outside.parse().unwrap()), "{outside}");
        }
    }

    #[test]
    fn agrees_with_looking_at_every_network() {
        proptest!(|(networks in proptest::collection::vec((any::<u32>(), 0u8..=32), 0..60), addresses in proptest::collection::vec(any::<u32>(), 20))| {
            let networks: Vec<IpNet> = networks
                .iter()
                .map(|(bits, length)| IpNet::new(Ipv4Addr::from_bits(*bits).into(), *length).unwrap().trunc())
                .collect();
            let set = TrustedNetworks::new(&networks);
            let edges = networks.iter().flat_map(|network| [network.network(), network.broadcast()]);
            for address in addresses.iter().map(|bits| IpAddr::from(Ipv4Addr::from_bits(*bits))).chain(edges) {
                prop_assert_eq!(set.contains(address), networks.iter().any(|network| network.contains(&address)));
            }
        });
    }
}
