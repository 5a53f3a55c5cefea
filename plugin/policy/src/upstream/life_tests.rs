//! The life of a pool's servers: who is chosen after failures, checks, ejections, and what a reload keeps.

use serde_json::{Value, json};

use super::tests::Map;
use super::*;
use crate::balance::{Choices, Facts};
use crate::config::{Config, Document, PoolConfig, Tier};
use crate::random::Sequence;

/// One VM's pool `shop` on a clock of milliseconds.
struct Shop {
    pool: Pool,
    config: PoolConfig,
    random: Sequence,
    in_flight: InFlight,
    data: Map,
    now_ms: u64,
}

/// Servers a, b, c … with these keys, and the pool's.
fn config(keys: &Value, servers: &[Value]) -> PoolConfig {
    let servers: Vec<Value> = servers
        .iter()
        .zip(0_u8..=u8::MAX)
        .map(|(keys, index)| {
            let id = b'a' + index % 26;
            let mut server =
                json!({"address": format!("10.0.0.{id}:80"), "id": char::from(id).to_string()});
            merge(&mut server, keys);
            server
        })
        .collect();
    let mut pool = json!({"servers": servers, "retries": 7});
    merge(&mut pool, keys);
    let policy = json!({"pools": {"shop": pool}});
    let mut config = Config::from_document(&Document::from_value(policy).unwrap()).unwrap();
    config.pools.remove(0)
}

fn merge(into: &mut Value, keys: &Value) {
    for (key, value) in keys.as_object().unwrap() {
        into[key] = value.clone();
    }
}

impl Shop {
    fn new(keys: Value, servers: &[Value]) -> Self {
        let config = config(&keys, servers);
        let mut in_flight = InFlight::default();
        Self {
            pool: Pool::new(&config, &mut in_flight, 0),
            config,
            random: Sequence::new(1),
            in_flight,
            data: Map::default(),
            now_ms: 1_000_000,
        }
    }

    fn after(&mut self, ms: u64) -> &mut Self {
        self.now_ms += ms;
        self.pool.note_time(self.now_ms * 1_000);
        self
    }

    fn tick(&mut self) {
        self.pool.note_time(self.now_ms * 1_000);
        self.pool.tick(&mut self.data);
        self.pool.read_state(&mut self.data);
    }

    fn choose(&mut self) -> Choices {
        self.pool.note_time(self.now_ms * 1_000);
        self.pool.choose(&Facts::default(), &mut self.random)
    }

    /// The servers that a request may try, in the order of their names.
    fn who(&mut self) -> String {
        let choices = self.choose();
        let mut ids: Vec<&str> = choices.iter().map(|server| self.pool.id(server)).collect();
        ids.sort_unstable();
        ids.concat()
    }

    /// A request that this server failed or answered.
    fn request(&mut self, id: &str, failed: usize, quality: Quality) {
        let server = (0..self.pool.len()).find(|server| self.pool.id(*server) == id);
        let mut choices = Choices::with_limit(1);
        choices.push(server.unwrap());
        self.pool.note_time(self.now_ms * 1_000);
        self.pool.charge(&choices, 1, failed, quality);
    }

    fn fails(&mut self, id: &str) {
        self.request(id, 1, Quality::Good);
    }

    fn told(&mut self) -> Vec<String> {
        let told = self.pool.take_transitions();
        told.iter()
            .map(|told| {
                let id = self.pool.id(told.server);
                format!("{id} {} {}", told.to, told.cause)
            })
            .collect()
    }

    /// Checks say this of servers.
    fn checked(&mut self, states: &[(&str, Health)]) {
        let servers = states.iter().map(|(id, health)| ServerState {
            id_hash: id_hash(id),
            health: *health,
            since_ms: self.now_ms,
            transitions: 1,
            reason: String::new(),
        });
        let record = StateRecord {
            version: self.now_ms,
            servers: servers.collect(),
        };
        self.data
            .set(&StateRecord::key("shop"), &record.encode(), 0);
        self.tick();
    }

    /// Shares of the first places of so many choices, in percent, by name.
    fn shares(&mut self, count: usize) -> Vec<usize> {
        let mut firsts = vec![0; self.pool.len()];
        for _ in 0..count {
            firsts[self.choose().get(0).unwrap()] += 1;
        }
        firsts.iter().map(|first| first * 100 / count).collect()
    }
}

fn plain(count: usize) -> Vec<Value> {
    vec![json!({}); count]
}

#[test]
fn a_server_that_fails_is_left_out_and_probed_and_comes_back() {
    let mut shop = Shop::new(json!({}), &plain(3));
    assert!(!shop.pool.needs_time());
    shop.fails("a");
    assert_eq!((shop.who().as_str(), shop.pool.needs_time()), ("bc", true));
    assert_eq!(shop.told(), ["a banned failures"]);
    assert_eq!(shop.after(10_000).who(), "bc");
    // Its ban is over. It is a probe once the method picks it first, and that shuts the door.
    shop.after(1);
    let mut probes = 0;
    for _ in 0..30 {
        let choices = shop.choose();
        assert_eq!(
            choices.contains(0),
            probes == 0 || choices.get(0) == Some(0)
        );
        probes += usize::from(choices.get(0) == Some(0));
    }
    assert_eq!((probes, shop.who().as_str()), (1, "bc"));
    shop.request("a", 0, Quality::Good);
    assert_eq!(
        (shop.who().as_str(), shop.told()),
        ("abc", vec!["a up answered".to_owned()])
    );
    shop.tick();
    assert!(!shop.pool.needs_time(), "all is forgotten");
}

#[test]
fn with_everybody_banned_everybody_is_asked() {
    let mut shop = Shop::new(
        json!({}),
        &[
            json!({}),
            json!({}),
            json!({"backup": true}),
            json!({"down": true}),
        ],
    );
    shop.fails("a");
    assert_eq!(shop.who(), "bc");
    shop.fails("b");
    assert_eq!(shop.who(), "c", "the backup");
    shop.fails("c");
    assert_eq!(shop.who(), "abc", "never nobody");
    let first = shop.choose().get(0).unwrap();
    assert!(first < 2, "primaries first: {first}");
    // One answers half a second later: it is used, and the others wait for their probe.
    let asked = shop.after(500).choose().get(0).unwrap();
    let id = shop.pool.id(asked).to_owned();
    shop.request(&id, 0, Quality::Good);
    assert_eq!(shop.who(), id);
}

#[test]
fn without_max_fails_nobody_is_left_out() {
    let mut shop = Shop::new(json!({}), &vec![json!({"max_fails": 0}); 2]);
    (0..50).for_each(|_| shop.fails("a"));
    assert_eq!((shop.who().as_str(), shop.told().len()), ("ab", 0));
}

#[test]
fn who_is_down_by_checks_is_chosen_in_a_panic_only() {
    use Health::{Checking, Down, Up};
    let health = json!({"interval": "1s"});
    let mut shop = Shop::new(json!({"health": health}), &plain(3));
    assert_eq!(shop.who(), "abc", "servers start up");
    shop.checked(&[("a", Down), ("b", Checking), ("gone", Down)]);
    assert_eq!(shop.who(), "bc");
    shop.after(1)
        .checked(&[("a", Down), ("b", Down), ("c", Down)]);
    assert_eq!(shop.who(), "", "checks know");
    shop.after(1)
        .checked(&[("a", Up), ("b", Down), ("c", Down)]);
    assert_eq!(shop.who(), "a");
    shop.fails("a");
    assert_eq!(shop.who(), "a", "banned, but nobody else is up");

    let mut shop = Shop::new(json!({"health": health, "panic_below": 50}), &plain(4));
    shop.checked(&[("a", Down), ("b", Down)]);
    assert_eq!(shop.who(), "cd", "half is not less than half");
    shop.after(1)
        .checked(&[("a", Down), ("b", Down), ("c", Down)]);
    assert_eq!(shop.who(), "abcd");
    shop.after(1)
        .checked(&[("a", Down), ("b", Down), ("c", Down), ("d", Down)]);
    assert_eq!(shop.who(), "abcd");
}

#[test]
fn a_panic_is_one_of_the_tier_that_serves() {
    let backup = json!({"backup": true});
    let servers = [json!({}), json!({}), json!({}), backup.clone(), backup];
    let down = |ids: &[&'static str]| -> Vec<(&str, Health)> {
        ids.iter().map(|id| (*id, Health::Down)).collect()
    };
    for (ids, expected) in [
        (&["a"][..], "bcde"),
        (&["a", "b"], "abcde"),
        (&["a", "b", "c"], "de"),
        (&["a", "b", "c", "d"], "e"),
        (&["a", "b", "c", "d", "e"], "abcde"),
    ] {
        let keys = json!({"health": {}, "panic_below": 40});
        let mut shop = Shop::new(keys, &servers);
        shop.checked(&down(ids));
        assert_eq!(shop.who(), expected, "{ids:?}");
    }
}

#[test]
fn an_operator_has_the_last_word() {
    let mut shop = Shop::new(json!({"health": {}, "panic_below": 100}), &plain(2));
    let member = |id: &str, admin| Member {
        id: id.to_owned(),
        address: None,
        weight: None,
        admin,
        tier: Tier::Primary,
    };
    shop.pool.apply(&Members {
        version: 1,
        servers: vec![
            member("a", AdminChange::Drain),
            member("b", AdminChange::Maint),
        ],
    });
    assert_eq!(shop.who(), "");
    assert!(shop.pool.is_checked(0) && !shop.pool.is_checked(1));
}

#[test]
fn without_checks_a_record_of_older_ones_means_nothing() {
    let mut shop = Shop::new(json!({}), &plain(2));
    shop.checked(&[("a", Health::Down)]);
    assert_eq!(shop.who(), "ab");
}

#[test]
fn bad_answers_in_a_row_eject_some_but_never_too_many() {
    let passive = json!({"failures": 3, "ejection": "10s", "share_max": 50, "statuses": [500]});
    let mut shop = Shop::new(
        json!({"passive": passive}),
        &vec![json!({"max_fails": 0}); 3],
    );
    let bad = |shop: &mut Shop, id: &str, times| {
        (0..times).for_each(|_| shop.request(id, 0, Quality::Bad));
    };
    bad(&mut shop, "a", 2);
    shop.request("a", 0, Quality::Good);
    bad(&mut shop, "a", 2);
    assert_eq!(shop.who(), "abc", "not in a row");
    bad(&mut shop, "a", 1);
    assert_eq!(
        (shop.who().as_str(), shop.told()),
        ("bc", vec!["a ejected failures".to_owned()])
    );
    bad(&mut shop, "b", 10);
    assert_eq!(
        shop.who(),
        "bc",
        "a third is out, and two thirds are more than half"
    );
    assert_eq!(shop.after(9_999).who(), "bc");
    assert_eq!(shop.after(1).who(), "abc");
    assert_eq!(shop.told(), ["a up time"]);
    bad(&mut shop, "a", 3);
    assert_eq!(shop.after(19_999).who(), "bc", "twice as long");
    assert_eq!(shop.after(1).who(), "abc");
}

#[test]
fn a_server_that_was_down_gets_its_weight_little_by_little() {
    let servers = vec![json!({"slow_start": "10s"}); 2];
    for balance in ["round_robin", "least_conn", "wrr"] {
        let mut shop = Shop::new(json!({"health": {}, "balance": balance}), &servers);
        assert_eq!(
            shop.shares(100),
            [50, 50],
            "{balance}: not when it is loaded"
        );
        shop.after(1)
            .checked(&[("a", Health::Up), ("b", Health::Up)]);
        assert_eq!(
            shop.shares(100),
            [50, 50],
            "{balance}: not when it was never down"
        );
        shop.after(1)
            .checked(&[("a", Health::Down), ("b", Health::Up)]);
        assert_eq!(shop.shares(100), [0, 100], "{balance}");
        shop.after(1)
            .checked(&[("a", Health::Up), ("b", Health::Up)]);
        assert!(
            shop.shares(100)[0] <= 1,
            "{balance}: not a whole weight until the next tick"
        );
        let mut shares = Vec::new();
        for _ in 0..10 {
            shop.tick();
            shares.push(shop.shares(1_000)[0]);
            shop.after(1_000);
        }
        // p percent of one weight beside a whole one.
        for (share, percent) in shares.iter().zip([1, 10, 20, 30, 40, 50, 60, 70, 80, 90]) {
            let expected = percent * 100 / (100 + percent);
            assert!(share.abs_diff(expected) <= 2, "{balance}: {shares:?}");
        }
        shop.tick();
        assert_eq!(shop.shares(100), [50, 50], "{balance}");
    }
}

#[test]
fn a_pool_with_little_to_do_is_fair_while_a_weight_grows() {
    let servers = [json!({}), json!({}), json!({"slow_start": "1h"})];
    let mut shop = Shop::new(json!({"health": {}}), &servers);
    shop.checked(&[("c", Health::Down)]);
    shop.after(1).checked(&[("c", Health::Up)]);
    let mut firsts = [0_u32; 3];
    for _ in 0..400 {
        shop.after(36_000).tick();
        firsts[shop.choose().get(0).unwrap()] += 1;
        if shop.now_ms > 4_500_000 {
            break;
        }
    }
    // One request in each percent of the hour: two whole weights, and one that grows from nothing.
    assert!(
        firsts[0].abs_diff(firsts[1]) <= 20 && firsts[0] > firsts[2],
        "{firsts:?}"
    );
}

#[test]
fn what_befell_a_server_survives_a_reload() {
    let mut shop = Shop::new(json!({"health": {}}), &plain(3));
    shop.fails("a");
    shop.checked(&[("b", Health::Down)]);
    assert_eq!(shop.who(), "c");
    let mut next = Pool::new(&shop.config, &mut shop.in_flight, 0);
    next.note_time(shop.now_ms * 1_000);
    next.tick(&mut shop.data);
    next.read_state(&mut shop.data);
    let choices = next.choose(&Facts::default(), &mut shop.random);
    let ids: Vec<&str> = choices.iter().map(|server| next.id(server)).collect();
    assert_eq!(ids, ["c"]);
}

#[test]
fn one_vm_finds_out_and_every_vm_knows() {
    let mut shop = Shop::new(json!({"health": {"fall": 2, "interval": "1s"}}), &plain(2));
    let mut checks = PoolChecks::new(&shop.config).unwrap();
    let mut random = Sequence::new(7);
    checks.take_over(&shop.pool, &mut shop.data);
    let mut changes = Vec::new();
    for _ in 0..600 {
        let mut due = Vec::new();
        checks.take_due(&shop.pool, shop.now_ms, 10, &mut random, &mut due);
        for server in due {
            let status = if server == 0 { 503 } else { 200 };
            let verdict = checks.judge(Some(status), b"");
            let change = checks.ended(
                &shop.pool,
                server,
                verdict,
                shop.now_ms,
                (&mut random, &mut shop.data),
            );
            changes.extend(change.map(|change| (change.server, change.to, change.reason)));
        }
        shop.after(10);
    }
    changes.sort_by_key(|(server, ..)| *server);
    assert_eq!(
        changes,
        [
            (0, Health::Down, "status 503".to_owned()),
            (1, Health::Up, "the first check passed".to_owned())
        ]
    );
    assert_eq!(News::Health.read(&mut shop.data, &mut Vec::new()), Some(2));
    shop.tick();
    assert_eq!(shop.who(), "b");
    // Another VM takes over: it begins with what is known, and changes nothing by itself.
    let mut next = PoolChecks::new(&shop.config).unwrap();
    next.take_over(&shop.pool, &mut shop.data);
    assert_eq!((next.health(0), next.health(1)), (Health::Down, Health::Up));
}

#[test]
fn ten_thousand_servers_are_checked_and_told_of() {
    let server =
        |index: u32| json!({"address": format!("10.{}.{}.1:80", index / 256, index % 256)});
    let servers: Vec<Value> = (0..10_000).map(server).collect();
    let mut shop = Shop::new(json!({"health": {"fall": 1}, "servers": servers}), &[]);
    let mut checks = PoolChecks::new(&shop.config).unwrap();
    let mut random = Sequence::new(7);
    checks.take_over(&shop.pool, &mut shop.data);
    let mut begun = 0;
    for _ in 0..200 {
        let mut due = Vec::new();
        checks.take_due(&shop.pool, shop.now_ms, 256, &mut random, &mut due);
        assert!(due.len() <= 256);
        begun += due.len();
        shop.after(50);
    }
    assert_eq!(begun, 10_000, "each once: none has ended");
    let verdict = checks.judge(None, b"");
    let change = checks.ended(
        &shop.pool,
        9_999,
        verdict,
        shop.now_ms,
        (&mut random, &mut shop.data),
    );
    assert_eq!(change.unwrap().to, Health::Down);
    shop.tick();
    assert_eq!(checks.health(9_999), Health::Down);
}
