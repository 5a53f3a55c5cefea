//! A destination stays with a small set of servers that grows while they are overloaded, exactly as IPVS's `lblcr`
//! (`ip_vs_lblcr.c`).
//!
//! Of the set the least loaded for its weight is taken. If that is overloaded (see [`super::locality_least_conn`]), or none
//! of the set is up, the least loaded of all is taken and joins the set. When the set has not changed for a day its most
//! loaded server leaves it, so that what was popular once does not lie in all caches for ever. The destination is the
//! `hash_key`, the Host unless stated otherwise; one that is empty is not remembered.

use xxhash_rust::xxh64::xxh64;

use super::destination_cache::DestinationCache;
use super::leaders::fill_lowest;
use super::locality_load::{is_overloaded, least, load, seconds};
use super::weights::Weights;
use super::{Advance, Balancer, Charge, Choices, Question, ServerMask, Share};

/// Servers of one set; whoever would be one more serves, but does not join. The kernel has no bound.
const SET_MAX: usize = 16;
/// Seconds after which a set that stayed the same shrinks (`sysctl_lblcr_expiration`).
const SHRINK_AFTER_S: u32 = 24 * 60 * 60;

/// Who was given which destination.
#[derive(Debug, Default)]
pub(super) struct LocalityLeastConnReplicated {
    cache: DestinationCache<ServerSet>,
    weights: Weights,
}

/// The servers of one destination, the last to join first: of equals it is taken.
#[derive(Debug, Default)]
struct ServerSet {
    servers: Vec<u16>,
    changed_s: u32,
}

impl ServerSet {
    fn insert(&mut self, server: usize, now_s: u32) {
        let Ok(server) = u16::try_from(server) else {
            return;
        };
        if self.servers.len() < SET_MAX && !self.servers.contains(&server) {
            self.servers.insert(0, server);
            self.changed_s = now_s;
        }
    }

    fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.servers.iter().map(|server| usize::from(*server))
    }

    /// Lets the most loaded go, the first of equals, if the set has been the same for long (`ip_vs_dest_set_max`).
    fn shrink(&mut self, weights: &Weights, question: &Question<'_>, now_s: u32) {
        if self.servers.len() < 2 || now_s.saturating_sub(self.changed_s) <= SHRINK_AFTER_S {
            return;
        }
        let mut most = None;
        let up = self
            .iter()
            .enumerate()
            .filter(|(_, server)| question.eligible.contains(*server));
        for (place, server) in up {
            let Some(load) = load(weights, server, question) else {
                continue;
            };
            if most.is_none_or(|(most, _)| load > most) {
                most = Some((load, place));
            }
        }
        if let Some((_, place)) = most {
            self.servers.remove(place);
            self.changed_s = now_s;
        }
    }
}

impl Balancer for LocalityLeastConnReplicated {
    fn rebuild(&mut self, servers: &[Share<'_>], _eligible: &ServerMask, _start: u32) {
        // Servers keep their indexes while weights and addresses change, and destinations their servers.
        self.weights.rebuild(servers);
    }

    fn pick(&mut self, question: &mut Question<'_>, choices: &mut Choices) {
        let key = question.facts.hash_key;
        if choices.is_empty() && !key.is_empty() {
            let (destination, now_s) = (xxh64(key, 0), seconds(question));
            let chosen = match question.advance {
                Advance::First => self.choose(destination, now_s, question),
                Advance::Nothing => self.look_up(destination, now_s, question),
            };
            chosen.into_iter().for_each(|server| choices.push(server));
        }
        fill_lowest(question, choices, |server| {
            load(&self.weights, server, question)
        });
    }

    fn charge(&mut self, _charge: &Charge<'_>) {}
}

impl LocalityLeastConnReplicated {
    fn choose(&mut self, destination: u64, now_s: u32, question: &Question<'_>) -> Option<usize> {
        let weights = &self.weights;
        let least_of_all = || least(weights, question.eligible.iter(), question);
        let Some(set) = self.cache.touch(destination, now_s) else {
            let server = least_of_all()?;
            let mut set = ServerSet::default();
            set.insert(server, now_s);
            self.cache.insert(destination, set, now_s);
            return Some(server);
        };
        let least_of_set = least(weights, eligible_of(set, question), question);
        set.shrink(weights, question, now_s);
        if let Some(server) = least_of_set
            .filter(|server| !is_overloaded(weights, *server, question.eligible, question))
        {
            return Some(server);
        }
        let server = least_of_all()?;
        set.insert(server, now_s);
        Some(server)
    }

    /// Who would be chosen, without moving anything.
    fn look_up(&self, destination: u64, now_s: u32, question: &Question<'_>) -> Option<usize> {
        let set = self.cache.get(destination, now_s)?;
        let least_of_set = least(&self.weights, eligible_of(set, question), question);
        least_of_set
            .filter(|server| !is_overloaded(&self.weights, *server, question.eligible, question))
    }
}

fn eligible_of<'a>(
    set: &'a ServerSet,
    question: &'a Question<'_>,
) -> impl Iterator<Item = usize> + 'a {
    set.iter()
        .filter(|server| question.eligible.contains(*server))
}

#[cfg(test)]
mod tests {
    use super::super::laws::{Group, letters};
    use crate::balance::Algorithm;

    #[track_caller]
    fn check(group: &mut Group, in_flight: &[u32], expected: &str) {
        group.hash_key = b"www.example.org".to_vec();
        group.in_flight = in_flight.to_vec();
        assert_eq!(
            letters(&group.choose(1)),
            expected,
            "in flight {in_flight:?}"
        );
    }

    #[test]
    fn a_set_grows_while_its_servers_are_overloaded_and_shrinks_after_a_day() {
        let group = &mut Group::new(Algorithm::LocalityLeastConnReplicated, &[2, 2, 2]);
        check(group, &[0, 0, 0], "A");
        check(group, &[2, 0, 0], "A");
        // A is overloaded: B joins.
        check(group, &[3, 0, 0], "B");
        check(group, &[1, 2, 0], "A");
        // Of equals of the set the last to join.
        check(group, &[1, 1, 0], "B");
        // Both are overloaded: C joins.
        check(group, &[3, 3, 0], "C");
        // After a day without a change the most loaded leaves.
        hours_pass(group, 23);
        check(group, &[1, 1, 1], "C");
        hours_pass(group, 2);
        check(group, &[1, 0, 0], "C");
        check(group, &[0, 1, 1], "C");
    }

    #[test]
    fn a_set_shrinks_to_one_as_days_go_by() {
        let group = &mut Group::new(Algorithm::LocalityLeastConnReplicated, &[1, 1, 1]);
        check(group, &[0, 0, 0], "A");
        check(group, &[2, 0, 0], "B");
        check(group, &[2, 2, 0], "C");
        let mut by_day = String::new();
        for _ in 0..3 {
            (0..26).for_each(|_| {
                hours_pass(group, 1);
                check_any(group, &[0, 0, 1]);
            });
            by_day.push_str(&letters(&group.choose(1)));
        }
        // First C leaves, the busiest; then B, the first of equals.
        assert_eq!(by_day, "BAA");
        check(group, &[1, 0, 0], "A");
    }

    fn hours_pass(group: &mut Group, hours: u64) {
        group.now_us += hours * 3_600_000_000;
    }

    fn check_any(group: &mut Group, in_flight: &[u32]) {
        group.in_flight = in_flight.to_vec();
        assert_eq!(group.choose(1).len(), 1);
    }

    #[test]
    fn a_set_of_servers_that_are_down_is_passed_over() {
        let group = &mut Group::new(Algorithm::LocalityLeastConnReplicated, &[1, 1]);
        check(group, &[0, 1], "A");
        group.eligible.remove(0);
        check(group, &[0, 0], "B");
        group.eligible.insert(0);
        check(group, &[1, 0], "B");
        check(group, &[0, 1], "A");
    }
}
