# Two commands matter: `make run` (everything built, then the demo) and `make test`. Each target is a line or two; the work is in deploy/ and tests/.
.PHONY: run test bench soak lint

run:
	cargo run --release --package evenkeel -- demo

test:
	deploy/install-peers.sh
	cargo build
	cargo test

# Side by side with nginx, HAProxy and Envoy: a table for the README. Takes about an hour of a quiet machine.
bench:
	deploy/install-peers.sh
	cargo build --release --package evenkeel
	cargo run --release --package evenkeel-tests --bin bench

# The long forms of the tests that have one.
soak:
	deploy/install-peers.sh
	cargo build
	EVENKEEL_SOAK=1 cargo test --package evenkeel-tests --test e2e

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
