//! Names of methods, and options that contradict them.

use serde_json::{Value, json};

use super::tests::{refused, with_pool_key};
use super::*;

#[test]
fn every_method_is_known_by_its_name_and_by_ipvs_s() {
    let names = [
        ("round_robin", "round_robin"),
        ("weighted_round_robin_ipvs", "weighted_round_robin_ipvs"),
        ("wrr", "weighted_round_robin_ipvs"),
        ("random", "random"),
        ("random_two", "random_two"),
        ("ip_hash", "ip_hash"),
        ("hash", "hash"),
        ("url_hash", "url_hash"),
        ("hash_consistent", "hash_consistent"),
        ("maglev", "maglev"),
        ("rendezvous", "rendezvous"),
        ("source_hash", "source_hash"),
        ("sh", "source_hash"),
        ("destination_hash", "destination_hash"),
        ("dh", "destination_hash"),
        ("locality_least_conn", "locality_least_conn"),
        ("lblc", "locality_least_conn"),
        (
            "locality_least_conn_replicated",
            "locality_least_conn_replicated",
        ),
        ("lblcr", "locality_least_conn_replicated"),
        ("least_conn", "least_conn"),
        ("ipvs_least_conn", "ipvs_least_conn"),
        ("lc", "ipvs_least_conn"),
        ("weighted_least_conn", "weighted_least_conn"),
        ("wlc", "weighted_least_conn"),
        ("shortest_expected_delay", "shortest_expected_delay"),
        ("sed", "shortest_expected_delay"),
        ("never_queue", "never_queue"),
        ("nq", "never_queue"),
        ("weighted_failover", "weighted_failover"),
        ("fo", "weighted_failover"),
        ("weighted_overflow", "weighted_overflow"),
        ("ovf", "weighted_overflow"),
        ("ipvs_two_choices", "ipvs_two_choices"),
        ("twos", "ipvs_two_choices"),
        ("fair", "fair"),
        ("least_time", "least_time"),
        ("peak_ewma", "peak_ewma"),
        ("first", "first"),
    ];
    for (name, expected) in names {
        let document = Document::from_value(with_pool_key("balance", json!(name))).unwrap();
        let config = Config::from_document(&document).unwrap();
        assert_eq!(config.pools[0].algorithm.name(), expected, "{name}");
    }
    refused(
        with_pool_key("balance", json!("wlcc")),
        "pools.shop.balance",
        "did you mean `wlc`",
    );
}

#[test]
fn options_that_contradict_the_method_are_refused_with_the_reason() {
    let with = |method: &str, option: &str, value: Value| {
        let server = json!({"address": "10.0.0.2:80", option: value});
        let servers = json!([{"address": "10.0.0.1:80"}, server]);
        json!({"pools": {"shop": {"balance": method, "servers": servers}}})
    };
    let rows = [
        (
            "first",
            "weight",
            json!(2),
            "`first` knows no weights: servers are taken in the order",
        ),
        (
            "ip_hash",
            "backup",
            json!(true),
            "`ip_hash` knows no backup servers: a key has one place",
        ),
        (
            "hash_consistent",
            "backup",
            json!(true),
            "`hash_consistent` knows no backup servers: a key has one place",
        ),
        (
            "ip_hash",
            "slow_start",
            json!("10s"),
            "`ip_hash` knows no slow start: keys would move",
        ),
        (
            "maglev",
            "slow_start",
            json!("10s"),
            "`maglev` knows no slow start: keys would move",
        ),
        (
            "random",
            "slow_start",
            json!("10s"),
            "`random` knows no slow start: draws",
        ),
        (
            "first",
            "slow_start",
            json!("10s"),
            "`first` knows no slow start: it knows no weights",
        ),
    ];
    for (method, option, value, message) in rows {
        let path = format!("pools.shop.servers[1].{option}");
        refused(with(method, option, value), &path, message);
    }
    for (method, option, value) in [
        ("first", "weight", json!(1)),
        ("random", "backup", json!(true)),
        ("ip_hash", "slow_start", json!("0s")),
    ] {
        let document = Document::from_value(with(method, option, value)).unwrap();
        assert!(
            Config::from_document(&document).is_ok(),
            "{method}, {option}"
        );
    }
    refused(
        with_pool_key("hash_balance_factor", json!(150)),
        "pools.shop.hash_balance_factor",
        "hashes no key",
    );
    let none = with_pool_key("hash_balance_factor", json!(0));
    assert!(Config::from_document(&Document::from_value(none).unwrap()).is_ok());
}
