#!/usr/bin/env bash
# Runs every fuzz target for a while, one after the other, and fails with the first finding: the input is then in target/fuzz/findings.
#
#   deploy/fuzz.sh [SECONDS]            600 each unless stated
#   deploy/fuzz.sh SECONDS TARGET…      only these
#
# Targets are the folders below */fuzz/corpus, from which a run begins and to which it adds nothing: what it comes by is kept in
# target/fuzz/corpus, where the next run begins, too. A finding becomes a unit test, and a file of the corpus.
#
# cargo-fuzz is installed below target/ if it is not on the PATH. The stable compiler does: coverage needs its unstable flags
# (RUSTC_BOOTSTRAP), and no sanitizer, because the code under test is safe Rust.
set -euo pipefail

readonly SECONDS_EACH=${1:-600}
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly ROOT
TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-$ROOT/target}")
readonly TARGET_DIR
readonly KEPT=$TARGET_DIR/fuzz
readonly PROJECTS=(plugin/policy sidecar)

say() { echo "fuzz: $*" >&2; }

find_cargo_fuzz() {
    export PATH=$PATH:$KEPT/bin
    if ! command -v cargo-fuzz >/dev/null; then
        say "installing cargo-fuzz"
        CARGO_TARGET_DIR=$KEPT/build cargo install --quiet --root "$KEPT" cargo-fuzz
    fi
}

run() {
    local project=$1 target=$2
    mkdir -p "$KEPT/corpus/$target" "$KEPT/findings"
    say "$target for $SECONDS_EACH s"
    (cd "$ROOT/$project" && RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none --target-dir "$KEPT/build" "$target" \
        "$KEPT/corpus/$target" "fuzz/corpus/$target" -- \
        -max_total_time="$SECONDS_EACH" -artifact_prefix="$KEPT/findings/$target-" -verbosity=0 -print_final_stats=1)
}

main() {
    local project target
    find_cargo_fuzz
    for project in "${PROJECTS[@]}"; do
        for target in "$ROOT/$project"/fuzz/corpus/*; do
            target=$(basename "$target")
            if [[ $# -lt 2 || " ${*:2} " == *" $target "* ]]; then
                run "$project" "$target"
            fi
        done
    done
}

main "$@"
