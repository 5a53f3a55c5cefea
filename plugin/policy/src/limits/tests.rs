//! Limits over several VMs, and nginx's bucket by its own arithmetic.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// Shared data as a host keeps it, with races on demand: so many writes lose first.
#[derive(Default)]
struct Shared {
    values: HashMap<Vec<u8>, (Vec<u8>, u32)>,
    next: u32,
    races: u32,
}

impl SharedData for Shared {
    fn get(&mut self, key: &[u8], value: &mut Vec<u8>) -> Option<u32> {
        value.clear();
        let (bytes, cas) = self.values.get(key)?;
        value.extend_from_slice(bytes);
        Some(*cas)
    }

    fn set(&mut self, key: &[u8], value: &[u8], cas: u32) -> Written {
        if self.races > 0 {
            self.races -= 1;
            return Written::Mismatch;
        }
        if let Some((_, known)) = self.values.get(key)
            && cas != 0
            && cas != *known
        {
            return Written::Mismatch;
        }
        self.next += 1;
        self.values
            .insert(key.to_vec(), (value.to_vec(), self.next));
        Written::Done
    }
}

/// One VM.
struct Vm {
    state: LimitState,
    slots: Slots,
}

impl Vm {
    fn new(identity: u64, shared: &mut Shared) -> Self {
        let mut slots = Slots::new(identity);
        slots.claim(shared);
        slots.tick(shared);
        let state = LimitState::default();
        Self { state, slots }
    }

    fn ask(&mut self, limits: &[&Limit], key: &str, now_ms: u64, shared: &mut Shared) -> Admitted {
        let wanted: Vec<Wanted<'_>> = limits
            .iter()
            .map(|limit| Wanted {
                limit,
                key: key.as_bytes(),
            })
            .collect();
        let at = (now_ms, 42);
        self.state
            .admit(&wanted, Admission::Ask, at, &self.slots, shared)
    }
}

fn limit(name: &str, kind: Kind, states: u32) -> Limit {
    Limit {
        name: name.to_owned(),
        key: HashKey::host(),
        status: 429,
        kind,
        buckets: buckets(states),
    }
}

fn rate(per_second: u32, burst: u32, delay: u32) -> Limit {
    let rate = Rate {
        per_second,
        burst,
        delay,
    };
    limit("rate", Kind::Rate(rate), 10_000)
}

fn in_words(admitted: Admitted) -> String {
    match admitted {
        Admitted::Yes(_) => "passes".to_owned(),
        Admitted::Delayed { ms } => format!("waits {ms}"),
        Admitted::Refused { why, status } => format!("{status} {why:?}"),
    }
}

/// Requests of one key at these times, one VM after the other.
#[track_caller]
fn check(limit: &Limit, vms: usize, rows: &[(u64, &str)]) {
    let mut shared = Shared::default();
    let mut all: Vec<Vm> = (1..=vms)
        .map(|identity| Vm::new(identity as u64, &mut shared))
        .collect();
    for (index, (at_ms, expected)) in rows.iter().enumerate() {
        let vm = &mut all[index % vms];
        let found = in_words(vm.ask(&[limit], "key", 1_000_000 + at_ms, &mut shared));
        assert_eq!(found, *expected, "request {index} at {at_ms}");
    }
}

#[test]
fn a_rate_is_nginxs_whichever_vm_is_asked() {
    let refused = "429 Rate { retry_after_s: 1 }";
    for vms in [1, 3] {
        // rate=2r/s: one at a time.
        check(
            &rate(2_000, 0, u32::MAX),
            vms,
            &[
                (0, "passes"),
                (499, refused),
                (500, "passes"),
                (900, refused),
                (1_000, "passes"),
            ],
        );
        // rate=2r/s burst=2 nodelay.
        check(
            &rate(2_000, 2_000, u32::MAX),
            vms,
            &[
                (0, "passes"),
                (0, "passes"),
                (0, "passes"),
                (0, refused),
                (500, "passes"),
                (501, refused),
            ],
        );
        // rate=2r/s burst=2: who is early waits.
        check(
            &rate(2_000, 2_000, 0),
            vms,
            &[
                (0, "passes"),
                (0, "waits 500"),
                (0, "waits 1000"),
                (0, refused),
                (250, refused),
                (500, "waits 1000"),
            ],
        );
        // rate=2r/s burst=3 delay=1.
        check(
            &rate(2_000, 3_000, 1_000),
            vms,
            &[
                (0, "passes"),
                (0, "passes"),
                (0, "waits 500"),
                (0, "waits 1000"),
                (0, refused),
            ],
        );
    }
    // rate=1r/m is 16 thousandths a second.
    check(
        &rate(16, 0, u32::MAX),
        1,
        &[
            (0, "passes"),
            (1_000, "429 Rate { retry_after_s: 62 }"),
            (62_499, "429 Rate { retry_after_s: 1 }"),
            (62_500, "passes"),
        ],
    );
}

/// The same arithmetic, written as nginx has it: signed, and one variable after the other.
#[test]
fn agrees_with_the_arithmetic_of_nginx() {
    proptest!(|(per_second in 1u32..5_000, burst in 0u32..8, delay in 0u32..9, steps in proptest::collection::vec(-70_000i64..3_000, 1..60))| {
        let delay = if delay == 8 { u32::MAX } else { delay * 1_000 };
        let limit = rate(per_second, burst * 1_000, delay);
        let mut shared = Shared::default();
        let mut vm = Vm::new(1, &mut shared);
        let (mut now, mut node): (i64, Option<(i64, i64)>) = (10_000_000, None);
        for step in steps {
            now += if step < -5 && step > -60_000 { 0 } else { step };
            let found = in_words(vm.ask(&[&limit], "key", now as u64, &mut shared));
            let expected = match node {
                None => { node = Some((now, 0)); 0 }
                Some((last, old)) => {
                    let mut ms = now - last;
                    if ms < -60_000 { ms = 1 } else if ms < 0 { ms = 0 }
                    let excess = (old - i64::from(per_second) * ms / 1_000 + 1_000).max(0);
                    if excess <= i64::from(burst) * 1_000 {
                        node = Some((if ms > 0 { now } else { last }, excess));
                    }
                    excess
                }
            };
            if expected > i64::from(burst) * 1_000 {
                prop_assert!(found.starts_with("429"), "{} at excess {}", found, expected);
            } else if expected <= i64::from(delay) || (expected - i64::from(delay)) * 1_000 / i64::from(per_second) == 0 {
                prop_assert_eq!(found, "passes");
            } else {
                let ms = (expected - i64::from(delay)) * 1_000 / i64::from(per_second);
                prop_assert_eq!(found, format!("waits {ms}"));
            }
        }
    });
}

#[test]
fn several_rates_are_charged_only_if_all_pass() {
    let mut shared = Shared::default();
    let mut vm = Vm::new(1, &mut shared);
    let (mut wide, narrow) = (rate(1, 5_000, u32::MAX), rate(1, 1_000, 0));
    wide.name = "wide".to_owned();
    let both = [&wide, &narrow];
    let mut ask = |limits: &[&Limit]| in_words(vm.ask(limits, "key", 5_000_000, &mut shared));
    assert_eq!(ask(&both), "passes");
    assert_eq!(ask(&both), "waits 1000000");
    assert!(ask(&both).starts_with("429"));
    assert!(ask(&[&narrow, &wide]).starts_with("429"));
    // Charged twice so far, of five and the first.
    for _ in 0..4 {
        assert_eq!(ask(&[&wide]), "passes");
    }
    assert!(ask(&[&wide]).starts_with("429"));
}

#[test]
fn keys_do_not_touch_each_other_and_a_full_bucket_forgets_the_oldest() {
    let mut shared = Shared::default();
    let mut vm = Vm::new(1, &mut shared);
    let one_bucket = Limit {
        buckets: 1,
        ..rate(1, 0, u32::MAX)
    };
    let mut ask = |key: u32, now| {
        let key = format!("key {key}");
        in_words(vm.ask(&[&one_bucket], &key, now, &mut shared)) == "passes"
    };
    assert!((0..16).all(|key| ask(key, 1_000)));
    assert!((0..16).all(|key| !ask(key, 1_001)));
    assert!(ask(16, 1_002), "a seventeenth");
    assert!(!ask(1, 1_003), "the second is known");
    assert!(ask(0, 1_003), "the first was forgotten");
}

#[test]
fn lost_races_are_tried_again() {
    let mut shared = Shared::default();
    let mut vm = Vm::new(1, &mut shared);
    let (often, at_once) = (
        rate(1, 1_000, u32::MAX),
        limit("c", Kind::InFlight { max: 5 }, 16),
    );
    vm.ask(&[&often], "key", 1, &mut shared);
    shared.races = 7;
    assert_eq!(in_words(vm.ask(&[&often], "key", 1, &mut shared)), "passes");
    assert!(in_words(vm.ask(&[&often], "key", 1, &mut shared)).starts_with("429"));
    shared.races = 7;
    assert_eq!(
        in_words(vm.ask(&[&at_once], "key", 1, &mut shared)),
        "passes"
    );
    shared.races = 8;
    let found = in_words(vm.ask(&[&at_once], "key", 1, &mut shared));
    assert_eq!(found, "429 InFlight", "never let pass uncounted");
}

#[test]
fn requests_in_flight_are_counted_over_all_vms() {
    let mut shared = Shared::default();
    let (mut one, mut two) = (Vm::new(1, &mut shared), Vm::new(2, &mut shared));
    let limit = limit("c", Kind::InFlight { max: 3 }, 16);
    let mut tickets = Vec::new();
    for turn in 0..3 {
        let vm = if turn == 1 { &mut two } else { &mut one };
        let Admitted::Yes(more) = vm.ask(&[&limit], "key", 1_000, &mut shared) else {
            panic!("room");
        };
        tickets.extend(more);
    }
    for vm in [&mut one, &mut two] {
        assert_eq!(
            in_words(vm.ask(&[&limit], "key", 1_000, &mut shared)),
            "429 InFlight"
        );
        assert_eq!(
            in_words(vm.ask(&[&limit], "other", 1_000, &mut shared)),
            "passes"
        );
    }
    shared.races = 20;
    two.state
        .release(&tickets[1], 1_000, &two.slots, &mut shared);
    assert_eq!(
        in_words(one.ask(&[&limit], "key", 1_000, &mut shared)),
        "429 InFlight"
    );
    shared.races = 0;
    two.state.tick(1_000, &two.slots, &mut shared);
    assert_eq!(
        in_words(one.ask(&[&limit], "key", 1_000, &mut shared)),
        "passes"
    );
    assert_eq!(
        in_words(two.ask(&[&limit], "key", 1_000, &mut shared)),
        "429 InFlight"
    );
}

#[test]
fn what_the_dead_had_in_flight_does_not_count() {
    let mut shared = Shared::default();
    let (mut one, mut two) = (Vm::new(1, &mut shared), Vm::new(2, &mut shared));
    let limit = limit("c", Kind::InFlight { max: 1 }, 16);
    assert_eq!(
        in_words(two.ask(&[&limit], "key", 1_000, &mut shared)),
        "passes"
    );
    one.slots.tick(&mut shared);
    let much_later = 3_600_000;
    let found = in_words(one.ask(&[&limit], "key", much_later, &mut shared));
    assert_eq!(found, "429 InFlight", "a long request of one that lives");
    for _ in 0..10 {
        one.slots.tick(&mut shared);
    }
    assert_eq!(
        in_words(one.ask(&[&limit], "key", much_later, &mut shared)),
        "passes"
    );
}

#[test]
fn whatever_is_found_in_shared_data_there_is_an_answer() {
    let limits = [rate(1, 0, 0), limit("c", Kind::InFlight { max: 1 }, 16)];
    proptest!(|(bytes in proptest::collection::vec(any::<u8>(), 0..200))| {
        let mut shared = Shared::default();
        let mut vm = Vm::new(1, &mut shared);
        for limit in &limits {
            vm.ask(&[limit], "key", 1_000, &mut shared);
        }
        for (value, _) in shared.values.values_mut() {
            value.clone_from(&bytes);
        }
        for limit in &limits {
            for now_ms in [0, 1_000, u64::MAX] {
                vm.ask(&[limit], "key", now_ms, &mut shared);
            }
        }
    });
}
