//! No server has much more than its share, whatever the keys: consistent hashing with bounded loads (Mirrokni, Thorup,
//! Zadimoghaddam, arXiv:1608.01350), as HAProxy's `hash-balance-factor` counts it (`chash_server_is_eligible`), around any
//! hashing method.
//!
//! Of all requests in flight and the one to come, times the factor, rounded up, every server may have its weight's part, at
//! least one. A server that has as many is passed over as one that is down is: the key goes where it would go without it,
//! and comes back when there is room. Shares are those of the servers that are eligible, so that there is always room: parts
//! of more than all cannot all be full.
//!
//! Who stands by has room too, as long as there are such; then it is anybody.

use super::{Balancer, Charge, Choices, Question, ServerMask, Share};

/// A method, kept from overloading.
pub(super) struct BoundedLoad {
    method: Box<dyn Balancer>,
    /// Percent of a fair share.
    factor: u16,
    weights: Vec<u16>,
    /// Those that are eligible and have room; kept to spare an allocation.
    with_room: ServerMask,
}

impl BoundedLoad {
    pub(super) fn around(method: Box<dyn Balancer>, factor: u16) -> Self {
        Self {
            method,
            factor,
            weights: Vec::new(),
            with_room: ServerMask::default(),
        }
    }

    fn take_weights(&mut self, servers: &[Share<'_>]) {
        self.weights.clear();
        self.weights.extend(
            servers
                .iter()
                .take(ServerMask::SERVERS_MAX)
                .map(|share| share.weight),
        );
        self.with_room = ServerMask::none(self.weights.len());
    }

    fn find_room(&mut self, question: &Question<'_>) {
        let in_flight: u64 = question
            .in_flight
            .iter()
            .map(|count| u64::from(*count))
            .sum();
        let slots = ((in_flight + 1) * u64::from(self.factor)).div_ceil(100);
        let weight = |server: usize| {
            self.weights
                .get(server)
                .map_or(0, |weight| u64::from(*weight))
        };
        let sum: u64 = question.eligible.iter().map(weight).sum();
        let mut before = 0;
        for server in 0..self.weights.len() {
            if !question.eligible.contains(server) {
                self.with_room.remove(server);
                continue;
            }
            // Its part of the slots, so rounded that all parts together are all slots.
            let part = |weights: u64| {
                (u128::from(slots) * u128::from(weights))
                    .checked_div(u128::from(sum))
                    .unwrap_or(0)
            };
            let own = part(before + weight(server)) - part(before);
            before += weight(server);
            if u128::from(question.active(server)) < own.max(1) {
                self.with_room.insert(server);
            } else {
                self.with_room.remove(server);
            }
        }
    }
}

impl Balancer for BoundedLoad {
    fn rebuild(&mut self, servers: &[Share<'_>], eligible: &ServerMask, start: u32) {
        self.take_weights(servers);
        self.method.rebuild(servers, eligible, start);
    }

    fn reweigh(&mut self, servers: &[Share<'_>], eligible: &ServerMask) {
        self.take_weights(servers);
        self.method.reweigh(servers, eligible);
    }

    fn pick(&mut self, question: &mut Question<'_>, choices: &mut Choices) {
        self.find_room(question);
        let eligible = question.eligible;
        let mut among_those_with_room = Question {
            eligible: &self.with_room,
            in_flight: question.in_flight,
            idle: question.idle,
            latency: question.latency,
            now_us: question.now_us,
            facts: question.facts,
            random: &mut *question.random,
            advance: question.advance,
        };
        self.method.pick(&mut among_those_with_room, choices);
        if !choices.is_full() && choices.len() < eligible.count() {
            self.method.pick(question, choices);
        }
    }

    fn charge(&mut self, charge: &Charge<'_>) {
        self.method.charge(charge);
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::{Group, shares};
    use crate::balance::{Algorithm, Parameters};

    fn group(algorithm: Algorithm, weights: &[u16], factor: u16) -> Group {
        let parameters = Parameters {
            hash_balance_factor: Some(factor),
        };
        Group::of(algorithm.build(&parameters), &shares(weights), 0)
    }

    /// Every request has the same key, and none ends.
    #[test]
    fn one_key_fills_no_server_over_its_bound() {
        for algorithm in Algorithm::ALL
            .into_iter()
            .filter(|algorithm| algorithm.allows_bounded_load())
        {
            for factor in [100, 125, 200] {
                let weights = [5, 3, 2, 1];
                let mut group = group(algorithm, &weights, factor);
                for request in 0_u32..500 {
                    let server = group.choose(1)[0];
                    group.in_flight[server] += 1;
                    let slots = ((request + 1) * u32::from(factor)).div_ceil(100);
                    let bound = (slots * u32::from(weights[server])).div_ceil(11).max(1);
                    assert!(
                        group.in_flight[server] <= bound,
                        "{algorithm:?}, {factor}: {:?}, {bound}",
                        group.in_flight
                    );
                }
            }
        }
    }

    #[test]
    fn with_room_everywhere_a_key_is_where_it_would_be_and_it_comes_back() {
        let mut bounded = group(Algorithm::HashConsistent, &[1, 1, 1], 150);
        let mut plain = Group::new(Algorithm::HashConsistent, &[1, 1, 1]);
        for key in 0..200 {
            plain.hash_key = format!("/{key}").into();
            bounded.hash_key.clone_from(&plain.hash_key);
            bounded.in_flight = vec![0; 3];
            let own = plain.choose(1);
            assert_eq!(bounded.choose(1), own);
            bounded.in_flight[own[0]] = 9;
            let list = bounded.choose(3);
            assert_ne!(list[0], own[0]);
            assert_eq!(list[2], own[0], "who is full stands by last");
            bounded.in_flight = vec![3; 3];
            assert_eq!(bounded.choose(1), own);
        }
    }

    /// Servers of weights 2, 1, 1 with 7 in flight: 8 × 125 % = 10 slots, 5, 2 and 3 of them.
    #[test]
    fn slots_are_counted_as_haproxy_counts_them() {
        let mut group = group(Algorithm::Hash, &[2, 1, 1], 125);
        for (in_flight, with_room) in [
            ([5, 1, 1], [false, true, true]),
            ([4, 2, 1], [true, false, true]),
            ([2, 2, 3], [true, false, false]),
        ] {
            group.in_flight = in_flight.to_vec();
            let mut seen = [false; 3];
            for key in 0..100 {
                group.hash_key = format!("/{key}").into();
                seen[group.choose(1)[0]] = true;
            }
            assert_eq!(seen, with_room, "{in_flight:?}");
        }
    }
}
