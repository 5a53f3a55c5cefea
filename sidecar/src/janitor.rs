//! The one timer of a worker: every tick it moves the clock on and looks for whom time has run out.
//!
//! # Why a scan
//!
//! A timer for each request costs more than most of what a request needs. Nearly all requests end long before any timeout, and
//! a look at an entry costs nanoseconds: some thousand connections are looked at ten times a second, more are looked at
//! twice a second.

use std::rc::Rc;

use tokio::time::{MissedTickBehavior, interval};

use crate::clock::{TICK, Ticks, is_over, ticks};
use crate::http::client::{Order, Phase};
use crate::members::Standing;
use crate::worker::Worker;

/// Up to so many connections are looked at every tick.
const CLIENTS_EVERY_TICK: usize = 2_000;
/// More are looked at every so many ticks; idle server connections are, too.
const SLOW_TICKS: Ticks = 5;
/// The log is written at least every so many ticks: once a second.
const LOG_TICKS: Ticks = 10;
/// When draining, a connection without a request may still send one for so many ticks: it is answered, with `Connection: close`.
/// Closed at once, it might be closed in the very moment it is used.
const DRAIN_GRACE: Ticks = 10;

/// Runs as long as the worker.
pub(crate) async fn run(worker: Rc<Worker>) {
    let mut timer = interval(TICK);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count: Ticks = 0;
    loop {
        timer.tick().await;
        worker.clock.advance();
        count = count.wrapping_add(1);
        let is_slow_tick = count.is_multiple_of(SLOW_TICKS);
        check_exchanges(&worker);
        if is_slow_tick || worker.clients.borrow().len() <= CLIENTS_EVERY_TICK {
            check_clients(&worker);
        }
        if is_slow_tick {
            tidy_endpoints(&worker);
        }
        if count.is_multiple_of(LOG_TICKS)
            && let Some(log) = worker.log.borrow().as_ref()
        {
            log.flush();
        }
    }
}

fn check_exchanges(worker: &Worker) {
    let now = worker.clock.now();
    let filter_pause_max = ticks(worker.active().generation.config.filter_pause_max());
    for exchange in worker.exchanges.borrow().iter() {
        exchange.check_timeout(now, filter_pause_max);
    }
}

fn check_clients(worker: &Worker) {
    let now = worker.clock.now();
    let limits = worker.active().phase_limits;
    let draining = worker.draining.get();
    for client in worker.clients.borrow().iter() {
        let phase = client.phase();
        let is_late = matches!(phase, Phase::Head | Phase::Idle)
            && draining.is_some_and(|since| is_over(now, client.since().max(since), DRAIN_GRACE));
        let is_overdue = client.is_overdue(now, &limits);
        if !is_late && !is_overdue || client.pending_order() >= Order::Late {
            continue;
        }
        if phase == Phase::Head {
            worker.counters.connections_failed.add(1);
        }
        let says_so = is_overdue && phase == Phase::Head && client.awaits_head();
        client.order(if says_so { Order::Late } else { Order::Close });
    }
}

fn tidy_endpoints(worker: &Worker) {
    let now = worker.clock.now();
    worker.forget_unused_endpoints();
    worker.for_each_endpoint(|endpoint| endpoint.tidy(now));
    let active = worker.active();
    for number in 0..active.generation.pools.len() {
        let Some(reach) = active.reach(number) else {
            continue;
        };
        for (number, server) in reach.roster.servers.iter().enumerate() {
            let (Some(endpoint), Some(counters)) =
                (reach.endpoint(number), server.counters.get(worker.index))
            else {
                continue;
            };
            // Who gets nothing new need not be held on to. (Another pool may use the address: it connects anew.)
            if server.standing != Standing::Ready {
                endpoint.clear();
            }
            counters.idle_connections.set(endpoint.idle_count() as u64);
        }
    }
}
