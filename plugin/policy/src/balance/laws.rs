//! What holds for every method, and the small group of servers that the methods' own tests play with.

use std::collections::BTreeSet;
use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::contract::ENDPOINTS_MAX;

/// Servers with weights, a method, and what a request knows.
pub(super) struct Group {
    balancer: Box<dyn Balancer>,
    pub(super) eligible: ServerMask,
    pub(super) in_flight: Vec<u32>,
    pub(super) idle: Vec<u32>,
    pub(super) latency: Vec<Latency>,
    pub(super) now_us: u64,
    pub(super) client: Option<IpAddr>,
    pub(super) hash_key: Vec<u8>,
    random: Sequence,
}

/// Servers of these weights, otherwise alike. Their names are only good for groups of up to eight.
pub(super) fn shares(weights: &[u16]) -> Vec<Share<'static>> {
    const NAMES: [(&str, &str); 8] = [
        ("a", "192.0.2.1:80"),
        ("b", "192.0.2.2:80"),
        ("c", "192.0.2.3:80"),
        ("d", "192.0.2.4:80"),
        ("e", "192.0.2.5:80"),
        ("f", "192.0.2.6:80"),
        ("g", "192.0.2.7:80"),
        ("h", "192.0.2.8:80"),
    ];
    weights
        .iter()
        .zip(NAMES.iter().cycle())
        .map(|(weight, (id, endpoint))| Share {
            weight: *weight,
            max_fails: 0,
            id,
            endpoint,
        })
        .collect()
}

impl Group {
    /// What its random numbers begin with.
    pub(super) const SEED: u64 = 7;

    pub(super) fn new(algorithm: Algorithm, weights: &[u16]) -> Self {
        Self::starting(algorithm, weights, 0)
    }

    pub(super) fn starting(algorithm: Algorithm, weights: &[u16], start: u32) -> Self {
        Self::of(
            algorithm.build(&Parameters::default()),
            &shares(weights),
            start,
        )
    }

    /// A group of these very servers.
    pub(super) fn of(mut balancer: Box<dyn Balancer>, shares: &[Share<'_>], start: u32) -> Self {
        let eligible = ServerMask::first(shares.len());
        balancer.rebuild(shares, &eligible, start);
        Self {
            balancer,
            eligible,
            in_flight: vec![0; shares.len()],
            idle: Vec::new(),
            latency: vec![Latency::default(); shares.len()],
            now_us: 1_000_000_000,
            client: Some(IpAddr::from([192, 0, 2, 1])),
            hash_key: b"/index.php".to_vec(),
            random: Sequence::new(Self::SEED),
        }
    }

    /// Makes those eligible whose bit is set.
    pub(super) fn only(&mut self, subset: u64) {
        self.eligible = ServerMask::none(self.in_flight.len());
        (0..self.in_flight.len().min(64))
            .filter(|server| subset >> server & 1 == 1)
            .for_each(|server| self.eligible.insert(server));
    }

    /// Gives the same servers other weights.
    pub(super) fn reweigh(&mut self, weights: &[u16]) {
        self.balancer.reweigh(&shares(weights), &self.eligible);
    }

    pub(super) fn ask(&mut self, limit: usize, advance: Advance) -> Vec<usize> {
        let facts = Facts {
            client: self.client,
            hash_key: &self.hash_key,
        };
        let mut choices = Choices::with_limit(limit);
        let mut question = Question {
            eligible: &self.eligible,
            in_flight: &self.in_flight,
            idle: &self.idle,
            latency: &self.latency,
            now_us: self.now_us,
            facts: &facts,
            random: &mut self.random,
            advance,
        };
        self.balancer.pick(&mut question, &mut choices);
        choices.iter().collect()
    }

    /// One request's list.
    pub(super) fn choose(&mut self, limit: usize) -> Vec<usize> {
        self.ask(limit, Advance::First)
    }

    /// The first choices of as many requests.
    pub(super) fn picks(&mut self, count: usize) -> Vec<usize> {
        (0..count).flat_map(|_| self.choose(1)).collect()
    }

    /// Tells that the entry at `place` was used after those before it.
    pub(super) fn charge_used(&mut self, choices: &[usize], place: usize) {
        let mut tried = Choices::with_limit(ENDPOINTS_MAX);
        choices[..place]
            .iter()
            .for_each(|server| tried.push(*server));
        self.balancer.charge(&Charge::Used {
            server: choices[place],
            tried: &tried,
            eligible: &self.eligible,
            in_flight: &self.in_flight,
        });
    }
}

pub(super) fn letters(servers: &[usize]) -> String {
    servers
        .iter()
        .map(|server| char::from(b'A' + u8::try_from(*server).unwrap()))
        .collect()
}

#[test]
fn picks_none_if_and_only_if_none_is_eligible_and_only_eligible_ones_once() {
    for algorithm in Algorithm::ALL {
        // One group for all: what it went through before must not matter, and large weights make large tables.
        let mut group = Group::new(algorithm, &[5, 1, 3, 1, 65_535, 2]);
        group.in_flight = vec![1, 0, 7, 0, 100, 2];
        for subset in 0u32..64 {
            for limit in 1..=ENDPOINTS_MAX {
                group.only(u64::from(subset));
                for advance in [Advance::First, Advance::Nothing, Advance::First] {
                    let choices = group.ask(limit, advance);
                    let what = format!(
                        "{algorithm:?}, eligible {subset:06b}, at most {limit}: {choices:?}"
                    );
                    assert_eq!(
                        choices.len(),
                        limit.min(subset.count_ones() as usize),
                        "{what}"
                    );
                    assert!(
                        choices
                            .iter()
                            .all(|server| group.eligible.contains(*server)),
                        "{what}"
                    );
                    assert_eq!(
                        choices.iter().collect::<BTreeSet<_>>().len(),
                        choices.len(),
                        "{what}"
                    );
                }
            }
        }
    }
}

/// What a method does over many requests.
#[derive(Debug, PartialEq, Eq)]
enum Habit {
    /// Positions move, and shares are those of the weights.
    Turns,
    /// A key decides; over keys, shares are those of the weights.
    Key,
    /// Draws decide, by weight.
    Draws,
    /// Draws decide, loads too: shares are those of the weights only while servers are busy for their weights.
    DrawsAndLoad,
    /// The state of the servers decides alone.
    State,
}

fn habit(algorithm: Algorithm) -> Habit {
    match algorithm {
        Algorithm::RoundRobin | Algorithm::WeightedRoundRobinIpvs | Algorithm::LeastConn => {
            Habit::Turns
        }
        Algorithm::IpHash
        | Algorithm::Hash
        | Algorithm::UrlHash
        | Algorithm::HashConsistent
        | Algorithm::Maglev
        | Algorithm::Rendezvous
        | Algorithm::SourceHash => Habit::Key,
        // One knows no weights, those of the others say how much is too much.
        Algorithm::DestinationHash
        | Algorithm::LocalityLeastConn
        | Algorithm::LocalityLeastConnReplicated => Habit::State,
        Algorithm::Random => Habit::Draws,
        Algorithm::RandomTwo | Algorithm::IpvsTwoChoices | Algorithm::PeakEwma => {
            Habit::DrawsAndLoad
        }
        Algorithm::IpvsLeastConn
        | Algorithm::WeightedLeastConn
        | Algorithm::ShortestExpectedDelay
        | Algorithm::NeverQueue
        | Algorithm::WeightedFailover
        | Algorithm::WeightedOverflow
        | Algorithm::Fair
        | Algorithm::LeastTime
        | Algorithm::First => Habit::State,
    }
}

#[test]
fn those_that_stand_by_move_nothing() {
    for algorithm in Algorithm::ALL {
        if matches!(habit(algorithm), Habit::Draws | Habit::DrawsAndLoad) {
            // They take random numbers, so the next list differs.
            continue;
        }
        for in_flight in [[0, 0, 0], [1, 1, 1], [3, 1, 2]] {
            let (mut plain, mut looking) = (
                Group::new(algorithm, &[5, 3, 2]),
                Group::new(algorithm, &[5, 3, 2]),
            );
            plain.in_flight = in_flight.to_vec();
            looking.in_flight = in_flight.to_vec();
            for _ in 0..50 {
                looking.ask(3, Advance::Nothing);
                assert_eq!(plain.choose(1)[..], looking.choose(3)[..1], "{algorithm:?}");
            }
        }
    }
}

#[test]
fn weights_are_shares_in_the_long_run() {
    for algorithm in Algorithm::ALL {
        if matches!(habit(algorithm), Habit::State | Habit::DrawsAndLoad) {
            continue;
        }
        let weights = [5, 3, 2];
        let mut group = Group::new(algorithm, &weights);
        let mut counts = [0_i32; 3];
        for request in 0_u32..10_000 {
            group.client = Some(IpAddr::from((request << 8).to_be_bytes()));
            group.hash_key = format!("/{request}").into();
            group
                .choose(1)
                .into_iter()
                .for_each(|server| counts[server] += 1);
        }
        for (count, weight) in counts.iter().zip(weights) {
            assert!(
                (count - i32::from(weight) * 1_000).abs() <= 200,
                "{algorithm:?}: {counts:?}"
            );
        }
    }
}

/// Requests stay for a while, so that loads build up: whoever looks at load then keeps to the weights, or to its own rule.
#[test]
fn busy_servers_are_loaded_by_their_weights_where_the_method_looks_at_load() {
    for algorithm in Algorithm::ALL {
        let keeps_to_weights = matches!(
            algorithm,
            Algorithm::RandomTwo
                | Algorithm::LeastConn
                | Algorithm::WeightedLeastConn
                | Algorithm::ShortestExpectedDelay
                | Algorithm::NeverQueue
                | Algorithm::IpvsTwoChoices
                | Algorithm::LeastTime
        );
        if !keeps_to_weights {
            continue;
        }
        let mut group = Group::new(algorithm, &[5, 3, 2]);
        for _ in 0..1_000 {
            group
                .choose(1)
                .into_iter()
                .for_each(|server| group.in_flight[server] += 1);
        }
        for (count, expected) in group.in_flight.iter().zip([500_u32, 300, 200]) {
            assert!(
                count.abs_diff(expected) <= 10,
                "{algorithm:?}: {:?}",
                group.in_flight
            );
        }
    }
}

#[test]
fn ten_thousand_servers_are_chosen_from_as_from_three() {
    // Names of their own: methods that hash them are not made for ten thousand servers of eight names.
    let endpoints: Vec<String> = (0..10_000_u32)
        .map(|server| format!("10.0.{}.{}:80", server / 256, server % 256))
        .collect();
    let share = |endpoint| Share {
        weight: 1,
        max_fails: 0,
        id: endpoint,
        endpoint,
    };
    let servers: Vec<Share<'_>> = endpoints.iter().map(|endpoint| share(endpoint)).collect();
    for algorithm in Algorithm::ALL {
        let balancer = algorithm.build(&Parameters::default());
        let mut group = Group::of(balancer, &servers, 0);
        (0..10_000)
            .filter(|server| server % 3 == 0)
            .for_each(|server| group.eligible.remove(server));
        for _ in 0..3 {
            let choices = group.choose(ENDPOINTS_MAX);
            assert_eq!(choices.len(), ENDPOINTS_MAX, "{algorithm:?}");
            assert!(
                choices.iter().all(|server| server % 3 != 0),
                "{algorithm:?}: {choices:?}"
            );
        }
    }
}

#[test]
fn a_group_without_servers_has_no_answer() {
    for algorithm in Algorithm::ALL {
        let mut group = Group::new(algorithm, &[]);
        group.eligible = ServerMask::first(3);
        assert_eq!(group.choose(3), [0; 0], "{algorithm:?}");
    }
}

#[test]
fn any_history_leaves_the_laws_standing() {
    let steps = proptest::collection::vec((any::<u8>(), 0u32..200, 1usize..=8), 1..60);
    proptest!(|(weights in proptest::collection::vec(1u16..50, 1..9), steps in steps)| {
        for algorithm in Algorithm::ALL {
            let mut group = Group::new(algorithm, &weights);
            for (subset, busy, limit) in &steps {
                if *subset == 17 {
                    let weights: Vec<u16> = weights.iter().map(|weight| weight / 3 + 1).collect();
                    group.reweigh(&weights);
                }
                group.only(u64::from(*subset));
                group.in_flight = (0..).map(|server: u32| busy * server % 7).take(weights.len()).collect();
                let choices = group.choose(*limit);
                prop_assert_eq!(choices.len(), group.eligible.count().min(*limit));
                prop_assert!(choices.iter().all(|server| group.eligible.contains(*server)));
                for place in 1..choices.len() {
                    group.charge_used(&choices, place);
                    group.balancer.charge(&Charge::Failed { server: choices[place - 1] });
                }
            }
        }
    });
}
