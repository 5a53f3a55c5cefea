//! A destination stays with its server until that is overloaded, exactly as IPVS's `lblc` (`ip_vs_lblc.c`), made for
//! clusters of caches.
//!
//! A new destination goes to the server with the least load for its weight, and is remembered. It stays there while the
//! server is up and not overloaded: more requests in flight than its weight, while some other server has less than half of
//! its own. Then the least loaded is chosen anew, and remembered. The destination is the `hash_key`, the Host unless stated
//! otherwise; one that is empty is not remembered. With weights of 1 two requests in flight overload a server: give weights
//! as numbers of requests.

use xxhash_rust::xxh64::xxh64;

use super::destination_cache::DestinationCache;
use super::leaders::fill_lowest;
use super::locality_load::{is_overloaded, least, load, seconds};
use super::weights::Weights;
use super::{Advance, Balancer, Charge, Choices, Question, ServerMask, Share};

/// Who was given which destination.
#[derive(Debug, Default)]
pub(super) struct LocalityLeastConn {
    cache: DestinationCache<u16>,
    weights: Weights,
}

impl Balancer for LocalityLeastConn {
    fn rebuild(&mut self, servers: &[Share<'_>], _eligible: &ServerMask, _start: u32) {
        // Servers keep their indexes while weights and addresses change, and destinations their servers.
        self.weights.rebuild(servers);
    }

    fn pick(&mut self, question: &mut Question<'_>, choices: &mut Choices) {
        let key = question.facts.hash_key;
        if choices.is_empty() && !key.is_empty() {
            let (destination, now_s) = (xxh64(key, 0), seconds(question));
            let known = match question.advance {
                Advance::First => self.cache.touch(destination, now_s).copied(),
                Advance::Nothing => self.cache.get(destination, now_s).copied(),
            };
            let known = known
                .map(usize::from)
                .filter(|server| question.eligible.contains(*server));
            match known.filter(|server| {
                !is_overloaded(&self.weights, *server, question.eligible, question)
            }) {
                Some(server) => choices.push(server),
                None => self.give_anew(destination, now_s, question, choices),
            }
        }
        fill_lowest(question, choices, |server| {
            load(&self.weights, server, question)
        });
    }

    fn charge(&mut self, _charge: &Charge<'_>) {}
}

impl LocalityLeastConn {
    fn give_anew(
        &mut self,
        destination: u64,
        now_s: u32,
        question: &Question<'_>,
        choices: &mut Choices,
    ) {
        let Some(server) = least(&self.weights, question.eligible.iter(), question) else {
            return;
        };
        choices.push(server);
        if let (Advance::First, Ok(index)) = (question.advance, u16::try_from(server)) {
            self.cache.insert(destination, index, now_s);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::{Group, letters};
    use crate::balance::Algorithm;

    #[track_caller]
    fn check(group: &mut Group, host: &str, in_flight: &[u32], expected: &str) {
        group.hash_key = host.into();
        group.in_flight = in_flight.to_vec();
        assert_eq!(
            letters(&group.choose(3)),
            expected,
            "{host}, in flight {in_flight:?}"
        );
    }

    #[test]
    fn a_destination_stays_until_its_server_is_overloaded() {
        let group = &mut Group::new(Algorithm::LocalityLeastConn, &[2, 2, 4]);
        check(group, "one", &[1, 0, 0], "BCA");
        check(group, "two", &[1, 1, 1], "CAB");
        check(group, "one", &[0, 2, 0], "BAC");
        // More than its weight, but nobody has less than half of his.
        check(group, "one", &[1, 3, 2], "BAC");
        // Overloaded: C has less than half of its weight.
        check(group, "one", &[1, 3, 1], "CAB");
        check(group, "one", &[0, 0, 4], "CAB");
        check(group, "two", &[0, 0, 4], "CAB");
        check(group, "two", &[0, 0, 5], "ABC");
    }

    #[test]
    fn a_server_that_is_down_loses_its_destinations() {
        let group = &mut Group::new(Algorithm::LocalityLeastConn, &[1, 1, 1]);
        check(group, "one", &[0, 0, 0], "ABC");
        group.eligible.remove(0);
        check(group, "one", &[0, 1, 0], "CB");
        group.eligible.insert(0);
        check(group, "one", &[0, 0, 0], "CAB");
    }

    #[test]
    fn idle_connections_count_a_little_and_the_first_of_equals_is_taken() {
        let group = &mut Group::new(Algorithm::LocalityLeastConn, &[1, 1, 1]);
        group.idle = vec![5, 4, 4];
        check(group, "one", &[0, 0, 0], "BCA");
        group.idle = vec![255, 0, 0];
        check(group, "two", &[0, 1, 1], "ABC");
    }
}
