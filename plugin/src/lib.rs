//! `evenkeel.wasm`: the proxy-wasm filter over `evenkeel-policy`, thin.
//!
//! ```text
//!   root     on_configure ──▶ Policy        on_tick: slots, members, metrics
//!                │                          on_tick, in one VM of all: checker ──▶ calls ──▶ on_http_call_response
//!   stream   request head ──▶ request_facts ──▶ Policy::decide ──▶ steering ──▶ hostcalls
//!                                             ├──▶ all full ──▶ waiting ──▶ decided again
//!                                             └──▶ too early ──▶ turns ──▶ decided again
//!            response head ──▶ who answered        log | done | delete ──▶ finish, once
//! ```
//!
//! What is decided is decided in the policy, which knows nothing of proxies. Here are only the calls of the host, in the phases in
//! which they are legal, and the state that one VM keeps between them. Nothing here may panic: in a filter a panic is an outage.

#[cfg(feature = "bench")]
mod bench_picks;
mod checker;
mod hostcalls;
mod metrics;
mod request_facts;
mod root;
mod steering;
mod stream;
mod turns;
mod virtual_machine;
mod waiting;
