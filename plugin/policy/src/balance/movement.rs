//! How many keys move when servers come, go, or change places in the file: no more than must, for the methods that promise it.

use super::laws::Group;
use super::*;

const KEYS: usize = 6_000;

/// A pool of servers named by their numbers, with weights.
struct Servers<'a> {
    ids: Vec<String>,
    endpoints: Vec<String>,
    weights: Vec<u16>,
    numbers: &'a [u8],
}

impl<'a> Servers<'a> {
    fn new(numbers: &'a [u8]) -> Self {
        Self {
            ids: numbers
                .iter()
                .map(|number| format!("web{number}"))
                .collect(),
            endpoints: numbers
                .iter()
                .map(|number| format!("10.0.0.{number}:80"))
                .collect(),
            weights: numbers
                .iter()
                .map(|number| u16::from(number % 3) + 1)
                .collect(),
            numbers,
        }
    }

    /// The number of the server of each key.
    fn of_keys(&self, algorithm: Algorithm) -> Vec<u8> {
        let names = self.ids.iter().zip(&self.endpoints).zip(&self.weights);
        let shares: Vec<Share<'_>> = names
            .map(|((id, endpoint), weight)| Share {
                weight: *weight,
                max_fails: 0,
                id,
                endpoint,
            })
            .collect();
        let mut group = Group::of(algorithm.build(&Parameters::default()), &shares, 0);
        let server = |key: usize| {
            group.hash_key = format!("/page/{key}").into();
            self.numbers[group.choose(1)[0]]
        };
        (0..KEYS).map(server).collect()
    }

    fn weight(&self, number: u8) -> usize {
        self.numbers
            .iter()
            .zip(&self.weights)
            .filter(|(known, _)| **known == number)
            .map(|(_, weight)| usize::from(*weight))
            .sum()
    }
}

/// Keys that are not where they were, and those of them that neither came to nor left `concerned`.
fn moved(before: &[u8], after: &[u8], concerned: u8) -> (usize, usize) {
    let moves = before
        .iter()
        .zip(after)
        .filter(|(before, after)| before != after);
    let others = moves
        .clone()
        .filter(|(before, after)| **before != concerned && **after != concerned);
    (moves.count(), others.count())
}

/// Ten servers, and an eleventh in their middle. `besides` is how many keys in a hundred may move between others.
#[track_caller]
fn check(algorithm: Algorithm, besides: usize) {
    const TEN: [u8; 10] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
    const ELEVEN: [u8; 11] = [1, 2, 3, 11, 4, 5, 6, 7, 8, 9, 10];
    let (ten, eleven) = (Servers::new(&TEN), Servers::new(&ELEVEN));
    let (before, after) = (ten.of_keys(algorithm), eleven.of_keys(algorithm));
    let weights: usize = ELEVEN.iter().map(|number| eleven.weight(*number)).sum();
    let share = KEYS * eleven.weight(11) / weights;
    // It comes, and, read the other way round, it goes.
    let (all, others) = moved(&before, &after, 11);
    assert!(
        others * 100 <= KEYS * besides,
        "{algorithm:?}: {others} of {KEYS} moved between others"
    );
    let own = all - others;
    assert!(
        own > share * 7 / 10 && own < share * 13 / 10,
        "{algorithm:?}: {own} moved to a server whose share is {share}"
    );
    let shuffled = [5, 11, 10, 1, 9, 2, 8, 3, 7, 4, 6];
    assert_eq!(
        Servers::new(&shuffled).of_keys(algorithm),
        after,
        "{algorithm:?}: the order in the file"
    );
}

#[test]
fn a_server_that_comes_or_goes_moves_only_its_own_share() {
    check(Algorithm::HashConsistent, 0);
    check(Algorithm::Rendezvous, 0);
    check(Algorithm::Maglev, 4);
}

/// What the consistent ones are for: this one moves nearly all, as nginx's does.
#[test]
fn plain_hash_moves_most_keys() {
    let before = Servers::new(&[1, 2, 3, 4, 5]).of_keys(Algorithm::Hash);
    let after = Servers::new(&[1, 2, 3, 4, 5, 6]).of_keys(Algorithm::Hash);
    let (all, _) = moved(&before, &after, 6);
    assert!(all > KEYS / 2, "{all}");
}
