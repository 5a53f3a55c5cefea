//! IPVS's methods that hash or remember, written down a second time as the kernel goes, to hold the methods against on random
//! histories: `sh`, `dh`, `lblc`, `lblcr` (`net/netfilter/ipvs/ip_vs_*.c`).
//!
//! Who is not eligible is a destination of weight 0. As in [`super::kernel`], what is compared is the one server chosen.

use std::collections::HashMap;

use proptest::prelude::*;

use super::Algorithm;
use super::laws::Group;

/// One destination of a virtual service.
#[derive(Debug, Clone, Copy)]
struct Dest {
    weight: i64,
    active: i64,
    inactive: i64,
}

fn overhead(dest: &Dest) -> i64 {
    (dest.active << 8) + dest.inactive
}

fn is_overloaded(dests: &[Dest], index: usize) -> bool {
    dests[index].active > dests[index].weight
        && dests.iter().any(|dest| dest.active * 2 < dest.weight)
}

/// `__ip_vs_lblc_schedule`, and `ip_vs_dest_set_min` over a set.
fn schedule(dests: &[Dest], order: impl Iterator<Item = usize>) -> Option<usize> {
    let mut least: Option<usize> = None;
    for index in order.filter(|index| dests[*index].weight > 0) {
        let Some(known) = least else {
            least = Some(index);
            continue;
        };
        if overhead(&dests[known]) * dests[index].weight
            > overhead(&dests[index]) * dests[known].weight
        {
            least = Some(index);
        }
    }
    least
}

#[derive(Default)]
struct Lblc {
    table: HashMap<u8, usize>,
}

impl Lblc {
    fn pick(&mut self, dests: &[Dest], daddr: u8) -> Option<usize> {
        if let Some(dest) = self.table.get(&daddr).copied()
            && dests[dest].weight > 0
            && !is_overloaded(dests, dest)
        {
            return Some(dest);
        }
        let dest = schedule(dests, 0..dests.len())?;
        self.table.insert(daddr, dest);
        Some(dest)
    }
}

#[derive(Default)]
struct Lblcr {
    /// Each destination's set, head first, and when it was changed.
    table: HashMap<u8, (Vec<usize>, u64)>,
}

impl Lblcr {
    fn pick(&mut self, dests: &[Dest], daddr: u8, now_s: u64) -> Option<usize> {
        let Some((set, lastmod)) = self.table.get_mut(&daddr) else {
            let dest = schedule(dests, 0..dests.len())?;
            self.table.insert(daddr, (vec![dest], now_s));
            return Some(dest);
        };
        let dest = schedule(dests, set.iter().copied());
        if set.len() > 1 && now_s > *lastmod + 24 * 3_600 {
            let mut most: Option<usize> = None;
            for index in set.iter().copied().filter(|index| dests[*index].weight > 0) {
                let Some(known) = most else {
                    most = Some(index);
                    continue;
                };
                if overhead(&dests[known]) * dests[index].weight
                    < overhead(&dests[index]) * dests[known].weight
                {
                    most = Some(index);
                }
            }
            if let Some(most) = most {
                set.retain(|index| *index != most);
                *lastmod = now_s;
            }
        }
        if let Some(dest) = dest.filter(|dest| !is_overloaded(dests, *dest)) {
            return Some(dest);
        }
        let dest = schedule(dests, 0..dests.len())?;
        if !set.contains(&dest) {
            set.insert(0, dest);
            *lastmod = now_s;
        }
        Some(dest)
    }
}

/// `ip_vs_sh_get_fallback` on 256 buckets.
fn sh(dests: &[Dest], buckets: &[usize], addr: u32) -> Option<usize> {
    let hashkey = |offset: u32| offset.wrapping_add(addr.wrapping_mul(0x61c8_8647) >> 24) & 255;
    let bucket = |hash: u32| buckets[usize::try_from(hash).unwrap()];
    let is_unavailable = |dest: usize| dests[dest].weight == 0;
    let ihash = hashkey(0);
    if !is_unavailable(bucket(ihash)) {
        return Some(bucket(ihash));
    }
    let mut offsets = (0..256).map(|offset| bucket(hashkey((offset + ihash) % 256)));
    offsets.find(|dest| !is_unavailable(*dest))
}

/// What one request finds: a destination, who is up, loads, and the seconds since the request before.
type Step = (u8, u64, Vec<(u8, u8)>, u32);

fn histories() -> impl Strategy<Value = (Vec<u16>, Vec<Step>)> {
    let loads = proptest::collection::vec((0u8..12, 0u8..4), 6);
    let step = (
        0u8..4,
        any::<u64>(),
        loads,
        prop_oneof![Just(1), Just(3_600), Just(50_000)],
    );
    (
        proptest::collection::vec(1u16..6, 1..7),
        proptest::collection::vec(step, 1..60),
    )
}

#[test]
fn locality_is_what_the_kernel_makes_of_it() {
    proptest!(|((weights, steps) in histories())| {
        let (mut lblc, mut lblcr) = (Lblc::default(), Lblcr::default());
        let mut plain = Group::new(Algorithm::LocalityLeastConn, &weights);
        let mut replicated = Group::new(Algorithm::LocalityLeastConnReplicated, &weights);
        for (daddr, up, loads, seconds) in steps {
            // Three of four are up.
            let up = up | up >> 32;
            let dests: Vec<Dest> = weights.iter().zip(&loads).enumerate().map(|(index, (weight, (active, inactive)))| Dest {
                weight: if up >> index & 1 == 1 { i64::from(*weight) } else { 0 },
                active: i64::from(*active),
                inactive: i64::from(*inactive),
            }).collect();
            for group in [&mut plain, &mut replicated] {
                // Every destination is asked for each time, so that none goes by a day of idleness.
                group.now_us += u64::from(seconds) * 1_000_000;
                group.only(up);
                group.in_flight = loads.iter().map(|(active, _)| u32::from(*active)).take(weights.len()).collect();
                group.idle = loads.iter().map(|(_, inactive)| u32::from(*inactive)).take(weights.len()).collect();
            }
            let now_s = plain.now_us / 1_000_000;
            for daddr in (0..4).map(|other| daddr ^ other) {
                plain.hash_key = vec![b'a' + daddr];
                replicated.hash_key.clone_from(&plain.hash_key);
                prop_assert_eq!(plain.choose(1).first().copied(), lblc.pick(&dests, daddr));
                prop_assert_eq!(replicated.choose(1).first().copied(), lblcr.pick(&dests, daddr, now_s));
            }
        }
    });
}

#[test]
fn hashed_addresses_are_where_the_kernel_has_them() {
    proptest!(|(weights in proptest::collection::vec(1u16..40, 1..9), up in any::<u64>(), addresses in proptest::collection::vec(any::<u32>(), 30))| {
        let dests: Vec<Dest> = weights.iter().enumerate().map(|(index, weight)| Dest {
            weight: if up >> index & 1 == 1 { i64::from(*weight) } else { 0 },
            active: 0,
            inactive: 0,
        }).collect();
        let rows = |count: &dyn Fn(u16) -> usize| -> Vec<usize> {
            let round: Vec<usize> = weights.iter().enumerate().flat_map(|(index, weight)| vec![index; count(*weight)]).collect();
            round.into_iter().cycle().take(256).collect()
        };
        let (by_weight, one_each) = (rows(&usize::from), rows(&|_| 1));
        let mut source = Group::new(Algorithm::SourceHash, &weights);
        let mut destination = Group::new(Algorithm::DestinationHash, &weights);
        source.only(up);
        destination.only(up);
        for address in addresses {
            source.client = Some(std::net::IpAddr::from(address.to_be_bytes()));
            destination.hash_key = source.client.unwrap().to_string().into();
            // Where the weights of others fill the table, the kernel has nobody; here it is anybody.
            let chosen = source.choose(1).first().copied();
            match sh(&dests, &by_weight, address) {
                Some(dest) => prop_assert_eq!(chosen, Some(dest)),
                None => prop_assert_eq!(chosen.is_some(), !source.eligible.is_empty()),
            }
            prop_assert_eq!(destination.choose(1).first().copied(), sh(&dests, &one_each, address));
        }
    });
}
