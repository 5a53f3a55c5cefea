# Two commands matter: `make run` (everything built, then the demo) and `make test`. Each target is a line or two; the work is in deploy/ and tests/.
.PHONY: build run test bench soak lint

TARGET := $(or $(CARGO_TARGET_DIR),target)
# The executable to install: one file, with the filter and its native code in it.
EVENKEEL := $(abspath $(TARGET))/evenkeel

build:
	cargo build --release --package evenkeel
	$(TARGET)/release/evenkeel seal --out $(EVENKEEL)

run: build
	$(EVENKEEL) demo

# The tests use one sealed debug build, so that each of the many proxies they start does not compile the filter anew.
test:
	deploy/install-peers.sh
	cargo build
	$(TARGET)/debug/evenkeel seal --out $(EVENKEEL)-debug
	EVENKEEL_BIN=$(EVENKEEL)-debug cargo test

# Side by side with nginx, HAProxy and Envoy: a table for the README. Takes about an hour of a quiet machine. One part of it, or what
# it leaves out: make bench BENCH=rebuild
bench: build
	deploy/install-peers.sh
	EVENKEEL_BIN=$(EVENKEEL) cargo run --release --package evenkeel-tests --bin bench -- $(BENCH)

# The long forms of the tests that have one, and ten minutes of each fuzz target. Those alone: deploy/fuzz.sh
soak:
	deploy/install-peers.sh
	cargo build
	$(TARGET)/debug/evenkeel seal --out $(EVENKEEL)-debug
	EVENKEEL_BIN=$(EVENKEEL)-debug EVENKEEL_SOAK=1 cargo test --package evenkeel-tests --test e2e
	EVENKEEL_SOAK=1 cargo test --package evenkeel-host --test it hostile::
	deploy/fuzz.sh

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
