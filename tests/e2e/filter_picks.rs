//! The methods inside `evenkeel.wasm` choose as they do natively: the same golden rows, and random pools under random histories,
//! list by list.
//!
//! One VM on our host, without a network. Its clock is the test's; its random numbers are known, because the name it gives itself
//! among other VMs is one of them, and each follows from the one before.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use evenkeel_host::Process;
use evenkeel_policy::balance::{Algorithm, Choices, Facts, KeyNeed};
use evenkeel_policy::config::{FilterConfig, Tier};
use evenkeel_policy::contract::ENDPOINTS_MAX;
use evenkeel_policy::exchange::{Decision, Edit, Edits, Head, Policy, Surroundings};
use evenkeel_policy::limits::{Admission, Admitted, Wanted};
use evenkeel_policy::random::Sequence;
use evenkeel_policy::upstream::{
    AdminChange, Chosen, InFlight, Member, Members, Pool, SharedData, Slots, Written,
};
use evenkeel_tests::filter_alone::{FilterAlone, Sent, VM_ID};
use serde_json::{Value, json};

const REQUESTS: usize = 20_000;
/// Random pools of each method.
const POOLS: usize = 4;
/// Requests that are under way at once, at most.
const UNDER_WAY_MAX: usize = 300;
/// Requests between two changes by an operator.
const REQUESTS_A_CHANGE: usize = 50;
/// Whom the filter believes: it is the peer of every request.
const PROXY: &str = "10.1.2.3";

/// A method, its servers' weights, and what `requests` get: one letter each, A for the first server; `-` is down.
struct Golden {
    method: &'static str,
    servers: &'static [(&'static str, u16)],
    down: &'static [usize],
    requests: &'static [&'static str],
    picks: &'static str,
}

const NGINX: &[(&str, u16)] = &[
    ("127.0.0.1:21821", 1),
    ("127.0.0.1:21822", 2),
    ("127.0.0.1:21823", 1),
];
const FIVE_THREE: &[(&str, u16)] = &[("192.0.2.1:80", 5), ("192.0.2.2:80", 3)];
const FIVE_ONE_ONE: &[(&str, u16)] = &[
    ("192.0.2.1:80", 5),
    ("192.0.2.2:80", 1),
    ("192.0.2.3:80", 1),
];
const FOUR_THREE_TWO: &[(&str, u16)] = &[
    ("192.0.2.1:80", 4),
    ("192.0.2.2:80", 3),
    ("192.0.2.3:80", 2),
];
const FOUR: &[(&str, u16)] = &[
    ("192.0.2.1:80", 1),
    ("192.0.2.2:80", 7),
    ("192.0.2.3:80", 2),
    ("192.0.2.4:80", 5),
];
const CLIENTS: &[&str] = &[
    "192.168.139.1",
    "192.168.139.200",
    "192.168.1.102",
    "10.10.10.2",
    "203.0.113.7",
    "8.8.8.8",
    "2001:db8::1",
    "2001:db8::2",
    "fe80::1",
];
const KEYS: &[&str] = &[
    "/index.php",
    "/a",
    "session123",
    "m5nh62mo90nlkl56t876uf4pl9",
];

/// nginx's rows were measured on nginx 1.22.1; IPVS's follow from the kernel's code; the ones of `source_hash` are those of its
/// buckets, 50, 148, 39 and 63 of `ABBC` again and again.
const GOLDEN: &[Golden] = &[
    golden("round_robin", FIVE_THREE, &[], "ABAABABA"),
    golden("round_robin", FIVE_ONE_ONE, &[], "AABACAA"),
    golden("round_robin", FOUR_THREE_TWO, &[], "ABCABACBA"),
    golden("round_robin", FOUR_THREE_TWO, &[0], "BCBCB"),
    golden("wrr", FIVE_THREE, &[], "AAABABAB"),
    golden("wrr", FIVE_ONE_ONE, &[], "AAAAABC"),
    golden("wrr", FOUR_THREE_TWO, &[], "AABABCABC"),
    golden("least_conn", FIVE_ONE_ONE, &[], "AABACAA"),
    golden("fo", FOUR, &[], "BBB"),
    golden("fo", FOUR, &[1], "DDD"),
    golden("first", NGINX_EVEN, &[], "AAA"),
    golden("first", NGINX_EVEN, &[0], "BBB"),
    keyed("ip_hash", NGINX, CLIENTS, "AABBACABC"),
    keyed("hash", NGINX, KEYS, "BABB"),
    keyed("hash_consistent", NGINX, KEYS, "BBBC"),
    keyed(
        "sh",
        NGINX,
        &["192.0.2.1", "192.0.2.2", "10.0.0.1", "2001:db8::1"],
        "BACC",
    ),
    keyed(
        "rendezvous",
        WEB,
        &[
            "/0", "/1", "/2", "/3", "/4", "/5", "/6", "/7", "/8", "/9", "/10", "/11",
        ],
        "GJEIECHEJIDI",
    ),
];
const NGINX_EVEN: &[(&str, u16)] = &[("127.0.0.1:21821", 1), ("127.0.0.1:21822", 1)];
/// Their ids are web0 to web9.
const WEB: &[(&str, u16)] = &[
    ("192.0.2.10:80", 1),
    ("192.0.2.11:80", 2),
    ("192.0.2.12:80", 3),
    ("192.0.2.13:80", 4),
    ("192.0.2.14:80", 5),
    ("192.0.2.15:80", 6),
    ("192.0.2.16:80", 7),
    ("192.0.2.17:80", 8),
    ("192.0.2.18:80", 9),
    ("192.0.2.19:80", 10),
];

const fn golden(
    method: &'static str,
    servers: &'static [(&'static str, u16)],
    down: &'static [usize],
    picks: &'static str,
) -> Golden {
    Golden {
        method,
        servers,
        down,
        requests: &[],
        picks,
    }
}

const fn keyed(
    method: &'static str,
    servers: &'static [(&'static str, u16)],
    requests: &'static [&'static str],
    picks: &'static str,
) -> Golden {
    Golden {
        method,
        servers,
        down: &[],
        requests,
        picks,
    }
}

impl Golden {
    fn pool(&self) -> Value {
        let method = Algorithm::from_name(self.method).unwrap();
        let servers = self.servers.iter().enumerate();
        let servers = servers.map(|(index, (address, weight))| {
            json!({"id": format!("web{index}"), "address": address, "weight": weight,
                   "down": self.down.contains(&index)})
        });
        let mut pool = json!({"balance": self.method, "servers": servers.collect::<Vec<_>>()});
        if method.key_need() != KeyNeed::None {
            pool["hash_key"] = json!("$header(X-Key)");
        }
        pool
    }
}

#[test]
fn the_filter_chooses_what_is_golden() {
    let pools: Vec<Value> = GOLDEN.iter().map(Golden::pool).collect();
    let mut both = Both::start(&pools);
    for (pool, golden) in GOLDEN.iter().enumerate() {
        let letter = |endpoint: &str| {
            let server = golden
                .servers
                .iter()
                .position(|(known, _)| *known == endpoint);
            char::from(b'A' + u8::try_from(server.unwrap()).unwrap())
        };
        let (mut inside, mut natively) = (String::new(), String::new());
        for number in 0..golden.picks.len() {
            let text = golden.requests.get(number).copied().unwrap_or("");
            let client = if text.parse::<std::net::IpAddr>().is_ok() {
                text
            } else {
                "192.0.2.200"
            };
            // Load would lead the methods that look at it: each request ends before the next.
            let (sent, native) = both.request(pool, text, client).unwrap();
            let first = |list: &str| letter(list.split(',').next().unwrap());
            inside.push(first(&sent.endpoints()));
            natively.push(first(&native.endpoints));
            both.finish(sent, &native);
        }
        let what = format!("{} {:?}", golden.method, golden.servers);
        assert_eq!(natively, golden.picks, "natively: {what}");
        assert_eq!(inside, golden.picks, "in the filter: {what}");
    }
}

#[test]
fn the_filter_chooses_as_the_native_policy_does() {
    let mut random = Sequence::new(2_026);
    let methods = Algorithm::ALL.iter().flat_map(|method| [*method; POOLS]);
    let mut pools: Vec<Value> = methods
        .map(|method| random_pool(method, &mut random))
        .collect();
    let mut both = Both::start(&pools);
    let mut under_way: VecDeque<(Sent, Native)> = VecDeque::new();
    for number in 0..REQUESTS {
        if number % REQUESTS_A_CHANGE == REQUESTS_A_CHANGE - 1 {
            let pool = below(&mut random, pools.len());
            both.change(pool, &mut pools[pool], number as u64, &mut random);
        }
        let pool = below(&mut random, pools.len());
        let key = match random.below(20) {
            0 => String::new(),
            _ => format!("k{}", random.below(1_000)),
        };
        let Some((sent, native)) = both.request(pool, &key, &random_client(&mut random)) else {
            check_law("", &pools[pool]);
            continue;
        };
        assert_eq!(
            sent.endpoints(),
            native.endpoints,
            "request {number}: {}",
            pools[pool]
        );
        check_law(&native.endpoints, &pools[pool]);
        both.filter
            .clock
            .pass(Duration::from_micros(random.below(3_000)));
        under_way.push_back((sent, native));
        while under_way.len() > UNDER_WAY_MAX || (!under_way.is_empty() && random.below(3) == 0) {
            let which = below(&mut random, under_way.len());
            let (mut sent, native) = under_way.swap_remove_back(which).unwrap();
            if random.below(10) > 0 {
                both.answer(&mut sent, &native);
            }
            both.finish(sent, &native);
        }
    }
}

/// As many as there may be and are, each once, and only such as may be chosen.
fn check_law(endpoints: &str, pool: &Value) {
    let servers = pool["servers"].as_array().unwrap().iter();
    let eligible: BTreeSet<&str> = servers
        .filter(|server| server["down"] != true && server["drained"] != true)
        .map(|server| server["address"].as_str().unwrap())
        .collect();
    let listed: Vec<&str> = endpoints
        .split(',')
        .filter(|listed| !listed.is_empty())
        .collect();
    let retries = usize::try_from(pool["retries"].as_u64().unwrap()).unwrap();
    assert_eq!(
        listed.len(),
        eligible.len().min(retries + 1),
        "{endpoints}: {pool}"
    );
    assert_eq!(
        listed.iter().collect::<BTreeSet<_>>().len(),
        listed.len(),
        "{endpoints}"
    );
    assert!(
        listed.iter().all(|listed| eligible.contains(listed)),
        "{endpoints}: {pool}"
    );
}

fn random_pool(method: Algorithm, random: &mut Sequence) -> Value {
    // Most are small; one in eight has more servers than a word of a mask has bits, and than one record of load holds.
    let size = match random.below(8) {
        0 => 65 + below(random, 136),
        _ => 1 + below(random, 12),
    };
    let third = random.below(250);
    let servers = (0..size).map(|server| {
        let weight = if method.allows_weights() {
            1 + random.below(20)
        } else {
            1
        };
        let backup = method.allows_backup() && server > 0 && random.below(5) == 0;
        json!({"address": format!("10.9.{third}.{server}:80"), "weight": weight,
               "down": random.below(4) == 0, "backup": backup})
    });
    let servers: Vec<Value> = servers.collect();
    let mut pool = json!({"balance": method.name(), "servers": servers,
                          "retries": below(random, ENDPOINTS_MAX)});
    if method.key_need() != KeyNeed::None && method != Algorithm::UrlHash {
        pool["hash_key"] = json!("$header(X-Key)");
    }
    if method.allows_bounded_load() && random.below(3) == 0 {
        pool["hash_balance_factor"] = json!(125);
    }
    pool
}

fn random_client(random: &mut Sequence) -> String {
    if random.below(4) == 0 {
        format!("2001:db8::{:x}:{:x}", random.below(9), random.below(60_000))
    } else {
        format!(
            "198.{}.{}.{}",
            random.below(99),
            random.below(255),
            random.below(255)
        )
    }
}

fn below(random: &mut Sequence, bound: usize) -> usize {
    usize::try_from(random.below(bound as u64)).unwrap()
}

/// What the native policy made of a request.
struct Native {
    pool: usize,
    choices: Choices,
    endpoints: String,
    sent_us: u64,
}

/// The filter, and the policy it is made of, with the same configuration and the same history.
struct Both {
    filter: FilterAlone,
    process: Process,
    policy: Policy,
    random: Sequence,
    slots: Slots,
    shared: Alone,
}

/// What the native policy has around it.
struct Around<'a> {
    slots: &'a Slots,
    shared: &'a mut Alone,
    now_us: u64,
}

impl Surroundings for Around<'_> {
    fn admit(&mut self, _wanted: &[Wanted<'_>], _random: &mut Sequence) -> Admitted {
        Admitted::Yes(Vec::new())
    }

    fn choose(&mut self, pool: &mut Pool, facts: &Facts<'_>, random: &mut Sequence) -> Chosen {
        if pool.needs_load() {
            pool.read_others(self.now_us, self.slots, self.shared);
        } else if pool.needs_time() {
            pool.note_time(self.now_us);
        }
        pool.choose_within_limits(facts, random, self.slots, self.shared)
    }
}

impl Both {
    /// Requests for `<name of a pool>.test` go to that pool.
    fn start(pools: &[Value]) -> Self {
        let names = || (0..pools.len()).map(name);
        let named: serde_json::Map<_, _> = names().zip(pools.iter().cloned()).collect();
        let routes =
            names().map(|name| json!({"match": {"host": [format!("{name}.test")]}, "pool": name}));
        let policy = json!({
            "real_ip": {"trusted": [PROXY], "header": "X-Forwarded-For", "recursive": true},
            "routes": routes.collect::<Vec<_>>(), "pools": named,
        });
        let process = Process::new();
        let module = FilterAlone::compile(evenkeel::embedded::FILTER).unwrap();
        let filter = FilterAlone::start(&module, &process, &policy).unwrap();
        let document = json!({"schema": 1, "listener": {"name": "web", "mode": "http", "pool": null},
                              "secrets": [], "policy": policy});
        let config = FilterConfig::from_json(document.to_string().as_bytes())
            .unwrap_or_else(|error| panic!("{error}"));
        let policy = Policy::new(&config.policy, &mut InFlight::default(), 0);
        // The first stream has the VM take its slot, and write its name there.
        let first = filter.request(&[(":authority", "nobody.test"), (":path", "/")]);
        assert!(first.unwrap().is_none(), "no route leads there");
        let (slot, _) = process.shared_data(VM_ID, b"evenkeel//slot/0").unwrap();
        let name = u64::from_le_bytes(slot[1..9].try_into().unwrap());
        Self {
            filter,
            process,
            policy,
            random: Sequence::new(state_that_gave(name)),
            slots: Slots::new(1),
            shared: Alone::default(),
        }
    }

    /// `None` if both say that nobody is eligible.
    fn request(&mut self, pool: usize, key: &str, client: &str) -> Option<(Sent, Native)> {
        let (authority, path) = (format!("{}.test", name(pool)), format!("/{key}?x=1"));
        let pairs = [
            (":authority", authority.as_str()),
            (":path", &path),
            (":method", "GET"),
            (":scheme", "http"),
            ("x-forwarded-for", client),
            ("x-key", key),
        ];
        let now_us = self.filter.clock.now_us();
        let sent = self.filter.request(&pairs).unwrap();
        let bytes = pairs.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let head = Head {
            peer: Some(format!("{PROXY}:40000").parse().unwrap()),
            tcp_peer: None,
            pairs: bytes.into_iter(),
        };
        let mut edits = Edits::default();
        let (slots, shared) = (&self.slots, &mut self.shared);
        let (random, admission) = (&mut self.random, Admission::Ask);
        let mut around = Around {
            slots,
            shared,
            now_us,
        };
        let decided = self
            .policy
            .decide(&head, random, &mut edits, admission, &mut around);
        let Decision::Steered {
            pool: found,
            choices,
        } = decided.decision
        else {
            assert!(
                sent.is_none(),
                "the filter steers where the policy says {decided:?}"
            );
            return None;
        };
        assert_eq!(found, pool);
        self.policy.pools_mut()[pool].began(choices.get(0).unwrap());
        let set = edits.iter().find_map(|edit| match edit {
            Edit::Set {
                name: b"x-gateway-destination-endpoint",
                value,
            } => Some(value),
            _ => None,
        });
        let endpoints = String::from_utf8(set.unwrap().to_vec()).unwrap();
        let native = Native {
            pool,
            choices,
            endpoints,
            sent_us: now_us,
        };
        Some((sent.unwrap(), native))
    }

    /// The first server of the list answers now.
    fn answer(&mut self, sent: &mut Sent, native: &Native) {
        sent.answer().unwrap();
        let server = native.choices.get(0).unwrap();
        let now_us = self.filter.clock.now_us();
        let pool = &mut self.policy.pools_mut()[native.pool];
        if pool.needs_latency() {
            pool.answered(server, now_us.saturating_sub(native.sent_us), now_us);
        }
    }

    fn finish(&mut self, sent: Sent, native: &Native) {
        sent.finish();
        let server = native.choices.get(0).unwrap();
        self.policy.pools_mut()[native.pool].ended(server);
    }

    /// An operator changes weights, addresses and who takes part.
    fn change(&mut self, index: usize, pool: &mut Value, version: u64, random: &mut Sequence) {
        let method = Algorithm::from_name(pool["balance"].as_str().unwrap()).unwrap();
        let mut servers = Vec::new();
        for server in pool["servers"].as_array_mut().unwrap() {
            let address = server["address"].as_str().unwrap().to_owned();
            // The id is the address that was configured, which stays.
            let id = server["id"].as_str().unwrap_or(&address).to_owned();
            server["id"] = json!(id);
            if random.below(20) == 0 {
                server["address"] = json!(address.replace(":80", ":81"));
            }
            if method.allows_weights() && random.below(3) == 0 {
                server["weight"] = json!(1 + random.below(30));
            }
            let drained = random.below(4) == 0;
            server["drained"] = json!(drained);
            servers.push(Member {
                id,
                address: Some(server["address"].as_str().unwrap().parse().unwrap()),
                weight: Some(u16::try_from(server["weight"].as_u64().unwrap()).unwrap()),
                admin: if drained {
                    AdminChange::Drain
                } else {
                    AdminChange::Ready
                },
                tier: Tier::Primary,
            });
        }
        let members = Members { version, servers };
        let key = Members::key(&name(index));
        assert!(
            self.process
                .set_shared_data(VM_ID, &key, &members.encode(), 0)
        );
        self.shared.0.insert(key, members.encode());
        let now_us = self.filter.clock.now_us();
        self.filter.tick();
        for pool in self.policy.pools_mut() {
            pool.note_time(now_us);
            pool.tick(&mut self.shared);
        }
    }
}

/// A pool's name; pools are in the order of their names.
fn name(pool: usize) -> String {
    format!("p{pool:04}")
}

/// SplitMix64's last step, backwards: the state that a number was made of.
fn state_that_gave(number: u64) -> u64 {
    let unshifted = |number: u64, by: u32| number ^ number >> by ^ number >> (2 * by);
    let number = unshifted(number, 31).wrapping_mul(0x3196_42b2_d24d_8ec3);
    let number = unshifted(number, 27).wrapping_mul(0x96de_1b17_3f11_9089);
    unshifted(number, 30)
}

#[test]
fn the_numbers_after_a_number_are_known() {
    let mut sequence = Sequence::new(7);
    for _ in 0..100 {
        let mut followed = Sequence::new(state_that_gave(sequence.next_u64()));
        assert_eq!(followed.next_u64(), sequence.clone().next_u64());
    }
}

/// Shared data of a VM that is alone.
#[derive(Default)]
struct Alone(HashMap<Vec<u8>, Vec<u8>>);

impl SharedData for Alone {
    fn get(&mut self, key: &[u8], value: &mut Vec<u8>) -> Option<u32> {
        value.clear();
        value.extend_from_slice(self.0.get(key)?);
        Some(1)
    }

    fn set(&mut self, _key: &[u8], _value: &[u8], _cas: u32) -> Written {
        Written::Done
    }
}
