//! IPVS's schedulers written down a second time, step by step as the kernel goes, to hold the methods against on random tables.
//!
//! There is no kernel with IPVS to ask here. These are as plain as can be, one destination after another, with the kernel's variables
//! (`net/netfilter/ipvs/ip_vs_*.c`); who is not eligible is a destination that is overloaded. They choose one server; what a
//! request's further servers are is the laws' business.

use proptest::prelude::*;

use super::laws::Group;
use super::{Algorithm, ServerMask};
use crate::random::Sequence;

/// One destination of a virtual service.
#[derive(Debug, Clone, Copy)]
struct Dest {
    weight: i64,
    active: i64,
    inactive: i64,
    overloaded: bool,
}

impl Dest {
    fn overhead(&self) -> i64 {
        self.active * 256 + self.inactive
    }
}

/// The first of those that are up than which no other is better.
fn scan(dests: &[Dest], better: impl Fn(&Dest, &Dest) -> bool) -> Option<usize> {
    let mut least: Option<usize> = None;
    for (index, dest) in dests.iter().enumerate() {
        if dest.overloaded || dest.weight == 0 {
            continue;
        }
        if least.is_none_or(|least| better(dest, &dests[least])) {
            least = Some(index);
        }
    }
    least
}

fn lc(dests: &[Dest]) -> Option<usize> {
    scan(dests, |dest, least| dest.overhead() < least.overhead())
}

fn wlc(dests: &[Dest]) -> Option<usize> {
    scan(dests, |dest, least| {
        least.overhead() * dest.weight > dest.overhead() * least.weight
    })
}

fn sed(dests: &[Dest]) -> Option<usize> {
    scan(dests, |dest, least| {
        (least.active + 1) * dest.weight > (dest.active + 1) * least.weight
    })
}

fn nq(dests: &[Dest]) -> Option<usize> {
    let idle = |dest: &Dest| !dest.overloaded && dest.weight > 0 && dest.active == 0;
    dests.iter().position(idle).or_else(|| sed(dests))
}

fn fo(dests: &[Dest]) -> Option<usize> {
    scan(dests, |dest, highest| dest.weight > highest.weight)
}

fn ovf(dests: &[Dest]) -> Option<usize> {
    let mut room = dests.to_vec();
    for dest in &mut room {
        dest.overloaded |= dest.active > dest.weight;
    }
    fo(&room)
}

fn twos(dests: &[Dest], random: &mut Sequence) -> Option<usize> {
    let up = |dest: &&Dest| !dest.overloaded && dest.weight > 0;
    let total: i64 = dests.iter().filter(up).map(|dest| dest.weight).sum();
    if total == 0 {
        return None;
    }
    let mut draw = || i64::try_from(random.below(u64::try_from(total + 1).unwrap())).unwrap();
    let (mut rweight1, mut rweight2) = (draw(), draw());
    let (mut choice1, mut choice2) = (None, None);
    for (index, dest) in dests.iter().enumerate() {
        if dest.overloaded || dest.weight == 0 {
            continue;
        }
        rweight1 -= dest.weight;
        rweight2 -= dest.weight;
        if rweight1 <= 0 && choice1.is_none() {
            choice1 = Some(index);
        }
        if rweight2 <= 0 && choice2.is_none() {
            choice2 = Some(index);
        }
    }
    let (one, two) = (&dests[choice1.unwrap()], &dests[choice2.unwrap()]);
    let second = two.weight * one.overhead() > one.weight * two.overhead();
    if second { choice2 } else { choice1 }
}

/// `wrr` and its mark. The list's head is -1.
struct Wrr {
    cl: i64,
    cw: i64,
    mw: i64,
    di: i64,
}

impl Wrr {
    fn new(dests: &[Dest]) -> Self {
        let max = dests.iter().map(|dest| dest.weight).max().unwrap();
        let divides = |di: &i64| dests.iter().all(|dest| dest.weight % di == 0);
        let di = (1..=max).rev().find(divides).unwrap();
        let mw = max - (di - 1);
        Self {
            cl: -1,
            cw: mw,
            mw,
            di,
        }
    }

    /// Somebody's weight was changed.
    fn dest_changed(&mut self, dests: &[Dest]) {
        let Self { di, mw, .. } = Self::new(dests);
        (self.cl, self.di, self.mw) = (-1, di, mw);
        if self.cw > mw || self.cw == 0 {
            self.cw = mw;
        } else if di > 1 {
            self.cw = self.cw / di * di + 1;
        }
    }

    fn schedule(&mut self, dests: &[Dest]) -> Option<usize> {
        let last = self.cl;
        let mut dest = self.cl;
        let (mut stop, mut last_pass, mut restarted) = (None, false, false);
        loop {
            for index in dest + 1..i64::try_from(dests.len()).unwrap() {
                let place = usize::try_from(index).unwrap();
                if !dests[place].overloaded && dests[place].weight >= self.cw {
                    self.cl = index;
                    return Some(place);
                }
                if Some(index) == stop {
                    self.cl = index;
                    return None;
                }
            }
            dest = -1;
            self.cw -= self.di;
            if self.cw <= 0 {
                self.cw = self.mw;
                if last_pass || last == -1 {
                    self.cl = -1;
                    return None;
                }
                restarted = true;
            }
            last_pass = self.cw <= self.di;
            if last_pass && restarted && last != -1 {
                stop = Some(last);
            }
        }
    }
}

/// In flight, idle, and whether it is eligible, by server.
type Moment = Vec<(u32, u32, bool)>;

/// Tables of a few servers, and for each of a few picks who is busy and who is eligible.
fn tables() -> impl Strategy<Value = (Vec<u16>, Vec<Moment>)> {
    let weight = prop_oneof![1u16..8, (1u16..5).prop_map(|weight| weight * 6), 1u16..400];
    proptest::collection::vec(weight, 1..7).prop_flat_map(|weights| {
        let dest = (0u32..9, 0u32..600, proptest::bool::weighted(0.7));
        let moment = proptest::collection::vec(dest, weights.len());
        (Just(weights), proptest::collection::vec(moment, 1..40))
    })
}

/// Asks the method and the rule, which begins anew with each table, the same questions.
fn agree<R: FnMut(&[Dest]) -> Option<usize>>(algorithm: Algorithm, begin: impl Fn(&[Dest]) -> R) {
    proptest!(|((weights, moments) in tables())| {
        let mut group = Group::new(algorithm, &weights);
        let mut dests: Vec<Dest> = weights
            .iter()
            .map(|weight| Dest { weight: i64::from(*weight), active: 0, inactive: 0, overloaded: false })
            .collect();
        let mut rule = begin(&dests);
        for moment in &moments {
            group.eligible = ServerMask::none(weights.len());
            group.idle = moment.iter().map(|(_, idle, _)| *idle).collect();
            group.in_flight = moment.iter().map(|(active, ..)| *active).collect();
            for (server, (dest, (active, inactive, up))) in dests.iter_mut().zip(moment).enumerate() {
                (dest.active, dest.inactive, dest.overloaded) = (i64::from(*active), i64::from(*inactive), !up);
                if *up {
                    group.eligible.insert(server);
                }
            }
            let (expected, chosen) = (rule(&dests), group.choose(1).first().copied());
            match expected {
                Some(_) => prop_assert_eq!(chosen, expected, "{:?}: {:?}", algorithm, dests),
                // The kernel drops the connection.
                None => prop_assert!(algorithm == Algorithm::WeightedOverflow || chosen.is_none()),
            }
        }
    });
}

#[test]
fn wrr_goes_as_the_kernel_goes() {
    agree(Algorithm::WeightedRoundRobinIpvs, |dests| {
        let mut wrr = Wrr::new(dests);
        move |dests: &[Dest]| {
            // A mark with nobody up is the same mark: the method is not asked then.
            if dests.iter().all(|dest| dest.overloaded) {
                return None;
            }
            wrr.schedule(dests)
        }
    });
}

#[test]
fn wrr_takes_other_weights_as_the_kernel_takes_them() {
    let weights = || {
        proptest::collection::vec(
            prop_oneof![1u16..8, (1u16..5).prop_map(|weight| weight * 6)],
            4,
        )
    };
    proptest!(|(changes in proptest::collection::vec((weights(), 0usize..12), 1..6))| {
        let dests = |weights: &[u16]| -> Vec<Dest> {
            let dest = |weight: &u16| Dest { weight: i64::from(*weight), active: 0, inactive: 0, overloaded: false };
            weights.iter().map(dest).collect()
        };
        let (first, _) = &changes[0];
        let mut group = Group::new(Algorithm::WeightedRoundRobinIpvs, first);
        let mut wrr = Wrr::new(&dests(first));
        for (weights, picks) in &changes {
            group.reweigh(weights);
            let dests = dests(weights);
            wrr.dest_changed(&dests);
            let expected: Vec<usize> = (0..*picks).filter_map(|_| wrr.schedule(&dests)).collect();
            prop_assert_eq!(group.picks(*picks), expected, "{:?}", weights);
        }
    });
}

#[test]
fn methods_that_look_at_load_choose_as_the_kernel_chooses() {
    agree(Algorithm::IpvsLeastConn, |_| lc);
    agree(Algorithm::WeightedLeastConn, |_| wlc);
    agree(Algorithm::ShortestExpectedDelay, |_| sed);
    agree(Algorithm::NeverQueue, |_| nq);
    agree(Algorithm::WeightedFailover, |_| fo);
    agree(Algorithm::WeightedOverflow, |_| ovf);
}

#[test]
fn twos_draws_as_the_kernel_draws() {
    agree(Algorithm::IpvsTwoChoices, |_| {
        let mut random = Sequence::new(Group::SEED);
        move |dests: &[Dest]| twos(dests, &mut random)
    });
}
