//! What a pick costs: every method, over pools of 2 to 10,000 servers of which three of ten are down, nanoseconds.
//!
//! `cargo run --release -p evenkeel-policy --example cost`. The list of a request has three servers; loads are random, and change
//! with every pick, as they do. Best of a few rounds, because these machines are noisy.

use std::error::Error;
use std::net::IpAddr;
use std::time::Instant;

use evenkeel_policy::balance::{Algorithm, Facts};
use evenkeel_policy::config::{Config, Document};
use evenkeel_policy::random::Sequence;
use evenkeel_policy::upstream::{InFlight, Pool};

const SIZES: [usize; 5] = [2, 10, 100, 1_000, 10_000];
const ROUNDS: usize = 5;
/// Servers looked at in one round, more or less.
const LOOKS: usize = 2_000_000;
/// Three of each ten.
const DOWN: [usize; 3] = [3, 6, 8];

fn main() -> Result<(), Box<dyn Error>> {
    print!("{:32}", "ns per pick");
    SIZES.iter().for_each(|size| print!("{size:>9}"));
    println!();
    for algorithm in Algorithm::ALL {
        print!("{:32}", algorithm.name());
        for size in SIZES {
            print!("{:9}", cost_ns(algorithm, size)?);
        }
        println!();
    }
    Ok(())
}

fn cost_ns(algorithm: Algorithm, size: usize) -> Result<u128, Box<dyn Error>> {
    let mut random = Sequence::new(size as u64);
    let mut servers = Vec::new();
    for server in 0..size {
        let weight = if algorithm.allows_weights() {
            random.below(5) + 1
        } else {
            1
        };
        let down = DOWN.contains(&(server % 10));
        let address = format!("10.0.{}.{}:80", server / 256, server % 256);
        servers.push(serde_json::json!({"address": address, "weight": weight, "down": down}));
    }
    let pool = serde_json::json!({"balance": algorithm.name(), "servers": servers, "retries": 2});
    let document = Document::from_value(serde_json::json!({"pools": {"shop": pool}}))?;
    let config = Config::from_document(&document)?;
    let config = config.pools.first().ok_or("a pool")?;
    let mut pool = Pool::new(config, &mut InFlight::default(), 0);
    for server in 0..size {
        (0..random.below(4)).for_each(|_| pool.began(server));
    }
    let picks = (LOOKS / size).clamp(200, 100_000);
    let mut best = u128::MAX;
    for _ in 0..ROUNDS {
        let started = Instant::now();
        for _ in 0..picks {
            let key = random.next_u64().to_le_bytes();
            let [first, second, third, fourth, ..] = key;
            let client = IpAddr::from([first, second, third, fourth]);
            let facts = Facts {
                client: Some(client),
                hash_key: &key,
            };
            let choices = pool.choose(&facts, &mut random);
            let picked = choices.get(0).ok_or("a server")?;
            pool.began(picked);
            pool.ended(usize::try_from(random.below(size as u64))?);
        }
        best = best.min(started.elapsed().as_nanos() / picks as u128);
    }
    Ok(best)
}
